"""Learning rates as pure functions of the global optimizer step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry


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


class Schedule(Protocol):
    """A learning rate for every step, counted from 0."""

    def lr(self, step: int) -> float: ...


def warmup(rates: Rates, step: int) -> float:
    """Linear from warmup_lr at step 0 to init_lr at warmup_steps."""
    start = rates.warmup_lr if rates.warmup_lr >= 0 else rates.init_lr
    return min(rates.init_lr, start + (rates.init_lr - start) * step / max(rates.warmup_steps, 1))


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
    """Linear warm-up, then init_lr * lr_decay_rate ** epoch, never below min_lr."""

    def __init__(self, *, rates: Rates) -> None:
        if rates.decay_rate is None:
            raise ConfigError("run.lr_sched linear_warmup_step_lr needs run.lr_decay_rate, for example 0.9")
        self.rates = rates
        self.decay = rates.decay_rate

    def lr(self, step: int) -> float:
        r = self.rates
        if step < r.warmup_steps:
            return warmup(r, step)
        return max(r.min_lr, r.init_lr * self.decay ** (step // r.epoch_steps))


@registry.register("lr_scheduler", "constant_lr")
class Constant:
    """Linear warm-up, then init_lr to the end."""

    def __init__(self, *, rates: Rates) -> None:
        self.rates = rates

    def lr(self, step: int) -> float:
        return warmup(self.rates, step) if step < self.rates.warmup_steps else self.rates.init_lr
