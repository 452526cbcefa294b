"""Annotation rows of one data set and split with the media they name: what all row-shaped builders stand on."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.conversation.sample import Media, MediaKind
from minigpt4o.datasets.base import check_fields
from minigpt4o.datasets.media import MediaFinder
from minigpt4o.datasets.splits import SplitConfig, chosen, fold_of, split_files, wanted_folds
from minigpt4o.datasets.tables.cache import KEPT_FROM, Arrays, derived
from minigpt4o.datasets.tables.groups import Groups, Ids, laid_together, times_seen
from minigpt4o.datasets.tables.rows import Row, Rows, read_rows
from minigpt4o.datasets.tables.store import hash64


class TableConfig(SplitConfig, Protocol):
    """The fields that row-shaped builders share."""

    fields: dict[str, str]
    media_root: str
    image_template: str
    audio_template: str
    rows: str
    keep: list[str]
    language: str
    split_field: str
    split_names: dict[str, str]
    fold_by: str


PROBED = 64  # rows whose media are looked for before anything is learned
FEWEST_PROBED = 10  # of fewer rows nothing can be said; each is skipped and counted when its turn comes
Reader = Callable[[Sequence[Path], str], tuple[Rows, str]]


class Table:
    """Groups of rows (mostly of one row each), each with an id that is unique in its data set.

    Nothing is held but numbers: rows are parsed, and ids made, when they are asked for.
    """

    def __init__(
        self,
        config: TableConfig,
        name: str,
        split: str,
        known_fields: Sequence[str],
        group: Callable[[Row], str] | None = None,
        read: Reader = read_rows,
    ) -> None:
        """Rows with an equal `group` are laid together; `read` makes rows of files that are not simply lists."""
        self.config, self.name, self.split = config, name, split
        check_fields(config.fields, known_fields, f"datasets.{name}.fields")
        self.finders: dict[MediaKind, MediaFinder] = {
            "image": MediaFinder(config.media_root, config.image_template),
            "audio": MediaFinder(config.media_root, config.audio_template),
        }
        self.finders["image"].check_root(name)
        files = split_files(config, split, name)
        self.rows, self._digest = read(files, config.rows)
        self._group = group
        wish = json.dumps(asdict(config), sort_keys=True, default=str)  # type: ignore[call-overload]
        self._owner = (type(config).__qualname__, split, wish, *files)
        plan = self._kept("plan", self._plan)
        self.groups = Groups(self.rows, plan["numbers"], plan.get("starts"))
        self.ids = Ids(self.groups, self._id, plan.get("times"))
        self._probe()

    def __len__(self) -> int:
        return len(self.groups)

    def row(self, index: int) -> Row:
        """The row at an index, or the first of its group. Raises SkipSample if it could not be read."""
        row = self.groups.first(index)
        row.check()
        return row

    def size_hint(self, index: int) -> int:
        """Bytes of the rows of a sample where they are stored; it grows with the length of their texts."""
        return self.groups.size(index)

    def modality(self, index: int) -> str:
        """`image`, `audio`, `image+audio` or `text`: the media that the configuration names and the row has."""
        row = self.groups.first(index)
        found = []
        for kind, finder in self.finders.items():
            named = kind in self.config.fields and (bool(row.problem) or row.has(self.column(kind)))
            if finder.template or named:
                found.append(kind)
        return "+".join(found) or "text"

    def column(self, name: str) -> str:
        """The user's column for our field name."""
        return self.config.fields.get(name, name)

    def media(self, row: Row, kind: MediaKind) -> list[Media]:
        """The row's pictures or sounds; none if the configuration names no column for them."""
        finder = self.finders[kind]
        return finder.of_row(row, self.column(kind)) if finder.template or kind in self.config.fields else []

    def common(self, index: int) -> dict[str, Any]:
        """The `Sample` fields that do not depend on the shape."""
        row = self.groups.first(index)
        return {
            "id": self.ids[index],
            "language": str(row.values.get(self.column("language"), self.config.language)),
            "dataset": self.name,
            "where": row.where,
            "meta": {c: row.get(c) for c in self.config.keep if row.has(c)},
        }

    def fingerprint(self) -> str:
        """SHA-256 of the annotation files and of the choice of rows."""
        return self._kept("fingerprint", self._fingerprint)["sha256"].tobytes().hex()

    def _fingerprint(self) -> Arrays:
        words = (self._digest, self.split, sorted(self.config.fields.items()), len(self))
        digest = hashlib.sha256()
        for word in chain(words, self.ids):
            digest.update(str(word).encode("utf-8", "surrogatepass") + b"\x1f")
        return {"sha256": np.frombuffer(digest.digest(), np.uint8)}

    def _kept(self, what: str, make: Callable[[], Arrays]) -> Arrays:
        """What is found out by looking at every row is kept on disk where the rows are many."""
        return derived((what, *self._owner), (self._digest,), make, len(self.rows) >= KEPT_FROM)

    def _plan(self) -> Arrays:
        """`numbers` of the rows of this split, `starts` of their groups in it, `times` each id was seen."""
        config, together = self.config, None
        if config.folds >= 2:
            wanted_folds(config, self.split, self.name)  # what is wrong with them is told before a long search
        if not (config.split_field or self._group or config.folds >= 2):
            numbers = chosen(len(self.rows), lambda: _NONE, set, config, self.split, self.name)
            hashes = self._hashes(numbers)
            return _plan_of(numbers, None, times_seen(hashes))
        numbers, keys, folds, hashes = self._look()
        places = np.arange(len(numbers))  # of the first row of each group
        if self._group:
            together = laid_together(keys)
            places = np.unique(together, return_index=True)[1]
        kept = chosen(
            len(places), lambda: folds[places], lambda: self._fold_keys(numbers[places]), config, self.split, self.name
        )
        times = times_seen(hashes[places[kept]])
        if together is None:
            return _plan_of(numbers[kept], None, times)
        counts = np.bincount(together, minlength=len(places))
        order = np.argsort(together, kind="stable")
        order = order[np.isin(together[order], kept)]
        return _plan_of(numbers[order], np.concatenate([[0], np.cumsum(counts[kept])]), times)

    def _look(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(numbers of the rows that the column of splits gives us, hashes of their groups, folds, hashes of ids)."""
        config = self.config
        numbers, keys, folds, hashes = array("q"), array("Q"), array("q"), array("Q")
        wanted = config.split_names.get(self.split, self.split)
        for number, row in enumerate(self.rows):
            if config.split_field and not (row.problem or fnmatchcase(_said(row, config.split_field), wanted)):
                continue
            numbers.append(number)
            hashes.append(hash64(self._id(row)))
            if self._group:
                keys.append(hash64(self._group(row)))
            if config.folds >= 2:
                folds.append(fold_of(self._fold_key(row), config.folds))
        kinds = ((numbers, np.int64), (keys, np.uint64), (folds, np.int64), (hashes, np.uint64))
        one, two, three, four = (np.frombuffer(held, kind) for held, kind in kinds)
        return one, two, three, four

    def _hashes(self, numbers: np.ndarray) -> np.ndarray:
        found = (hash64(self._id(row)) for row in Groups(self.rows, numbers).firsts())
        return np.fromiter(found, np.uint64, len(numbers))

    def _fold_keys(self, numbers: np.ndarray) -> set[str]:
        return {str(self._fold_key(self.rows[number])) for number in numbers.tolist()}

    def _probe(self) -> None:
        """Raises DataError if most media are missing: the folder is wrong, and every sample would be skipped."""
        count = min(len(self.groups), PROBED)
        lost = []
        for i in range(count):
            row = self.groups.first(i * len(self.groups) // count)
            try:
                for kind in self.finders:
                    self.media(row, kind)
            except SkipSample as skip:
                if skip.reason == "missing_file":
                    lost.append(skip.detail)
        if count >= FEWEST_PROBED and 2 * len(lost) > count:
            root = self.finders["image"].root
            inside = ", ".join(sorted(p.name + "/" * p.is_dir() for p in list(root.iterdir())[:5])) or "nothing"
            raise DataError(
                f"datasets.{self.name}: {len(lost)} of {count} media looked for are missing, the first: {lost[0]}. "
                f"media_root {str(root)!r} (looked from {Path.cwd()}) holds {inside}, ...; "
                f"set media_root, or image_template (`train/{{image}}`)"
            )

    def _fold_key(self, row: Row) -> object:
        """What must not be divided between splits: by default the first medium that the row names."""
        if row.problem:
            return f"{Path(row.file).name} row {row.number}"  # wherever the file lies
        if self.config.fold_by:
            return row.get(self.config.fold_by)
        template = self.config.image_template or self.config.audio_template
        if template:
            return row.fill(template.split("|")[0])
        for kind in ("image", "audio"):
            if row.has(self.column(kind)):
                return row.columns(self.column(kind))[0]
        return f"{Path(row.file).name} row {row.number}"  # wherever the file lies

    def _id(self, row: Row) -> str:
        column = self.column("id")
        value = row.values.get(column)
        if value and isinstance(value, str | int):  # the usual case; the rest is rare and slow
            return str(value)
        absent = row.problem or (value is None and column.isidentifier())
        if not absent and row.has(column):
            return str(row.get(column))
        return f"{row.file.rpartition('/')[2]}:{row.number}"


def _said(row: Row, columns: str) -> str:
    """What a row's column says of its split; of several columns, parted by commas, what they say: `test, image.png`."""
    return ", ".join(str(row.values.get(column.strip())) for column in columns.split(","))


_NONE = np.empty(0, np.int64)


def _plan_of(numbers: np.ndarray, starts: np.ndarray | None, times: np.ndarray | None) -> Arrays:
    given = {"numbers": numbers, "starts": starts, "times": times}
    return {name: array for name, array in given.items() if array is not None}
