"""Claims about the toy tokenizer: text comes back exactly, numbers are cut alike, special tokens have fixed ids."""

from __future__ import annotations

import pytest

from minigpt4o.common.errors import DataError
from minigpt4o.models.llms.causal_lm import load_tokenizer
from minigpt4o.models.llms.tokenizer import train_tokenizer

TEXTS = [
    "a small red circle at the top left",
    "小さな赤い丸が左上にあります。大きな青い四角、ﾊﾝｶｸ　全角スペース",
    " leading  double   blanks \n\n and\ttabs ",
    "emoji 🙂👩‍👩‍👧 and é combining é \u0000 zero",
    "{<12><34><56><100>} ###Human: it's 3,141.59!",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_in_any_script_comes_back_exactly(tokenizer_folder, text):
    tokenizer = load_tokenizer(str(tokenizer_folder))
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_special_tokens_have_fixed_ids_and_nothing_is_added_by_itself(tokenizer_folder):
    tokenizer = load_tokenizer(str(tokenizer_folder))
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert ids == (0, 1, 2, 3)
    assert tokenizer.encode("a</s>")[-1] == 2
    assert len(tokenizer.encode("a")) == 1
    assert len(tokenizer) == 300


def test_a_number_is_cut_alike_wherever_it_stands(tokenizer_folder):
    tokenizer = load_tokenizer(str(tokenizer_folder))
    alone = tokenizer.encode("56", add_special_tokens=False)
    for text in ("<56>", "{<56><7>}", "x 56", "56,56"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert any(ids[i : i + len(alone)] == alone for i in range(len(ids))), text


def test_no_token_spans_more_than_three_digits(tmp_path):
    (tmp_path / "numbers.txt").write_text("1234567 " * 500, encoding="utf-8")
    folder = train_tokenizer([tmp_path / "numbers.txt"], tmp_path / "out", vocab_size=300)
    tokenizer = load_tokenizer(str(folder))
    pieces = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    assert max(sum(c.isdigit() for c in piece) for piece in pieces) == 3


WORDS = ("<Img>", "</Img>", "<Aud>")


def test_a_whole_word_is_one_token_and_yet_ordinary_text(tmp_path):
    (tmp_path / "t.txt").write_text("a red circle, <Img>a star</Img>\n" * 9, encoding="utf-8")
    folder = train_tokenizer([tmp_path / "t.txt"], tmp_path / "out", vocab_size=290, whole_words=WORDS)
    tokenizer = load_tokenizer(str(folder))
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in WORDS]
    assert ids == [[len(tokenizer) - 3], [len(tokenizer) - 2], [len(tokenizer) - 1]]
    text = "see <Img>a star</Img>, <Aud> <img> and </s>"
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.eos_token_id not in ids  # a special token typed by a person is cut into letters ...
    assert sum(i >= len(tokenizer) - 3 for i in ids) == 3  # ... a whole word is not
    said = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert said == text  # and it is not left out of an answer, as special tokens are


def test_the_command_makes_whole_words_too(tmp_path):
    from minigpt4o.cli import main

    (tmp_path / "t.txt").write_text("a red circle\n" * 9, encoding="utf-8")
    out = tmp_path / "out"
    asked = [str(tmp_path / "t.txt"), "--out", str(out), "--vocab-size", "290", "--word", "<Img>", "</Img>"]
    assert main(["tokenizer", *asked]) == 0
    assert load_tokenizer(str(out)).tokenize("<Img>x</Img>") == ["<Img>", "x", "</Img>"]


def test_japanese_is_cut_where_the_script_changes(tmp_path):
    text = "左上に大きい赤い丸、オレンジの星と小さい青い四角。ピンクの輪はどこにありますか？\n"
    (tmp_path / "t.txt").write_text(text * 50, encoding="utf-8")
    tokenizer = load_tokenizer(str(train_tokenizer([tmp_path / "t.txt"], tmp_path / "out", vocab_size=400)))

    def pieces(words):
        return [tokenizer.decode([i]) for i in tokenizer.encode(words, add_special_tokens=False)]

    assert pieces("大きい赤い丸") == ["大", "きい", "赤", "い", "丸"]
    assert pieces("オレンジの輪") == ["オレンジ", "の", "輪"]
    alone = pieces("四角")
    for words in ("赤い四角", "ピンクの四角", "四角の左", "星四角", "ab四角c"):
        assert "".join(alone) in "".join(pieces(words))
        start = words.index("四角")
        assert pieces(words[:start]) + alone + pieces(words[start + 2 :]) == pieces(words)


def test_the_same_files_give_the_same_tokenizer(tmp_path):
    (tmp_path / "t.txt").write_text("red circle, blue square\n" * 9, encoding="utf-8")
    made = [train_tokenizer([tmp_path / "t.txt"], tmp_path / name, vocab_size=290) for name in ("a", "b")]
    assert len({(folder / "tokenizer.json").read_bytes() for folder in made}) == 1


def test_bad_requests_are_refused(tmp_path):
    (tmp_path / "t.txt").write_text("a", encoding="utf-8")
    for files, values, said in (
        ([tmp_path / "none.txt"], {}, "none.txt"),
        ([], {}, "none was given"),
        ([tmp_path / "t.txt"], {"vocab_size": 100}, "is below"),
        ([tmp_path / "t.txt"], {"special_tokens": ["<pad>"]}, "must include"),
    ):
        with pytest.raises(DataError, match=said):
            train_tokenizer(files, tmp_path / "out", **values)
