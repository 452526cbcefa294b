"""Read annotation rows from json, jsonl, csv, tsv, parquet and saved `datasets` folders, each row when it is asked for.

A broken row keeps its place and says what is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from minigpt4o.common.errors import DataError
from minigpt4o.datasets.tables.arrow import arrow_rows
from minigpt4o.datasets.tables.cache import KEPT_FROM, derived
from minigpt4o.datasets.tables.files import LINES, TABLES, file_rows
from minigpt4o.datasets.tables.row import Row, pick
from minigpt4o.datasets.tables.store import Chained, Parted, Rows, stored

__all__ = ["Row", "Rows", "pick", "read_rows", "unfold"]

TEXTS = (".json", *LINES, *TABLES)


def read_rows(files: Sequence[Path], list_key: str = "") -> tuple[Rows, str]:
    """All rows of all files in order, and the SHA-256 of what the files hold."""
    digest = hashlib.sha256()
    parts: list[Rows] = []
    for file in files:
        suffix = file.suffix.lower()
        if suffix == ".parquet" or file.is_dir():
            rows, one = arrow_rows(file, list_key)
        elif suffix in TEXTS:
            rows, one = file_rows(file, list_key)
        else:
            raise DataError(
                f"{file}: annotation files end in .json, .jsonl, .csv or .tsv, or .parquet, not {suffix or 'nothing'!r}"
            )
        digest.update(one)
        parts.append(rows)
    return (parts[0] if len(parts) == 1 else Chained(parts)), digest.hexdigest()


def unfold(rows: Sequence[Row], columns: Sequence[str], digest: str = "") -> Rows:
    """A row for each place of lists of equal length that stand side by side in it.

    `digest` tells what the rows are, so that their lengths can be kept; without one they are counted every time.
    """
    whole = stored(rows)

    def counted() -> dict[str, np.ndarray]:
        found = (_length(row, columns) for row in whole)
        return {"counts": np.fromiter((1 if problem else count for count, problem in found), np.int32, len(whole))}

    keep = bool(digest) and len(whole) >= KEPT_FROM
    counts = derived(("unfold", digest, *columns), (), counted, keep)["counts"]
    return Parted(whole, counts, partial(_at_place, tuple(columns)))


def _length(row: Row, columns: Sequence[str]) -> tuple[int, str]:
    """(how many places the lists have, what is wrong with them)."""
    lists = [row.values.get(column) for column in columns]
    lengths = {len(one) if isinstance(one, list) else -1 for one in lists}
    if row.problem or len(lengths) != 1 or -1 in lengths:
        return 0, row.problem or f"{', '.join(columns)} are not lists of equal length"
    return lengths.pop(), ""


def _at_place(columns: Sequence[str], row: Row, place: int) -> Row:
    _, problem = _length(row, columns)
    if problem:
        return Row(row.values, row.file, row.number, problem, row.reason)
    return Row({**row.values, **{column: row.values[column][place] for column in columns}}, row.file, row.number)
