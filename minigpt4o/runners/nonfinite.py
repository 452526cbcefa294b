"""Steps whose loss or gradient is not finite: counted, named, and the end of the run if they do not stop."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import NonFiniteError

if TYPE_CHECKING:
    from minigpt4o.runners.base import Runner

log = logging.getLogger(__name__)


def count_bad(runner: Runner, applied: bool, window: list[Any]) -> None:
    """Keep count of steps that were not applied, and name their samples."""
    progress = runner.progress
    progress.bad_in_row = 0 if applied else progress.bad_in_row + 1
    progress.bad_steps += 0 if applied else 1
    if not applied:
        ids = ", ".join(f"{s.dataset}:{s.id}" for batch in window for s in batch.samples)
        log.warning("step %d skipped: loss or gradient is not finite; samples of rank %d: %s",
                    progress.step, runner.world.rank, ids)  # fmt: skip


def stop_if_bad(runner: Runner) -> None:
    """Raises NonFiniteError after `run.max_bad_steps` of them in a row."""
    bad, step = runner.progress.bad_in_row, runner.progress.step
    if bad and bad >= runner.config.max_bad_steps:
        raise NonFiniteError(
            f"{runner.path}: loss or gradient was not finite in {bad} steps in a row, up to step {step}; the "
            "samples are named in log.txt; lower run.init_lr or look at the data, then resume"
        )
