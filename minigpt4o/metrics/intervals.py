"""How sure a score is: seeded bootstrap intervals, and how sure the difference of two runs on the same samples."""

# N samples, R resamplings, K sums of a corpus metric

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minigpt4o.metrics.result import Measured

_BLOCK = 4_000_000  # numbers drawn at a time; bounds the memory
_EXACT = 10_000  # differences between two runs up to which all their signs are counted out


UNDEFINED = "undefined, there is nothing to divide by"


@dataclass(frozen=True)
class Interval:
    """A value with the bounds that hold it at `level`."""

    value: float
    low: float
    high: float
    n: int
    method: str


def bootstrap(
    values: Sequence[float], rounds: int = 1000, seed: int = 0, level: float = 0.95, groups: Sequence[str] = ()
) -> Interval:
    """Percentile bootstrap of the mean of N values; samples of one group (one picture's questions) are drawn together.

    Where all values are 0 or all are 1, resampling would claim certainty; Wilson's interval stands in.
    """
    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 0, "no samples")
    value = float(data.mean())
    if data.min() == data.max() and value in (0.0, 1.0):
        return _wilson(value, n, level)
    drawn, how = _grouped(np.stack([data, np.ones(n)], axis=1), groups)
    sums = _resampled_sums(drawn, rounds, seed)
    return Interval(value, *_bounds(sums[:, 0] / sums[:, 1], level), n, f"bootstrap{how}, {rounds} rounds, seed {seed}")


def bootstrap_corpus(
    statistics: Sequence[Sequence[float]],
    score: Callable[[Sequence[float]], float],
    rounds: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: Sequence[str] = (),
) -> Interval:
    """Percentile bootstrap of a metric of sums: `score` maps K summed statistics to the value (BLEU).

    A value that is not a number is none (the precision of yes where nobody says yes): of all samples it counts as 0
    with an interval of 0 to 1, and draws without a value are left out.
    """
    data = np.asarray(statistics, dtype=np.float64)
    if len(data) == 0:
        return Interval(0.0, 0.0, 1.0, 0, "no samples")
    value = score(data.sum(axis=0))
    if math.isnan(value):
        return Interval(0.0, 0.0, 1.0, len(data), f"{UNDEFINED}: 0 stands for it")
    drawn, how = _grouped(data, groups)
    values = np.array([score(row) for row in _resampled_sums(drawn, rounds, seed)])
    method = f"bootstrap{how}, {rounds} rounds, seed {seed}{_left_out(values)}"
    return Interval(value, *_bounds(values, level), len(data), method)


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    rounds: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: Sequence[str] = (),
) -> Interval:
    """Bootstrap of mean(first) - mean(second) where both scored the same N samples in the same order."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    assert a.shape == b.shape, f"paired scores must match: {a.shape} and {b.shape}"
    if len(a) == 0:
        return Interval(0.0, -1.0, 1.0, 0, "no samples")
    difference = a - b
    drawn, how = _grouped(np.stack([difference, np.ones(len(a))], axis=1), groups)
    sums = _resampled_sums(drawn, rounds, seed)
    method = f"paired bootstrap{how}, {rounds} rounds, seed {seed}"
    return Interval(float(difference.mean()), *_bounds(sums[:, 0] / sums[:, 1], level), len(a), method)


def paired(first: Measured, second: Measured, rounds: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Bootstrap of first - second where both measured the same N samples; corpus metrics are computed anew each round.

    Both runs are resampled with the same draws, so what makes a sample hard for both cancels out.
    """
    groups = shared_groups(first, second)
    if first.corpus is None or second.corpus is None:
        return paired_difference(first.each, second.each, rounds, seed, level, groups)
    a, b = (np.asarray(one.statistics, dtype=np.float64) for one in (first, second))
    assert len(a) == len(b), f"paired scores must match: {len(a)} and {len(b)} samples"
    if len(a) == 0:
        return Interval(0.0, -1.0, 1.0, 0, "no samples")
    cut = a.shape[1]
    both, how = _grouped(np.concatenate([a, b], axis=1), groups)
    drawn = _resampled_sums(both, rounds, seed)
    values = np.array([first.corpus(row[:cut]) - second.corpus(row[cut:]) for row in drawn])
    value = first.corpus(a.sum(axis=0)) - second.corpus(b.sum(axis=0))
    if math.isnan(value):
        return Interval(
            first.value - second.value, -1.0, 1.0, len(a), f"{UNDEFINED} in one of the two: 0 stands for it"
        )
    method = f"paired bootstrap{how}, {rounds} rounds, seed {seed}{_left_out(values)}"
    return Interval(float(value), *_bounds(values, level), len(a), method)


