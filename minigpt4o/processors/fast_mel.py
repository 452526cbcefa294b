"""Mel spectrum of a sound in pieces that stay in the processor's cache, without the zeros of the mel filters."""

# F windows, N points of the Fourier transform, K mel bins

from __future__ import annotations

from dataclasses import dataclass

import torch

_PIECE = 1 << 17  # points that are transformed at a time: half a megabyte
_TOGETHER = 16  # mel bins that are summed together: as many as a matrix product needs to be fast, and no more


@dataclass(frozen=True)
class Filters:
    """Mel filters for neighbouring bins, each group without the frequencies that none of them hears."""

    groups: list[tuple[int, int, torch.Tensor]]  # (first frequency, behind the last, (their number, bins))

    @classmethod
    def of(cls, whole: torch.Tensor) -> Filters:
        """From (N // 2 + 1, K)."""
        groups = []
        for part in whole.split(_TOGETHER, 1):
            heard = part.any(1).nonzero()[:, 0].tolist() or [0]
            first, end = heard[0], heard[-1] + 1
            groups.append((first, end, part[first:end].contiguous()))
        return cls(groups)

    def __call__(self, power: torch.Tensor) -> torch.Tensor:
        """(F, N // 2 + 1) -> (F, K)."""
        return torch.cat([power[:, first:end] @ taps for first, end, taps in self.groups], 1)


def mel_power(sound: torch.Tensor, window: torch.Tensor, n_fft: int, hop: int, filters: Filters) -> torch.Tensor:
    """(F * hop,) samples -> (F, K): power of the windows around every `hop` samples, silence beyond both ends.

    The same numbers as by torch.stft, `abs`, `square` and one product with all filters, but for rounding.
    """
    gap = n_fft - len(window)
    window = torch.nn.functional.pad(window, (gap // 2, gap - gap // 2))
    frames = torch.nn.functional.pad(sound, (n_fft // 2, n_fft - n_fft // 2)).unfold(0, n_fft, hop)
    count = len(sound) // hop
    made = []
    for piece in frames[:count].split(max(1, _PIECE // n_fft)):
        squares = torch.view_as_real(torch.fft.rfft(piece * window)).square_()
        made.append(filters(squares[..., 0] + squares[..., 1]))
    return torch.cat(made)
