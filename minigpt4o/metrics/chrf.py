"""chrF: overlap of runs of letters, good for languages without blanks. Source: Popovic 2015, as in sacrebleu."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.text import said

ORDER, BETA = 6, 2
_TINY = 1e-16


def chrf(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Measured:
    """Corpus chrF2 in 0..1 (sacrebleu prints 0..100): letter runs of 1 to 6, blanks ignored, best reference each."""
    rows = [
        _best(_letters(said(c)), [_letters(said(one)) for one in r])
        for c, r in zip(candidates, references, strict=True)
    ]
    sums = [sum(column) for column in zip(*rows, strict=True)] or [0.0] * (3 * ORDER)
    variant = "chrF2, corpus, letter runs of 1 to 6, no words, blanks ignored, best reference (sacrebleu)"
    return Measured(chrf_of_sums(sums), [chrf_of_sums(row) for row in rows], variant, rows, chrf_of_sums)


def chrf_of_sums(sums: Sequence[float]) -> float:
    """F2 of summed (runs said, runs in the reference, runs in both) per length of run."""
    precisions, recalls = [], []
    for order in range(ORDER):
        ours, theirs, both = sums[3 * order : 3 * order + 3]
        if ours > 0 and theirs > 0:
            precisions.append(both / ours)
            recalls.append(both / theirs)
    if not precisions or not sum(precisions) + sum(recalls):
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def _best(candidate: list[Counter[str]], references: list[list[Counter[str]]]) -> list[float]:
    """The sums against the reference that scores highest alone; without a reference nothing matches."""
    rows = [_sums(candidate, one) for one in references] or [_sums(candidate, _letters(""))]
    return max(rows, key=chrf_of_sums)


def _sums(candidate: list[Counter[str]], reference: list[Counter[str]]) -> list[float]:
    found: list[float] = []
    for ours, theirs in zip(candidate, reference, strict=True):
        both = sum(min(count, theirs[run]) for run, count in ours.items())
        found += [float(ours.total() if theirs else 0), float(theirs.total()), float(both)]
    return found


def _letters(text: str) -> list[Counter[str]]:
    plain = "".join(text.split())
    return [Counter(plain[i : i + n] for i in range(len(plain) - n + 1)) for n in range(1, ORDER + 1)]
