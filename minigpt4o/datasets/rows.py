"""Read annotation rows from json, jsonl, csv and tsv; a broken row keeps its place and says what is wrong."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError, SkipSample

# Where the list of rows usually lies when a JSON file is not itself a list.
LIST_KEYS = ("annotations", "data", "questions", "items", "rows", "images")
KEY_COLUMN = "key"  # column that holds the key when the rows are the values of a mapping


@dataclass(frozen=True, slots=True)
class Row:
    """One annotation."""

    values: dict[str, Any]
    file: str
    number: int  # from 1; for jsonl and csv the line
    problem: str = ""  # why the row could not be read

    @property
    def where(self) -> str:
        return f"{self.file} row {self.number}"

    def check(self) -> None:
        """Raises SkipSample if the row could not be read."""
        if self.problem:
            raise SkipSample("bad_json", f"{self.where}: {self.problem}")

    def get(self, path: str) -> Any:
        """The value of a column or a dotted path into it. Raises SkipSample if there is none."""
        self.check()
        try:
            return pick(self.values, path)
        except LookupError:
            known = ", ".join(map(str, self.values))
            raise SkipSample("missing_field", f"{self.where}: no {path!r}; the row has: {known}") from None

    def columns(self, spec: str) -> list[Any]:
        """The values of `a, b` or `caption_*`, lists laid flat, empty cells left out."""
        self.check()
        found: list[Any] = []
        for word in (w.strip() for w in spec.split(",")):
            names = (
                [str(k) for k in self.values if fnmatchcase(str(k), word)] if any(c in word for c in "*?") else [word]
            )
            for value in (self.get(name) for name in names):
                found += value if isinstance(value, list) else [value]
        return [value for value in found if value is not None and value != ""]

    def has(self, spec: str) -> bool:
        """Whether the row names any of the columns at all."""
        try:
            return bool(self.columns(spec))
        except SkipSample:
            return False

    def fill(self, template: str) -> str:
        """`COCO_{image_id:012d}.jpg` with the row's values in the braces; what may follow the colon: see `_shaped`."""
        return re.sub(r"\{([\w.]+)(?::(\.?\w+))?\}", lambda m: _shaped(str(self.get(m[1])), m[2] or ""), template)


def _shaped(text: str, form: str) -> str:
    """`012d` padded with zeros, `.27` cut to 27 letters, `name` the file's name, `tail2` the last two parts, `ext`."""
    if form == "name":
        return text.rpartition("/")[2]
    if form == "ext":
        return Path(text).suffix
    if form == "tail2":
        return "/".join(text.split("/")[-2:])
    found = re.fullmatch(r"(\.?)(\d*)d?", form)
    if found is None:
        raise DataError(f"{{...:{form}}}: unknown form; known: name, ext, tail2, .N (first N letters), 0Nd (zeros)")
    return text[: int(found[2])] if found[1] else text.zfill(int(found[2] or 0))


def unfold(rows: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """A row for each place of lists of equal length that stand side by side in it."""
    found: list[Row] = []
    for row in rows:
        lists = [row.values.get(column) for column in columns]
        lengths = {len(one) if isinstance(one, list) else -1 for one in lists}
        if row.problem or len(lengths) != 1 or -1 in lengths:
            problem = row.problem or f"{', '.join(columns)} are not lists of equal length"
            found.append(Row(row.values, row.file, row.number, problem))
            continue
        for values in zip(*lists, strict=True):
            found.append(Row({**row.values, **dict(zip(columns, values, strict=True))}, row.file, row.number))
    return found


def pick(values: Any, path: str) -> Any:
    """The value at `path`: a key, or `a.b.0` step by step into mappings and lists. Raises LookupError."""
    if isinstance(values, dict) and path in values:
        return values[path]
    for word in path.split("."):
        if isinstance(values, dict):
            values = values[word]
        elif isinstance(values, list) and word.lstrip("-").isdigit():
            values = values[int(word)]
        else:
            raise LookupError(path)
    return values


def read_rows(files: Sequence[Path], list_key: str = "") -> tuple[list[Row], str]:
    """All rows of all files in order, and the SHA-256 of what the files hold."""
    digest = hashlib.sha256()
    rows: list[Row] = []
    for file in files:
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}); annotations must name a file") from error
        digest.update(hashlib.sha256(raw).digest())
        rows += _rows_of(file, _decode(raw, file), list_key)
    return rows, digest.hexdigest()


def _decode(raw: bytes, file: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8") from error


def _rows_of(file: Path, text: str, list_key: str) -> Iterator[Row]:
    suffix = file.suffix.lower()
    if suffix == ".json":
        return _json_rows(str(file), text, list_key)
    if suffix in (".jsonl", ".ndjson"):
        return _jsonl_rows(str(file), text)
    if suffix in (".csv", ".tsv"):
        return _table_rows(str(file), text, "\t" if suffix == ".tsv" else ",")
    raise DataError(f"{file}: annotation files end in .json, .jsonl, .csv or .tsv, not {suffix or 'nothing'!r}")


def _json_rows(file: str, text: str, list_key: str) -> Iterator[Row]:
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        mend = " (one object per line? then name it .jsonl)" if error.msg == "Extra data" else ""
        raise DataError(f"{file}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}{mend}") from error
    for number, values in enumerate(_list_in(tree, file, list_key), start=1):
        yield _row(values, file, number)


def _list_in(tree: Any, file: str, list_key: str) -> list[Any]:
    if list_key:
        try:
            tree = pick(tree, list_key)
        except LookupError:
            keys = ", ".join(tree) if isinstance(tree, dict) else "a list, which needs no `rows`"
            raise DataError(f"{file}: there is no {list_key!r} (rows); the file holds: {keys}") from None
    if isinstance(tree, dict):
        for key in LIST_KEYS:
            if isinstance(tree.get(key), list):
                return tree[key]
        if tree and all(isinstance(v, dict) for v in tree.values()):
            return [{KEY_COLUMN: key, **values} for key, values in tree.items()]
        raise DataError(f"{file}: no list of rows found; the file holds: {', '.join(tree)}. Name it with `rows:`")
    if not isinstance(tree, list):
        raise DataError(f"{file}: holds a single {type(tree).__name__}, not a list of rows")
    return tree


def _jsonl_rows(file: str, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _row(json.loads(line), file, number)
        except json.JSONDecodeError as error:
            yield Row({}, file, number, f"not valid JSON at column {error.colno}: {error.msg}")


def _table_rows(file: str, text: str, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)  # columns may hold whole pictures as text
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter)
    for values in reader:
        problem = ""
        if None in values:
            problem = f"has more cells than columns; put texts that hold {delimiter!r} in quotes"
            values.pop(None)
        yield Row({k: v for k, v in values.items() if v is not None}, file, reader.line_num, problem)


def _row(values: Any, file: str, number: int) -> Row:
    if isinstance(values, dict):
        return Row(values, file, number)
    return Row({}, file, number, f"is a {type(values).__name__}, not an object with named fields")
