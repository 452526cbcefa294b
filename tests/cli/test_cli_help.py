"""What the command line says of itself: every command, flag and example, in 80 columns, and the way out of a typo."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minigpt4o.cli import main
from minigpt4o.cli.help import EXAMPLES, GROUPS
from minigpt4o.cli.parser import build_parser, parse

ROOT = Path(__file__).resolve().parents[2]
PARSER, COMMANDS = build_parser()


def actions(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    return [sub for a in parser._actions if isinstance(a, argparse._SubParsersAction) for sub in a.choices.values()]


EVERY = [PARSER, *(p for command in COMMANDS.values() for p in [command, *actions(command)])]


@pytest.mark.parametrize("parser", EVERY, ids=lambda parser: parser.prog)
def test_help_says_what_it_is_for_explains_every_word_and_fits_a_terminal(parser, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = parser.format_help()
    assert parser.description
    assert [line for line in text.splitlines() if len(line) > 80] == []
    mute = [a.dest for a in parser._actions if not a.help and not isinstance(a, argparse._SubParsersAction)]
    assert mute == []
    assert not re.search(r"--\w+_\w+, --\w+-\w+ ", text), "one spelling is enough"


def test_the_overview_has_every_command_once_and_every_command_has_examples() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(COMMANDS) == sorted(set(EXAMPLES) - {""})


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_every_example_can_be_typed(line) -> None:
    words = shlex.split(re.split(r"\s{2,}| [<|] ", line)[0])
    words = [word for word in words if not re.fullmatch(r"[A-Z0-9_]+=.*", word)]
    if words[0] == "torchrun":
        words = ["minigpt4o", "train", *words[words.index("train.py") + 1 :]]
    if words[0] == "eval":
        words = shlex.split(words[1].strip("$()"))
    assert words[0] == "minigpt4o"
    if "--help" not in words:
        args = parse(words[1:])
        path = getattr(args, "cfg_path", None) or ""
        assert not path.endswith(".yaml") or (ROOT / path).is_file()


def test_alone_it_gives_the_overview_and_help_takes_a_command(capsys) -> None:
    assert main([]) == 0
    alone = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert alone == capsys.readouterr().out and "train and measure:" in alone
    assert main(["help", "predict"]) == 0
    assert capsys.readouterr().out.startswith("usage: minigpt4o predict")
    assert main(["--version"]) == 0
    assert re.fullmatch(r"minigpt4o \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "did you mean train?"),
        (["data", "lst"], "did you mean list?"),
        (["help", "exprt"], "did you mean export?"),
        (["--versoin"], "did you mean --version?"),
        (["export", "a", "b", "--merge_lora"], "did you mean --merge-lora?"),
        (["quickstart", "--until", "stge1"], "did you mean stage1?"),
        (["quickstart", "--cores", "0"], "0 is below 1"),
        (["serve", "--port", "x"], "'x' is no whole number"),
        (["predict", "a", "b", "--batch-size", "many"], "'many' is no whole number"),
        (["nonsense"], "choose from train, eval"),
    ],
)
def test_a_wrong_word_is_told_with_the_nearest_right_one(words, told, capsys) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("ERROR 2 ") and told in err and err.count("\n") == 1


def started(*words: str, **more) -> subprocess.Popen[str]:
    """The command as a person starts it: its output is not written through at once."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONUNBUFFERED", None)
    command = [sys.executable, "-m", "minigpt4o.cli", *words]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **more)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["list", "builder"], ["list", "dataset"]])
def test_a_reader_that_has_left_is_no_error(words) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = started(*words, stdout=writing)
    os.close(writing)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)


def test_a_closed_output_and_a_full_disk_are_told_in_a_line(tmp_path) -> None:
    process = started("list", "builder", stdout=None, preexec_fn=lambda: os.close(1))
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            process = started("list", "builder", stdout=full)
        assert process.communicate(timeout=60)[1] == "ERROR 1 No space left on device\n"
        assert process.returncode == 1


def test_a_place_that_cannot_be_written_to_is_told_in_a_line(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["docs-config", "--out", str(tmp_path / "file" / "page.md")]) == 1
    assert capsys.readouterr().err.startswith(f"ERROR 1 {tmp_path}")


def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path) -> None:
    words = ["toy-world", "--out", str(tmp_path / "toy"), "--size", "medium"]
    process = started(*words, stdout=subprocess.PIPE, start_new_session=True)
    end = time.monotonic() + 30
    while not (tmp_path / "toy").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "ERROR 130 interrupted\n"
    assert process.returncode in (130, -signal.SIGINT)  # Python's own way, if it came amid an import


def test_the_shell_completes_commands_actions_and_flags() -> None:
    from minigpt4o.cli.completion import script

    asked = {
        "pr": "predict",
        "data ch": "check",
        "predict a b --batch": "--batch-size",
        "data check --cf": "--cfg-path",
    }
    for typed, wanted in asked.items():
        words = f"minigpt4o {typed}"
        ask = f"COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; _minigpt4o; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", f"{script()}\n{ask}"], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [wanted]
