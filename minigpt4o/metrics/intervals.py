"""How sure a score is: seeded bootstrap intervals, and the interval of a difference of two runs on the same samples."""

# N samples, R resamplings, K sums of a corpus metric

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_BLOCK = 4_000_000  # numbers drawn at a time; bounds the memory


@dataclass(frozen=True)
class Interval:
    """A value with the bounds that hold it at `level`."""

    value: float
    low: float
    high: float
    n: int
    method: str


def bootstrap(values: Sequence[float], rounds: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Percentile bootstrap of the mean of N values.

    Where all values are 0 or all are 1, resampling would claim certainty; Wilson's interval stands in.
    """
    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 0, "no samples")
    value = float(data.mean())
    if data.min() == data.max() and value in (0.0, 1.0):
        return _wilson(value, n, level)
    means = _resampled_sums(data[:, None], rounds, seed)[:, 0] / n
    return Interval(value, *_bounds(means, level), n, f"bootstrap, {rounds} rounds, seed {seed}")


def bootstrap_corpus(
    statistics: Sequence[Sequence[float]],
    score: Callable[[Sequence[float]], float],
    rounds: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap of a metric of sums: `score` maps K summed statistics to the value (BLEU)."""
    data = np.asarray(statistics, dtype=np.float64)
    if len(data) == 0:
        return Interval(0.0, 0.0, 1.0, 0, "no samples")
    values = np.array([score(row) for row in _resampled_sums(data, rounds, seed)])
    value = score(data.sum(axis=0))
    return Interval(value, *_bounds(values, level), len(data), f"bootstrap, {rounds} rounds, seed {seed}")


def paired_difference(
    first: Sequence[float], second: Sequence[float], rounds: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Bootstrap of mean(first) - mean(second) where both scored the same N samples in the same order."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    assert a.shape == b.shape, f"paired scores must match: {a.shape} and {b.shape}"
    if len(a) == 0:
        return Interval(0.0, -1.0, 1.0, 0, "no samples")
    difference = a - b
    means = _resampled_sums(difference[:, None], rounds, seed)[:, 0] / len(a)
    method = f"paired bootstrap, {rounds} rounds, seed {seed}"
    return Interval(float(difference.mean()), *_bounds(means, level), len(a), method)


def _resampled_sums(data: np.ndarray, rounds: int, seed: int) -> np.ndarray:
    """(R, K): column sums of R samples with replacement of the N rows."""
    rng = np.random.default_rng(seed)
    n, k = data.shape
    block = max(1, _BLOCK // (n * k))
    sums = []
    for start in range(0, rounds, block):
        drawn = rng.integers(0, n, size=(min(block, rounds - start), n))
        sums.append(data[drawn].sum(axis=1))
    return np.concatenate(sums) if sums else np.zeros((0, k))


def _bounds(values: np.ndarray, level: float) -> tuple[float, float]:
    if len(values) == 0:
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _wilson(value: float, n: int, level: float) -> Interval:
    # level 0.95 -> z 1.96: the quantile by bisection keeps scipy out
    z = _normal_quantile((1 + level) / 2)
    spread = z * z / (n + z * z)
    low, high = (1 - spread, 1.0) if value == 1.0 else (0.0, spread)
    return Interval(value, low, high, n, "Wilson (all samples agree)")


def _normal_quantile(p: float) -> float:
    low, high = -10.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 * (1 + math.erf(middle / math.sqrt(2))) < p else (low, middle)
    return (low + high) / 2
