"""Where a run starts: fresh, from a checkpoint of ours to the bit, or from a file that MiniGPT-4's runner wrote."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import CheckpointError
from minigpt4o.runners import checkpoint, data, official_file, setup
from minigpt4o.runners.checkpoint import Identity, Progress
from minigpt4o.runners.engine import Learned
from minigpt4o.runners.hosts import tell_other_hosts

if TYPE_CHECKING:
    from minigpt4o.runners.base import Runner

log = logging.getLogger(__name__)


def restore(runner: Runner) -> Learned | None:
    """Set the runner's identity, progress and place in the data; returns what training has changed so far."""
    runner.identity = identify(runner)
    tell_other_hosts(runner.model, str(runner.settings.model.values.get("ckpt", "")), runner.identity.frozen)
    runner.progress = Progress()
    if runner.resume_from is None:
        return None
    learned, progress, saved = read(runner.resume_from)
    checkpoint.refuse_other(runner.resume_from, saved, runner.identity, runner.model, learned)
    if saved.foreign:
        progress = placed(runner, runner.resume_from, saved)
    else:
        tell_changes(saved.about, runner.identity.about)
    runner.progress = progress
    runner.pace = replace(runner.pace, taken_up=progress.taken_up)
    runner.loader.load_state(progress.loader)
    log.info("continuing from %s: step %d", runner.resume_from, progress.step)
    return learned


def identify(runner: Runner) -> Identity:
    """What this run is."""
    fingerprints = data.fingerprints(runner.builders)
    return checkpoint.identity_of(runner.model, fingerprints, runner.config.seed, setup.about(runner))


def read(path: Path) -> tuple[Learned, Progress, Identity]:
    """A step folder of ours, or a file of the reference's runner."""
    return official_file.read(path) if path.is_file() else checkpoint.load(path)


def placed(runner: Runner, path: Path, saved: Identity) -> Progress:
    """Where a run of the reference that ended epoch E stands: before the first step of epoch E + 1."""
    epoch = official_file.epoch_of(saved)
    step = (epoch + 1) * runner.pace.epoch_steps
    if step >= runner.total_steps:
        raise CheckpointError(
            f"{path} was written after epoch {epoch}, and this run ends after step {runner.total_steps}, epoch "
            f"{runner.total_steps // runner.pace.epoch_steps - 1}: nothing is left to train; raise run.max_epoch"
        )
    pace = replace(runner.pace, taken_up=step)
    position = pace.drawn(step) * runner.batch_size * runner.world.size
    log.warning(
        "%s is a file of MiniGPT-4's runner: weights, Adam's moments and the epoch go on (epoch %d, step %d). It does "
        "not hold the place in the data, the state of random numbers, gradients that waited for a step, nor what it "
        "was trained beside: the data go on at position %d of this run's own order (run.seed %d), and that the frozen "
        "parts are the same cannot be checked",
        path, epoch + 1, step, position, runner.config.seed,
    )  # fmt: skip
    return Progress(step=step, taken_up=step, loader={**runner.loader.state(), "position": position})


def tell_changes(before: dict[str, Any], now: dict[str, Any]) -> None:
    """What a continued run does differently from its first part; all of it is allowed."""
    for key in sorted({*before} & {*now}):
        if before[key] != now[key]:
            log.warning("%s was %s, is now %s", key, before[key], now[key])


def completed(
    runner: Runner, path: Path, learned: Learned, progress: Progress, saved: Identity
) -> tuple[Progress, Identity]:
    """Progress and identity as a checkpoint of this run, which is built, would have them at that epoch.

    Raises CheckpointError if its trained tensors are not those of the file.
    """
    runner.identity = identify(runner)
    checkpoint.refuse_other(path, saved, runner.identity, runner.model, learned)
    return placed(runner, path, saved) if saved.foreign else progress, runner.identity
