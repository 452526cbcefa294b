"""The terminal chat: commands, attachments, and answers as a person at a keyboard sees them."""

import io
import json

import pytest

from minigpt4o.cli import main
from minigpt4o.serve.limits import ChatError
from minigpt4o.serve.terminal import Terminal


def talk(session, *lines: str) -> str:
    target = io.StringIO()
    assert Terminal(session, io.StringIO("".join(f"{line}\n" for line in lines)), target).talk() == 0
    return target.getvalue()


def test_a_conversation_with_a_picture_and_a_sound(make_session, files, tmp_path) -> None:
    session = make_session()
    saved = tmp_path / "talk.json"
    shown = talk(
        session, f"/image {files['red.png']}", f"/audio '{files['tone.wav']}'", "what is there?", f"/save {saved}"
    )
    assert "attached: red.png, tone.wav" in shown
    assert session.exchanges[0].answer in shown
    user, assistant = json.loads(saved.read_text(encoding="utf-8"))
    assert user == {"role": "user", "content": "what is there?", "images": ["red.png"], "audios": ["tone.wav"]}
    assert assistant["content"] == session.exchanges[0].answer


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
        f"/save {tmp_path}/no/folder.json",
        "hello",
    )
    for words in ("no such file", "no picture or sound", "needs a file name", "no command /imgae", "cannot be written"):
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


def test_a_yaml_for_training_is_not_taken_for_a_chat(demo_yaml, tmp_path, capsys) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(demo_yaml.read_text().replace("runner: chat", "runner: chatt"))
    assert main(["chat", "--cfg-path", str(other)]) == 2
    assert "'chat'" in capsys.readouterr().err
    assert main(["train", "--cfg-path", str(demo_yaml)]) == 2
    assert "demo.py" in capsys.readouterr().err
