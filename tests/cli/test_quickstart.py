"""The first run does each step once, goes on where it was interrupted, and says what went wrong."""

import argparse
import json
import os
import textwrap
from pathlib import Path

import pytest

from minigpt4o.cli import quickstart
from minigpt4o.cli.quickstart import Act
from minigpt4o.common.errors import ConfigError, Minigpt4oError


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder with a small plan: a made file, then two trainings that need it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train_configs").mkdir()
    (tmp_path / "train.py").write_text(
        textwrap.dedent("""
        import os, pathlib, sys
        name = pathlib.Path(sys.argv[2]).stem
        words = [name, *sys.argv[3:], os.environ["OMP_NUM_THREADS"]]
        pathlib.Path("calls.txt").open("a").write(" ".join(words) + "\\n")
        if pathlib.Path(f"break_{name}").exists():
            sys.exit("the disk is full")
        run = pathlib.Path("out") / name / "run1"
        run.mkdir(parents=True, exist_ok=True)
        (run / "finished.json").write_text("{}")
        """)
    )
    for name in ("one", "two"):
        (tmp_path / f"train_configs/{name}.yaml").write_text(f"run: {{output_dir: out, job_name: {name}}}\n")

    def train(name: str) -> Act:
        config = f"train_configs/{name}.yaml"
        return Act(name, ("train.py", "--cfg-path", config), "finished.json", config)

    make = Act("make", ("-c", "open('made.txt', 'w').write('x')"), "made.txt")
    monkeypatch.setattr(quickstart, "PLAN", ((make,), (train("one"), train("two"))))
    return tmp_path


def run(**values) -> int:
    return quickstart.run(argparse.Namespace(**{"force": False, "until": None, "cores": 2, **values}))


def calls(checkout: Path) -> list[str]:
    file = checkout / "calls.txt"
    return sorted(file.read_text().splitlines()) if file.exists() else []


def test_every_step_is_done_once_and_reused_afterwards(checkout, capsys) -> None:
    assert run() == 0
    assert calls(checkout) == ["one 1", "two 1"]
    first = capsys.readouterr().out
    assert "seconds" in first
    assert "demo.py --cfg-path" in first
    assert run() == 0
    assert calls(checkout) == ["one 1", "two 1"]
    assert "one: done before, reused" in capsys.readouterr().out


def test_a_changed_yaml_or_lost_work_makes_only_that_step_new(checkout) -> None:
    run()
    config = checkout / "train_configs/two.yaml"
    config.write_text(config.read_text() + "# changed\n")
    run()
    assert calls(checkout) == ["one 1", "two 1", "two 1"]
    os.unlink(checkout / "out/one/run1/finished.json")
    run()
    assert calls(checkout).count("one 1") == 2


def test_what_comes_after_a_changed_step_is_new_too(checkout, monkeypatch) -> None:
    run()
    other = Act("make", ("-c", "open('made.txt', 'w').write('y')"), "made.txt")
    monkeypatch.setattr(quickstart, "PLAN", ((other,), quickstart.PLAN[1]))
    run()
    assert calls(checkout) == ["one 1", "one 1", "two 1", "two 1"]


def test_force_does_all_again(checkout) -> None:
    run()
    run(force=True)
    assert len(calls(checkout)) == 4


def test_a_failure_names_the_step_its_last_words_and_the_log_and_later_goes_on(checkout) -> None:
    (checkout / "break_two").touch()
    with pytest.raises(Minigpt4oError, match=r"(?s)two ended with status 1.*two\.log.*the disk is full"):
        run()
    ledger = json.loads(quickstart.LEDGER.read_text())
    assert "done" in ledger["one"]
    (checkout / "break_two").unlink()
    run()
    assert calls(checkout) == ["one 1", "two --resume_from_checkpoint auto 1", "two 1"]


def test_outside_of_a_checkout_it_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="train_configs"):
        run()


def test_the_plan_names_known_commands_and_files() -> None:
    from minigpt4o.cli.parser import parse

    root = Path(quickstart.__file__).parents[2]
    for act in (act for row in quickstart.PLAN for act in row):
        words = list(act.command)
        if words[0] == "-m":
            parse(words[2:])
        else:
            assert (root / words[0]).is_file()
            parse([Path(words[0]).stem, *words[1:]])
    template = (root / "minigpt4o/conversation/templates/toy.yaml").read_text()
    assert all(token in template for token in (*quickstart.SPEAKERS, *quickstart.BRACKETS))
