"""Yes or no answers: accuracy, precision, recall, F1 and the share of yes (POPE), memes and the area under ROC.

Sources: Li 2023 (POPE), Kiela 2020 (Hateful Memes), DeLong 1988 (the parts of the area under ROC per sample).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from minigpt4o.metrics.choice import accuracy, read_yes_no
from minigpt4o.metrics.result import Measured, defined, mean
from minigpt4o.metrics.text import said

Reading = Literal["first", "pope", "equal"]

# Sums that the rates are made of.
_RIGHT, _TRUE_YES, _SAID_YES, _IS_YES, _N = range(5)


def read_pope(answer: str | None) -> str | None:
    """As POPE's and LLaVA's scripts read: no if the first sentence has the word No, no or not, else yes.

    Nothing is unreadable to it, and an empty answer is a yes; None, where nobody was asked, stays None.
    """
    if answer is None:
        return None
    words = said(answer).split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def read_equal(answer: str | None) -> str | None:
    """The whole answer is yes, no, true or false, case ignored (MiniGPT-v2)."""
    text = said(answer).lower()
    return {"yes": "yes", "true": "yes", "no": "no", "false": "no"}.get(text)


_READERS: dict[str, tuple[Callable[[str | None], str | None], str]] = {
    "first": (read_yes_no, 'the first yes or no in the answer, where "not sure" is neither'),
    "pope": (read_pope, "no if the first sentence says no or not, else yes (POPE's script)"),
    "equal": (read_equal, "the whole answer, case ignored (MiniGPT-v2)"),
}


def yes_no(answers: Sequence[str | None], labels: Sequence[object], reading: Reading = "first") -> dict[str, Measured]:
    """accuracy, precision, recall, f1, yes_share; labels are yes/no, true/false, 1/0 or bool.

    An unreadable answer is wrong, is no yes, and misses where yes was true. A rate over nothing (the precision where
    nobody says yes) is given as 0 with an interval of 0 to 1; draws of the bootstrap in which it is one are left out.
    """
    reader, how = _READERS[reading]
    read = [reader(answer) for answer in answers]
    true = [_label(label) for label in labels]
    rows = [
        [float(r == t), float(r == t == "yes"), float(r == "yes"), float(t == "yes"), 1.0]
        for r, t in zip(read, true, strict=True)
    ]
    sums = [sum(column) for column in zip(*rows, strict=True)] or [0.0] * 5
    unread = [r is None for r in read]
    found: dict[str, Measured] = {}
    for name, (rate, meaning) in _RATES.items():
        variant = f"{meaning}; answer read: {how}; unreadable = wrong and no yes"
        each = [defined(rate(row)) for row in rows]
        if name in _MEANS:
            found[name] = Measured(mean(each), each, variant, unread=unread)
        else:
            found[name] = Measured(defined(rate(sums)), each, variant, rows, rate, unread)
    return found


def pope(answers: Sequence[str], labels: Sequence[object], reading: Reading = "first") -> dict[str, Measured]:
    """POPE's five figures; `reading="pope"` reads answers as its script does."""
    return yes_no(answers, labels, reading)


def memes(
    answers: Sequence[str], labels: Sequence[object], scores: Sequence[float] | None = None, reading: Reading = "first"
) -> dict[str, Measured]:
    """Hateful Memes: accuracy of yes (hateful) and no; the area under ROC too where scores of "yes" are given."""
    reader, how = _READERS[reading]
    read = [reader(answer) for answer in answers]
    found = accuracy(read, [_label(label) for label in labels])
    result = {"accuracy": replace(found, variant=f"accuracy; answer read: {how}; unreadable = wrong")}
    if scores is not None:
        result["auroc"] = roc_auc(scores, labels)
    return result


def _label(label: object) -> str:
    text = said(label).strip().lower()
    return "yes" if text in ("yes", "true", "1", "1.0") else "no" if text in ("no", "false", "0", "0.0") else text


def _ratio(sums: Sequence[float], above: int, below: int) -> float:
    """Not a number over nothing."""
    return float(sums[above]) / float(sums[below]) if sums[below] else math.nan


def _f1(sums: Sequence[float]) -> float:
    both = float(sums[_SAID_YES]) + float(sums[_IS_YES])
    return 2 * float(sums[_TRUE_YES]) / both if both else math.nan


_RATES: dict[str, tuple[Callable[[Sequence[float]], float], str]] = {
    "accuracy": (partial(_ratio, above=_RIGHT, below=_N), "accuracy"),
    "precision": (partial(_ratio, above=_TRUE_YES, below=_SAID_YES), "precision of yes"),
    "recall": (partial(_ratio, above=_TRUE_YES, below=_IS_YES), "recall of yes"),
    "f1": (_f1, "F1 of yes"),
    "yes_share": (partial(_ratio, above=_SAID_YES, below=_N), "share of answers that say yes"),
}
_MEANS = ("accuracy", "yes_share")  # over all samples, so Wilson's interval and McNemar's test fit them


def roc_auc(scores: Sequence[float], labels: Sequence[object]) -> Measured:
    """Area under ROC: the chance that a yes sample scores above a no sample, ties half; 0.5 if a kind is missing.

    `each` is a sample's part: the share of the other kind it is on the right side of. The interval comes from these
    parts (DeLong). A score that is no finite number counts as the lowest of all.
    """
    values = np.array([float(one) if one is not None else -np.inf for one in scores], dtype=np.float64)
    values[np.isnan(values)] = -np.inf
    positive = np.array([_label(label) == "yes" for label in labels], dtype=bool)
    assert values.shape == positive.shape, f"scores and labels must match: {values.shape} and {positive.shape}"
    variant = "area under ROC, ties half, interval by DeLong's parts"
    if not positive.any() or positive.all():
        return Measured(0.5, [0.5] * len(values), f"{variant}; only one kind of label: 0.5")
    parts = _parts(values, positive)
    value = float(parts[positive].mean())
    rows = [
        [float(p * yes), float(yes), float(p * (not yes)), float(not yes)]
        for p, yes in zip(parts, positive, strict=True)
    ]
    return Measured(value, [float(p) for p in parts], variant, rows, partial(_auc_of_sums, whole=value))


def _parts(values: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """(N,) for a yes the share of no samples below it, for a no the share of yes samples above it; ties half."""
    yes, no = np.sort(values[positive]), np.sort(values[~positive])
    below = (np.searchsorted(no, values, "left") + np.searchsorted(no, values, "right")) / (2 * len(no))
    above = 1 - (np.searchsorted(yes, values, "left") + np.searchsorted(yes, values, "right")) / (2 * len(yes))
    return np.where(positive, below, above)


def _auc_of_sums(sums: Sequence[float], whole: float) -> float:
    """The area to first order: how far the drawn yes and no samples' parts lie from the whole's."""
    yes = float(sums[0]) / float(sums[1]) if sums[1] else whole
    no = float(sums[2]) / float(sums[3]) if sums[3] else whole
    return min(1.0, max(0.0, yes + no - whole))
