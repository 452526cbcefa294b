"""Layouts of published benchmarks: JSON lines of another name (POPE), questions beside descriptions (LLaVA-Bench)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from minigpt4o.common.errors import DataError
from minigpt4o.datasets.base import sha256
from minigpt4o.datasets.tables.files import LinesFile
from minigpt4o.datasets.tables.lines import scan_jsonl
from minigpt4o.datasets.tables.row import Row
from minigpt4o.datasets.tables.rows import read_rows
from minigpt4o.datasets.tables.store import Chained, Changed, KeyIndex, Rows

Found = tuple[Rows, str]
CONTEXT = "context.jsonl"  # what the pictures show, beside the questions


def lines(files: Sequence[Path], list_key: str) -> Found:
    """One JSON object in each line, however the file's name ends: POPE's are called .json."""
    parts: list[Rows] = []
    digests: list[str] = []
    for file in files:
        try:
            arrays, stat = scan_jsonl(file), file.stat()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}); annotations must name a file") from error
        parts.append(LinesFile(file, arrays, stat))
        digests.append(arrays["digest"].tobytes().hex())
    return (parts[0] if len(parts) == 1 else Chained(parts)), sha256(*digests)


def llava_bench(files: Sequence[Path], list_key: str) -> Found:
    """Questions with `caption`, what their picture shows in words, from the context.jsonl in the same folder."""
    parts: list[Rows] = []
    digests: list[str] = []
    for file in files:
        beside = file.parent / CONTEXT
        if not beside.is_file():
            raise DataError(f"{file}: needs {CONTEXT} in the same folder ({file.parent}), and there is none")
        questions, digest = read_rows([file], list_key)
        context, other = read_rows([beside])
        index = KeyIndex(context, other, _image, "context image")
        parts.append(Changed(questions, partial(_with_caption, index)))
        digests += [digest, other]
    return Chained(parts), sha256(*digests)


def _image(row: Row) -> str | None:
    return json.dumps(row.values["image"], default=str) if "image" in row.values else None


def _with_caption(index: KeyIndex, row: Row) -> Row:
    if row.problem:
        return row
    found = index.find(_image(row) or "")
    if found is None:
        lost = f"picture {row.values.get('image')!r} is not in {CONTEXT}"
        return Row(row.values, row.file, row.number, lost)
    return Row({**row.values, "caption": found.values.get("caption", "")}, row.file, row.number)
