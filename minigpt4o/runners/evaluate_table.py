"""The headline of every data set as a table for the terminal, with what was left out or could not be read below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minigpt4o.runners.evaluate_items import BLIND, SEEN, SHUFFLED

UNTOLD = "no truth, no score"
SIDE_BY_SIDE = 2  # variants that fit beside each other on a terminal


@dataclass(frozen=True)
class Cell:
    """The headline of one data set and variant, as table and report show it."""

    value: float
    low: float
    high: float
    n: int
    unparsable: int
    blind: float | None
    shuffled: float | None
    gain: float | None  # the smaller of the gains over the baselines
    gain_low: float | None


def cell(dataset: Mapping[str, Any], label: str) -> Cell | None:
    """The headline numbers from a `datasets` node of results.json; None if that variant has no score."""
    conditions = dataset["variants"][label]["conditions"]
    metric = dataset["headline"]
    score = conditions[SEEN]["scores"].get(metric)
    if score is None:
        return None
    others = {name: conditions.get(name, {}).get("scores", {}).get(metric) for name in (BLIND, SHUFFLED)}
    gains = [g for g in dataset["variants"][label]["gain"].values() if g["n"]]
    smallest = min(gains, key=lambda g: g["value"], default=None)
    return Cell(
        score["value"],
        score["low"],
        score["high"],
        score["n"],
        score["unparsable"],
        others[BLIND]["value"] if others[BLIND] else None,
        others[SHUFFLED]["value"] if others[SHUFFLED] else None,
        smallest["value"] if smallest else None,
        smallest["low"] if smallest else None,
    )


def table(results: Mapping[str, Any]) -> str:
    """The headline of every data set as aligned text; up to two variants side by side, more below each other."""
    labels = list(results["variants"])
    beside = len(labels) <= SIDE_BY_SIDE
    numbers = ["blind", "shuffled", "gain"]
    lines = [["data set", "metric", "n"]]
    lines[0] += (
        [w for label in labels for w in (f"{label} [95 %]", *numbers)] if beside else ["model", "score", *numbers]
    )
    for name, dataset in results["datasets"].items():
        lead = [name, dataset["headline"] or "-", str(dataset["n"])]
        cells = {
            label: _cells(cell(dataset, label), dataset["variants"][label]["conditions"][SEEN]) for label in labels
        }
        if beside:
            lines.append([*lead, *(word for label in labels for word in cells[label])])
        else:
            lines += [[*lead, label, *cells[label]] for label in labels]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = [
        "  ".join(
            f"{word:<{w}}" if i < 2 else f"{word:>{w}}" for i, (word, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rows.insert(1, "-" * len(rows[0]))
    return "\n".join(row.rstrip() for row in rows) + "\n" + _notes(results)


def _seen(dataset: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = dataset["variants"][label]["conditions"][SEEN]
    return found


def _cells(found: Cell | None, seen: Mapping[str, Any]) -> list[str]:
    if found is None:
        return [UNTOLD if seen.get("no_truth") else "no answers", "-", "-", "-"]
    score = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    if seen["n"] < seen["asked"]:  # never a plain score where answers are missing
        score += f" ({seen['n']} of {seen['asked']})"
    return [score, _number(found.blind), _number(found.shuffled), _number(found.gain, "+.3f")]


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _notes(results: Mapping[str, Any]) -> str:
    """Below the table: what was left out or could not be read."""
    notes = []
    for name, dataset in results["datasets"].items():
        if dataset["skipped"]:
            notes.append(f"{name}: {_reasons(dataset['skipped'])} left out before asking")
        again = dataset.get("repeated_ids", {"count": 0})
        if again["count"]:
            first = ", ".join(dict.fromkeys(again["first"]))
            notes.append(f"{name}: {again['count']} samples have the id of an earlier one ({first}); each was asked")
        for label in dataset["variants"]:
            found = cell(dataset, label)
            seen = _seen(dataset, label)
            if seen.get("no_truth"):
                notes.append(f"{name}, {label}: {_untold(seen, dataset['variants'][label])}")
            if seen["skipped"]:
                words = f"{name}, {label}: scored {seen['n']} of {seen['asked']} ({_reasons(seen['skipped'])})"
                notes.append(words + _alone(seen, dataset["headline"]))
            if seen.get("empty_answers"):
                notes.append(f"{name}, {label}: {seen['empty_answers']} of {seen['n']} answers were empty")
            if found is not None and found.unparsable:
                notes.append(f"{name}, {label}: {found.unparsable} of {found.n} answers held nothing readable (wrong)")
    gain_note = "gain: score minus the better baseline, on the same samples"
    return "\n".join([gain_note, *notes]) + "\n"


def _untold(seen: Mapping[str, Any], variant: Mapping[str, Any]) -> str:
    """What becomes of answers whose truth nobody tells."""
    if seen["scores"]:
        return f"{seen['no_truth']} of {seen['asked']} samples have no truth and count as wrong"
    handed = variant.get("official", {}).get("file")
    where = f"hand in {handed}" if handed else "set task.official_format to have them written as they are handed in"
    return f"{seen['n']} answers, and no truth to score them by: {where}"


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))


def _alone(seen: Mapping[str, Any], metric: str) -> str:
    """What the answered ones come to by themselves."""
    score = seen.get("scores_answered", {}).get(metric)
    if score is None:
        return ""
    return f"; the others count as wrong, without them {metric} is {score['value']:.3f}"
