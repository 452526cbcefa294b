"""Accuracy of short answers: VQA's official measure and the copies of it that disagree, each under its own name.

Sources: the public VQA evaluation (Antol 2015), MiniGPT-4's use of it, LAVIS's copy, the EvalAI processor of Pythia and
MMF (TextVQA; used by LLaVA and lmms-eval), ANLS (Biten 2019).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from minigpt4o.metrics.edits import distance
from minigpt4o.metrics.result import Measured, mean
from minigpt4o.metrics.text import said

_DIGIT_WORDS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(value) for value, word in enumerate(_DIGIT_WORDS.split())} | {"none": "0"}
_ARTICLES = frozenset({"a", "an", "the"})
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_POINT = re.compile(r"(?!<=\d)\.(?!\d)")  # the official pattern: a point not before a digit goes
_MOST_POINTS = 32  # the official tool passes a flag where the count belongs

# Words the official tool puts the apostrophe back into: each is known with any one apostrophe missing.
_APOSTROPHES = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've someone'd someone'd've someone'll someone's
something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd
who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd
you'd've you'll you're you've somebody'd've somebody'll somebody's
"""


def _contractions() -> dict[str, str]:
    table = {"somebody'd": "somebodyd"}  # the official table has this one the wrong way round
    for word in _APOSTROPHES.split():
        for place, letter in enumerate(word):
            if letter == "'":
                table[word[:place] + word[place + 1 :]] = word
    return table


_CONTRACTIONS = _contractions()


def official_punctuation(text: str) -> str:
    """The official treatment of punctuation: dropped at a word's edge or beside a number's comma, else a space."""
    out = text
    for mark in _PUNCTUATION:
        at_edge = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if at_edge or _COMMA_IN_NUMBER.search(text) else " ")
    return _POINT.sub("", out, count=_MOST_POINTS)


def official_words(text: str) -> str:
    """The official treatment of words: lower case, number words to digits, no articles, apostrophes put back."""
    numbered = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in numbered if word not in _ARTICLES)


def official_accuracy(answer: str, truths: Sequence[str]) -> float:
    """0..1: over the annotators, min(1, how many *others* gave this answer / 3), averaged.

    The normaliser runs only if the true answers differ among themselves: "a dog" against ten times "dog" is 0.
    """
    answer, known = _one_line(answer), [said(truth) for truth in truths]
    if len(set(known)) > 1:
        known = [official_words(official_punctuation(truth)) for truth in known]
        answer = official_words(official_punctuation(answer))
    return _left_out(answer, known)


def lavis_accuracy(answer: str, truths: Sequence[str]) -> float:
    """As LAVIS's copy has it: the answer is always normalised, differing truths lose their punctuation and no more."""
    answer, known = official_words(official_punctuation(_one_line(answer))), [said(truth) for truth in truths]
    if len(set(known)) > 1:
        known = [official_punctuation(truth) for truth in known]
    return _left_out(answer, known)


def evalai_form(text: str) -> str:
    """The EvalAI processor: lower case, no commas and question marks, "'s" apart, then the official treatment."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return official_words(official_punctuation(_one_line(text)))


def evalai_accuracy(answer: str, truths: Sequence[str]) -> float:
    """Answer and truths always pass the EvalAI processor; then others / 3 as in the official measure."""
    return _left_out(evalai_form(said(answer)), [evalai_form(said(truth)) for truth in truths])


def _one_line(answer: object) -> str:
    return said(answer).replace("\n", " ").replace("\t", " ").strip()


def _left_out(answer: str, truths: Sequence[str]) -> float:
    same = [truth == answer for truth in truths]
    total = sum(same)
    return sum(min(1.0, (total - own) / 3) for own in same) / len(truths) if truths else 0.0


def official(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> Measured:
    """The official accuracy over questions."""
    each = [official_accuracy(a, t) for a, t in zip(answers, truths, strict=True)]
    variant = "official VQA accuracy, leave one out, normalised only if the truths differ"
    return Measured(mean(each), each, variant, unread=_empty(answers))


def minigpt4(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> Measured:
    """What MiniGPT-4's eval_vqa.py computes for OK-VQA: the official accuracy of the lower-cased answer less <unk>.

    It prints percent with two decimals.
    """
    lowered = [said(answer).lower().replace("<unk>", "").strip() for answer in answers]
    each = [official_accuracy(a, t) for a, t in zip(lowered, truths, strict=True)]
    variant = "minigpt4: official VQA accuracy of the answer in lower case without <unk> (eval_vqa.py)"
    return Measured(mean(each), each, variant, unread=_empty(lowered))


def lavis(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> Measured:
    """The accuracy LAVIS's copy of the evaluation gives."""
    each = [lavis_accuracy(a, t) for a, t in zip(answers, truths, strict=True)]
    variant = "lavis: VQA accuracy, answer always normalised, truths only less punctuation (LAVIS's vqa_eval)"
    return Measured(mean(each), each, variant, unread=_empty(answers))


