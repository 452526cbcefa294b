"""Published annotation files as canonical items, row by row: tables, folders, COCO, RefCOCO, LLaVA, chat messages."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.source import nearest
from minigpt4o.conversation.sample import Media, MediaKind
from minigpt4o.datasets.media import EXTENSIONS, MediaFinder, extension
from minigpt4o.datasets.prepare.canonical import Found, Item, one_round
from minigpt4o.datasets.prepare.json_stream import JsonList

LIST_KEYS = ("annotations", "data", "questions", "items", "rows")
# Columns that mean what they say, the first that is there.
COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "image_id", "key", "uid"),
    "image": ("image", "image_path", "filepath", "img", "picture", "images"),
    "audio": ("audio", "audio_path", "sound", "wav", "audios"),
    "text": ("caption", "text", "answer", "description", "sentence", "label", "caption_*"),
    "question": ("question", "prompt", "instruction", "query"),
    "language": ("language", "lang"),
    "split": ("split",),
}
FILE_COLUMNS = ("file_name", "filename", "file", "path")  # their kind is seen by the extension


@dataclass(frozen=True)
class Source:
    """What to convert, and what the person says about it."""

    path: Path
    media_root: Path = field(default_factory=Path)
    fields: Mapping[str, str] = field(default_factory=dict)  # our name -> the file's column
    prompt: str = ""  # what is asked where the file asks nothing; {expression} for RefCOCO
    language: str = ""
    keep_missing: bool = False  # also take rows whose media are not there

    def media(self, values: list[Any], where: str) -> list[Media]:
        """The media of these names below the root. Raises SkipSample."""
        finder = MediaFinder(str(self.media_root))
        found = []
        for value in values:
            try:
                found.append(finder.find(value, where))
            except SkipSample as skip:
                if skip.reason != "missing_file" or not self.keep_missing:
                    raise
                found.append(Media(path=str(self.media_root / str(value)), name=str(value)))
        return found


def stream_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | SkipSample]]:
    """(number, row) of a json, jsonl, csv or tsv file; long lists and tables are never held as a whole."""
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        yield from _table_rows(path, "\t" if ending == ".tsv" else ",")
    elif ending in (".jsonl", ".ndjson"):
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _parsed(line, f"{path} row {number}")
    elif ending == ".json":
        for number, value in enumerate(_json_rows(path), start=1):
            yield number, _object(value, f"{path} row {number}")
    else:
        raise DataError(f"{path}: rows are read from .json, .jsonl, .csv and .tsv, not {ending or 'a nameless kind'!r}")


def _table_rows(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any] | SkipSample]]:
    csv.field_size_limit(1 << 30)  # columns may hold whole pictures as text
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        for number, row in enumerate(csv.DictReader(file, delimiter=delimiter), start=2):
            if None in row:
                detail = f"{path} row {number}: has more cells than columns; quote texts that hold {delimiter!r}"
                yield number, SkipSample("bad_json", detail)
            else:
                yield number, {key: value for key, value in row.items() if value not in (None, "")}


def _json_rows(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        first = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if first == b"[":
        yield from JsonList(path)
        return
    tree = read_json(path)
    key = next((k for k in LIST_KEYS if isinstance(tree, dict) and isinstance(tree.get(k), list)), None)
    if key is None:
        keys = ", ".join(map(str, tree)) if isinstance(tree, dict) else type(tree).__name__
        raise DataError(f"{path}: no list of rows under {', '.join(LIST_KEYS)}; the file holds: {keys[:200]}")
    yield from tree[key]


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises DataError."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error


def _parsed(line: str, where: str) -> dict[str, Any] | SkipSample:
    try:
        return _object(json.loads(line), where)
    except json.JSONDecodeError as error:
        return SkipSample("bad_json", f"{where}: not valid JSON at column {error.colno}: {error.msg}")


def _object(value: Any, where: str) -> dict[str, Any] | SkipSample:
    if isinstance(value, dict):
        return value
    return SkipSample("bad_json", f"{where}: is a {type(value).__name__}, not an object with named fields")


def each(source: Source, make: Callable[[dict[str, Any], str, int], list[Item]]) -> Iterator[Found]:
    """The items that `make(values, where, number)` finds in every row; what cannot be used is told in its place."""
    for number, values in stream_rows(source.path):
        if isinstance(values, SkipSample):
            yield values
            continue
        try:
            items = make(values, f"{source.path} row {number}", number)
            for item in items:
                item.check()
        except SkipSample as skip:
            yield skip
        else:
            yield from items


def table(source: Source) -> Iterator[Found]:
    """Rows that name a picture and/or a sound and say one or more texts about it: one item for each text."""
    columns: dict[str, str] = {}

    def make(values: dict[str, Any], where: str, number: int) -> list[Item]:
        if not columns:
            columns.update(_columns(values, source))
        media: dict[MediaKind, list[Media]] = {}
        for kind in EXTENSIONS:
            if names := _cells(values, columns.get(kind, "")):
                media[kind] = source.media(names, where)
        texts = [str(t).strip() for t in _cells(values, columns["text"])]
        if not any(texts):
            raise SkipSample("missing_field", f"{where}: {columns['text']} is empty")
        asked = next(map(str, _cells(values, columns.get("question", ""))), source.prompt)
        name = next(map(str, _cells(values, columns.get("id", ""))), str(number))
        language = next(map(str, _cells(values, columns.get("language", ""))), source.language)
        split = next(map(str, _cells(values, columns.get("split", ""))), "")
        names = [name if len(texts) == 1 else f"{name}:{n}" for n in range(len(texts))]
        told = [(n, text) for n, text in zip(names, texts, strict=True) if text]
        return [
            Item(n, one_round(asked, text, media), media, language=language, split=split, where=where)
            for n, text in told
        ]

    return each(source, make)


def _cells(values: Mapping[str, Any], column: str) -> list[Any]:
    """The values of a column or of `caption_*`, lists laid flat, empty ones left out."""
    names = [k for k in values if fnmatchcase(k, column)] if "*" in column else [column] if column else []
    found: list[Any] = []
    for name in names:
        value = values.get(name)
        found += value if isinstance(value, list) else [value]
    return [value for value in found if value not in (None, "")]


def _columns(values: Mapping[str, Any], source: Source) -> dict[str, str]:
    """Our names -> the columns of this file, by what the person says and else by their usual names."""
    for name, column in source.fields.items():
        if name not in COLUMNS:
            close = nearest(name, COLUMNS)
            mend = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(COLUMNS)}"
            raise DataError(f"--fields {name}={column}: unknown name; {mend}")
        if not _cells(values, column):
            raise DataError(f"--fields {name}={column}: {source.path} has no such column; it has: {', '.join(values)}")
    found = {
        name: next((w for w in words if any(fnmatchcase(k, w) for k in values)), "") for name, words in COLUMNS.items()
    }
    found = {name: column for name, column in found.items() if column} | dict(source.fields)
    if not {"image", "audio"} & set(found):
        for column in FILE_COLUMNS:
            kind = next((k for k, known in EXTENSIONS.items() if extension(str(values.get(column, ""))) in known), None)
            if kind is not None:
                found[kind] = column
                break
    if "text" not in found:
        raise DataError(
            f"{source.path}: no column of texts was recognised; it has: {', '.join(values)}. "
            "Name it: --fields text=COLUMN image=COLUMN"
        )
    return found


def folder(source: Source) -> Iterator[Found]:
    """Pictures and sounds of a folder: with NAME.txt beside them the text is said of them, else their folder's name."""
    kinds = {ending: kind for kind, endings in EXTENSIONS.items() for ending in endings}
    files = sorted(p for p in source.path.rglob("*") if p.is_file() and extension(p.name) in kinds)
    if not files:
        raise DataError(f"{source.path}: holds no picture or sound ({', '.join(sorted(kinds))})")
    written = any(file.with_suffix(".txt").is_file() for file in files)
    for file in files:
        name = str(file.relative_to(source.path))
        text = file.parent.name
        if written:
            beside = file.with_suffix(".txt")
            if not beside.is_file():
                yield SkipSample("missing_member", f"{file}: no {beside.name} beside it")
                continue
            text = " ".join(beside.read_text(encoding="utf-8-sig", errors="replace").split())
        elif file.parent == source.path:
            yield SkipSample("missing_field", f"{file}: stands in no class folder and has no .txt beside it")
            continue
        if not text:
            yield SkipSample("bad_text", f"{file}: its .txt is empty")
            continue
        media: dict[MediaKind, list[Media]] = {kinds[extension(file.name)]: [Media(path=str(file), name=name)]}
        yield Item(name, one_round(source.prompt, text, media), media, language=source.language, where=str(file))
