"""The smaller acts of the training runner: checks before the start, seeds, files, and what the manifest says."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from minigpt4o.common import distributed
from minigpt4o.common.cores import cores
from minigpt4o.common.distributed import World
from minigpt4o.common.errors import CheckpointError, ConfigError, Minigpt4oError
from minigpt4o.common.files import TMP_PREFIX, room_on_disk
from minigpt4o.runners import rundir
from minigpt4o.runners.engine import Recipe, computes_bf16
from minigpt4o.runners.pace import COMPAT
from minigpt4o.runners.rundir import StepLog
from minigpt4o.runners.window import Facts

if TYPE_CHECKING:
    from minigpt4o.runners.base import Runner

log = logging.getLogger(__name__)

POSITIVE = (
    "max_epoch",
    "iters_per_epoch",
    "max_steps",
    "accum_grad_iters",
    "batch_size_train",
    "batch_size_eval",
    "save_freq",
    "max_bad_steps",
)


def check(config: Any) -> None:
    """What can be known to be wrong before anything is built."""
    values = {name: getattr(config, name) for name in POSITIVE}
    bad = [f"run.{name}: {value}" for name, value in values.items() if value is not None and value < 1]
    if bad:
        raise ConfigError(f"must be 1 or more: {', '.join(bad)}")
    if not config.job_name or "/" in config.run_id:
        raise ConfigError("run.job_name must not be empty and run.run_id must not hold a slash")
    if config.profile == COMPAT and config.optimizer != "adamw":
        raise ConfigError(
            f"run.optimizer: {config.optimizer} under run.profile compat, whose arithmetic is the reference's AdamW; "
            "set run.profile: default, or run.optimizer: adamw"
        )


def start(config: Any) -> World:
    """Join the job, share the cores, seed what builds new weights."""
    world = distributed.start(config.device, config.timeout_s, force_group=config.engine.name == "deepspeed")
    torch.set_num_threads(config.threads or _threads(world.local_size))
    random.seed(config.seed)
    torch.manual_seed(config.seed)  # equal on all ranks: they build the same model
    if world.rank:
        logging.getLogger("minigpt4o").setLevel(logging.WARNING)
    return world


_log_handlers: list[logging.Handler] = []


def open_log(path: Path) -> None:
    """Rank 0 writes what is logged to log.txt as well."""
    if not distributed.is_main():
        return
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("minigpt4o")
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    _log_handlers.append(handler)


def close_log() -> None:
    while _log_handlers:
        handler = _log_handlers.pop()
        logging.getLogger("minigpt4o").removeHandler(handler)
        handler.close()


def recipe(runner: Runner) -> Recipe:
    """What the engine has to know of the run node."""
    config = runner.config
    return Recipe(
        lr=config.init_lr,
        weight_decay=config.weight_decay,
        beta2=config.beta2,
        optimizer=config.optimizer,
        lr_multipliers=config.lr_multipliers,
        grad_clip=clip_of(config),
        accum=config.accum_grad_iters,
        batch_size=runner.batch_size,
        bf16=computes_bf16(runner.model),
        profile=config.profile,
    )


def clip_of(config: Any) -> float:
    """The largest norm of the gradient: what the user set, or 1, or as in the reference no limit."""
    if config.grad_clip is not None:
        return float(config.grad_clip)
    return 0.0 if config.profile == COMPAT else 1.0


def seed_step(seed: int, step: int, rank: int) -> None:
    """Dropout draws from (seed, step, rank), so the generators' state is never part of a checkpoint."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    random.seed(digest)


def accumulate(runner: Runner, window: list[Any], divisors: list[int]) -> tuple[float, float]:
    """Forward and backward of every micro-batch, its loss divided by its divisor; the sum of losses and the tokens."""
    total = torch.zeros((), dtype=torch.float64, device=runner.world.device)
    counted = torch.zeros((), dtype=torch.float64, device=runner.world.device)
    for i, (batch, learned) in enumerate(zip(window, divisors, strict=True)):
        try:
            loss_sum, count = runner.engine.accumulate(batch.to(runner.world.device), learned, i == len(window) - 1)
        except torch.OutOfMemoryError as error:
            ids = ", ".join(s.id for s in batch.samples)
            raise Minigpt4oError(
                f"out of memory at step {runner.progress.step + 1} with {tuple(batch.input_ids.shape)} tokens (samples "
                f"{ids}); lower run.batch_size_train (and raise run.accum_grad_iters) or model.max_txt_len"
            ) from error
        total += loss_sum.double()
        counted += count.double()
    both = torch.stack([total, counted]).tolist()
    return both[0], both[1]


def check_count(counted: float, learned: int, total: float) -> None:
    """The loss must be divided by what it was summed over."""
    if math.isfinite(total) and round(counted) != learned:
        raise Minigpt4oError(
            f"the model summed the loss of {counted:.0f} tokens, but the labels of the step mark {learned}; the "
            "model's LossSum.count is wrong, or its task needs a method learned_tokens(batch) that counts the same way"
        )


