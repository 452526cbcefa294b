"""Two ranks learn what one process learns, with every engine, and their checkpoints fit each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from test_compat import QUIET, RATES, reference
from tiny_world import lines, train

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.files import find_checkpoint
from minigpt4o.runners.engine_deepspeed import check
from minigpt4o.runners.window import global_order_sha1

STEPS = 6
ENGINES = {
    "torch": ("torch", {}),
    "zero1": ("deepspeed", {"zero_stage": 1}),
    "zero2": ("deepspeed", {"zero_stage": 2}),
    "zero3": ("deepspeed", {"zero_stage": 3}),
}
NO_DROPOUT = {"lora_dropout": 0.0}
COMMON = {"max_steps": STEPS, "save_freq": 3, "keep_checkpoints": 9, "model": NO_DROPOUT, "valid_freq": 3}
EXACT = {"max_steps": None, "exact_epoch": True, "group_by_length": True, "group_window": 28, "save_freq": 4}
EXACT |= {"model": NO_DROPOUT, "valid_splits": []}  # 48 samples in steps of 14: the last has 6, none of them rank 1's
COMPAT = {"profile": "compat", "max_epoch": 2, "iters_per_epoch": 5, "accum_grad_iters": 2, "max_steps": None}
COMPAT |= {**RATES, **QUIET}


def launch(world: Path, output: Path, plan: list[dict[str, Any]], ranks: int) -> None:
    (output / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command += [str(Path(__file__).parent / "ranks_script.py"), str(world), str(output), str(output / "plan.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Made once, also if several test processes ask for it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    output = shared / "ranks"
    with FileLock(shared / "ranks.lock"):
        if not (output / "done").exists():
            output.mkdir()
            make_runs(world, output)
            (output / "done").touch()

    def find(job: str) -> Path:
        (run,) = (output / job).iterdir()
        return run

    return find


def make_runs(world: Path, output: Path) -> None:
    """One launch for all engines: each trains with two ranks, then a run of one rank is continued by two."""
    from tiny_world import tiny_settings

    one = train(tiny_settings(world, output, job_name="one", **COMMON))
    middle = str(one / "checkpoints" / "step-000003")
    plan: list[dict[str, Any]] = []
    for name, (engine, options) in ENGINES.items():
        job = {"engine": engine, "options": options, "batch_size_train": 2, **COMMON}
        plan.append({**job, "job_name": name})
        plan.append({**job, "job_name": f"{name}-continues", "resume_ckpt_path": middle})
    plan += [{"engine": e, "options": o, **COMPAT, "job_name": f"{n}-compat"} for n, (e, o) in ENGINES.items()]
    train(tiny_settings(world, output, job_name="exact", batch_size_train=14, **EXACT))
    for name in ("torch", "zero2"):
        engine, options = ENGINES[name]
        job = {"engine": engine, "options": options, "batch_size_train": 7, **EXACT}
        plan.append({**job, "job_name": f"{name}-exact"})
    plan.append({**plan[0], "job_name": "torch-spoiled", "task": "spoil_rank_1"})
    plan.append({**plan[4], "job_name": "zero2-spoiled", "task": "spoil_rank_1"})
    plan.append({**plan[4], "job_name": "zero2-halves", "batch_size_train": 1, "accum_grad_iters": 2})
    launch(world, output, plan, ranks=2)
    alone = {"engine": "deepspeed", **COMMON}
    launch(world, output, [{**alone, "job_name": f"alone{i}", "options": {"zero_stage": i}} for i in range(4)], ranks=1)


def apart(a: Path, b: Path) -> float:
    rows = list(zip(lines(a), lines(b), strict=True))
    assert [x["ids"] for x, _ in rows] == [y["ids"] for _, y in rows]
    assert [x["learned"] for x, _ in rows] == [y["learned"] for _, y in rows]
    return max(abs(x[key] - y[key]) for x, y in rows for key in ("loss", "grad_norm"))


@pytest.mark.parametrize("name", [*ENGINES, "zero2-halves"])
def test_two_ranks_learn_what_one_process_learns(runs: Callable[[str], Path], name: str) -> None:
    one, two = runs("one"), runs(name)
    assert apart(one, two) < 1e-5
    validation = [(a["val"], b["val"]) for a, b in zip(lines(one), lines(two), strict=True) if "val" in a]
    assert len(validation) == 2
    assert all(a["colours"] == pytest.approx(b["colours"], abs=1e-5) for a, b in validation)


@pytest.mark.parametrize("name", ENGINES)
def test_weights_and_moments_by_name_are_those_of_one_process(runs: Callable[[str], Path], name: str) -> None:
    for file in ("trained.safetensors", "optimizer.safetensors"):
        a, b = (load_file(find_checkpoint(runs(job)) / file) for job in ("one", name))
        assert set(a) == set(b)
        assert all(torch.allclose(a[n], b[n], atol=1e-5) for n in a), file


@pytest.mark.parametrize("name", ENGINES)
def test_a_checkpoint_of_one_process_continues_on_two_ranks(runs: Callable[[str], Path], name: str) -> None:
    assert apart(runs("one"), runs(f"{name}-continues")) < 1e-5


@pytest.mark.parametrize("name", ENGINES)
def test_a_checkpoint_of_two_ranks_continues_in_one_process(
    runs: Callable[[str], Path], world: Path, tmp_path: Path, name: str
) -> None:
    from tiny_world import tiny_settings

    middle = str(runs(name) / "checkpoints" / "step-000003")
    run = train(tiny_settings(world, tmp_path, resume_ckpt_path=middle, **COMMON))
    assert apart(runs("one"), run) < 1e-5


@pytest.mark.parametrize("name", ["torch", "zero2"])
def test_an_exact_epoch_whose_last_step_holds_no_sample_for_rank_1(runs: Callable[[str], Path], name: str) -> None:
    one, two = runs("exact"), runs(f"{name}-exact")
    assert len(lines(two)) == 4
    assert apart(one, two) < 1e-5
    told = [json.loads((run / "data_report.json").read_text()) for run in (one, two)]
    assert told[0] == told[1]
    assert told[0]["good"] == 48  # both ranks', each once


@pytest.mark.parametrize("name", ["torch", "zero2"])
def test_one_rank_s_spoiled_loss_stops_the_step_on_all(runs: Callable[[str], Path], name: str) -> None:
    rows = lines(runs(f"{name}-spoiled"))
    assert [row.get("not_applied", False) for row in rows] == [False, False, True, False, False, False]
    clean = load_file(runs(f"{name}-spoiled") / "checkpoints" / "step-000006" / "trained.safetensors")
    assert all(bool(torch.isfinite(t).all()) for t in clean.values())


def test_bfloat16_with_zero_0_is_refused_with_its_reason() -> None:
    with pytest.raises(ConfigError, match="zero_stage: 1"):
        check(0, bf16=True)
    with pytest.raises(ConfigError, match="0, 1, 2 or 3"):
        check(4, bf16=False)
    check(1, bf16=True)


def test_the_order_of_a_global_batch_does_not_depend_on_who_read_it() -> None:
    one_rank = global_order_sha1([[1, 2, 3, 4, 5, 6, 7, 8]], 1)
    assert global_order_sha1([[1, 2, 5, 6], [3, 4, 7, 8]], 2) == one_rank
    assert global_order_sha1([[1, 2, 3, 4], [5, 6, 7, 8]], 1) == one_rank
    assert global_order_sha1([[2, 1, 3, 4], [5, 6, 7, 8]], 1) != one_rank


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_in_one_process_equals_torch(runs: Callable[[str], Path], stage: int) -> None:
    assert apart(runs("one"), runs(f"alone{stage}")) < 1e-5


@pytest.mark.parametrize("name", ENGINES)
def test_under_compat_the_gradient_is_the_mean_of_the_ranks_means(
    runs: Callable[[str], Path], world: Path, tmp_path: Path, name: str
) -> None:
    from tiny_world import tiny_settings

    theirs = reference(tiny_settings(world, tmp_path, **COMPAT), epochs=2, iters=5, accum=2, ranks=2)[-1]
    ours = load_file(find_checkpoint(runs(f"{name}-compat")) / "trained.safetensors")
    assert set(ours) == set(theirs)
    assert all(torch.allclose(ours[n], theirs[n], atol=1e-5, rtol=0) for n in theirs)
