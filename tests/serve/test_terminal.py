"""The terminal chat: commands, attachments, and answers as a person at a keyboard sees them."""

import io
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from minigpt4o.cli import main
from minigpt4o.serve.limits import ChatError
from minigpt4o.serve.terminal import Terminal, completions, printable


def talk(session, *lines: str) -> str:
    target = io.StringIO()
    assert Terminal(session, io.StringIO("".join(f"{line}\n" for line in lines)), target).talk() == 0
    return target.getvalue()


def test_a_conversation_with_a_picture_and_a_sound_is_saved_and_opened_again(make_session, files, tmp_path) -> None:
    session, saved = make_session(), tmp_path / "talk.json"
    shown = talk(
        session,
        f"/image {files['red.png']}",
        f"/audio '{files['tone.wav']}'",
        "what is there?",
        "go on",
        f"/save {saved}",
    )
    assert "attached: red.png, tone.wav" in shown
    assert printable(session.exchanges[0].answer) in shown
    again = make_session()
    shown = talk(again, "forget me", f"/open '{saved}'")
    assert again.exchanges == session.exchanges != []
    assert f"you [red.png, tone.wav]> what is there?\n{printable(session.exchanges[0].answer)}\n" in shown
    assert [str(m) for m in again.exchanges[0].images] == ["red.png"]


def test_the_last_question_is_taken_back_asked_again_and_asked_in_other_words(make_session, files) -> None:
    session = make_session(do_sample=True, temperature=3.0)
    shown = talk(session, "/undo", "/retry", f"/image {files['red.png']}", "one", "two", "/undo", "/retry")
    assert "forgotten: two" in shown and shown.count("Nothing was asked yet") == 2
    assert [e.text for e in session.exchanges] == ["one"] and session.exchanges[0].attempt == 1
    talk(session, "/edit other words", "/edit")
    assert [e.text for e in session.exchanges] == ["other words"]
    assert len(session.exchanges[0].images) == 1


def test_several_pictures_and_sounds_go_with_one_message(make_session, files) -> None:
    session = make_session()
    talk(session, *[f"/image {files[n]}" for n in ("red.png", "blue.png")], f"/audio {files['tone.wav']}", "which?")
    assert [[str(m) for m in e.images] for e in session.exchanges] == [["red.png", "blue.png"]]


def test_attachments_go_with_one_message_only(make_session, files) -> None:
    session = make_session()
    talk(session, f"/image {files['red.png']}", "one", "two")
    assert [len(e.images) for e in session.exchanges] == [1, 0]


def test_what_goes_wrong_is_said_and_the_talk_goes_on(make_session, files, tmp_path) -> None:
    session = make_session()
    shown = talk(
        session,
        f"/image {tmp_path}/none.png",
        f"/image {files['program.png']}",
        "/image",
        "/imgae x",
        f"/save {files['red.png']}/x.json",
        f"/open {tmp_path}/none.json",
        f"/open {files['red.png']}",
        "hello",
    )
    for words in (
        "no such file",
        "no picture or sound",
        "needs a file name",
        "no command /imgae",
        "cannot be written",
        "cannot be read",
        "no saved chat",
    ):
        assert words in shown
    assert [e.text for e in session.exchanges] == ["hello"]


def test_reset_forgets_and_quit_leaves(make_session) -> None:
    session = make_session()
    talk(session, "one", "/reset", "two", "/quit", "three")
    assert [e.text for e in session.exchanges] == ["two"]


def test_an_attachment_this_model_cannot_take_is_refused_at_once(make_session, files) -> None:
    session = make_session()
    session.encoder.slots.pop("audio")
    with pytest.raises(ChatError, match="does not take"):
        Terminal(session, io.StringIO(), io.StringIO()).attach(str(files["tone.wav"]))


def test_the_command_line_answers_one_question(demo_yaml, files, capsys) -> None:
    command = ["chat", "--cfg-path", str(demo_yaml), "--image", str(files["red.png"]), "--text", "what is there?"]
    assert main(command) == 0
    assert capsys.readouterr().out.strip()
    assert main([*command, "--audio", str(files["program.png"])]) == 1
    assert "no picture or sound" in capsys.readouterr().err


