"""Answers of few possible kinds read from free text: yes or no, one of several choices, the name of a class."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from minigpt4o.metrics.result import Measured, mean
from minigpt4o.metrics.text import said

_YES = frozenset({"yes", "true", "はい", "正しい"})
_NO = frozenset({"no", "not", "false", "いいえ", "違う", "間違い"})
# Words of somebody who does not know; the "not" in them denies nothing.
_UNSURE = re.compile(
    r"\bnot\s+(?:\w+ly\s+|at all\s+|so\s+|too\s+|very\s+)?"
    r"(?:sure|certain|clear|known|able|possible|enough|specified|stated|mentioned|given)\b"
    r"|\b(?:do|does|did|can|could)\s+not\s+(?:\w+ly\s+)?"
    r"(?:know|tell|say|see|determine|answer|identify|recall|hear|judge)\b"
)
_LETTER_ALONE = re.compile(r"^\(?([a-z])(?:[).:]|$)")
_LETTER_NAMED = re.compile(r"\b(?:answer|option|choice)\s*(?:is|:)?\s*:?\s*\(?([a-z])\b(?!\s+\w)")
_UNSPACED = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]")  # kana and Han characters
_LETTER_FIRST = re.compile(r"^([a-z])\s+(.+)$", re.DOTALL)


def read_yes_no(answer: str | None) -> str | None:
    """ "yes", "no" or None; the first such word decides, so "No, it is not" is no.

    "I am not sure" and "I do not know" deny nothing and are neither; "not" alone is no.
    """
    plain = _UNSURE.sub(" ", said(answer).lower())
    found = re.findall(r"[a-z]+|はい|いいえ|正しい|違う|間違い", plain)
    for word in found:
        if word in _YES:
            return "yes"
        if word in _NO:
            return "no"
    return None


def read_choice(answer: str | None, choices: Sequence[str]) -> int | None:
    """Index of the chosen one: its letter ("B", "(b)", "B. dog", "the answer is B"), its exact text, or the only choice
    the answer names. "A dog" is an article and a dog, not the first choice."""
    text = said(answer).strip().lower()
    lowered = [said(choice).strip().lower() for choice in choices]
    if not text:
        return None
    if text in lowered:
        return lowered.index(text)
    for pattern in (_LETTER_ALONE, _LETTER_NAMED):
        letter = pattern.search(text)
        if letter and ord(letter.group(1)) - ord("a") < len(choices):
            return ord(letter.group(1)) - ord("a")
    letter = _LETTER_FIRST.match(text)  # "b dog" where the second choice is "dog"
    if letter and (index := ord(letter.group(1)) - ord("a")) < len(choices) and letter.group(2) == lowered[index]:
        return index
    named = [i for i, choice in enumerate(lowered) if choice and re.search(_as_word(choice), text)]
    return named[0] if len(named) == 1 else None


def read_class(answer: str | None, names: Sequence[str], also: Mapping[str, Sequence[str]] | None = None) -> str | None:
    """The class an answer names: exactly, or as the only one in it (in "crackling fire" the longest name wins).

    Case, "_" and "-" are ignored ("vacuum_cleaner" is "vacuum cleaner"). `also`: further names of a class.
    """
    text = _spoken(said(answer))
    forms = {_spoken(form): name for name in names for form in (name, *(also or {}).get(name, ()))}
    if text in forms:
        return forms[text]
    found: set[str] = set()
    for form in sorted(forms, key=len, reverse=True):
        if form and re.search(_as_word(form), text):
            found.add(forms[form])
            text = re.sub(_as_word(form), " ", text)
    return found.pop() if len(found) == 1 else None


def _as_word(text: str) -> str:
    """A pattern that finds a text where it is not part of a longer word; Japanese has no blanks to tell that by."""
    before, after = ("" if _UNSPACED.match(edge) else r"\w" for edge in (text[0], text[-1]))
    return (rf"(?<!{before})" if before else "") + re.escape(text) + (rf"(?!{after})" if after else "")


def _spoken(text: str) -> str:
    return " ".join(re.sub(r"[_\-]+", " ", text.lower()).strip(" .,!?:;\"'。、").split())


def accuracy(read: Sequence[object], true: Sequence[object]) -> Measured:
    """Share of equal ones; an answer that could not be read (None) is wrong."""
    each = [float(r is not None and r == t) for r, t in zip(read, true, strict=True)]
    return Measured(mean(each), each, "accuracy, unreadable = wrong", unread=[r is None for r in read])


def class_accuracy(
    answers: Sequence[str], true: Sequence[str], names: Sequence[str], also: Mapping[str, Sequence[str]] | None = None
) -> Measured:
    """Share of answers that name the right class (ESC-50); see `read_class`."""
    found = accuracy([read_class(answer, names, also) for answer in answers], list(true))
    return replace(
        found, variant=f"accuracy over {len(names)} classes, the answer's only class name, unreadable = wrong"
    )


def choice_accuracy(answers: Sequence[str], choices: Sequence[Sequence[str]], true: Sequence[int]) -> Measured:
    """Share of generated answers that choose the true index (ScienceQA, IconQA, A-OKVQA); see `read_choice`."""
    found = accuracy([read_choice(answer, one) for answer, one in zip(answers, choices, strict=True)], list(true))
    return replace(
        found, variant="multiple choice, letter or text of the choice read from the answer, unreadable = wrong"
    )


def by_group(measured: Measured, groups: Sequence[Hashable]) -> dict[Hashable, Measured]:
    """The same metric for each group of samples (ScienceQA's subjects, question types), in order of appearance."""
    rows: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        rows.setdefault(group, []).append(place)
    return {group: measured.subset(places) for group, places in rows.items()}
