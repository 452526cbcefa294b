"""What a person types, and what they read when it goes wrong."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt4o.cli import main

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = '''
"""Classes for tests."""
from dataclasses import dataclass, field
from typing import Any
from minigpt4o.common.errors import DataError
from minigpt4o.common.registry import Part, part, registry

@registry.register("model", "still")
class Still:
    """Does nothing."""
    @dataclass
    class Config:
        path: str = "w"  # weights

@registry.register("engine", "deepspeed_of_tests")
class Engine:
    """Pulls."""

@registry.register("builder", "nothing")
class Nothing:
    """No rows."""

@registry.register("runner", "talker")
class Talker:
    """Says what it would do."""
    @dataclass
    class Config:
        max_epoch: int = 1  # rounds
        max_steps: int | None = None  # steps
        output_dir: str = "output"  # where
        resume_ckpt_path: str = ""  # from where
        device: str = "auto"  # where it runs
        engine: Part = part("engine", default="torch", doc="pulls")
        trackers: list[str] = field(default_factory=list)  # curves
        fail: str = ""  # how to fail
    def __init__(self, config, *, settings):
        self.config, self.settings = config, settings
    def run(self):
        import json, sys
        if self.config.fail == "data":
            raise DataError("a.json: row 3 has no picture\\nsecond line")
        if self.config.fail == "bug":
            raise RuntimeError("a mistake of ours")
        if self.config.fail == "keys":
            raise KeyboardInterrupt
        if self.config.fail == "import":  # as a library that reports whatever happened while it looked for a module
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as stopped:
                raise ModuleNotFoundError("no module named so") from stopped
        sys.stdout.write(json.dumps(self.settings.tree) + "\\n")
    def dry_run(self):
        import sys
        sys.stdout.write("would run\\n")
'''
YAML = """\
plugins: [cli_plugin]
model: {arch: still}
datasets: {one: {builder: nothing}, two: {builder: nothing}}
run:
  runner: talker
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    from minigpt4o.common.registry import registry

    (tmp_path / "cli_plugin.py").write_text(PLUGIN)
    (tmp_path / "a.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("RANK", raising=False)
    before = list(registry.plugins)
    yield tmp_path
    registry.plugins[:] = before
    registry._entries.clear()
    sys.modules.pop("cli_plugin", None)
    for key, cls in list(registry._classes.items()):
        if cls.__module__ == "cli_plugin":
            del registry._classes[key]


@pytest.fixture
def told(world, capsys):
    """Run a command; returns (exit code, lines of stdout, lines of stderr)."""

    def run(*words):
        code = main(list(words))
        done = capsys.readouterr()
        return code, done.out.splitlines(), done.err.splitlines()

    return run


def train(told, *words):
    import json

    code, out, err = told("train", "--cfg-path", "a.yaml", *words)
    assert code == 0, err
    return json.loads(out[-1])


@pytest.mark.parametrize(
    "words",
    [
        ("--options", "run.max_epoch=3", "model.path=x"),
        ("--options", "run.max_epoch", "3", "model.path", "x"),
        ("--cfg-options", "run.max_epoch=3", "--options", "model.path=x"),
        ("run.max_epoch=3", "model.path=x"),
        ("run.max_epoch=3", "--options", "model.path=x"),
    ],
)
def test_options_in_every_spelling(told, words):
    tree = train(told, *words)
    assert (tree["run"]["max_epoch"], tree["model"]["path"]) == (3, "x")


def test_habits_of_other_frameworks_stand_for_options(told, world):
    (world / "zero2.json").write_text('{"zero_optimization": {"stage": 2}, "train_batch_size": "auto"}')
    words = ["--output_dir", "o", "--max_steps", "7", "--resume_from_checkpoint", "r", "--report_to", "wandb,jsonl"]
    tree = train(told, *words, "--gpu-id", "1", "--limit", "5", "--deepspeed", "zero2.json")
    run = tree["run"]
    assert (run["output_dir"], run["max_steps"], run["resume_ckpt_path"], run["device"]) == ("o", 7, "r", "cuda:1")
    assert run["trackers"] == ["wandb", "jsonl"]
    assert run["engine"] == {"name": "deepspeed", "zero_stage": 2}
    assert [node["max_samples"] for node in tree["datasets"].values()] == [5, 5]


def test_a_habit_whose_key_the_runner_lacks_is_told_with_its_flag(told):
    code, _, err = told("eval", "--cfg-path", "a.yaml", "--limit", "3")
    assert code == 2
    assert err[-1].startswith("ERROR 2 --limit 3: run.limit: unknown key 'limit'")


def test_only_the_named_data_sets_are_evaluated(told):
    code, out, _ = told("eval", "--cfg-path", "a.yaml", "--dataset", "two", "--check")
    assert (code, out) == (0, ["ok: a.yaml: model still, runner talker, 1 data set(s): two"])
    code, _, err = told("eval", "--cfg-path", "a.yaml", "--dataset", "tow")
    assert (code, err[-1]) == (2, "ERROR 2 --dataset tow: a.yaml has no data set 'tow'; did you mean 'two'?")


def test_check_runs_nothing_and_dry_run_only_dry_runs(told):
    assert told("train", "--cfg-path", "a.yaml", "--check")[1][0].startswith("ok: a.yaml")
    assert told("train", "--cfg-path", "a.yaml", "--dry-run")[1] == ["would run"]


def test_print_config_says_where_values_come_from_and_hides_the_environment(told, monkeypatch):
    monkeypatch.setenv("SECRET", "canary")
    code, out, _ = told("train", "--cfg-path", "a.yaml", "--print-config", "run.output_dir=${oc.env:SECRET}")
    rows = {line.split(" = ")[0]: line for line in out}
    assert code == 0
    assert rows["run.runner"].endswith("# a.yaml:5")
    assert rows["run.max_epoch"].endswith("# default")
    assert rows["run.output_dir"].split()[2:] == ["${oc.env:SECRET}", "#", "--options"]
    assert "canary" not in "".join(out)


def test_every_problem_is_listed_and_the_last_line_says_error_and_code(told):
    code, out, err = told("train", "--cfg-path", "a.yaml", "--check", "run.max_epohc=1", "model.pth=1")
    assert (code, out) == (2, [])
    assert err[0] == "--options model.pth=1: model.pth: unknown key 'pth'; did you mean 'path'?"
    assert err[1].startswith(
        "--options run.max_epohc=1: run.max_epohc: unknown key 'max_epohc'; did you mean 'max_epoch'"
    )
    assert err[-1] == "ERROR 2 2 problems in the configuration, listed above; nothing was started"


def test_only_rank_0_tells_problems_of_the_configuration(told, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert told("train", "--cfg-path", "a.yaml", "run.max_epohc=1") == (2, [], [])


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (["train"], "ERROR 2 train: --cfg-path FILE is missing; shipped ones stand in train_configs/"),
        (["train", "--cfg-path", "b.yaml"], "ERROR 2 --cfg-path b.yaml: no such file; did you mean a.yaml?"),
        (["train", "--chek"], "ERROR 2 minigpt4o train: unknown argument '--chek'; did you mean --check?"),
        (["trian"], "ERROR 2 minigpt4o: argument COMMAND: invalid choice: 'trian'"),
        (["list", "encodr"], "ERROR 2 --list encodr: there is no such kind; did you mean encoder?"),
        (["train", "--cfg-path", "a.yaml", "--max_steps", "x"], "ERROR 2 minigpt4o train: argument --max_steps"),
        (["train", "--cfg-path", "a.yaml", "--deepspeed", "z.json"], "ERROR 2 --deepspeed z.json: no such file"),
        (["train", "--cfg-path", "a.yaml", "run.fail=data"], "ERROR 3 a.json: row 3 has no picture"),
        (["docs-config", "--check", "--out", "no.md"], "ERROR 2 no.md is not current; run"),
    ],
)
def test_errors_end_in_one_line_with_the_exit_code(told, words, last):
    code, _, err = told(*words)
    assert err[-1].startswith(last), err
    assert code == int(last.split()[1])
    assert not any("Traceback" in line for line in err)


