"""Learning rates as pure functions of a tick (an optimizer step, or a micro-iteration under compat): no state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.runners.pace import COMPAT, Pace


@dataclass(frozen=True)
class Rates:
    """The values of the run node that a schedule may need."""

    init_lr: float
    min_lr: float = 0.0
    warmup_lr: float = -1.0  # negative: start the warm-up at init_lr, that is, have none
    warmup_steps: int = 0
    decay_rate: float | None = None  # only for linear_warmup_step_lr
    total_steps: int = 1
    epoch_steps: int = 1
    compat: bool = False  # as the reference does it: steps are micro-iterations, a warm-up looks at the epoch


class Schedule(Protocol):
    """A learning rate for every step, counted from 0."""

    def lr(self, step: int) -> float: ...


def warmup(rates: Rates, step: int) -> float:
    """Linear from warmup_lr at step 0 to init_lr at warmup_steps.

    Under compat the step is counted inside the epoch, so a warm-up longer than an epoch starts again with each.
    """
    start = rates.warmup_lr if rates.warmup_lr >= 0 else rates.init_lr
    done = step % rates.epoch_steps if rates.compat else step
    return min(rates.init_lr, start + (rates.init_lr - start) * done / max(rates.warmup_steps, 1))


def warms_up(rates: Rates, step: int) -> bool:
    """Whether a step or constant schedule warms up: before warmup_steps or, under compat (LAVIS), in epoch 0 only."""
    return step < (rates.epoch_steps if rates.compat else rates.warmup_steps)


@registry.register("lr_scheduler", "linear_warmup_cosine_lr")
class LinearWarmupCosine:
    """Linear warm-up, then a cosine from init_lr to min_lr over the whole run.

    The cosine is counted from step 0, as in MiniGPT-4, so the rate drops a little where the warm-up ends.
    """

    def __init__(self, *, rates: Rates) -> None:
        self.rates = rates

    def lr(self, step: int) -> float:
        r = self.rates
        if step < r.warmup_steps:
            return warmup(r, step)
        return (r.init_lr - r.min_lr) * 0.5 * (1.0 + math.cos(math.pi * step / r.total_steps)) + r.min_lr


@registry.register("lr_scheduler", "linear_warmup_step_lr")
class LinearWarmupStep:
    """Linear warm-up, then init_lr * lr_decay_rate ** epoch, never below min_lr.

    MiniGPT-4's own cannot run (it lacks what its loop reads); under compat this is LAVIS's, which it was copied from.
    """

    def __init__(self, *, rates: Rates) -> None:
        if rates.decay_rate is None:
            raise ConfigError("run.lr_sched linear_warmup_step_lr needs run.lr_decay_rate, for example 0.9")
        self.rates = rates
        self.decay = rates.decay_rate

    def lr(self, step: int) -> float:
        r = self.rates
        if warms_up(r, step):
            return warmup(r, step)
        return max(r.min_lr, r.init_lr * self.decay ** (step // r.epoch_steps))


@registry.register("lr_scheduler", "constant_lr")
class Constant:
    """Linear warm-up, then init_lr to the end."""

    def __init__(self, *, rates: Rates) -> None:
        self.rates = rates

    def lr(self, step: int) -> float:
        return warmup(self.rates, step) if warms_up(self.rates, step) else self.rates.init_lr


class Paced:
    """A schedule asked by optimizer steps: the pace says which tick of it each step gets."""

    def __init__(self, inner: Schedule, pace: Pace) -> None:
        self.inner, self.pace = inner, pace

    def lr(self, step: int) -> float:
        return self.inner.lr(self.pace.tick(step))


def schedule_of(config: Any, pace: Pace) -> Paced:
    """The learning rate schedule the run node names, by optimizer steps."""
    values = (config.init_lr, config.min_lr, config.warmup_lr, config.warmup_steps, config.lr_decay_rate)
    rates = Rates(*values, pace.total_ticks, pace.epoch_ticks, config.profile == COMPAT)
    return Paced(registry.build(config.lr_sched, rates=rates), pace)
