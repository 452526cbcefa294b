"""English is cut exactly as the COCO caption tools' tokenizer cuts it; the cases were cut by that tokenizer itself."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from minigpt4o.metrics.ptb import coco_words, ptb_tokens
from minigpt4o.metrics.text import caption_words, english_words, words_of

CASES = json.loads((Path(__file__).parent / "ptb_cases.json").read_text(encoding="utf-8"))

# What people ask about first. After the punctuation is dropped.
WORDS = {
    "I don't, can't and cannot": "i do n't ca n't and can not",
    "it's the dogs' o'clock": "it 's the dogs o'clock",
    "gonna, wanna": "gon na wan na",
    "a black-and-white T-shirt": "a black-and-white t-shirt",
    "left -- right - up": "left right up",
    "a man (smiling)": "a man -lrb- smiling -rrb-",
    "[a] {b}": "-lsb- a -rsb- -lcb- b -rcb-",
    "\"quoted\" “curly” 'single' ‘both’": "quoted curly single both",
    "the U.S. flag at 10:30 a.m.": "the u.s. flag at 10:30 a.m.",
    "Mr. Smith, St. John etc.": "mr. smith st. john etc.",
    "3.5% of $1,000": "3.5 % of $ 1,000",
    "wait... what?!": "wait what ?!",
    "see http://a.b/c?d=e.": "see http://a.b/c?d=e",
    "AT&amp;T and M&M's": "at&t and m&m 's",
    "½ cup, £5, café": "1/2 cup # 5 café",
    "and/or 1990s '90s": "and/or 1990s '90s",
    "hello.World yes.no": "hello.world yes.no",
    "emoji 😀 vanish ☺ stays": "emoji vanish ☺ stays",
    "": "",
    "...": "",
}


@pytest.mark.parametrize(("text", "words"), WORDS.items())
def test_words_that_people_ask_about(text: str, words: str) -> None:
    assert english_words(text) == words.split()


@pytest.mark.parametrize("kind", ["rows", "awkward"])
def test_every_line_is_cut_as_the_original_cut_it(kind: str) -> None:
    lines = [line for line, _ in CASES[kind]]
    wrong = [
        (line, want, " ".join(got))
        for (line, want), got in zip(CASES[kind], ptb_tokens(lines), strict=True)
        if " ".join(got) != want
    ]
    assert not wrong


def test_the_end_of_a_caption_looks_into_the_next_as_in_one_file() -> None:
    assert coco_words(["plan B.", "The dog"])[0] == ["plan", "b"]
    assert coco_words(["plan B.", "dogs"])[0] == ["plan", "b."]
    assert coco_words(["plan B.", "", "The dog"])[0] == ["plan", "b"]


def test_a_caption_stays_one_line_whatever_is_in_it() -> None:
    odd = ["a\nb", "c\rd", "e\u2028f\x85g", "<a title='x", "y'> z", "\ud83d lone half", "\x00\x7f"]
    cut = coco_words(odd)
    assert len(cut) == len(odd)
    assert cut[0] == ["a", "b"]
    assert cut[2] == ["e", "f", "g"]


def test_languages_may_be_mixed_and_nothing_is_lost() -> None:
    cut = words_of(["A dog.", "犬です。", "Two cats."], ["en", "ja", "en"])
    assert cut[0] == ["a", "dog"]
    assert "".join(cut[1]) == "犬です"
    assert cut[2] == ["two", "cats"]
    candidates, references, name = caption_words(["a dog", "犬"], [["A dog.", "The dog"], []], ["en", "ja"])
    assert (candidates[0], references) == (["a", "dog"], [[["a", "dog"], ["the", "dog"]], []])
    assert "ptb" in name and ("characters" in name or "fugashi" in name)


@pytest.mark.parametrize("piece", ["!", "★", "😀", "a,", "1.a.", "<!a", "日本語、", "a@"])
def test_a_hundred_thousand_letters_cost_seconds_and_no_more(piece: str) -> None:
    start = time.process_time()
    english_words(piece * (100_000 // len(piece)))
    assert time.process_time() - start < 10
