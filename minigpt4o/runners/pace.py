"""How many micro-batches each optimizer step takes, and which tick of the schedule it gets: ours, or MiniGPT-4's."""

# N iterations of an epoch, A accum_grad_iters, L = N % A micro-batches that an epoch leaves without a step

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from minigpt4o.common.errors import ConfigError

COMPAT = "compat"  # the profile that is equal to the reference, its faults included


@dataclass(frozen=True)
class Pace:
    """Default: an epoch has `epoch_steps` optimizer steps of `accum` micro-batches each; a tick is a step."""

    total_steps: int
    epoch_steps: int
    accum: int
    taken_up: int = -1  # step at which a file of the reference was continued; -1 = none

    def micro_batches(self, step: int) -> int:
        """Micro-batches whose gradients optimizer step `step` (counted from 0) adds up."""
        return self.accum

    def drawn(self, step: int) -> int:
        """Micro-batches drawn before that step."""
        return step * self.accum

    def tick(self, step: int) -> int:
        """What the learning rate schedule is asked for at that step."""
        return step

    @property
    def total_ticks(self) -> int:
        return self.total_steps

    @property
    def epoch_ticks(self) -> int:
        return self.epoch_steps


@dataclass(frozen=True)
class CompatPace(Pace):
    """The reference's loop in closed form: a tick is a micro-iteration, and N of them are an epoch.

    The optimizer steps after iteration i of an epoch if (i + 1) % A == 0, with the learning rate of that iteration.
    Gradients of the L iterations behind the last step of an epoch stay and are part of the next epoch's first step.
    """

    epoch_iters: int = 1

    def micro_batches(self, step: int) -> int:
        return self.accum + (self._left if self._carries(step) else 0)

    def drawn(self, step: int) -> int:
        epoch, inside = divmod(step, self.epoch_steps)
        return epoch * self.epoch_iters + inside * self.accum - (self._left if self._carries(step) else 0)

    def tick(self, step: int) -> int:
        epoch, inside = divmod(step, self.epoch_steps)
        return epoch * self.epoch_iters + (inside + 1) * self.accum - 1

    @property
    def total_ticks(self) -> int:
        epochs, inside = divmod(self.total_steps, self.epoch_steps)
        return epochs * self.epoch_iters + inside * self.accum

    @property
    def epoch_ticks(self) -> int:
        return self.epoch_iters

    @property
    def _left(self) -> int:
        return self.epoch_iters % self.accum

    def _carries(self, step: int) -> bool:
        """Whether gradients of the epoch before belong to this step. A file of the reference does not hold them."""
        return step > 0 and step % self.epoch_steps == 0 and step != self.taken_up


def pace_of(config: Any, samples_per_epoch: int, rows: int) -> Pace:
    """The pace the run node describes; `rows` is the number of samples of a micro-batch over all ranks."""
    accum = config.accum_grad_iters
    if config.profile != COMPAT:
        epoch = config.iters_per_epoch or max(1, math.ceil(samples_per_epoch / (rows * accum)))
        return Pace(config.max_steps or config.max_epoch * epoch, epoch, accum)
    iters = config.iters_per_epoch or max(1, math.ceil(samples_per_epoch / rows))
    if accum > iters:
        raise ConfigError(
            f"run.accum_grad_iters: {accum} is more than the {iters} iterations of an epoch; under run.profile compat "
            "the optimizer would never step; lower it, or set run.profile: default"
        )
    epoch = iters // accum
    return CompatPace(config.max_steps or config.max_epoch * epoch, epoch, accum, epoch_iters=iters)
