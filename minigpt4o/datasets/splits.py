"""Which files and which rows belong to a split: file patterns, folds by a stable hash, thinning."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from minigpt4o.common.errors import DataError
from minigpt4o.common.source import nearest

ALL = "all"  # key of `annotations` from which every split may be carved
REMOTE = re.compile(r"^(pipe:|[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
T = TypeVar("T")


class SplitConfig(Protocol):
    """The fields that every builder has for choosing its samples."""

    annotations: dict[str, str]
    folds: int
    val_folds: list[int]
    test_folds: list[int]
    max_samples: int


def split_files(config: SplitConfig, split: str, name: str) -> list[Path]:
    """The files of a split, in order. Raises DataError if the split or a file is absent."""
    return [path for _, path in split_files_of(config.annotations, config, split, name)]


def split_files_of(patterns: Mapping[str, str], config: SplitConfig, split: str, name: str) -> list[tuple[str, Path]]:
    """(pattern it came from, file) for any mapping of splits to patterns."""
    key = split if split in patterns else ALL
    if key not in patterns:
        known = ", ".join(patterns) or "none"
        hint = nearest(split, patterns)
        raise DataError(
            f"datasets.{name}: there is no split {split!r}; annotations names: {known}."
            + (f" Did you mean {hint[0]!r}?" if hint else "")
            + f" Add `annotations: {{{split}: FILE}}`, or write `{ALL}: FILE` with `folds:` to carve it out of one file"
        )
    if key == ALL and config.folds < 2:
        raise DataError(
            f"datasets.{name}: annotations.{ALL} holds every split, so `folds` must say how to divide it "
            f"(for example folds: 10, val_folds: [1], test_folds: [0]); got folds: {config.folds}"
        )
    return [(pattern, path) for pattern in expand_braces(patterns[key]) for path in _matching(pattern, name)]


def expand_braces(pattern: str) -> list[str]:
    """`a{0..2}.tar` -> a0.tar a1.tar a2.tar; `{x,y}.json` -> x.json y.json; leading zeros are kept."""
    found = re.search(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if span:
        width = len(span[1]) if span[1].startswith("0") else 0
        words = [str(i).zfill(width) for i in range(int(span[1]), int(span[2]) + 1)]
    else:
        words = found[1].split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [rest for word in words for rest in expand_braces(before + word + after)]


def _matching(pattern: str, name: str) -> list[Path]:
    if REMOTE.match(pattern):
        raise DataError(f"datasets.{name}: {pattern!r} is not a local file; download it first and give its path")
    path = Path(pattern).expanduser()
    if path.exists():
        return [path]
    if any(c in pattern for c in "*?["):
        paths = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        if paths:
            return paths
        raise DataError(f"datasets.{name}: no file matches {pattern!r} (looked from {Path.cwd()})")
    near = nearest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else []
    hint = f"; did you mean {near[0]!r}?" if near else "" if path.parent.is_dir() else "; its folder is missing too"
    raise DataError(f"datasets.{name}: file {pattern!r} does not exist (looked from {Path.cwd()}){hint}")


def fold_of(group: object, folds: int) -> int:
    """The fold of a group (a picture, a speaker): the same on every machine, however the file is ordered."""
    digest = hashlib.blake2b(str(group).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % folds


def carve(items: Sequence[T], group: Callable[[T], object], config: SplitConfig, split: str, name: str) -> list[T]:
    """The items of a split: by folds if there are any, then thinned evenly to `max_samples`."""

    def folds() -> np.ndarray:
        return np.fromiter((fold_of(group(item), config.folds) for item in items), np.int64, len(items))

    kept = chosen(len(items), folds, lambda: {str(group(item)) for item in items}, config, split, name)
    return [items[place] for place in kept.tolist()]


def chosen(
    count: int,
    folds: Callable[[], np.ndarray],
    keys: Callable[[], set[str]],
    config: SplitConfig,
    split: str,
    name: str,
) -> np.ndarray:
    """Numbers of those of `count` items that belong to a split, thinned evenly to `max_samples`.

    `folds` gives the fold of each, `keys` what the folds were made of, for the error if none is left.
    """
    kept = np.arange(count)
    if config.folds >= 2:
        wanted = wanted_folds(config, split, name)
        kept = kept[np.isin(folds(), sorted(wanted))]
    if 0 < config.max_samples < len(kept):
        kept = kept[np.arange(config.max_samples) * len(kept) // config.max_samples]
    if not len(kept):
        raise DataError(
            f"datasets.{name}: split {split!r} holds no sample; the files hold {count}"
            + (_few_groups(keys(), config.folds) if config.folds >= 2 else "")
        )
    return kept


def _few_groups(groups: set[str], folds: int) -> str:
    """What to do about a fold that no group fell into."""
    where = ", ".join(f"{word!r} in {fold_of(word, folds)}" for word in sorted(groups)[:8])
    return f" in {len(groups)} group(s), of which none fell into its folds ({where}); choose other folds or fewer"


def wanted_folds(config: SplitConfig, split: str, name: str) -> set[int]:
    """The folds that make a split. Raises DataError if they cannot be told."""
    held = {"val": set(config.val_folds), "test": set(config.test_folds)}
    outside = sorted(f for f in held["val"] | held["test"] if not 0 <= f < config.folds)
    if outside:
        raise DataError(f"datasets.{name}: folds {outside} do not exist; there are 0 to {config.folds - 1}")
    both = held["val"] & held["test"]
    if both:
        raise DataError(f"datasets.{name}: folds {sorted(both)} stand in both val_folds and test_folds")
    if split == "train":
        return set(range(config.folds)) - held["val"] - held["test"]
    if not held.get(split):
        raise DataError(
            f"datasets.{name}: no fold is named for split {split!r}; known: train"
            + "".join(f", {s}" for s in held if held[s])
            + (f". Set {split}_folds" if split in held else "")
        )
    return held[split]
