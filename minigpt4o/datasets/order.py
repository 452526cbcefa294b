"""Which sample stands at a position: pure functions of (seed, pass, position), with no state and no list in memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

Order = Callable[[object, int], Callable[[int], int]]  # (seed, epoch) -> turn -> index

_MASK = (1 << 64) - 1
_ROUNDS = 4  # of the permutation; four make a Feistel network look random
_LONGEST_BLOCK = 10_000  # of a mixture; ratios finer than one in this many are rounded


def derive(*words: object) -> int:
    """A 64-bit seed from any words: equal words give an equal seed, on every machine and in every process."""
    text = "\x1f".join(map(str, words)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _mix(value: int) -> int:
    """The splitmix64 finaliser: every bit of the answer depends on every bit of the value."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def permute(seed: object, epoch: int, n: int) -> Callable[[int], int]:
    """A permutation of range(n) as a function; it costs no memory, whatever n is.

    A Feistel network over the pairs (i // columns, i % columns); the few pairs beyond n are walked through.
    """
    if n < 1:
        raise ValueError(f"a permutation needs at least one element, not {n}")
    if n == 1:
        return lambda i: 0
    columns = math.isqrt(n - 1) + 1
    lines = -(-n // columns)
    words = [derive("permute", seed, epoch, n, r) for r in range(2 * _ROUNDS)]
    keys = list(zip(words[::2], words[1::2], strict=True))

    def once(i: int) -> int:
        line, column = divmod(i, columns)
        for first, second in keys:
            line = (line + _mix(first ^ column)) % lines
            column = (column + _mix(second ^ line)) % columns
        return line * columns + column

    def at(i: int) -> int:
        if not 0 <= i < n:
            raise IndexError(f"{i} is outside range({n})")
        i = once(i)
        while i >= n:
            i = once(i)
        return i

    return at


def draw(seed: object, epoch: int, n: int) -> Callable[[int], int]:
    """An independent draw from range(n) for every turn: with replacement."""
    key = derive("draw", seed, epoch, n)
    return lambda turn: _mix(_mix(turn) ^ key) % n


@dataclass(frozen=True)
class Place:
    """What stands at one position of a mixture."""

    dataset: str
    epoch: int  # how many times the data set has been gone through before
    turn: int  # place in the order of this pass
    index: int  # index into the data set


class MixtureSchedule:
    """Position -> sample, for several data sets in fixed proportions.

    Positions come in blocks that hold every data set in exact proportion, shuffled inside; so the count of any data set
    before any block is known without counting, and each goes through all its samples before it repeats one. Only in the
    block in which a pass ends may samples of the next pass come before the last of this one.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        ratios: Mapping[str, float],
        seed: int,
        *,
        orders: Mapping[str, Order | None] | None = None,
        replacement: Collection[str] = (),
    ) -> None:
        """`orders`: a data set's own order, if it has one; `replacement`: the sets that draw with replacement."""
        empty = [name for name, size in sizes.items() if size < 1]
        assert not empty, f"empty data sets cannot be mixed: {empty}"
        self.sizes = dict(sizes)
        self.seed = seed
        own = {name: order for name, order in (orders or {}).items() if order is not None}
        self._makers: dict[str, Order] = {
            name: partial(draw, n=size) if name in replacement else own.get(name) or partial(permute, n=size)
            for name, size in self.sizes.items()
        }
        self.shares = block_shares({name: ratios[name] for name in sizes})
        self.block = sum(self.shares.values())
        self._orders: dict[tuple[str, int], Callable[[int], int]] = {}
        self._block_order: tuple[int, Callable[[int], int]] = (-1, lambda i: i)

    def at(self, position: int) -> Place:
        """The sample at a position; positions have no end."""
        number, offset = divmod(position, self.block)
        if self._block_order[0] != number:
            self._block_order = number, permute(f"{self.seed}/mixture", number, self.block)
        slot = self._block_order[1](offset)
        for name, share in self.shares.items():
            if slot < share:
                epoch, turn = divmod(number * share + slot, self.sizes[name])
                return Place(name, epoch, turn, self.index(name, epoch, turn))
            slot -= share
        raise AssertionError("shares do not add up to the block")

    def index(self, name: str, epoch: int, turn: int) -> int:
        """Index of the sample that data set `name` gives as its `turn`-th of pass `epoch`."""
        key = (name, epoch)
        if key not in self._orders:
            if len(self._orders) > 4 * len(self.sizes):  # only the passes in use are kept
                self._orders.clear()
            self._orders[key] = self._makers[name](f"{self.seed}/{name}", epoch)
        return self._orders[key](turn)


def block_shares(ratios: Mapping[str, float]) -> dict[str, int]:
    """How many places of a block each data set takes: the ratios as small whole numbers; zero ratios are left out."""
    bad = {name: ratio for name, ratio in ratios.items() if not (ratio >= 0 and math.isfinite(ratio))}
    if bad or not any(ratios.values()):
        raise ValueError(f"sample ratios must be numbers >= 0, not all zero; got {bad or dict(ratios)}")
    parts = {name: Fraction(str(ratio)) for name, ratio in ratios.items() if ratio > 0}
    common = math.lcm(*(part.denominator for part in parts.values()))
    shares = {name: int(part * common) for name, part in parts.items()}
    divisor = math.gcd(*shares.values())
    shares = {name: share // divisor for name, share in shares.items()}
    total = sum(shares.values())
    if total <= _LONGEST_BLOCK:
        return shares
    return {name: max(1, round(share * _LONGEST_BLOCK / total)) for name, share in shares.items()}