def test_a_run_is_talked_to_by_its_folder(own_run, tiny, files, capsys) -> None:
    command = ["chat", "--cfg-path", str(own_run), "--image", str(files["red.png"]), "--text", "what is there?"]
    assert main([*command, "--options", *tiny.plain]) == 0
    assert "step-000002" in capsys.readouterr().err


def test_a_yaml_for_training_is_not_taken_for_a_chat(demo_yaml, tmp_path, capsys) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(demo_yaml.read_text().replace("runner: chat", "runner: chatt"))
    assert main(["chat", "--cfg-path", str(other)]) == 2
    assert "'chat'" in capsys.readouterr().err
    assert main(["train", "--cfg-path", str(demo_yaml)]) == 2
    assert "demo.py" in capsys.readouterr().err


def at_a_keyboard(yaml: Path, keys: list[tuple[str, bytes]], seconds: float = 90) -> str:
    """What a real terminal shows: each of the keys is pressed once the words before it are there."""
    import fcntl
    import pty
    import select
    import termios
    import time

    command = [sys.executable, "-m", "minigpt4o.cli", "chat", "--cfg-path", str(yaml)]
    command += ["--options", "run.max_new_tokens=200", "run.min_new_tokens=200"]
    ours, theirs = pty.openpty()
    own = {"start_new_session": True, "preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)}  # else no Ctrl-C
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, **own) as talk:
        os.close(theirs)
        shown, end, waiting = b"", time.monotonic() + seconds, list(keys)
        while time.monotonic() < end:
            if waiting and waiting[0][0].encode() in shown:
                time.sleep(0.3)
                os.write(ours, waiting.pop(0)[1])
                shown = b"" if waiting else shown
            if not select.select([ours], [], [], 0.05)[0]:
                continue
            try:
                shown += os.read(ours, 4096)
            except OSError:  # it has ended
                break
        with suppress(subprocess.TimeoutExpired):
            talk.wait(10)
        talk.kill()
        os.close(ours)
    assert not waiting, f"{waiting[0]} was never reached: {shown.decode(errors='replace')!r}"
    assert talk.returncode == 0
    return shown.decode(errors="replace")


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own kind")
def test_at_a_keyboard_lines_are_edited_and_an_interrupt_ends_an_answer_or_a_line_but_not_the_chat(demo_yaml) -> None:
    keys = [
        ("you> ", b"wat\x1b[Dh\n"),  # an arrow key: goes one letter back, and is no letter itself
        ("\r\n", b"\x03"),
        ("you> ", b"half a line\x03"),
        ("Ctrl-D or /quit leaves", b"/un\t\n"),
        ("forgotten: waht", b"\x04"),
    ]
    at_a_keyboard(demo_yaml, keys)


def test_the_tab_key_knows_commands_and_files(files, tmp_path) -> None:
    assert completions("/re") == ["/retry", "/reset"]
    assert completions(f"/image {tmp_path}/re") == [f"/image {files['red.png']}"]
    assert f"/save {tmp_path}/" in completions(f"/save {tmp_path.parent}/{tmp_path.name[:-1]}")
    assert completions("hello") == completions(f"/image {tmp_path}/nowhere/x") == completions("/edit x") == []


def test_an_answer_of_no_words_is_said_to_be_one_and_a_broken_one_ends_its_line(make_session, monkeypatch) -> None:
    session = make_session()
    monkeypatch.setattr(session, "ask", lambda *given: iter(()))
    assert talk(session, "hello").endswith("(no words)\n")

    def breaks(*given):
        yield "well"
        raise ChatError("It broke.")

    monkeypatch.setattr(session, "ask", breaks)
    assert talk(session, "hello").endswith("well\n! It broke.\n")


def test_control_characters_of_an_answer_or_a_saved_chat_do_not_reach_the_terminal(make_session, monkeypatch) -> None:
    session = make_session()
    monkeypatch.setattr(session, "ask", lambda *given: iter(["a\x1b]0;owned\x07", "\x9b2Jb\tc\nd\r\x7f"]))
    shown = talk(session, "hello")
    assert shown.endswith("a\ufffd]0;owned\ufffd\ufffd2Jb\tc\nd\ufffd\ufffd\n")
