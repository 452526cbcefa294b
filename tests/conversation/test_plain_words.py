"""The short way to a text's ids gives what the tokenizer's own call gives, whoever used the tokenizer before."""

import os
import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer, ByT5Tokenizer, LlamaTokenizer

from minigpt4o.conversation.plain_words import PlainWords
from minigpt4o.models.llms.tokenizer import train_tokenizer

DATA = Path(os.environ.get("MINIGPT4O_TEST_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))
TEXTS = [
    "a cat",
    " a  cat\nsits ",
    "",
    "</s> is a word, <unk><s> too",
    "猫が座っている。",
    "🐈‍⬛ \u0301 e\u0301",
    "\t\t" + "x" * 3000,
    "<image>\ue000",
]


def called(tokenizer, text):
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    (folder / "words.txt").write_text("a cat sits on the mat and is a word too\n" * 20)
    return AutoTokenizer.from_pretrained(train_tokenizer([folder / "words.txt"], folder / "tokenizer", 400))


def test_ids_are_those_of_a_call(tokenizer):
    words, rng = PlainWords(tokenizer), random.Random(0)
    assert words._direct
    made = ["".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x3000, 0x30FF)))) for _ in range(30))]
    for text in [*TEXTS, *made]:
        assert words(text) == called(tokenizer, text)


def test_what_others_set_on_the_tokenizer_changes_nothing(tokenizer):
    words, text = PlainWords(tokenizer), "</s> a cat sits on the mat"
    expected = called(tokenizer, text)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer(["a", "a cat sits"], padding="max_length", truncation=True, max_length=2)  # special tokens count there
    assert words(text) == expected != tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA} (MINIGPT4O_TEST_DATA)")
def test_llama_too():
    tokenizer = LlamaTokenizer.from_pretrained(DATA / "tokenizers" / "llama")
    words = PlainWords(tokenizer)
    for text in TEXTS:
        assert words(text) == called(tokenizer, text)


def test_a_tokenizer_that_is_called_in_its_own_way_is_called():
    """One without the library, and one whose class changes the text on its way."""
    words = PlainWords(ByT5Tokenizer())
    assert not words._direct
    assert words("a </s>") == called(ByT5Tokenizer(), "a </s>")


def test_what_is_no_text_is_refused(tokenizer):
    for wrong in ("\ud800", None, 3):
        with pytest.raises((TypeError, UnicodeError)):
            PlainWords(tokenizer)(wrong)
