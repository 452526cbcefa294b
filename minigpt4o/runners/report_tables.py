"""The tables of a report: scores beside their baselines, and scores by type of question, box, answer and language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from minigpt4o.runners.evaluate_items import SEEN
from minigpt4o.runners.evaluate_results import ANSWER_LENGTHS, BOX_SIZES
from minigpt4o.runners.evaluate_table import UNTOLD, Cell, cell
from minigpt4o.runners.report_charts import interval_bar
from minigpt4o.runners.report_html import table, text

FEW = 30  # samples below which a group's score is shown in grey
LOWER = '<abbr class="down" title="lower is better">↓</abbr>'
# Groups that have an order of their own; all others are sorted by score.
_ORDER = [
    *("small", "medium", "large"),
    *(name for name, _ in ANSWER_LENGTHS),
    "more than 20 words",
]
_ORDERED = frozenset({"box_size", "answer_length"})
_HOW = {
    "box_size": "largest true box by its share of the picture's area: "
    + ", ".join(f"{name} below {limit:.0%}" for name, limit in BOX_SIZES)
}

Tree = Mapping[str, Any]


def number(value: float | None, form: str = ".3f") -> str:
    """A number, or a dash."""
    return "–" if value is None else format(value, form).replace("-", "−")


def interval(score: Mapping[str, float]) -> str:
    """The value and its 95 % interval."""
    return f"<b>{number(score['value'])}</b> <small>[{number(score['low'])}, {number(score['high'])}]</small>"


def key(place: int, label: str) -> str:
    """A variant's colour and name."""
    return f'<i class="key c{place % 6}"></i><span class="model" title="{text(label)}">{text(label)}</span>'


def metric(dataset: Tree, name: str) -> str:
    """A metric with its definition on hover, marked if lower is better."""
    score = next((s for s in _scores(dataset, name)), {})
    lower = f" {LOWER}" if score.get("better") == "lower" else ""
    return f'<span title="{text(score.get("variant", ""))}">{text(name)}</span>{lower}'


def lower(dataset: Tree) -> bool:
    """Whether lower values of the headline are better."""
    return any(score.get("better") == "lower" for score in _scores(dataset, dataset["headline"]))


def _scores(dataset: Tree, name: str) -> Iterable[Tree]:
    for variant in dataset["variants"].values():
        for condition in variant["conditions"].values():
            if name in condition["scores"]:
                yield condition["scores"][name]


# ---- scores ----


def scores(results: Tree) -> str:
    """One row per data set and variant: score, interval, baselines, what the media bring."""
    rows = []
    for number_of_set, (name, dataset) in enumerate(results["datasets"].items()):
        labels = [label for label in results["variants"] if label in dataset["variants"]]
        cells = [cell(dataset, label) for label in labels]
        best = _top(cells)
        for place, (label, found) in enumerate(zip(labels, cells, strict=True)):
            lead = '<tr><td class="stick"></td><td></td>'
            if place == 0:
                link = f'<a href="#set-{number_of_set}">{text(name)}</a>'
                lead = f'<tr class="first"><th scope="row" class="stick">{link}</th>'
                lead += f"<td>{metric(dataset, dataset['headline'])}</td>"
            rows.append(lead + _score_cells(dataset, label, place, found, best) + "</tr>")
    heads = ("data set", "metric", "model", ">n", "score [95 %]", "", ">blind", ">shuffled", "media gain [95 %]")
    notes = (
        '<p class="soft">Dashed ticks on the bars are the baselines: <b>blind</b> gets no picture and no sound, '
        "<b>shuffled</b> gets those of another sample. The <b>media gain</b> is what the score has over the better "
        "baseline, on the same samples; where its interval holds 0, nothing shows that the model looks or listens. "
        f"{LOWER} marks error rates: lower is better, and a gain is what the media take off.</p>"
    )
    return table("".join(rows), *heads, name="Scores", css="scores") + notes


def _top(cells: Iterable[Cell | None]) -> float:
    """The right end of the bars: 1 for shares, else the largest number that is drawn."""
    shown = [v for c in cells if c is not None for v in (c.high, c.blind, c.shuffled) if v is not None]
    highest = max(shown, default=1.0)
    return 1.0 if highest <= 1.0 else highest


