"""Layouts of published sets of sounds: tables that lie beside folders, answers of several people, transcripts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from minigpt4o.common.errors import DataError
from minigpt4o.datasets.base import sha256
from minigpt4o.datasets.tables.files import StoredFile
from minigpt4o.datasets.tables.lines import scan_jsonl
from minigpt4o.datasets.tables.row import Row
from minigpt4o.datasets.tables.rows import read_rows
from minigpt4o.datasets.tables.store import Chained, Changed, Rows, hash64

PERSONAL = ("answer", "confidence")  # columns in which the rows of several people about one question differ
SOUNDS = (".flac", ".wav", ".mp3", ".ogg", ".opus")  # looked for beside a transcript, in this order
Found = tuple[Rows, str]


def located(files: Sequence[Path], list_key: str) -> Found:
    """Rows that also tell which file they stand in, as `table`: its folder, its stem, the stem's last _word.

    For sets whose media lie in folders named after the annotation file: Clotho's splits, WavCaps's sources.
    """
    parts: list[Rows] = []
    digests: list[str] = []
    for file in files:
        rows, digest = read_rows([file], list_key)
        told = {"folder": file.parent.name, "stem": file.stem, "word": file.stem.rpartition("_")[2]}
        parts.append(Changed(rows, partial(_with_table, told)))
        digests += [digest, *told.values()]
    return Chained(parts), sha256(*digests)


def _with_table(told: dict[str, str], row: Row) -> Row:
    return Row({**row.values, "table": told}, row.file, row.number, row.problem, row.reason)


def annotators(files: Sequence[Path], list_key: str) -> Found:
    """Rows that differ only in `answer` and `confidence` become one, with a list in each of the two (Clotho-AQA)."""
    rows, digest = read_rows(files, list_key)
    return Joined(rows), sha256(digest, "annotators")


class Joined(Rows):
    """Groups of rows as one row each, in the order in which the groups begin."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self._rows = rows
        group_of: dict[int, int] = {}
        groups = [group_of.setdefault(_question(row, i), len(group_of)) for i, row in enumerate(rows)]
        self._members = np.argsort(groups, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(groups, minlength=len(group_of)))]).astype(np.int64)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def _inside(self, index: int) -> list[int]:
        return [int(i) for i in self._members[self._starts[index] : self._starts[index + 1]]]

    def make(self, index: int) -> Row:
        rows = [self._rows.make(i) for i in self._inside(index)]
        first = rows[0]
        lists = {column: [row.values[column] for row in rows] for column in PERSONAL if column in first.values}
        return Row({**first.values, **lists}, first.file, first.number, first.problem, first.reason)

    def size(self, index: int) -> int:
        return self._rows.size(self._inside(index)[0])


def _question(row: Row, index: int) -> int:
    """What tells questions apart: all that is not personal. A row that cannot be read stands alone."""
    shared = [index] if row.problem else {k: v for k, v in row.values.items() if k not in PERSONAL}
    return hash64(json.dumps(shared, sort_keys=True, ensure_ascii=False, default=str))


def transcripts(files: Sequence[Path], list_key: str) -> Found:
    """Lines `ID TEXT` of `*.trans.txt` as LibriSpeech keeps them, the sounds beside them as ID.flac (or .wav, .mp3).

    Columns: `id`, `text`, `lower` (the same in small letters), `audio` (the file), `speaker` (the ID up to its -).
    """
    parts: list[Rows] = []
    digest = hashlib.sha256()
    for file in files:
        try:
            arrays, stat = scan_jsonl(file), file.stat()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}); annotations must name *.trans.txt") from error
        digest.update(arrays["digest"].tobytes())
        parts.append(Transcripts(file, arrays, stat))
    return (parts[0] if len(parts) == 1 else Chained(parts)), digest.hexdigest()


class Transcripts(StoredFile):
    """One utterance in each line."""

    _suffix = ""

    def parse(self, raw: bytes, number: int) -> Row:
        name, _, said = raw.decode("utf-8").partition("\n")[0].strip().partition(" ")
        if not said.strip():
            return Row({}, self.file, number, "is not `ID TEXT`: a name, a space and what is said")
        values = {"id": name, "text": said.strip(), "lower": said.strip().lower(), "speaker": name.partition("-")[0]}
        return Row({**values, "audio": str(self._sound(name))}, self.file, number)

    def _sound(self, name: str) -> Path:
        """The sound of an utterance. All of a folder are of one kind, which is looked for once."""
        folder = Path(self.file).parent
        if not self._suffix:
            self._suffix = next((s for s in SOUNDS if (folder / f"{name}{s}").is_file()), SOUNDS[0])
        return folder / f"{name}{self._suffix}"
