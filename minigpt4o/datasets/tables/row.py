"""One annotation row: the values of its columns, where it stands, and what is wrong with it if it cannot be read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError, SkipSample


@dataclass(frozen=True, slots=True)
class Row:
    """One annotation."""

    values: dict[str, Any]
    file: str
    number: int  # from 1; for jsonl and csv the line
    problem: str = ""  # why the row could not be read
    reason: str = "bad_json"  # the word that counts the problem

    @property
    def where(self) -> str:
        return f"{self.file} row {self.number}"

    def check(self) -> None:
        """Raises SkipSample if the row could not be read."""
        if self.problem:
            raise SkipSample(self.reason, f"{self.where}: {self.problem}")

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
    """`012d` padded with zeros, `.27` cut to 27 letters; of a file `name`, `stem`, `ext`, `tail2` (last two parts)."""
    if form == "name":
        return text.rpartition("/")[2]
    if form == "ext":
        return Path(text).suffix
    if form == "stem":
        return Path(text).stem
    if form == "tail2":
        return "/".join(text.split("/")[-2:])
    found = re.fullmatch(r"(\.?)(\d*)d?", form)
    if found is None:
        raise DataError(
            f"{{...:{form}}}: unknown form; known: name, ext, tail2, stem, .N (first N letters), 0Nd (zeros)"
        )
    return text[: int(found[2])] if found[1] else text.zfill(int(found[2] or 0))


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
