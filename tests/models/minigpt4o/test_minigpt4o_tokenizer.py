"""The tokenizer of Minigpt4o: ids where the model wants them, exact round trips, training that can be stopped."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from minigpt4o.cli import main
from minigpt4o.common.errors import DataError
from minigpt4o.models.minigpt4o import tokenizer_counts, tokenizer_training
from minigpt4o.models.minigpt4o.configuration_minigpt4o import token_layout
from minigpt4o.models.minigpt4o.tokenizer_merges import learn_merges

HERE = Path(__file__).parent
TEXT = HERE / "tokenizer_text.txt"
SHIPPED = HERE / "tokenizer"
SIZES = {"vocab_size": 768, "media_rows": 16}
CHAT = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What is it? "}, {"type": "audio"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    {"role": "user", "content": "Sure?"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(SHIPPED)


def folder(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_the_shipped_tokenizer_is_what_the_command_makes(tmp_path) -> None:
    command = ["tokenizer", "--for", "minigpt4o", "--vocab-size", "768", "--media-rows", "16", "--min-count", "1"]
    assert main([*command, "--out", str(tmp_path / "made"), str(TEXT)]) == 0
    made = folder(tmp_path / "made")
    assert json.loads(made["tokenizer.json"]) == json.loads((SHIPPED / "tokenizer.json").read_bytes())
    assert made["chat_template.jinja"] == (SHIPPED / "chat_template.jinja").read_bytes()
    assert sum(map(len, folder(SHIPPED).values())) < 200_000
    assert [path.name for path in tmp_path.iterdir()] == ["made"], "the counts are left behind"


def test_special_tokens_stand_where_the_layout_says(tokenizer) -> None:
    layout = token_layout(**SIZES)
    assert len(tokenizer) == layout.vocab_size
    for name in ("pad", "eos", "bos", "unk", "boi", "eoi", "image", "boa", "eoa", "audio"):
        assert getattr(tokenizer, f"{name}_token_id") == getattr(layout, f"{name}_token_id"), name
    assert tokenizer.convert_tokens_to_ids("<start_of_turn>") == layout.start_of_turn_token_id
    assert tokenizer.convert_tokens_to_ids("<end_of_turn>") == layout.end_of_turn_token_id
    assert tokenizer.convert_ids_to_tokens(layout.vision_vocab_offset + 3) == "<unused_image_3>"
    assert tokenizer.convert_ids_to_tokens(layout.vocab_size - 1) == f"<unused_audio_{layout.media_rows - 1}>"
    assert tokenizer.padding_side == "left"
    assert tokenizer("a").input_ids[0] == tokenizer.bos_token_id


def test_any_text_comes_back_exactly(tokenizer) -> None:
    draw = random.Random(0)
    ranges = [(0, 128), (0x3040, 0x3100), (0x4E00, 0xA000), (0x1F300, 0x1FAFF), (0, 0xD800), (0xE000, 0x110000)]
    texts = [
        "英語とEnglishの混ざった文。ｶﾅ、が(が)、🏳️‍🌈👩‍👩‍👧‍👦 e\u0301 \u200d\ufeff",
        "  a\t\tb \r\n\n\x00\x1b[0m\x7f don't 'll  ",
        "<unused_image_3><unused0><unused_audio_5>",
        bytes(range(256)).decode("latin-1"),
        bytes(range(256)).decode("utf-8", "replace"),
    ]
    texts += ["".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(40)) for _ in range(300)]
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text
        assert max(ids) < token_layout(**SIZES).vision_vocab_offset, "ordinary text reached the media rows"


def test_words_of_the_training_text_are_short(tokenizer) -> None:
    for text in ("The picture shows a circle", "聞こえますか。", "あります。"):
        assert len(tokenizer(text, add_special_tokens=False).input_ids) < len(text.encode()) / 2.5, text


def test_a_200000_entry_tokenizer_is_full_whatever_the_text(tmp_path) -> None:
    made = AutoTokenizer.from_pretrained(tokenizer_training.train_tokenizer([TEXT], tmp_path / "big"))
    layout = token_layout()
    assert len(made) == 200_000
    assert made.audio_token_id == layout.audio_token_id
    assert made.convert_tokens_to_ids("<unused0>") < layout.vision_vocab_offset
    assert made.decode(made("猫 cat", add_special_tokens=False).input_ids) == "猫 cat"


def test_merges_equal_those_of_the_tokenizers_library() -> None:
    text = TEXT.read_text(encoding="utf-8") * 2
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [tokenizer_training._splitter(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = tokenizer_training.byte_letters()
    trainer = trainers.BpeTrainer(vocab_size=900, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([text], trainer)
    theirs = [tuple(merge) for merge in json.loads(library.to_str())["model"]["merges"]]
    letters = tokenizer_training._to_letters()
    counts = Counter(tokenizer_training._cutter()(text))
    _, ours = learn_merges(((letters(word), count) for word, count in counts.items()), alphabet, 900)
    assert ours == theirs


def test_text_json_lines_and_gzip_give_the_same_tokenizer(tmp_path) -> None:
    text = TEXT.read_text(encoding="utf-8")
    (tmp_path / "a.jsonl").write_text(json.dumps({"body": text, "id": 1}) + "\n\n", encoding="utf-8")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"body": text}))
    with gzip.open(tmp_path / "c.txt.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    made = [
        folder(tokenizer_training.train_tokenizer([source], tmp_path / f"out{number}", **SIZES, field="body"))
        for number, source in enumerate([TEXT, *sorted(tmp_path.glob("*.*"))])
    ]
    assert len(made) == 4
    assert all(one == made[0] for one in made)


def test_a_stopped_run_goes_on_and_gives_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tokenizer_counts, "BLOCK", 500)
    monkeypatch.setattr(tokenizer_counts, "SHARD_BLOCKS", 2)
    monkeypatch.setattr(tokenizer_counts, "OPEN_FILES", 2)
    sources = [TEXT, shutil.copy(TEXT, tmp_path / "more.txt")]
    whole = tokenizer_training.train_tokenizer(sources, tmp_path / "whole", **SIZES)
    written = []
    write = tokenizer_counts._write_shard

    def stop_after_three(work: Path, number: int, *rest: object) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        write(work, number, *rest)  # type: ignore[arg-type]
        written.append(number)

    monkeypatch.setattr(tokenizer_counts, "_write_shard", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        tokenizer_training.train_tokenizer(sources, tmp_path / "part", **SIZES)
    (tmp_path / "part.counts" / ".tmp-shard").write_bytes(b"half a shard")
    written.clear()
    monkeypatch.setattr(tokenizer_counts, "_write_shard", lambda *args: (written.append(args[1]), write(*args)))
    part = tokenizer_training.train_tokenizer(sources, tmp_path / "part", **SIZES)
    assert written[0] == 3, "what was counted was counted again"
    assert folder(part) == folder(whole)


def test_counts_of_other_files_are_not_used(tmp_path) -> None:
    work = tmp_path / "out.counts"
    other = tmp_path / "other.txt"
    other.write_text("zzzz zzzz zzzz zzzz", encoding="utf-8")
    cut = tokenizer_training._cutter()
    tokenizer_counts.count_words([other], work, cut, field="text", key="k")
    tokenizer_counts.count_words([TEXT], work, cut, field="text", key="k")
    words = dict(tokenizer_counts.commonest_words(work, 10_000, 1))
    assert words == Counter(cut(TEXT.read_text(encoding="utf-8")))
    assert " zzzz" not in words


def test_a_text_without_line_ends_is_cut_between_letters(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tokenizer_counts, "BLOCK", 1000)
    path = tmp_path / "line.txt"
    text = "aあ🙂" * 700
    path.write_text(text, encoding="utf-8")
    blocks = [part for block in tokenizer_counts.read_blocks(path, "text") for part in block]
    assert "".join(blocks) == text
    assert len(blocks) > 3


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"good\n\xff\xfe", r"a\.txt.*not UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"txt": "y"}\n', r"a\.jsonl, line 2.*'text'"),
        ("a.jsonl", b'{"text": 3}\n', r"line 1.*int, not text"),
        ("a.jsonl", b"{nonsense", r"line 1"),
        ("a.txt.gz", b"\x1f\x8b nonsense", r"damaged gzip"),
    ],
)
def test_unusable_text_is_named(tmp_path, name, content, told) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        tokenizer_training.train_tokenizer([tmp_path / name], tmp_path / "out", **SIZES)


def test_unusable_requests_are_refused_before_any_work(tmp_path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        tokenizer_training.train_tokenizer([tmp_path / "nowhere.txt"], tmp_path / "out")
    with pytest.raises(DataError, match=r"vocab_size 290 is below 296"):
        tokenizer_training.train_tokenizer([TEXT], tmp_path / "out", 290, 16)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="holds no tokenizer"):
        tokenizer_training.train_tokenizer([TEXT], tmp_path / "kept", **SIZES)
    assert (tmp_path / "kept" / "thesis.tex").read_text() == "years of work"


def test_options_of_the_other_model_are_refused(tmp_path, capsys) -> None:
    out = str(tmp_path / "out")
    assert main(["tokenizer", "--for", "minigpt4o", "--word", "x", "--out", out, "--", str(TEXT)]) == 2
    assert "--word is for --for llm" in capsys.readouterr().err
    assert main(["tokenizer", "--media-rows", "4", "--out", out, str(TEXT)]) == 2
    assert "--media-rows is for --for minigpt4o" in capsys.readouterr().err


def test_a_chat_is_written_in_turns(tokenizer) -> None:
    assert tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True) == (
        "<bos><start_of_turn>user\nBe short.\n\n<image_soft_token>What is it?<audio_soft_token><end_of_turn>\n"
        "<start_of_turn>model\nA cat.<end_of_turn>\n<start_of_turn>user\nSure?<end_of_turn>\n<start_of_turn>model\n"
    )


def test_the_mask_holds_what_the_model_says_and_its_end(tokenizer) -> None:
    told = tokenizer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    said = [token for token, mask in zip(told["input_ids"], told["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(said) == "A cat.<end_of_turn>"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"role": "wizard", "content": "x"}, "'wizard'"),
        ({"role": "user", "content": [{"type": "video"}]}, "'video'"),
        ({"role": "system", "content": "late"}, "only the first"),
    ],
)
def test_a_chat_that_cannot_be_written_says_why(tokenizer, message, told) -> None:
    with pytest.raises(Exception, match=told):
        tokenizer.apply_chat_template([*CHAT, message])
