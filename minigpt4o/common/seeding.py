"""Randomness as a pure function of its cause: the same words give the same draws in any process, on any machine."""

from __future__ import annotations

import hashlib
import random

Word = int | str | float | bool | None


def _digest(parts: tuple[Word, ...]) -> bytes:
    # The type is part of the text, so that 1, "1" and True differ; lengths keep ("ab", "c") and ("a", "bc") apart.
    words = [f"{type(part).__name__}:{part!r}" for part in parts]
    text = "".join(f"{len(word)}:{word};" for word in words)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def rng_for(*parts: Word) -> random.Random:
    """A generator that depends on `parts` alone, e.g. `rng_for(seed, "augment", position)`."""
    return random.Random(int.from_bytes(_digest(parts), "big"))


def torch_seed(*parts: Word) -> int:
    """A seed for `torch.Generator.manual_seed`, in [0, 2**63)."""
    return int.from_bytes(_digest(parts)[:8], "big") >> 1


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch (all devices)."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
