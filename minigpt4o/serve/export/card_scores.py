"""Scores of an exported model for its card, from the results.json of an evaluation that asked this very model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.runners.evaluate_items import SEEN

NAME = "results.json"


@dataclass(frozen=True)
class Results:
    """A results.json that may hold scores of the model."""

    file: Path
    label: str  # of the model in it that a person named; "": found by what the evaluation noted of it
    variants: Mapping[str, Any]
    datasets: Mapping[str, Any]


def read_results(named: str) -> list[Results]:
    """The files that `FILE`, `FOLDER` (an evaluation, or a job folder of several) or either with `:LABEL` means.

    The newest first. Raises ConfigError if there is none, or it is no results.json, or holds no such label.
    """
    path, _, label = named.rpartition(":") if not Path(named).exists() and ":" in named else (named, "", "")
    place = Path(path)
    files = [place]
    if place.is_dir():
        files = [place / NAME] if (place / NAME).is_file() else sorted(place.glob(f"*/{NAME}"), reverse=True)
    if not files:
        raise ConfigError(f"--results {place}: neither it nor a folder in it holds a {NAME} of an evaluation")
    return [_read(file, label) for file in files]


def _read(file: Path, label: str) -> Results:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        found = Results(file, label, tree["variants"], tree["datasets"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--results {file}: not a results.json of an evaluation ({error})") from error
    if label and label not in found.variants:
        raise ConfigError(f"--results {file}: no model {label!r}; there are: {', '.join(found.variants)}")
    return found


def scores_of(files: Sequence[Results], marks: Mapping[str, str]) -> list[dict[str, Any]]:
    """Scores of this model in the first file that has some.

    `marks`: `checkpoint_sha256` and `weights_sha256` of the model. Raises ConfigError if no file holds it.
    """
    for one in files:
        label = one.label or _own_label(one, marks)
        if label:
            return [row for name, told in one.datasets.items() for row in _rows(name, told, label)]
    first = files[0]
    raise ConfigError(
        f"--results {first.file}: it holds scores of {', '.join(first.variants)}, and none of them is this checkpoint; "
        f"to state scores of another on the card, name it: --results {first.file}:{next(iter(first.variants), 'LABEL')}"
    )


def _own_label(one: Results, marks: Mapping[str, str]) -> str:
    known = {key: value for key, value in marks.items() if value}
    return next((n for n, told in one.variants.items() if any(told.get(k) == v for k, v in known.items())), "")


def _rows(name: str, one: Mapping[str, Any], label: str) -> list[dict[str, Any]]:
    """The headline metric under each condition, and the other metrics with media."""
    found = []
    for condition, told in one["variants"].get(label, {}).get("conditions", {}).items():
        for metric, score in told.get("scores", {}).items():
            if condition == SEEN or metric == one.get("headline"):
                kept = {key: score[key] for key in ("value", "low", "high", "n")}
                found.append({"dataset": name, "task": one["task"], "metric": metric, "condition": condition, **kept})
    return found