def metrics_row(progress: Any, loss: float, lr: float, norm: float, applied: bool, facts: Facts) -> dict[str, Any]:
    """A line of metrics.jsonl. Nothing in it depends on the clock: a resumed run writes the same bytes."""
    row = {
        "step": progress.step,
        "loss": loss if math.isfinite(loss) else None,
        "loss_hex": loss.hex(),
        "lr": lr,
        "grad_norm": norm if math.isfinite(norm) else None,
        "learned": facts.learned,
        "ids": facts.ids,
        "skipped": facts.skipped,
    }
    return row if applied else {**row, "not_applied": True}


def track(trackers: list[Any], row: dict[str, Any], speed: Any) -> None:
    """The step's numbers and the speed to every tracker."""
    values = {f"train/{key}": row[key] for key in ("loss", "lr", "grad_norm") if row[key] is not None}
    values |= {f"val/{name}": value for name, value in row.get("val", {}).items()}
    if speed is not None:
        values |= {"speed/samples_per_s": speed.samples_per_s, "speed/tokens_per_s": speed.tokens_per_s}
        values |= {"speed/data_wait": speed.wait_share, "speed/step_s": speed.step_s}
    for tracker in trackers:
        tracker.log(row["step"], values)


def step_log(run: Path, resume_from: Path | None, offset: int) -> StepLog:
    """metrics.jsonl cut back to the checkpoint; a run started from another one's checkpoint begins with its lines."""
    before = b""
    if resume_from is not None and resume_from.parent.parent.resolve() != run.resolve():
        old = resume_from.parent.parent / rundir.METRICS
        before = old.read_bytes()[:offset] if old.is_file() else b""
        if len(before) < offset:
            raise CheckpointError(f"{old} is missing or shorter than the {offset:,} bytes that {resume_from} counts on")
    return StepLog(run / rundir.METRICS, offset, before)


def config_text(settings: Any) -> str:
    """The resolved configuration as YAML."""
    import yaml

    return yaml.safe_dump(settings.tree, sort_keys=False, allow_unicode=True)


def about(runner: Runner) -> dict[str, Any]:
    """Facts kept with every checkpoint."""
    return {
        "versions": rundir.versions(),
        "world_size": runner.world.size,
        "engine": runner.config.engine.name,
        "optimizer": runner.config.optimizer,
        "device": str(runner.world.device),
        "total_steps": runner.total_steps,
        "global_batch": runner.global_batch,
        "epoch_steps": runner.pace.epoch_steps,
        **{key: getattr(runner.config, key) for key in ("profile", "init_lr", "weight_decay", "beta2")},
    }


def manifest(runner: Runner) -> dict[str, Any]:
    """Everything needed to say what this run was."""
    identity = runner.identity
    return {
        **identity.about,
        "git": rundir.git_commit(),
        "hardware": rundir.hardware(str(runner.world.device)),
        "data": identity.data,
        "samples": {name: len(builder) for name, builder in runner.builders.items()},
        "frozen": identity.frozen,
        "trained": identity.trained,
        "seed": identity.seed,
        "resumed_from": str(runner.resume_from or ""),
        "finished_when": f"step {runner.total_steps}",
    }


def frozen_digest(model: Any) -> str:
    """SHA-256 of the frozen weights as this rank holds them: whole, in another number format, or its share of them."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            held = getattr(parameter, "ds_tensor", parameter).detach()
            digest.update(name.encode())
            digest.update(held.contiguous().view(-1).view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()


def check_frozen(runner: Runner) -> None:
    """Frozen weights must be, bit for bit, what they were at the start."""
    if frozen_digest(runner.model) != runner.frozen:
        raise CheckpointError(f"{runner.path}: frozen weights changed while training; do not use this run")


@contextmanager
def exported(runner: Runner) -> Iterator[Path | None]:
    """A folder with the trained language model in its own format, at the last step; None if there is none to write."""
    if not runner.config.export or runner.progress.step < runner.total_steps or not hasattr(runner.model, "export"):
        yield None
        return
    folder = runner.path / f"{TMP_PREFIX}export"
    with runner.engine.gathered():
        if distributed.is_main():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            with room_on_disk(folder):
                runner.model.export(folder)
    try:
        yield folder
    finally:
        if distributed.is_main():  # another rank may be here while the first is still writing
            shutil.rmtree(folder, ignore_errors=True)


def _threads(local_size: int) -> int:
    """OMP_NUM_THREADS if the user or a launcher set it, else our cores shared among this machine's ranks."""
    wished = os.environ.get("OMP_NUM_THREADS", "")
    return int(wished) if wished.isdigit() and int(wished) else max(1, cores() // max(local_size, 1))
