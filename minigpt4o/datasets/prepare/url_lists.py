"""Lists of picture URLs with captions as their publishers give them -> the table that img2dataset reads.

BLIP: one JSON list of `{"url", "caption"}` of gigabytes. Conceptual Captions: two columns without names, in either
order. Memory does not grow with the list.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.datasets.prepare.canonical import Tally
from minigpt4o.datasets.prepare.json_stream import BrokenJson, JsonList
from minigpt4o.datasets.prepare.writing import whole_file

COLUMNS = ("url", "caption")
_SCHEMES = ("http://", "https://")


def write_url_table(path: Path, out: Path, tally: Tally) -> BrokenJson | None:
    """Write `out` with the columns url, caption; one row, one line. Returns what was wrong with the end, if anything.

    Raises BrokenJson if nothing at all could be read.
    """
    broken = None
    with whole_file(out) as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(COLUMNS)
        try:
            for row in _json_rows(path) if path.suffix.lower() == ".json" else _table_rows(path):
                if isinstance(row, SkipSample):
                    tally.lose(row.reason, row.detail)
                else:
                    table.writerow(row)
                    tally.written += 1
        except BrokenJson as error:
            if not tally.written:
                raise
            broken = error
    return broken


def _json_rows(path: Path) -> Iterator[tuple[str, str] | SkipSample]:
    for number, row in enumerate(JsonList(path), start=1):
        known = row if isinstance(row, dict) else {}
        yield _pair(known.get("url"), known.get("caption"), f"{path} element {number}")


def _table_rows(path: Path) -> Iterator[tuple[str, str] | SkipSample]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        for number, line in enumerate(file, start=1):
            cells = line.rstrip("\r\n").split("\t")
            if number == 1 and set(COLUMNS) <= set(cells):
                continue
            url = next((cell for cell in cells if cell.startswith(_SCHEMES)), None)
            words = next((cell for cell in cells if cell != url and cell.strip()), None)
            yield _pair(url, words, f"{path} line {number}")


def _pair(url: Any, caption: Any, where: str) -> tuple[str, str] | SkipSample:
    if isinstance(url, str) and isinstance(caption, str) and url.strip() and caption.strip():
        return " ".join(url.split()), " ".join(caption.split())
    return SkipSample("missing_field", f"{where}: no url with a caption")


def is_url_table(path: Path) -> bool:
    """A .tsv whose first line has two cells without names, one of them a URL."""
    if path.suffix.lower() != ".tsv":
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        cells = file.readline().rstrip("\r\n").split("\t")
    return len(cells) == 2 and any(cell.startswith(_SCHEMES) for cell in cells)
