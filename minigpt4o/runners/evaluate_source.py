"""Predictions that lie in files already: ours, a run folder's, or those a benchmark's server takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError
from minigpt4o.common.files import sha256_of
from minigpt4o.metrics import formats
from minigpt4o.metrics.formats import Said
from minigpt4o.metrics.text import said
from minigpt4o.runners.evaluate_folder import CONFIG, PREDICTIONS, RESULTS, file_name
from minigpt4o.runners.evaluate_items import NAMED, SEEN, Item
from minigpt4o.runners.evaluate_journal import Row

OURS = "minigpt4o"  # form of our own predictions files
GIVEN = "predictions"  # label of answers whose model is not known


@dataclass
class File:
    """One file of predictions."""

    path: Path
    form: str  # OURS, or a name of metrics.formats
    dataset: str  # "" = not said in the file
    condition: str = SEEN
    variant: str = GIVEN
    header: Row = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)  # of ours
    said: list[Said] = field(default_factory=list)  # of official ones
    malformed: list[str] = field(default_factory=list)  # lines that hold no prediction


@dataclass
class Matched:
    """Predictions laid beside the prompts they answer."""

    found: dict[str, Any]  # id of the prompt -> its row: of an official file its answer and meta
    missing: list[str] = field(default_factory=list)  # prompts without an answer
    duplicate: list[str] = field(default_factory=list)  # ids answered more than once; the first answer is kept
    extra: list[str] = field(default_factory=list)  # ids that nobody asked

    def faults(self, malformed: Sequence[str] = ()) -> dict[str, Any]:
        """Each kind of fault with its number and first examples; {} if all is well."""
        kinds = {"missing": self.missing, "duplicate": self.duplicate, "extra": self.extra, "malformed": malformed}
        return {kind: {"count": len(ids), "first": list(ids[:NAMED])} for kind, ids in kinds.items() if ids}


def read_source(source: Path, datasets: Sequence[str]) -> list[File]:
    """The predictions files meant by a file, a run folder, or a folder with one file named after each data set."""
    if not source.exists():
        raise DataError(f"--from {source}: no such file or folder")
    if source.is_file():
        return [read_predictions(source, datasets)]
    inside = source / PREDICTIONS if (source / PREDICTIONS).is_dir() else source
    files = [read_predictions(file, datasets) for file in sorted(inside.glob("*.json*")) if file.name != RESULTS]
    if not files:
        raise DataError(f"--from {source}: neither {PREDICTIONS}/*.jsonl nor <data set>.json lies in it")
    return files


def config_beside(source: Path) -> Path | None:
    """The configuration an evaluation of ours left in its folder, if `source` is that folder or lies in it."""
    for folder in (source, *source.parents[:3]):
        if (folder / CONFIG).is_file():
            return folder / CONFIG
    return None


def read_predictions(path: Path, datasets: Sequence[str]) -> File:
    """One file of any known form. Raises DataError if it is of none."""
    text = path.read_text(encoding="utf-8", errors="replace")
    named = next((name for name in datasets if path.stem in (name, file_name(name))), "")
    if not _ours(text):
        form = formats.recognised(text, str(path))
        broken: list[str] = []
        return File(path, form, named, said=formats.read(form, text, str(path), broken), malformed=broken)
    header: Row = {}
    rows: list[Row] = []
    malformed: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = _object(line)
        if isinstance(row.get("header"), dict):
            header = header or row["header"]
        elif _sound(row):
            rows.append(row | {"id": said(row["id"]), "answer": said(row.get("answer")), "meta": row.get("meta") or {}})
        else:
            malformed.append(f"line {number}")
    dataset = header.get("dataset") or next((row["dataset"] for row in rows if row.get("dataset")), "") or named
    variant, condition = header.get("variant", GIVEN), header.get("condition", SEEN)
    return File(path, OURS, dataset, condition, variant, header, rows, malformed=malformed)


def _ours(text: str) -> bool:
    """Whether the first line with an object is a header or a row of ours."""
    first = next((row for row in map(_object, text[: 1 << 20].split("\n")) if row), {})
    return "header" in first or ("id" in first and "answer" in first and "bbox" not in first)


def _sound(row: Row) -> bool:
    """Whether a line holds a prediction that can be read."""
    meta, skipped = row.get("meta") or {}, row.get("skipped", [""])
    likelihoods = meta.get("likelihoods", {}) if isinstance(meta, dict) else None
    return (
        row.get("id") is not None
        and ("answer" in row or "skipped" in row)
        and isinstance(likelihoods, dict)
        and all(isinstance(pair, list) and len(pair) == 2 for pair in likelihoods.values())
        and isinstance(skipped, list)
        and bool(skipped)
    )


def _object(line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def matched(file: File, items: Sequence[Item], task: Any) -> Matched:
    """Each prompt with its prediction, by id; an official file by official ids, and where it has none by order."""
    if file.form == OURS:
        return _by_id([(row["id"], row) for row in file.rows], {item.sample.id: [item.sample.id] for item in items})
    asked: dict[str, list[str]] = {}
    samples = {item.sample.id: item.sample for item in items}
    for item in items:
        asked.setdefault(task.official_id(item.sample), []).append(item.sample.id)
    if file.said and not any(one.id for one in file.said):
        asked = {"": [item.sample.id for item in items]}
    found = _by_id([(one.id, one) for one in file.said], asked)
    found.found = {
        name: {"answer": task.from_official(one, samples[name]), "meta": task.told_official(one)}
        for name, one in found.found.items()
    }
    return found


def _by_id(given: Sequence[tuple[str, Any]], asked: Mapping[str, Sequence[str]]) -> Matched:
    """`asked`: the id in the file -> the prompts that have it, which share its answers in order."""
    answers: dict[str, list[Any]] = {}
    for name, one in given:
        answers.setdefault(name, []).append(one)
    result = Matched({}, extra=[name for name in answers if name not in asked])
    for name, prompts in asked.items():
        mine = answers.get(name, [])
        result.found.update(zip(prompts, mine, strict=False))
        result.missing += prompts[len(mine) :]
        result.duplicate += [name] * max(len(mine) - len(prompts), 0)
    return result


def fingerprint(files: Sequence[File]) -> list[dict[str, str]]:
    """What was read: name, form and SHA-256 of each file."""
    return [{"file": str(file.path), "format": file.form, "sha256": sha256_of(file.path)} for file in files]
