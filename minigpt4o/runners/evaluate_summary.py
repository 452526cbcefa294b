"""results.json: every score with what it was measured on, how it was asked, and what computed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minigpt4o.common import distributed
from minigpt4o.common.registry import Part
from minigpt4o.runners import rundir
from minigpt4o.runners.evaluate_items import NAMED, SEEN, Data, ensure_usable
from minigpt4o.runners.evaluate_journal import Journal
from minigpt4o.runners.evaluate_official import write_official
from minigpt4o.runners.evaluate_results import Scored, Tree, breakdown, gain, scored

FORMAT = 2  # of results.json; 1 had no `prompt`, `processors`, `task_options`

Key = tuple[str, str, str]  # data set, variant, condition


@dataclass
class Answers:
    """What was asked of which models, answered."""

    data: Mapping[str, Data]
    journals: Mapping[tuple[str, str, str], Journal]  # by variant, data set, condition
    variants: Mapping[str, Tree]  # label -> checkpoint and fingerprints
    source: Tree = field(default_factory=dict)  # the file or folder that was scored again; empty: a model answered


def results(answers: Answers, config: Any, settings: Any, folder: Path) -> tuple[Tree, dict[Key, Scored]]:
    """The tree of results.json, and the measured answers by (data set, variant, condition)."""
    datasets: Tree = {}
    kept: dict[Key, Scored] = {}
    for name, one in answers.data.items():
        told: Tree = {}
        for label in answers.variants:
            told[label], found = _variant(answers, name, label, config)
            kept |= {(name, label, condition): one for condition, one in found.items()}
            if not answers.source:
                seen = found[SEEN].result
                good, bad = seen["n"], seen["asked"] - seen["n"]
                ensure_usable(f"{name}, {label}", bad, good, seen["skipped"], config.max_bad_fraction)
            told[label] |= write_official(folder, one, label, found[SEEN], len(answers.variants) > 1)
        last = list(answers.variants)[-1]
        header = answers.journals[last, name, SEEN].header["header"]
        datasets[name] = _dataset(one, settings.datasets[name], kept[name, last, SEEN], header) | {"variants": told}
    run = {
        "job_name": config.job_name,
        "split": config.split,
        "seed": config.seed,
        "bootstrap": config.bootstrap,
        "limit": config.limit,
        "baseline_limit": config.baseline_limit,
        "batch_size": config.batch_size_eval,
        "plugins": list(settings.plugins),
        "from": answers.source,
        "versions": rundir.versions(),
        "git": rundir.git_commit(),
        "hardware": rundir.hardware(str(distributed.pick_device(config.device))),
    }
    return {"format": FORMAT, "run": run, "variants": dict(answers.variants), "datasets": datasets}, kept


def _variant(answers: Answers, name: str, label: str, config: Any) -> tuple[Tree, dict[str, Scored]]:
    """What one variant reached on one data set, under every condition that was asked."""
    one = answers.data[name]
    found: dict[str, Scored] = {}
    for condition in one.conditions:
        journal = answers.journals[label, name, condition]
        found[condition] = scored(one.task, journal.reread(), config.bootstrap, config.seed)
        header = journal.header["header"]
        found[condition].result |= {
            "predictions": f"predictions/{journal.path.name}",
            "data_sha256": header["data"],
            "prompts_sha256": header.get("prompts", ""),
        }
    seen = found[SEEN]
    seen.result["by"] = breakdown(seen, config.group_by, config.bootstrap, config.seed)
    gains = {c: gain(seen, f, config.bootstrap, config.seed) for c, f in found.items() if c != SEEN}
    return {"conditions": {c: f.result for c, f in found.items()}, "gain": gains}, found


def _dataset(one: Data, spec: Any, seen: Scored, header: Tree) -> Tree:
    """How a data set was asked."""
    first = seen.predictions[0].prompt if seen.predictions else ""
    return {
        "task": spec.task.name,
        "task_options": plain(spec.task.values),
        "headline": seen.headline,
        "n": len(one.conditions[SEEN]),
        "skipped": dict(one.asked.skipped),
        "skipped_examples": list(one.asked.details),
        "repeated_ids": {"count": len(one.asked.repeated), "first": one.asked.repeated[:NAMED]},
        "decoding": asdict(one.task.decoding),
        "answered": header.get("answered", ""),
        "prompt_example": first,
        "prompt": {
            "text": first,
            "sha256": header.get("prompts", ""),
            "template": header.get("template", ""),
            "profile": header.get("profile", ""),
        },
        "processors": {
            kind: plain(chosen["eval"])
            for kind, chosen in (("image", spec.vis_processor), ("audio", spec.audio_processor))
            if "eval" in chosen
        },
    }


def plain(value: Any) -> Any:
    """A part and the parts in it as they stand in a YAML."""
    if isinstance(value, Part):
        return {"name": value.name, **{key: plain(inner) for key, inner in value.values.items()}}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
