"""Bring a wave from one rate to another by filters made once for each pair of rates, and bounded in size."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torchaudio.transforms import Resample

_TAPS = 1 << 20  # numbers of one filter bank at most: 4 MiB
_DENOMINATORS = (2000, 1000, 500, 250, 100, 50, 20, 10, 5, 2, 1)


def resample(wave: torch.Tensor, rate: int, wanted: int) -> torch.Tensor:
    """(samples,) float32 at `rate` samples per second -> the same sound at `wanted`; torchaudio's, number for number.

    A bank of filters grows with the product of the two rates over their common divisor: gigabytes for 44,101 to
    16,000. Such a ratio is replaced by the nearest simpler one; pitch and length change by less than 1 in 10,000.
    """
    if rate == wanted:
        return wave
    found: torch.Tensor = _filters(*simple_ratio(rate, wanted))(wave)
    return found


def simple_ratio(rate: int, wanted: int) -> tuple[int, int]:
    """The ratio of two rates in small whole numbers; exact wherever its filters are affordable."""
    exact = Fraction(rate, wanted)
    ratio = next(
        near
        for near in (exact, *(exact.limit_denominator(most) for most in _DENOMINATORS))
        if near > 0 and near.numerator * near.denominator <= _TAPS
    )
    return ratio.numerator, ratio.denominator


@lru_cache(maxsize=32)
def _filters(rate: int, wanted: int) -> Resample:
    from torchaudio.transforms import Resample

    return Resample(rate, wanted, dtype=torch.float32)