def test_interrupted_is_130_and_a_mistake_of_ours_keeps_its_traceback(told, monkeypatch):
    for way in ("keys", "import"):
        assert told("train", "--cfg-path", "a.yaml", f"run.fail={way}")[0] == 130
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        told("train", "--cfg-path", "a.yaml", "run.fail=bug")
    monkeypatch.setenv("MINIGPT4O_TRACEBACK", "1")
    with pytest.raises(ValueError, match="row 3"):
        told("train", "--cfg-path", "a.yaml", "run.fail=data")


def test_local_rank_may_be_a_flag(told, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    train(told, "--local_rank", "2")
    assert os.environ.pop("LOCAL_RANK") == "2"


def test_kinds_and_names_are_listed(told):
    code, out, _ = told("list")
    assert code == 0
    assert {"encoder", "builder", "dataset", "model_type"} <= {line.split()[0] for line in out}
    names = {line.split()[0] for line in told("list", "builders")[1]}
    assert {"pairs", "questions", "boxes", "conversations"} <= names
    assert {line.split()[0] for line in told("demo", "--list", "bridge")[1]} >= {"linear", "mlp", "grouped", "qformer"}
    assert any("No rows." in line for line in told("list", "builder", "--plugins", "cli_plugin")[1])


def test_the_toy_world_and_a_tokenizer_are_made_from_the_command_line(told, world):
    code, out, err = told("toy-world", "--out", "toy", "--size", "tiny", "--seed", "3")
    assert (code, out[-1]) == (0, "written: toy"), err
    texts = [str(p) for p in sorted((world / "toy").rglob("*.txt"))][:1]
    code, out, err = told("tokenizer", *texts, "--out", "tok", "--vocab-size", "300")
    assert (code, out[-1]) == (0, "written: tok"), err
    assert (world / "tok" / "tokenizer.json").is_file()
    code, _, err = told("tokenizer", "missing.txt", "--out", "tok2")
    assert (code, err[-1].split()[:2]) == (3, ["ERROR", "3"])


@pytest.mark.parametrize("door", ["train.py", "eval.py", "demo.py"])
def test_the_doors_at_the_top_open_and_help_is_quick(door):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, door, "--help"], capture_output=True, text=True, cwd=ROOT, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert "--cfg-path" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_a_reader_that_leaves_early_is_no_error(world):
    command = f"{sys.executable} -m minigpt4o.cli list builder | head -c 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert done.stderr == ""
