"""`eval.py --from`: score predictions that are there already; the truth comes from the data, no model is built."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.registry import registry
from minigpt4o.runners.evaluate_folder import RESULTS, EvaluationFolder
from minigpt4o.runners.evaluate_items import SEEN, Data, Item, data_hash
from minigpt4o.runners.evaluate_journal import Journal, Row
from minigpt4o.runners.evaluate_source import File, Matched, fingerprint, matched, read_source
from minigpt4o.runners.evaluate_summary import Answers

log = logging.getLogger(__name__)

KEPT = ("prompts", "template", "profile", "answered", "weights", "decoding")  # of a header of ours
NO_PREDICTION = "no_prediction"  # why a prompt has no answer: none was handed in
KINDS = {
    "missing": "prompts have no prediction",
    "duplicate": "predictions repeat an id",
    "extra": "predictions answer what was not asked",
    "malformed": "lines hold no prediction",
}


def rescore(settings: Any, source: Path, partial: bool = False) -> Path:
    """Measure the predictions of a file or folder; returns the folder with results.json and the report.

    Raises DataError if a prompt has no prediction, or if ids repeat, are not known, or lines are broken. With
    `partial` these are counted and named instead: of a repeated id the first answer counts, a missing one is wrong.
    """
    runner = registry.build(settings.run, settings=settings)
    if not hasattr(runner, "conclude"):
        raise ConfigError(f"--from: run.runner is {settings.run.name}; a configuration of an evaluation is needed")
    files = assigned(read_source(source, list(settings.datasets)), settings)
    every = runner.collect()
    data = {name: _narrowed(every[name], files) for name in {file.dataset: None for file in files}}
    files = [file for file in files if file.condition in data[file.dataset].conditions]
    laid = [(file, matched(file, prompts_of(file, data), data[file.dataset].task)) for file in files]
    faults = {_named(file): found.faults(file.malformed) for file, found in laid}
    faults = {name: found for name, found in faults.items() if found}
    if faults and not partial:
        raise DataError(f"{source}: {_told(faults)}\nmend the predictions, or score what is there with --partial")
    runner.config.resume = False
    folder = EvaluationFolder(runner.config, f"from/{source}", settings)
    try:
        journals = {
            (file.variant, file.dataset, file.condition): _journal(file, found, data[file.dataset], folder)
            for file, found in laid
        }
        told: Row = {"path": str(source), "files": fingerprint(files), "partial": bool(faults), "faults": faults}
        told["changed"] = [_named(file) for file in files if _changed(file, data)]
        sys.stdout.write(f"from: {source}" + (f" (partial: {_told(faults)})" if faults else "") + "\n")
        runner.conclude(Answers(data, journals, _variants(files, source), told), folder.path)
    finally:
        folder.close()
    return folder.path


def _changed(file: File, data: Mapping[str, Data]) -> bool:
    """Whether the data are others than those that were answered."""
    now = data_hash(prompts_of(file, data))
    changed = bool(file.header.get("data", now) != now)
    if changed:
        log.warning("%s: the data have changed since these answers; they are scored against today's", _named(file))
    return changed


def prompts_of(file: File, data: Mapping[str, Data]) -> list[Item]:
    """What the answers of a file are answers to."""
    return data[file.dataset].conditions[file.condition]


def assigned(files: Sequence[File], settings: Any) -> list[File]:
    """The files of the configuration's data sets. Raises DataError for a set without its file, or with two."""
    names = list(settings.datasets)
    for file in files:
        if not file.dataset and len(names) == 1:
            file.dataset = names[0]
        if not file.dataset:
            raise DataError(f"{file.path}: it does not say which data set it answers; name one: --dataset {names[0]}")
    kept: dict[tuple[str, str, str], File] = {}
    for file in files:
        if file.dataset not in settings.datasets:
            log.warning("%s: data set %s is not in the configuration; left out", file.path, file.dataset)
            continue
        there = kept.setdefault((file.variant, file.dataset, file.condition), file)
        if there is not file:
            raise DataError(f"{there.path} and {file.path} both answer {_named(file)}; give one of them")
    for variant in {file.variant for file in kept.values()} or {""}:
        lost = [name for name in names if (variant, name, SEEN) not in kept]
        if lost:
            given = ", ".join(dict.fromkeys(file.dataset for file in files))
            raise DataError(f"no predictions for {', '.join(lost)}; there are some for {given}: --dataset {given}")
    return list(kept.values())


def _narrowed(one: Data, files: Sequence[File]) -> Data:
    """The data set under the conditions that were answered."""
    there = {file.condition for file in files if file.dataset == one.name}
    unknown = there - set(one.conditions)
    if unknown:
        raise DataError(f"{one.name}: condition {', '.join(sorted(unknown))} is not among run.baselines")
    by_variant = [
        {f.condition for f in files if f.dataset == one.name and f.variant == v} for v in {f.variant for f in files}
    ]
    common = set.intersection(*by_variant)
    return Data(
        one.name, one.task, one.asked, {name: items for name, items in one.conditions.items() if name in common}
    )


def _journal(file: File, found: Matched, one: Data, folder: EvaluationFolder) -> Journal:
    """The predictions as a file of ours, in the data's order."""
    items = one.conditions[file.condition]
    header: Row = {key: file.header[key] for key in KEPT if key in file.header}
    header |= {"dataset": one.name, "condition": file.condition, "variant": file.variant}
    header |= {"data": data_hash(items), "from": str(file.path)}
    journal = Journal(folder.predictions(file.variant, one.name, file.condition), header, resume=False)
    journal.open()
    for item in items:
        journal.write(_row(found.found.get(item.sample.id), item, one.task))
    journal.close()
    journal.finish([item.sample.id for item in items])
    return journal


def _row(given: Any, item: Item, task: Any) -> Row:
    """A prediction with the truth of the data; what else the row said of the answer is kept."""
    theirs: Row = given if given is not None else {"answer": ""}
    sample = replace(item.sample, meta={**theirs.get("meta", {}), **item.sample.meta})
    row: Row = task.prediction(sample, str(theirs.get("prompt", "")), theirs["answer"], item.donor).row()
    if given is None:
        return {**row, "skipped": [NO_PREDICTION, ""]}
    return {**row, "skipped": theirs["skipped"]} if "skipped" in theirs else row


def _variants(files: Sequence[File], source: Path) -> dict[str, Any]:
    """What is known of the models that answered: what the run's results said, or the files' headers."""
    import json

    known: Mapping[str, Any] = {}
    beside = next((folder / RESULTS for folder in (source, *source.parents[:2]) if (folder / RESULTS).is_file()), None)
    if beside is not None:
        known = json.loads(beside.read_text(encoding="utf-8")).get("variants", {})
    return {
        file.variant: known.get(file.variant)
        or {"checkpoint": "", "checkpoint_sha256": "", "weights_sha256": file.header.get("weights", "")}
        for file in files
    }


def _named(file: File) -> str:
    return f"{file.dataset} ({file.variant}, {file.condition})"


def _told(faults: Mapping[str, Mapping[str, Any]]) -> str:
    words = []
    for name, kinds in faults.items():
        told = [
            f"{one['count']} {KINDS[kind]} (first {', '.join(map(repr, one['first']))})" for kind, one in kinds.items()
        ]
        words.append(f"{name}: {'; '.join(told)}")
    return " | ".join(words)
