"""Stopped at any instant and started again by the same command, a run is bit for bit the run never stopped."""

from __future__ import annotations

import importlib.util
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_world import bytes_of, lines, stopped_at, train, with_run

from minigpt4o.common.errors import CheckpointError
from minigpt4o.common.files import find_checkpoint
from minigpt4o.common.registry import Part

Make = Callable[..., Any]


@pytest.fixture
def peace(make_settings: Make) -> Path:
    return train(make_settings(job_name="peace", max_steps=9, valid_freq=4))


def test_stopped_by_a_signal_and_continued_equals_never_stopped(make_settings: Make, peace: Path) -> None:
    settings = make_settings(job_name="stopped", max_steps=9, valid_freq=4, resume_ckpt_path="auto")
    first = stopped_at(settings, 3)
    assert [row["step"] for row in lines(first.path)] == [1, 2, 3]  # the step was finished, none is lost
    assert find_checkpoint(first.path).name == "step-000003"
    stopped_at(settings, 6, signal.SIGUSR1)
    run = train(settings)
    assert run == first.path
    assert bytes_of(run) == bytes_of(peace)


def test_from_the_checkpoint_before_a_damaged_one_the_same_end_is_reached(make_settings: Make, peace: Path) -> None:
    settings = make_settings(job_name="damaged", max_steps=9, valid_freq=4, resume_ckpt_path="auto")
    run = stopped_at(settings, 7).path
    broken = find_checkpoint(run) / "optimizer.safetensors"
    data = bytearray(broken.read_bytes())
    data[-3] ^= 4
    broken.write_bytes(data)
    assert find_checkpoint(run).name == "step-000006"
    assert bytes_of(train(settings)) == bytes_of(peace)


def test_a_path_starts_a_new_run_and_leaves_the_old_one_as_it_is(make_settings: Make, peace: Path) -> None:
    before = {p: p.read_bytes() for p in peace.rglob("*") if p.is_file()}
    settings = make_settings(
        job_name="fork", max_steps=9, valid_freq=4, resume_ckpt_path=str(peace / "checkpoints" / "step-000008")
    )
    run = train(settings)
    assert run.parent.name == "fork"
    assert (run / "metrics.jsonl").read_bytes() == (peace / "metrics.jsonl").read_bytes()
    assert {p: p.read_bytes() for p in peace.rglob("*") if p.is_file()} == before


def test_auto_with_nothing_there_starts_at_the_beginning_and_says_so(
    make_settings: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        run = train(make_settings(resume_ckpt_path="auto", max_steps=2))
    assert "starting a new one" in caplog.text
    assert len(lines(run)) == 2


def test_auto_does_not_touch_a_finished_run(make_settings: Make) -> None:
    settings = make_settings(resume_ckpt_path="auto", max_steps=2)
    assert train(settings) != train(settings)


def test_a_checkpoint_of_another_model_or_of_other_data_is_refused_by_name(make_settings: Make, world: Path) -> None:
    run = train(make_settings(max_steps=2))
    values = {"resume_ckpt_path": str(run), "max_steps": 4}
    with pytest.raises(CheckpointError, match=r"lora_A.*only in the checkpoint") as found:
        train(make_settings(**values, model={"train": ["bridges"]}))
    assert found.value.exit_code == 4
    with pytest.raises(CheckpointError, match=r"lora_A.default.weight: \(2, 16\) in the checkpoint, \(3, 16\) now"):
        train(make_settings(**values, model={"lora_r": 3}))
    with pytest.raises(CheckpointError, match=r"run\.seed: 42 in the checkpoint, 43 now"):
        train(make_settings(**values, seed=43))
    other = make_settings(**values)
    del other.datasets["words"]
    with pytest.raises(CheckpointError, match="data set words: only in the checkpoint"):
        train(other)
    llm = make_settings().model["llm"]
    changed = Part("llm", "causal_lm", {**llm.values, "seed": 5})
    with pytest.raises(CheckpointError, match="frozen part llm"):
        train(make_settings(**values, model={"llm": changed}))


def test_a_checkpoint_of_a_newer_format_is_refused(make_settings: Make) -> None:
    from minigpt4o.runners.checkpoint import load

    step = find_checkpoint(train(make_settings(max_steps=2)))
    state = json.loads((step / "state.json").read_text())
    (step / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(CheckpointError, match="format 99, this version reads 1"):
        load(step)


def test_a_step_log_shorter_than_the_checkpoint_counts_on_is_refused(make_settings: Make) -> None:
    settings = make_settings(resume_ckpt_path="auto")
    run = stopped_at(settings, 3).path
    (run / "metrics.jsonl").write_bytes(b"")
    with pytest.raises(CheckpointError, match="was cut or replaced"):
        train(settings)


def test_killed_at_random_moments_a_run_ends_as_if_it_never_was(make_settings: Make, tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "kill_test.py"
    spec = importlib.util.spec_from_file_location("kill_test", path)
    assert spec is not None
    assert spec.loader is not None
    kill_test = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["kill_test"] = kill_test
    spec.loader.exec_module(kill_test)
    told: list[str] = []
    settings = make_settings(max_steps=30, save_freq=3, valid_freq=10)
    assert kill_test.kill_runs(settings, tmp_path / "kills", 2, 0.0, 1, told.append), "\n".join(told)
    assert sum(int(line.split(": ")[1].split()[0]) for line in told if line.startswith("run ")) >= 2, told


def test_more_steps_can_be_asked_for_later(make_settings: Make) -> None:
    run = train(make_settings(max_steps=4, lr_sched=Part("lr_scheduler", "constant_lr")))
    more = make_settings(
        max_steps=6, lr_sched=Part("lr_scheduler", "constant_lr"), resume_ckpt_path=str(run), job_name="more"
    )
    whole = make_settings(max_steps=6, lr_sched=Part("lr_scheduler", "constant_lr"), job_name="whole")
    assert [r["loss_hex"] for r in lines(train(more))] == [r["loss_hex"] for r in lines(train(whole))]
    assert with_run(more, max_steps=9).run["max_steps"] == 9
