"""BLEU, ROUGE-L, CIDEr, CIDEr-D and SPIDEr of captions, by the definitions of the COCO caption tools, in plain Python.

Every function takes N token lists and N lists of reference token lists (`text.caption_words` makes them).
Sources: Papineni 2002 (BLEU), Lin 2004 (ROUGE-L), Vedantam 2015 (CIDEr), Liu 2017 (SPIDEr), each as the COCO caption
evaluation reads it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from minigpt4o.metrics.result import Measured, mean

Tokens = Sequence[str]
Ngrams = Counter[tuple[str, ...]]

MAX_ORDER = 4
_TINY, _SMALL = 1e-15, 1e-9  # the COCO tools' guards against 0/0
ROUGE_BETA = 1.2
CIDER_SIGMA = 6.0
SPICE_IS_ABSENT = (
    "SPIDEr is the mean of CIDEr-D and SPICE; SPICE needs a Java program and its models, which are not here"
)


def _apart(tokens: Tokens) -> list[str]:
    """Tokens with a hard space in them ("1 1/2", a phone number) are two for BLEU and CIDEr, one for ROUGE-L."""
    return " ".join(tokens).split()


def ngrams(tokens: Tokens, longest: int = MAX_ORDER) -> Ngrams:
    """How often each run of 1..longest tokens occurs."""
    return Counter(
        tuple(tokens[start : start + n]) for n in range(1, longest + 1) for start in range(len(tokens) - n + 1)
    )


# ---------------------------------------------------------------------------------------------------- BLEU


def bleu_statistics(candidate: Tokens, references: Sequence[Tokens]) -> list[float]:
    """What BLEU sums over a corpus: [length, closest reference length, matches of order 1..4, n-grams of 1..4]."""
    candidate, references = _apart(candidate), [_apart(one) for one in references]
    best: Counter[tuple[str, ...]] = Counter()
    for reference in references:
        best |= ngrams(reference)
    matches = [0.0] * MAX_ORDER
    for gram, count in ngrams(candidate).items():
        matches[len(gram) - 1] += min(count, best[gram])
    length = len(candidate)
    closest = min(((abs(len(r) - length), len(r)) for r in references), default=(0, 0))[1]
    guesses = [float(max(0, length - n)) for n in range(MAX_ORDER)]
    return [float(length), float(closest), *matches, *guesses]


def bleu_of_sums(sums: Sequence[float], order: int = MAX_ORDER) -> float:
    """BLEU-`order` with brevity penalty from summed `bleu_statistics`."""
    length, closest = float(sums[0]), float(sums[1])
    product = 1.0
    for n in range(order):
        product *= (float(sums[2 + n]) + _TINY) / (float(sums[2 + MAX_ORDER + n]) + _SMALL)
    ratio = (length + _TINY) / (closest + _SMALL)
    return product ** (1 / order) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0)


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], order: int = MAX_ORDER) -> Measured:
    """Corpus BLEU-`order`: n-gram counts are summed over the corpus first, so `value` is not the mean of `each`."""
    rows = [bleu_statistics(c, r) for c, r in zip(candidates, references, strict=True)]
    sums = [sum(column) for column in zip(*rows, strict=True)] or [0.0] * (2 + 2 * MAX_ORDER)
    return Measured(
        bleu_of_sums(sums, order),
        [bleu_of_sums(row, order) for row in rows],
        f"BLEU-{order}, corpus, closest reference length, brevity penalty (COCO caption tools)",
        rows,
        partial(bleu_of_sums, order=order),
    )


# ------------------------------------------------------------------------------------------------- ROUGE-L


def common_subsequence(first: Tokens, second: Tokens) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for a in first:
        diagonal = 0
        for j, b in enumerate(second, start=1):
            kept = row[j]
            row[j] = diagonal + 1 if a == b else max(row[j], row[j - 1])
            diagonal = kept
    return row[-1]


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Measured:
    """ROUGE-L: F (beta 1.2) of the best precision and the best recall over the references, averaged over samples."""
    each = []
    for said, refs in zip(candidates, references, strict=True):
        candidate, refs = said or [""], [one or [""] for one in refs]  # the tools read no words as one empty word
        common = [common_subsequence(candidate, r) for r in refs]
        precision = max((c / len(candidate) for c in common), default=0.0)
        recall = max((c / len(r) for c, r in zip(common, refs, strict=True)), default=0.0)
        if precision and recall:
            each.append((1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision))
        else:
            each.append(0.0)
    return Measured(mean(each), each, "ROUGE-L, beta 1.2, best precision and best recall (COCO caption tools)")


# --------------------------------------------------------------------------------------------------- CIDEr


@dataclass(frozen=True)
class Frequencies:
    """In how many samples' references each n-gram occurs, and of how many samples."""

    counts: Counter[tuple[str, ...]]
    samples: int


