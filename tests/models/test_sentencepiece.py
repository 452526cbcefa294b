"""Claims about SentencePiece tokenizers: ids and texts are those of the slow tokenizers MiniGPT-4 was trained with."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import shutil
import time
from pathlib import Path

import pytest
import sentencepiece
import torch

from minigpt4o.common.errors import ConfigError
from minigpt4o.models.llms.tokenizer_files import load_tokenizer

DATA = Path(os.environ.get("MINIGPT4O_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "tokenizers"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="set MINIGPT4O_TEST_DATA to the folder of real data")
LLAMA = DATA / "llama"
MODELS = ["llama/tokenizer.model", "spiece.model"]
MODELS += [f"test_sentencepiece{kind}.model" for kind in ("", "_bpe", "_with_bytefallback")]

# Made by transformers 4.30 and SentencePiece 0.1.99. `golden`: text -> ids without special tokens (by default BOS comes
# before). `slow`: folders (a model and JSON files) with text -> ids without and with special tokens, ids -> texts.
VALUES = json.loads(Path(__file__).with_name("sentencepiece_values.json").read_text(encoding="utf-8"))
GOLDEN, SLOW = VALUES["golden"], VALUES["slow"]


def ids_of(tokenizer, text: str, **options) -> list[int]:
    return tokenizer(text, add_special_tokens=False, **options)["input_ids"]


@pytest.fixture(scope="module")
def small_model(tmp_path_factory) -> Path:
    """A SentencePiece model trained here, for what must be tested without real data: BPE with byte fallback."""
    folder = tmp_path_factory.mktemp("spm")
    lines = ["a small red circle is at the top left", "two big blue squares", "ユーザー: 小さな赤い丸\nシステム: はい"]
    (folder / "t.txt").write_text("\n".join(lines * 30), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "t.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols="$$",
        minloglevel=2,
    )
    (folder / "t.txt").unlink()
    return folder / "tokenizer.model"


def put(folder: Path, model: Path, name: str = "tokenizer.model", **files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, folder / name)
    for file, value in files.items():
        (folder / f"{file}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


def lines(seed: int = 0) -> list[str]:
    """Real lines and made ones: English, Japanese, blanks, control characters, emoji, combining signs, halfwidth."""
    draw = random.Random(seed)
    alphabet = ["a", "the", " ", "  ", "\t", "\n", "\r\n", "日本", "ア", "ｱ", "é", "e\u0301", "😀",
                "👨\u200d👩\u200d👧", "\x01", "\x7f", "\u200b",
                "\u3000", "▁", "12", ".", "<", "s", ">", "$$", "Ω", "ﬁ", "½", "\u0000", "한국"]  # fmt: skip
    made = ["".join(draw.choices(alphabet, k=draw.randint(1, 12))) for _ in range(400)]
    return (DATA / "sample_text.txt").read_text(encoding="utf-8").splitlines() + made


@needs_data
@pytest.mark.parametrize("text", GOLDEN)
def test_llama_gives_the_references_ids(text):
    tokenizer = llama()
    assert ids_of(tokenizer, text) == GOLDEN[text]
    assert tokenizer(text)["input_ids"] == [1, *GOLDEN[text]]


_KEPT: dict[str, object] = {}


def llama():
    return _KEPT.setdefault("llama", load_tokenizer(str(LLAMA), pad_token="$$"))


@needs_data
def test_the_vocabulary_stays_as_it_is_and_the_pad_token_is_an_ordinary_word():
    tokenizer = llama()
    assert len(tokenizer) == tokenizer.vocab_size == 32000
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)
    assert tokenizer.pad_token_id == 3997 != tokenizer.convert_tokens_to_ids("▁$$") == 2046
    assert tokenizer.get_added_vocab() == {"<s>": 1, "</s>": 2, "<unk>": 0}
    assert tokenizer.decode([263, 3997, 263], skip_special_tokens=True) == "a a"  # padding, also where it was said


@needs_data
@pytest.mark.parametrize("file", MODELS)
def test_ids_are_sentencepieces_own_and_texts_come_back(file):
    sp = sentencepiece.SentencePieceProcessor(model_file=str(DATA / file))
    tokenizer = load_tokenizer(str(DATA / file))
    count = 0
    for line in lines():
        ids = ids_of(tokenizer, line, split_special_tokens=True)
        assert ids == sp.encode(line), repr(line)
        special = [token for token in tokenizer.all_special_tokens if token in line]
        if not special:
            assert ids_of(tokenizer, line) == ids
            bos = [tokenizer.bos_token_id] if tokenizer.special_tokens_pattern == "bos" else []
            eos = [tokenizer.eos_token_id] if tokenizer.special_tokens_pattern == "eos" else []
            assert tokenizer(line)["input_ids"] == bos + ids + eos
        if 0 not in ids and sp.unk_id() not in ids and tokenizer.style == "llama":
            assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == sp.decode(ids), repr(line)
            if sp.piece_size() == 32000:  # Llama's model changes no character
                assert tokenizer.decode(ids) == line.replace("▁", " "), repr(line)
        count += 1
    assert count > 400


@needs_data
def test_special_tokens_typed_as_text_are_words_where_one_asks_for_it():
    tokenizer = llama()
    plain = ids_of(tokenizer, "a</s> <s>b", split_special_tokens=True)
    assert not {1, 2} & set(plain)
    assert tokenizer.decode(plain) == "a</s> <s>b"
    assert ids_of(tokenizer, "a</s> <s>b") == [263, 2, 259, 1, 289]


@needs_data
@pytest.mark.parametrize("kind", list(SLOW))
def test_folders_of_all_sorts_give_what_transformers_4_30_made_of_them(tmp_path, kind):
    case = SLOW[kind]
    folder = put(tmp_path / "a", DATA / case["model"], case["name"], **case["files"])
    tokenizer = load_tokenizer(str(folder))
    tokenizer.save_pretrained(tmp_path / "b")
    for opened in (tokenizer, load_tokenizer(str(tmp_path / "b"))):
        assert len(opened) == case["len"]
        for text, bare, default in case["ids"]:
            assert ids_of(opened, text) == bare, text
            assert opened(text)["input_ids"] == default, text
        for ids, whole, skipped in case["texts"]:
            assert opened.decode(ids) == whole
            assert opened.decode(ids, skip_special_tokens=True) == skipped
            assert opened.batch_decode([ids, ids], skip_special_tokens=True) == [skipped, skipped]


@needs_data
def test_a_long_prompt_takes_no_time_to_cut():
    tokenizer = llama()
    for text in ("hello world " * 8400, "日本語" * 34000, " " * 100_000, "</s>" * 25_000):
        start = time.perf_counter()
        ids = ids_of(tokenizer, text)
        assert time.perf_counter() - start < 2
        assert len(ids) > 6000


# ---- without real data ----


def test_a_folder_with_only_the_model_is_enough(small_model):
    for source in (small_model.parent, small_model):
        tokenizer = load_tokenizer(str(source))
        assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
        assert tokenizer.pad_token_id == 2
        assert tokenizer("a  red")["input_ids"] == [
            1,
            *sentencepiece.SentencePieceProcessor(str(small_model)).encode("a  red"),
        ]
        assert tokenizer.decode(ids_of(tokenizer, "シ😀")) == "シ😀"


def test_what_is_saved_opens_again_with_added_tokens_and_the_pad_token(small_model, tmp_path):
    tokenizer = load_tokenizer(str(small_model), pad_token="$$")
    assert tokenizer.add_tokens(["<Img>", "</Img>", "<Img>"]) == 2
    texts = ["<Img> a red</Img> circle", "$$ price $$5", "x</s>", "</Img><Img>"]
    tokenizer.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tokenizer.model", "tokenizer_config.json"]
    again = load_tokenizer(str(tmp_path))
    assert len(again) == len(tokenizer) == 402
    assert again.pad_token == "$$"
    assert again.get_added_vocab() == tokenizer.get_added_vocab()
    assert [ids_of(again, text) for text in texts] == [ids_of(tokenizer, text) for text in texts]
    assert ids_of(again, texts[0])[0] == 400
    assert again.decode(ids_of(again, texts[0])) == "<Img> a red </Img> circle"


def test_a_copy_and_what_a_worker_receives_are_the_same(small_model):
    tokenizer = load_tokenizer(str(small_model), pad_token="$$")
    tokenizer.add_tokens(["<Img>"])
    text = "<Img> 小さな red</s>"
    for other in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):  # noqa: S301 - our own bytes
        assert ids_of(other, text) == ids_of(tokenizer, text)
        assert other.pad_token_id == tokenizer.pad_token_id


def test_rows_are_padded_and_cut_as_transformers_does_it(small_model):
    tokenizer = load_tokenizer(str(small_model), pad_token="$$")
    rows = tokenizer(
        ["a red circle", "two"], padding="longest", truncation=True, max_length=3, add_special_tokens=False,
        return_tensors="pt",
    )  # fmt: skip
    assert rows["input_ids"].shape == (2, 3)
    assert rows["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert rows["input_ids"][1, 1:].tolist() == [tokenizer.pad_token_id] * 2


def test_beams_stop_at_a_string_made_of_several_words(small_model):
    from transformers import AutoConfig, AutoModelForCausalLM, StopStringCriteria

    tokenizer = load_tokenizer(str(small_model))
    stop = StopStringCriteria(tokenizer, ["blue squ"])
    said = [bool(stop(torch.tensor([ids_of(tokenizer, text)]), None)) for text in ("two blue squ", "two blue", "squ")]
    assert said == [True, False, False]
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", vocab_size=400, **sizes)).eval()
    rows = model.generate(
        inputs_embeds=torch.randn(1, 3, 16), max_new_tokens=3, num_beams=2, stop_strings=["red"], tokenizer=tokenizer,
        pad_token_id=0,
    )  # fmt: skip
    assert rows.shape[0] == 1


def test_ids_without_a_word_and_half_characters_do_no_harm(small_model):
    tokenizer = load_tokenizer(str(small_model))
    red = ids_of(tokenizer, "red")
    assert tokenizer.decode([*red, 100_000, *red]) == "red red"
    with pytest.raises(UnicodeError):
        tokenizer("a\ud800")


@pytest.mark.parametrize(
    ("files", "kind", "is_ours"),
    [
        ({}, "auto", True),
        ({"tokenizer_config": {"tokenizer_class": "LlamaTokenizerFast"}}, "auto", True),
        ({"tokenizer_config": {"tokenizer_class": "LlamaTokenizer"}, "tokenizer": {}}, "auto", True),
        ({"tokenizer_config": {"tokenizer_class": "GemmaTokenizer"}}, "auto", False),
        ({"tokenizer_config": {"tokenizer_class": "GemmaTokenizer"}}, "sentencepiece", True),
        ({"tokenizer_config": {}, "tokenizer": {}}, "auto", False),
    ],
)
def test_sentencepiece_serves_llamas_and_t5s_folders_and_whom_asks_for_it(small_model, tmp_path, files, kind, is_ours):
    from minigpt4o.models.llms.tokenizer_files import sentencepiece_model

    found = sentencepiece_model(put(tmp_path / "f", small_model, **files), forced=kind == "sentencepiece")
    assert (found is not None) is is_ours


def test_a_t5_folder_of_a_gpt_neox_model_gets_no_eos_from_us(small_model, tmp_path):
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "bos_token": "<s>", "pad_token": "[PAD]"}
    tokenizer = load_tokenizer(str(put(tmp_path / "f", small_model, "spiece.model", tokenizer_config=config)))
    ids = sentencepiece.SentencePieceProcessor(str(small_model)).encode("ユーザー: \n")
    assert ids_of(tokenizer, "ユーザー: \n") == ids
    assert tokenizer("ユーザー: \n")["input_ids"] == [*ids, tokenizer.eos_token_id]
    assert (len(tokenizer), tokenizer.pad_token_id, tokenizer.bos_token_id) == (401, 400, 1)


def test_wrong_requests_are_explained(small_model, tmp_path):
    with pytest.raises(ConfigError, match=r"pad_token: '\$\$\$' is no word.*nearest: \$\$"):
        load_tokenizer(str(small_model), pad_token="$$$")
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(ConfigError, match=r"tokenizer.model is not a SentencePiece model"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(ConfigError, match=r"no SentencePiece model \(tokenizer.model or spiece.model\)"):
        load_tokenizer(str(tmp_path), kind="sentencepiece")
    broken = put(tmp_path / "f", small_model)
    (broken / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tokenizer_config.json cannot be read"):
        load_tokenizer(str(broken))