def shared_groups(first: Measured, second: Measured) -> list[str]:
    """What the samples of two runs share: by the run that knows more of it (a blind one has no pictures)."""
    return first.groups if len(set(first.groups)) < len(set(second.groups)) else second.groups


@dataclass(frozen=True)
class McNemar:
    """Exact test of two runs' right and wrong answers on the same samples."""

    only_first: int  # right in the first run alone
    only_second: int
    p: float  # chance of a difference at least this large, either way, if neither run were better
    n: int
    method: str = "McNemar, exact binomial, two-sided"


def mcnemar(first: Sequence[float], second: Sequence[float], right: float = 0.5, groups: Sequence[str] = ()) -> McNemar:
    """McNemar's exact test (1947); a sample is right where its score is above `right`.

    Only the samples on which the runs disagree count: under no difference each is a coin's toss. Samples of one group
    (one picture's questions) are no tosses of their own: there each group is tossed as a whole, with what one run has
    more right in it than the other. With groups of one that is McNemar's test; with larger ones it is the exact
    counterpart of its corrections for clusters by Obuchowski (1998) and Durkalski (2003), which are normal
    approximations.
    """
    assert len(first) == len(second), f"paired scores must match: {len(first)} and {len(second)} samples"
    pairs = np.array([first, second], dtype=np.float64) > right  # (2, N)
    better = pairs[0].astype(np.int64) - pairs[1]
    alone, other = int((better > 0).sum()), int((better < 0).sum())
    sums, how = _grouped(better[:, None].astype(np.float64), groups)
    if not how:
        return McNemar(alone, other, _two_sided(min(alone, other), alone + other), len(better))
    method = f"McNemar, exact, two-sided, tosses{how}"
    return McNemar(alone, other, _sign_flips(sums[:, 0].astype(np.int64)), len(better), method)


def _two_sided(fewer: int, tosses: int) -> float:
    """Chance of at most `fewer` or at least tosses - fewer heads of a fair coin."""
    if 2 * fewer >= tosses:
        return 1.0
    return min(1.0, 2 * float(_heads(tosses)[: fewer + 1].sum()))


def _heads(tosses: int) -> np.ndarray:
    """(tosses + 1,) the chance of each number of heads."""
    logs = np.array([math.lgamma(k + 1) for k in range(tosses + 1)])
    return np.exp(logs[-1] - logs - logs[::-1] - tosses * math.log(2))


def _sign_flips(differences: np.ndarray) -> float:
    """Chance that the differences' sum is as far from 0 as it is, if each had either sign with equal chance."""
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    total = int(sizes @ counts)
    far = abs(int(differences.sum()))
    if total > _EXACT:  # by the central limit theorem
        spread = math.sqrt(float((sizes.astype(np.float64) ** 2) @ counts))
        return math.erfc(far / spread / math.sqrt(2))
    chances = np.ones(1)  # of each sum of those that come up positive
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spaced = np.zeros(size * count + 1)
        spaced[::size] = _heads(count)
        chances = np.convolve(chances, spaced)
    sums = 2 * np.arange(total + 1) - total
    return min(1.0, float(chances[np.abs(sums) >= far].sum()))


def _grouped(data: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, str]:
    """(G, K) sums of the rows of each group, and what is drawn, in words; the rows if no two, or all, share one."""
    places: dict[str, int] = {}
    owners = [places.setdefault(name, len(places)) for name in groups]
    if not 1 < len(places) < len(data):
        return data, ""
    sums = np.zeros((len(places), data.shape[1]))
    np.add.at(sums, owners, data)
    return sums, f" of {len(places)} groups that share their media"


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


def _left_out(values: np.ndarray) -> str:
    undefined = int(np.isnan(values).sum())
    return f", {undefined} without a value left out" if undefined else ""


def _bounds(values: np.ndarray, level: float) -> tuple[float, float]:
    values = values[~np.isnan(values)]
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
