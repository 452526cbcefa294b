"""Text cleaning: letter by letter what BLIP does."""

import pytest

from minigpt4o.common.registry import Part, registry

WORDS = " ".join(f"w{i}" for i in range(60))
REFERENCE = [
    ("A man, riding a HORSE!  On (the) beach...", "a man, riding a horse on the beach"),
    ("What is this?", "what is this?"),
    ("<p>dog</p> {<10><20><30><40>}", "<p>dog</p> {<10><20><30><40>}"),
    ("Hello: world; ~test~ #1 *star*", "hello world test 1 star"),
    ("a\n\nb", "a b"),
    ("  lead", "lead"),
    ('don\'t "quote"', "don't quote"),
    (WORDS, " ".join(WORDS.split()[:50])),
    ("3.5%", "3 5%"),
    ("line one.\nline two\n", "line one line two"),
]


def build(name, **values):
    return registry.build(Part("processor", name, values))


@pytest.mark.parametrize(("text", "cleaned"), REFERENCE)
def test_blip_caption_is_the_reference(text, cleaned):
    assert build("blip_caption")(text) == cleaned


def test_prompt_and_number_of_words_are_the_users():
    assert build("blip_caption", prompt="a picture of ", max_words=2)("One TWO three") == "a picture of one two"
    assert build("blip_question", max_words=2)("One TWO three") == "one two"


def test_blip_question_closes_up_where_blip_caption_leaves_a_space():
    assert build("blip_question")("What's 3.5 (about)?  ") == "what's 35 about?"
    assert build("blip_caption")("3.5") == "3 5"


def test_japanese_comes_through():
    for name in ("plain", "blip_caption", "blip_question"):
        assert build(name)("左上に大きい赤い丸、下に星") == "左上に大きい赤い丸、下に星"


def test_plain_changes_nothing():
    assert build("plain")("  As IT is!\n") == "  As IT is!\n"
