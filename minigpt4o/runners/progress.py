"""How fast the run goes and how long it will take, as one line a person can read."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass

log = logging.getLogger(__name__)

REDRAW_S = 0.5  # on a terminal


@dataclass
class Speed:
    """Means since the last line."""

    samples_per_s: float
    tokens_per_s: float
    wait_share: float  # of the time, spent waiting for data: what was not made ahead; the mean of the ranks
    step_s: float


class Meter:
    """Counts steps, samples, tokens and time; writes a line every `log_freq` steps, and a living one on a terminal."""

    def __init__(self, total: int, log_freq: int) -> None:
        self.total, self.log_freq = total, max(log_freq, 1)
        self._live = sys.stderr.isatty()
        self._drawn = 0.0
        self._step_s = 0.0  # smoothed, for the ETA
        self._reset()

    def _reset(self) -> None:
        self._since, self._waited = time.monotonic(), 0.0
        self._steps = self._samples = self._tokens = 0

    def add(self, samples: int, tokens: int, waited: float) -> None:
        self._steps += 1
        self._samples += samples
        self._tokens += tokens
        self._waited += waited

    def speed(self) -> Speed:
        seconds = max(time.monotonic() - self._since, 1e-9)
        return Speed(
            self._samples / seconds, self._tokens / seconds, self._waited / seconds, seconds / max(self._steps, 1)
        )

    def show(self, step: int, loss: float, lr: float, grad_norm: float) -> Speed | None:
        """Write the line if it is due; returns the speed if it was."""
        due = step % self.log_freq == 0 or step in (1, self.total)
        now = time.monotonic()
        if not due and not (self._live and now - self._drawn > REDRAW_S):
            return None
        speed = self.speed()
        self._step_s = speed.step_s if not self._step_s else 0.7 * self._step_s + 0.3 * speed.step_s
        line = (
            f"step {step}/{self.total}  loss {loss:.4f}  lr {lr:.3g}  grad {grad_norm:.3g}  "
            f"{speed.samples_per_s:.1f} samples/s  {speed.tokens_per_s:.0f} tokens/s  "
            f"data wait {speed.wait_share:.0%}  ETA {clock((self.total - step) * self._step_s)}"
        )
        if self._live:
            sys.stderr.write(f"\r{line}\x1b[K" + ("\r\x1b[K" if due else ""))
            sys.stderr.flush()
            self._drawn = now
        if not due:
            return None
        log.info(line)
        self._reset()
        return speed


def clock(seconds: float) -> str:
    """12 -> 0:12, 4000 -> 1:06:40."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