def _score_cells(dataset: Tree, label: str, place: int, found: Cell | None, best: float) -> str:
    seen = dataset["variants"][label]["conditions"][SEEN]
    name = f"<td>{key(place, label)}</td>"
    if found is None:
        words, count = (UNTOLD, seen["n"]) if seen.get("no_truth") else ("no answers", 0)
        return f'{name}<td class="n">{count:,}</td><td colspan="5">{words}</td>'
    marks = [(n, v) for n, v in (("blind", found.blind), ("shuffled", found.shuffled)) if v is not None]
    bar = interval_bar(found.value, found.low, found.high, best, place, marks)
    notes = [f"{found.unparsable} unparsable"] if found.unparsable else []
    notes += [f"{seen['empty_answers']} empty"] if seen.get("empty_answers") else []
    notes += [f"{seen['n']} of {seen['asked']} asked"] if seen["n"] < seen["asked"] else []
    note = f'<br><small class="warn">{text(", ".join(notes))}, counted as wrong</small>' if notes else ""
    baselines = "".join(
        f'<td class="n" data-name="{n}">{number(v)}</td>'
        for n, v in (("blind", found.blind), ("shuffled", found.shuffled))
    )
    gain = f"<td class='gain' data-name='gain'>{_gain(dataset['variants'][label]['gain'])}</td>"
    numbers = f'<td class="n" data-name="n">{found.n:,}</td><td class="score">{interval(vars(found))}{note}</td>'
    return f'{name}{numbers}<td class="bar-cell">{bar}</td>{baselines}{gain}'


def _gain(gains: Mapping[str, Mapping[str, Any]]) -> str:
    """The smaller of the gains with its interval."""
    found = min(((g["value"], name, g) for name, g in gains.items() if g["n"]), default=None)
    if found is None:
        return "–"
    _, name, gain = found
    sure = gain["low"] > 0
    words = f"over {name}, {gain['n']} samples" + ("" if sure else "; the interval holds 0: no gain is shown")
    span = f"[{number(gain['low'], '+.3f')}, {number(gain['high'], '+.3f')}]"
    value = f"<b>{number(gain['value'], '+.3f')}</b> <small>{span}</small>"
    mark = "" if sure else ' <span class="unsure">not clear</span>'
    return f'<span title="{text(words)}">{value}{mark}</span>'


# ---- breakdowns ----


def breakdowns(results: Tree) -> str:
    """The headline of every data set by every fact that divides it."""
    parts: list[str] = []
    for name, dataset in results["datasets"].items():
        labels = list(dataset["variants"])
        keys = {k: None for label in labels for k in dataset["variants"][label]["conditions"][SEEN].get("by", {})}
        tables = "".join(_breakdown(dataset, labels, one) for one in keys)
        if tables:
            parts.append(
                f"<details{' open' if not parts else ''}><summary>{text(name)} "
                f"<small>{metric(dataset, dataset['headline'])}</small></summary>{tables}</details>"
            )
    if not parts:
        return '<p class="soft">No data set is divided by language or type.</p>'
    return f'<p class="soft">Groups of fewer than {FEW} samples are grey: their intervals are wide.</p>{"".join(parts)}'


def _breakdown(dataset: Tree, labels: Sequence[str], by: str) -> str:
    """A table of one fact; "" where it does not divide the samples."""
    name = dataset["headline"]
    trees = [dataset["variants"][label]["conditions"][SEEN].get("by", {}).get(by, {}) for label in labels]
    trees = [{group: scores[name] for group, scores in tree.items() if name in scores} for tree in trees]
    groups = _sorted({group for tree in trees for group in tree}, by, trees[-1])
    if len(groups) < 2:
        return ""
    highest = max((score["high"] for tree in trees for score in tree.values()), default=1.0)
    rows = []
    for group in groups:
        there = [(place, tree[group]) for place, tree in enumerate(trees) if group in tree]
        for row, (place, score) in enumerate(there):
            few = " few" if score["n"] < FEW else ""
            lead = f'<tr class="{few.strip()}"><td class="stick"></td>'
            if row == 0:
                lead = f'<tr class="first{few}"><th scope="row" class="stick group">{text(group or "(none)")}</th>'
            bar = interval_bar(score["value"], score["low"], score["high"], max(highest, 1.0), place)
            variant = f"<td>{key(place, labels[place])}</td>"
            numbers = f'<td class="n" data-name="n">{score["n"]:,}</td><td class="score">{interval(score)}</td>'
            rows.append(f'{lead}{variant}{numbers}<td class="bar-cell">{bar}</td></tr>')
    title = by.replace("_", " ")
    how = f" <small>{text(_HOW[by])}</small>" if by in _HOW else ""
    heads = (title, "model", ">n", "score [95 %]", "")
    return f"<h4>by {text(title)}{how}</h4>{table(''.join(rows), *heads, name=f'by {title}', css='scores by')}"


def _sorted(groups: set[str], by: str, last: Mapping[str, Tree]) -> list[str]:
    """Lengths and sizes in their order, others the best score of the last variant first."""
    if by in _ORDERED:
        return sorted(groups, key=lambda g: (_ORDER.index(g) if g in _ORDER else len(_ORDER), g))

    def place(group: str) -> tuple[float, str]:
        score = last.get(group)
        if score is None:
            return float("inf"), group
        return (score["value"] if score.get("better") == "lower" else -score["value"]), group

    return sorted(groups, key=place)