def frequencies(references: Sequence[Sequence[Tokens]]) -> Frequencies:
    """Document frequencies of a corpus of references, n-grams of 1 to 4."""
    counts: Counter[tuple[str, ...]] = Counter()
    for refs in references:
        counts.update({gram for one in refs for gram in ngrams(_apart(one))})
    return Frequencies(counts, len(references))


def cider_d(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], known: Frequencies | None = None
) -> Measured:
    """CIDEr-D: clipped counts and a Gaussian length penalty (sigma 6). It is what the COCO tools call "CIDEr".

    `known`: document frequencies of another corpus (such as the whole validation set); without, of these references.
    """
    return _cider(candidates, references, True, f"CIDEr-D, {_whose(known)}, sigma 6 (COCO caption tools' CIDEr)", known)


def cider(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], known: Frequencies | None = None
) -> Measured:
    """CIDEr without clipping and without length penalty."""
    variant = f"CIDEr, plain (no clipping, no length penalty, no stemming), {_whose(known)}"
    return _cider(candidates, references, False, variant, known)


def _whose(known: Frequencies | None) -> str:
    return f"document frequencies {'from these references' if known is None else f'given, of {known.samples} samples'}"


def spider(found: Measured, spice: Sequence[float] | None) -> Measured | None:
    """SPIDEr of a CIDEr-D and somebody's SPICE per sample; None without (`SPICE_IS_ABSENT` says why)."""
    if spice is None:
        return None
    each = [(one + other) / 2 for one, other in zip(found.each, spice, strict=True)]
    return Measured(mean(each), each, f"SPIDEr: mean of {found.variant} and the SPICE that was given")


def _cider(
    candidates: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    clipped: bool,
    variant: str,
    known: Frequencies | None,
) -> Measured:
    known = known or frequencies(references)
    log_size = math.log(known.samples) if known.samples else 0.0
    each = []
    for candidate, refs in zip(candidates, references, strict=True):
        vector = _Vector(ngrams(_apart(candidate)), known.counts, log_size)
        scores = [_similarity(vector, _Vector(ngrams(_apart(ref)), known.counts, log_size), clipped) for ref in refs]
        each.append(10.0 * mean(scores))
    return Measured(mean(each), each, variant)


class _Vector:
    """tf-idf weights of one caption, a norm per n-gram order, and its length."""

    def __init__(self, counts: Ngrams, documents: Counter[tuple[str, ...]], log_size: float) -> None:
        self.weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(MAX_ORDER)]
        self.length = 0  # in bigrams, as the COCO tools count it
        for gram, count in counts.items():
            weight = count * (log_size - math.log(max(1.0, documents[gram])))
            self.weights[len(gram) - 1][gram] = weight
            if len(gram) == 2:
                self.length += count
        self.norms = [math.sqrt(sum(w * w for w in order.values())) for order in self.weights]


def _similarity(candidate: _Vector, reference: _Vector, clipped: bool) -> float:
    penalty = 1.0
    if clipped:
        penalty = math.exp(-((candidate.length - reference.length) ** 2) / (2 * CIDER_SIGMA**2))
    total = 0.0
    for n in range(MAX_ORDER):
        other = reference.weights[n]
        if not candidate.norms[n] or not reference.norms[n]:
            continue
        dot = sum(
            (min(weight, other[gram]) if clipped else weight) * other[gram]
            for gram, weight in candidate.weights[n].items()
            if gram in other
        )
        total += dot / (candidate.norms[n] * reference.norms[n])
    return penalty * total / MAX_ORDER
