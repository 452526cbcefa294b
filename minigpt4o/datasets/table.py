"""Annotation rows of one data set and split with the media they name: what all row-shaped builders stand on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.conversation.sample import Media, MediaKind
from minigpt4o.datasets.base import check_fields, sha256, unique_ids
from minigpt4o.datasets.media import MediaFinder
from minigpt4o.datasets.rows import Row, read_rows
from minigpt4o.datasets.splits import SplitConfig, carve, split_files


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
Reader = Callable[[Sequence[Path], str], tuple[list[Row], str]]


class Table:
    """Groups of rows (mostly of one row each), each with an id that is unique in its data set."""

    def __init__(
        self,
        config: TableConfig,
        name: str,
        split: str,
        known_fields: Sequence[str],
        group: Callable[[list[Row]], list[list[Row]]] | None = None,
        read: Reader = read_rows,
    ) -> None:
        """`group` lays rows together; `read` makes rows of files that are not simply lists of them."""
        self.config, self.name, self.split = config, name, split
        check_fields(config.fields, known_fields, f"datasets.{name}.fields")
        self.finders: dict[MediaKind, MediaFinder] = {
            "image": MediaFinder(config.media_root, config.image_template),
            "audio": MediaFinder(config.media_root, config.audio_template),
        }
        self.finders["image"].check_root(name)
        rows, self._digest = read(split_files(config, split, name), config.rows)
        if config.split_field:
            wanted, column = config.split_names.get(split, split), config.split_field
            rows = [row for row in rows if row.problem or fnmatchcase(str(row.values.get(column)), wanted)]
        groups = group(rows) if group is not None else [[row] for row in rows]
        self.groups = carve(groups, lambda g: self._fold_key(g[0]), config, split, name)
        self.ids = unique_ids([self._id(g[0]) for g in self.groups])
        self._probe()

    def __len__(self) -> int:
        return len(self.groups)

    def row(self, index: int) -> Row:
        """The row at an index, or the first of its group. Raises SkipSample if it could not be read."""
        row = self.groups[index][0]
        row.check()
        return row

    def column(self, name: str) -> str:
        """The user's column for our field name."""
        return self.config.fields.get(name, name)

    def media(self, row: Row, kind: MediaKind) -> list[Media]:
        """The row's pictures or sounds; none if the configuration names no column for them."""
        finder = self.finders[kind]
        return finder.of_row(row, self.column(kind)) if finder.template or kind in self.config.fields else []

    def common(self, index: int) -> dict[str, Any]:
        """The `Sample` fields that do not depend on the shape."""
        row = self.groups[index][0]
        return {
            "id": self.ids[index],
            "language": str(row.values.get(self.column("language"), self.config.language)),
            "dataset": self.name,
            "where": row.where,
            "meta": {c: row.get(c) for c in self.config.keep if row.has(c)},
        }

    def fingerprint(self) -> str:
        """SHA-256 of the annotation files and of the choice of rows."""
        return sha256(self._digest, self.split, sorted(self.config.fields.items()), len(self), *self.ids)

    def _probe(self) -> None:
        """Raises DataError if most media are missing: the folder is wrong, and every sample would be skipped."""
        count = min(len(self.groups), PROBED)
        lost = []
        for i in range(count):
            row = self.groups[i * len(self.groups) // count][0]
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
            return row.where
        if self.config.fold_by:
            return row.get(self.config.fold_by)
        template = self.config.image_template or self.config.audio_template
        if template:
            return row.fill(template.split("|")[0])
        for kind in ("image", "audio"):
            if row.has(self.column(kind)):
                return row.columns(self.column(kind))[0]
        return row.where

    def _id(self, row: Row) -> str:
        if not row.problem and row.has(self.column("id")):
            return str(row.get(self.column("id")))
        return f"{row.file.rpartition('/')[2]}:{row.number}"
