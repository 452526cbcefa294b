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
RULES = [  # what follows from the reference's order: lower, punctuation, runs of blanks, line ends, spaces, words
    ("a\nb", "a\nb"),
    ("a\tb", "a\tb"),
    ("\nlead", "\nlead"),
    ("\n\nlead", "lead"),
    ("trail\n", "trail"),
    ("trail \n", "trail"),
    ("trail\t", "trail\t"),
    ("...", ""),
    ("", ""),
    ("ÀÉ Straße İ", "àé straße i\u0307"),
    ("a\u3000\u3000b", "a b"),
    ("x-y/z_w [q] {r} <s> a&b 1,000 50% $5 it's? “so”", "x-y/z_w [q] {r} <s> a&b 1,000 50% $5 it's? “so”"),
    ("w " * 49 + "last. more", "w " * 49 + "last"),
    ("w " * 50 + "\nx", "w " * 49 + "w"),
    ("w\n" * 60, ("w\n" * 60).rstrip()),
]


def build(name, **values):
    return registry.build(Part("processor", name, values))


@pytest.mark.parametrize(("text", "cleaned"), [*REFERENCE, *RULES])
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


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  What's THIS (here)?  ", "  what's this here?"),
        ("a . b", "a  b"),
        ("line\n", "line\n"),
        ("3.5%", "35%"),
        ("w " * 60, "w " * 49 + "w"),
    ],
)
def test_blip_question_takes_marks_out_and_strips_spaces_at_the_end_only(text, cleaned):
    assert build("blip_question")(text) == cleaned
