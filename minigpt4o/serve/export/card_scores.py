"""Scores of an exported model for its card, from the results.json of an evaluation that asked this very model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.runners.evaluate_items import SEEN


def scores_of(named: str, marks: Mapping[str, str]) -> list[dict[str, Any]]:
    """Scores of this model in a results.json (`FILE` or `FILE:LABEL`).

    `marks`: `checkpoint_sha256` and `weights_sha256` of the model. Raises ConfigError if the file holds no such model.
    """
    path, _, label = named.rpartition(":") if not Path(named).exists() and ":" in named else (named, "", "")
    file = Path(path) / "results.json" if Path(path).is_dir() else Path(path)
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        variants, datasets = tree["variants"], tree["datasets"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--results {file}: not a results.json of an evaluation ({error})") from error
    if label and label not in variants:
        raise ConfigError(f"--results {named}: no model {label!r}; there are: {', '.join(variants)}")
    if not label:
        label = next((n for n, told in variants.items() if any(told.get(k) == v for k, v in marks.items() if v)), "")
    if not label:
        raise ConfigError(
            f"--results {file}: it holds scores of {', '.join(variants)}, and none of them is this checkpoint; to "
            f"state scores of another on the card, name it: --results {file}:{next(iter(variants), 'LABEL')}"
        )
    return [row for name, one in datasets.items() for row in _rows(name, one, label)]


def _rows(name: str, one: Mapping[str, Any], label: str) -> list[dict[str, Any]]:
    """The headline metric under each condition, and the other metrics with media."""
    found = []
    for condition, told in one["variants"].get(label, {}).get("conditions", {}).items():
        for metric, score in told.get("scores", {}).items():
            if condition == SEEN or metric == one.get("headline"):
                kept = {key: score[key] for key in ("value", "low", "high", "n")}
                found.append({"dataset": name, "task": one["task"], "metric": metric, "condition": condition, **kept})
    return found
