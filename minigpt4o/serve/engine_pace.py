"""How many of those who wait are taken in at a time: so many that passes are full, so few that nobody stalls."""

from __future__ import annotations

HELD_STEPS = 4
READ_SECONDS = 0.5  # for which reading prompts may keep the answers that run from going on


class Pace:
    """Reading prompts one at a time costs as many passes as there are prompts; reading many at once takes long."""

    def __init__(self) -> None:
        self.row_seconds = 0.0  # what reading one prompt took lately; 0: not known yet
        self._held = 0  # steps for which those who wait were held back

    def room(self, free: int, most: int, waiting: int) -> int:
        """How many may come in now: `free` of `most` places are free.

        Where more wait than can come in, the first of them wait a few steps for each other: their places are free
        meanwhile, but the one pass they then share serves everybody.
        """
        if 0 < free < min(most // 4, waiting) and self._held < HELD_STEPS:
            self._held += 1
            return 0
        self._held = 0
        return min(free, self.most()) if free > 0 else 0

    def most(self) -> int:
        """How many prompts can be read in the time there is."""
        return max(1, int(READ_SECONDS / self.row_seconds)) if self.row_seconds else 1_000_000

    def read(self, prompts: int, seconds: float) -> None:
        """So many were read in this time; the newest figures count most."""
        if prompts:
            each = seconds / prompts
            self.row_seconds = (self.row_seconds + each) / 2 if self.row_seconds else each