def evalai(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> Measured:
    """The accuracy of TextVQA and of lmms-eval's processor."""
    each = [evalai_accuracy(a, t) for a, t in zip(answers, truths, strict=True)]
    variant = "evalai: VQA accuracy, leave one out, answer and truths always normalised (EvalAI processor; TextVQA)"
    return Measured(mean(each), each, variant, unread=_empty(answers))


def anls(answers: Sequence[str], truths: Sequence[Sequence[str]], threshold: float = 0.5) -> Measured:
    """1 - edit distance / longer length against the nearest truth, 0 below the threshold (ST-VQA, DocVQA)."""
    each = [
        max((_similar(said(a).lower().strip(), said(one).lower().strip(), threshold) for one in t), default=0.0)
        for a, t in zip(answers, truths, strict=True)
    ]
    return Measured(mean(each), each, f"ANLS, threshold {threshold:g}, case ignored (ST-VQA)", unread=_empty(answers))


def _similar(answer: str, truth: str, threshold: float) -> float:
    longer = max(len(answer), len(truth))
    value = 1 - distance(answer, truth) / longer if longer else 1.0
    return value if value >= threshold else 0.0


def _empty(answers: Sequence[str]) -> list[bool]:
    return [not said(answer).strip() for answer in answers]


def simple_form(text: str) -> str:
    """NFKC, lower case, no articles, no punctuation at the ends, single spaces."""
    text = unicodedata.normalize("NFKC", said(text)).lower().strip().strip(" .,!?:;\"'。、！？「」").strip()
    return " ".join(word for word in text.split() if word not in _ARTICLES)


def simple(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> Measured:
    """Share of answers that equal any true answer after `simple_form`."""
    each = [
        float(bool(t) and simple_form(a) in {simple_form(one) for one in t})
        for a, t in zip(answers, truths, strict=True)
    ]
    variant = "exact match with any true answer (case, articles, outer punctuation ignored)"
    return Measured(mean(each), each, variant, unread=_empty(answers))


def equal(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> Measured:
    """Share of answers that are a true answer letter for letter, case ignored (MiniGPT-v2 on GQA, VSR, memes)."""
    lowered = [said(answer).lower() for answer in answers]
    each = [float(a in {said(one).lower() for one in t}) for a, t in zip(lowered, truths, strict=True)]
    variant = "equal but for case, no normalisation (MiniGPT-v2 on GQA, VSR, Hateful Memes)"
    return Measured(mean(each), each, variant, unread=_empty(answers))


def vizwiz(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> Measured:
    """min(how many true answers equal it / 3, 1), case ignored, nobody left out (MiniGPT-v2 on VizWiz)."""
    lowered = [said(answer).lower() for answer in answers]
    each = [min(sum(said(one).lower() == a for one in t) / 3, 1.0) for a, t in zip(lowered, truths, strict=True)]
    variant = "min(equal answers / 3, 1), case ignored, nobody left out (MiniGPT-v2 on VizWiz)"
    return Measured(mean(each), each, variant, unread=_empty(answers))


def aokvqa(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> Measured:
    """A-OKVQA's direct answers: min(equal answers / 3, 1), letter for letter, nobody left out."""
    each = [min(sum(said(one) == said(a) for one in t) / 3, 1.0) for a, t in zip(answers, truths, strict=True)]
    variant = "min(equal answers / 3, 1), letter for letter, nobody left out (A-OKVQA's eval_predictions)"
    return Measured(mean(each), each, variant, unread=_empty(answers))


def token_f1(answers: Sequence[Sequence[str]], truths: Sequence[Sequence[Sequence[str]]]) -> Measured:
    """Best F1 of shared tokens over the true answers; both come as token lists (SQuAD, Rajpurkar 2016)."""
    each = [max((_f1(a, one) for one in t), default=0.0) for a, t in zip(answers, truths, strict=True)]
    return Measured(mean(each), each, "token F1, best over the true answers (SQuAD)")


def _f1(answer: Sequence[str], truth: Sequence[str]) -> float:
    shared = sum((Counter(answer) & Counter(truth)).values())
    if not shared:
        return float(not answer and not truth)
    precision, recall = shared / len(answer), shared / len(truth)
    return 2 * precision * recall / (precision + recall)
