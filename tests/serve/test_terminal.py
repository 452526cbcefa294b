"""The terminal chat: commands, attachments, and answers as a person at a keyboard sees them."""

import io

import pytest

from minigpt4o.cli import main
from minigpt4o.serve.limits import ChatError
from minigpt4o.serve.terminal import Terminal


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
    assert session.exchanges[0].answer in shown
    again = make_session()
    shown = talk(again, "forget me", f"/open '{saved}'")
    assert again.exchanges == session.exchanges != []
    assert f"you [red.png, tone.wav]> what is there?\n{session.exchanges[0].answer}\n" in shown
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
