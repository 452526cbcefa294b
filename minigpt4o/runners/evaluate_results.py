"""From predictions to results: scores with intervals, what the media bring, scores by language and type, the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from minigpt4o.metrics.intervals import paired_difference
from minigpt4o.metrics.result import Measured
from minigpt4o.runners.evaluate_answers import skips_of
from minigpt4o.runners.evaluate_items import BLIND, SEEN, SHUFFLED
from minigpt4o.runners.evaluate_journal import Row
from minigpt4o.tasks.base import EvaluationTask, Prediction, score_of

Tree = dict[str, Any]
SIDE_BY_SIDE = 2  # variants that fit beside each other on a terminal


@dataclass
class Scored:
    """The answers of one data set, variant and condition, measured."""

    predictions: list[Prediction]
    measured: dict[str, Measured]
    result: Tree = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """The most important metric that was measured; "" without predictions."""
        return next(iter(self.measured), "")

    def each(self) -> dict[str, float]:
        """Id -> the headline metric's share of that sample."""
        if not self.measured:
            return {}
        return {p.id: v for p, v in zip(self.predictions, self.measured[self.headline].each, strict=True)}


def scored(task: EvaluationTask, rows: Sequence[Row], rounds: int, seed: int) -> Scored:
    """Measure the rows of a predictions file."""
    predictions = [Prediction.from_row(row) for row in rows if "skipped" not in row]
    measured = task.measure(predictions) if predictions else {}
    scores = {name: asdict(score_of(one, rounds, seed)) for name, one in measured.items()}
    result = {"n": len(predictions), "asked": len(rows), "skipped": dict(skips_of(rows)), "scores": scores}
    return Scored(predictions, measured, result)


def breakdown(found: Scored, keys: Sequence[str], rounds: int, seed: int) -> Tree:
    """{"language": {"ja": {metric: score}}, "question_type": ...}: only keys that divide the samples."""
    tree: Tree = {}
    for key in ("language", *keys):
        groups: dict[str, list[int]] = {}
        for place, prediction in enumerate(found.predictions):
            value = prediction.language if key == "language" else prediction.meta.get(key, "")
            groups.setdefault(str(value), []).append(place)
        if len(groups) > 1 or (key == "language" and "" not in groups):
            tree[key] = {
                group: {
                    name: asdict(score_of(one.subset(places), rounds, seed)) for name, one in found.measured.items()
                }
                for group, places in sorted(groups.items())
            }
    return tree


def gain(seen: Scored, baseline: Scored, rounds: int, seed: int) -> Tree:
    """What the media bring: headline of seen minus baseline on the samples both answered, with the paired interval."""
    with_media, without = seen.each(), baseline.each()
    shared = [name for name in without if name in with_media]
    a, b = [with_media[name] for name in shared], [without[name] for name in shared]
    found = paired_difference(a, b, rounds, seed)
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n, "interval": found.method}


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
        cells = {label: _cells(cell(dataset, label)) for label in labels}
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


def _cells(found: Cell | None) -> list[str]:
    if found is None:
        return ["no answers", "-", "-", "-"]
    score = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    return [score, _number(found.blind), _number(found.shuffled), _number(found.gain, "+.3f")]


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _notes(results: Mapping[str, Any]) -> str:
    """Below the table: what was left out or could not be read."""
    notes = []
    for name, dataset in results["datasets"].items():
        if dataset["skipped"]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dataset["skipped"].items()))
            notes.append(f"{name}: {reasons} left out before asking")
        for label, variant in dataset["variants"].items():
            found = cell(dataset, label)
            seen = variant["conditions"][SEEN]
            if seen["skipped"]:
                reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(seen["skipped"].items()))
                notes.append(f"{name}, {label}: scored {seen['n']} of {seen['asked']} ({reasons})")
            if found is not None and found.unparsable:
                notes.append(f"{name}, {label}: {found.unparsable} of {found.n} answers held nothing readable (wrong)")
    gain_note = "gain: score minus the better baseline, on the same samples"
    return "\n".join([gain_note, *notes]) + "\n"
