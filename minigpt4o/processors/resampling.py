"""Bring a wave from one rate to another by filters made once for each pair of rates, and bounded in size."""

# K taps of a filter as torchaudio stores it, most of them 0; W taps of PHASES filters without the zeros around them

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import gcd
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torchaudio.transforms import Resample

_TAPS = 1 << 20  # numbers of one filter bank at most: 4 MiB
_DENOMINATORS = (2000, 1000, 500, 250, 100, 50, 20, 10, 5, 2, 1)
_NOTHING = 1e-10  # a tap; the largest is near 1, and beyond its window torchaudio's filter is what rounding leaves of 0
PHASES = 16  # outputs that are made together: as many as a matrix product needs to be fast, and no more


def resample(wave: torch.Tensor, rate: int, wanted: int, fast: bool = False) -> torch.Tensor:
    """(samples,) float32 at `rate` samples per second -> the same sound at `wanted`; torchaudio's, number for number.

    torchaudio convolves with filters that are 0 for nine taps in ten (44,100 to 16,000). `fast` leaves those out: three
    to five times the speed, and sums taken in another order, which are at most 1e-6 of the loudest sample away.

    A bank of filters grows with the product of the two rates over their common divisor: gigabytes for 44,101 to 16,000.
    Such a ratio is replaced by the nearest simpler one; pitch and length change by less than 1 in 10,000.
    """
    if rate == wanted:
        return wave
    ratio = simple_ratio(rate, wanted)
    found: torch.Tensor = (_bank if fast else _filters)(*ratio)(wave)
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


@dataclass(frozen=True)
class Bank:
    """The filters from one rate to another: of every `stride` samples all of a row's outputs, block by block."""

    over: int  # the ratio of the rates
    under: int
    before: int  # zeros in front of the wave
    stride: int  # samples from one row of outputs to the next
    reach: int  # samples that the outputs of one row look at
    blocks: list[tuple[int, torch.Tensor]]  # (first sample of the row that is looked at, (W, PHASES) taps)

    def __call__(self, wave: torch.Tensor) -> torch.Tensor:
        """(samples,) -> (samples * under / over, rounded up,) float32."""
        length = -(-self.under * len(wave) // self.over)
        rows = -(-length // (PHASES * len(self.blocks)))
        behind = max(0, (rows - 1) * self.stride + self.reach - self.before - len(wave))
        padded = torch.nn.functional.pad(wave, (self.before, behind))
        made = [
            padded.as_strided((rows, len(taps)), (self.stride, 1), padded.storage_offset() + first) @ taps
            for first, taps in self.blocks
        ]
        return torch.cat(made, 1).flatten()[:length]


@lru_cache(maxsize=32)
def _filters(over: int, under: int) -> Resample:
    from torchaudio.transforms import Resample

    return Resample(over, under, dtype=torch.float32)


@lru_cache(maxsize=32)
def _bank(over: int, under: int) -> Bank:
    made = _filters(over, under)
    if over == under:  # 16,000 to 16,001: torchaudio has no filters, and nothing is done
        return Bank(1, 1, 0, PHASES, PHASES, [(0, torch.eye(PHASES))])
    taps = made.kernel[:, 0]  # (under, K)
    times = PHASES // gcd(under, PHASES)  # so often the filters are repeated, to fill whole blocks
    blocks = [_block(taps, range(start, start + PHASES), over, under) for start in range(0, under * times, PHASES)]
    return Bank(over, under, made.width, over * times, over * (times - 1) + taps.shape[1], blocks)


def _block(taps: torch.Tensor, outputs: range, over: int, under: int) -> tuple[int, torch.Tensor]:
    """Where some neighbouring outputs begin to look, and (W, PHASES) their taps without the zeros around them."""
    first = outputs[0] // under * over
    whole = torch.zeros(outputs[-1] // under * over - first + taps.shape[1], len(outputs))
    for column, output in enumerate(outputs):
        shift = output // under * over - first
        whole[shift : shift + taps.shape[1], column] = taps[output % under]
    used = (whole.abs() > _NOTHING).any(1).nonzero()[:, 0]
    begin, end = int(used[0]), int(used[-1]) + 1
    return first + begin, whole[begin:end].contiguous()
