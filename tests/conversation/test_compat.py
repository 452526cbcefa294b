"""In the profile `compat` rows and prompts are the reference's, id for id, its faults included."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.batch import IGNORE, IMAGE_SLOT, Batch
from minigpt4o.conversation.compat import CompatEncoder
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.collate import collate

MEASURED = json.loads((Path(__file__).parent / "minigpt4_layouts.json").read_text(encoding="utf-8"))
TRAIN = {row["name"]: row for row in MEASURED["train"]}
SERVE = {row["name"]: row for row in MEASURED["serve"]}
Encode = Callable[..., SampleEncoder]
Dialogue = Callable[..., Sample]
RNG = random.Random(0)


def slots_of(row: list[Any]) -> int:
    return next((int(i.removeprefix("IMG*")) for i in row if isinstance(i, str)), 4)


def expanded(row: list[Any]) -> list[int]:
    """`"IMG*4"` as four slots."""
    return [j for i in row for j in ([IMAGE_SLOT] * slots_of([i]) if isinstance(i, str) else [i])]


def ensure_batch(batch: Batch, given: dict[str, Any], pad: int, narrower: bool = False) -> None:
    """The batch is the measured one. `narrower`: the reference pads contexts and answers apart, which can add columns
    of padding; only the compat profile has them too."""
    wide = len(given["labels"][0])
    width = batch.input_ids.shape[1]
    more = wide - width
    assert more == 0 or (narrower and more > 0)
    assert batch.input_ids.tolist() == [expanded(row)[:width] for row in given["input_ids"]]
    assert ["".join(map(str, row)) + "0" * more for row in batch.attention_mask.tolist()] == given["attention_mask"]
    assert [row + [IGNORE] * more for row in batch.labels.tolist()] == given["labels"]
    assert all(row[len(row) - more :] == [pad] * more for row in given["input_ids"])


@pytest.mark.parametrize("name", list(TRAIN))
def test_a_training_batch_is_the_reference_s(llama: Any, encode: Encode, dialogue: Dialogue, name: str) -> None:
    given = TRAIN[name]
    slots = {"image": slots_of(given["input_ids"][0])}
    encoder = encode(llama, given["template"], "compat", slots=slots, max_txt_len=given["max_txt_len"])
    samples = [dialogue(*turns, images=turns[0].count("<image>")) for turns in given["turns"]]
    batch = collate([encoder.example(sample, RNG) for sample in samples], llama.pad_token_id)
    ensure_batch(batch, given, llama.pad_token_id)


@pytest.mark.parametrize("name", [name for name in TRAIN if name != "v2_truncate"])
def test_the_default_profile_trains_on_the_same_rows(llama: Any, encode: Encode, dialogue: Dialogue, name: str) -> None:
    given = TRAIN[name]
    slots = {"image": slots_of(given["input_ids"][0])}
    encoder = encode(llama, given["template"], slots=slots, max_txt_len=given["max_txt_len"])
    samples = [dialogue(*turns, images=turns[0].count("<image>")) for turns in given["turns"]]
    batch = collate([encoder.example(sample, RNG) for sample in samples], llama.pad_token_id)
    ensure_batch(batch, given, llama.pad_token_id, narrower=True)


@pytest.mark.parametrize("name", list(SERVE))
def test_a_prompt_is_the_reference_s(llama: Any, encode: Encode, dialogue: Dialogue, name: str) -> None:
    given = SERVE[name]
    encoder = encode(llama, given["template"], "compat", slots={"image": 4})
    ids = encoder.prompt(dialogue(*given["turns"], images=1), RNG).input_ids.tolist()
    pieces = given["text"].split("<ImageHere>")  # the reference tokenises what stands between pictures, BOS in front
    cut = [llama(piece, add_special_tokens=not i)["input_ids"] for i, piece in enumerate(pieces)]
    assert ids == cut[0] + [IMAGE_SLOT] * 4 + cut[1]
    if given["ids"] is not None:
        assert cut == given["ids"]


def test_a_prompt_of_two_turns_is_cut_as_one_text(tokenizer: Any, encode: Encode, dialogue: Dialogue) -> None:
    """The same without Llama's tokenizer: the stored answer is a piece of the text around it."""
    said = ("<image>What can you see?", "a cat on a table with a laptop", "猫はどんな体勢をしていますか？")
    ids = encode(tokenizer, "rinna_neox", "compat").prompt(dialogue(*said, images=1), RNG).input_ids.tolist()
    before, after = "ユーザー: <Img>", f"</Img> {said[0][7:]}\nシステム: {said[1]}\nユーザー: {said[2]}\nシステム: "
    cut = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, after)]
    assert ids == cut[0] + [IMAGE_SLOT] * 4 + cut[1]
    assert tokenizer.bos_token_id not in ids and tokenizer.eos_token_id not in ids


def test_bilingual_training_starts_with_bos_and_ends_with_eos(unigram: Any, encode: Encode, dialogue: Dialogue) -> None:
    example = encode(unigram, "rinna_neox", "compat").example(dialogue("<image>何色？", "赤", images=1), RNG)
    ids = example.input_ids.tolist()
    assert ids[0] == unigram.bos_token_id and ids[-1] == unigram.eos_token_id
    default = encode(unigram, "rinna_neox").example(dialogue("<image>何色？", "赤", images=1), RNG)
    assert default.input_ids.tolist() == ids[1:]


def test_a_cut_answer_loses_its_end(tokenizer: Any, encode: Encode, dialogue: Dialogue) -> None:
    sample = dialogue("<image>" + "what? " * 60, "red " * 60, images=1)
    encoder = encode(tokenizer, "minigpt_v2", "compat", max_txt_len=20)
    example = encoder.example(sample, RNG)
    learned = example.labels[example.labels != IGNORE].tolist()
    whole = tokenizer("red " * 60 + "</s>", add_special_tokens=False)["input_ids"]
    assert learned == whole[:20] and tokenizer.eos_token_id not in learned  # the question's length does not count
    assert example.truncated == len(whole) - 20
    exact = encode(tokenizer, "minigpt_v2", "compat", max_txt_len=len(whole)).example(sample, RNG)
    assert exact.labels[-1] == tokenizer.eos_token_id and exact.truncated == 0


def test_a_cut_conversation_is_cut_as_a_whole(tokenizer: Any, encode: Encode, dialogue: Dialogue) -> None:
    sample = dialogue("<image>what?", "red", "why?", "it is red", images=1)
    whole = encode(tokenizer, "minigpt_v2", "compat", max_txt_len=900).example(sample, RNG)
    first = int((whole.labels != IGNORE).nonzero()[0])
    for limit in range(1, len(whole.labels) - first + 1):
        cut = encode(tokenizer, "minigpt_v2", "compat", max_txt_len=limit).example(sample, RNG)
        assert cut.input_ids.tolist() == whole.input_ids[: first + limit].tolist()
        assert cut.labels.tolist() == whole.labels[: first + limit].tolist()
        assert cut.truncated == int((whole.labels[first + limit :] != IGNORE).sum())


def test_an_answer_s_padding_token_is_not_learned(llama: Any, encode: Encode, dialogue: Dialogue) -> None:
    sample = dialogue("price?", "5$$ now")
    compat = encode(llama, "minigpt_v2", "compat").example(sample, RNG)
    assert llama.pad_token_id == 3997 and 3997 in compat.input_ids.tolist()
    assert 3997 not in compat.labels.tolist()
    assert 3997 in encode(llama, "minigpt_v2").example(sample, RNG).labels.tolist()


def test_special_tokens_count_wherever_they_stand(tokenizer: Any, encode: Encode, dialogue: Dialogue) -> None:
    sample = dialogue("say </s> twice", "</s> and </s>")
    eos = tokenizer.eos_token_id
    counts = [
        encode(tokenizer, "minigpt_v2", profile).example(sample, RNG).input_ids.tolist().count(eos)
        for profile in ("compat", "default")
    ]
    assert counts == [4, 1]


def test_the_context_of_a_picture_is_cut_and_a_text_alone_is_not(
    tokenizer: Any, encode: Encode, dialogue: Dialogue
) -> None:
    more = {"max_context_len": 30, "max_txt_len": 300}
    long = "what is it? " * 20
    example = encode(tokenizer, "minigpt_v2", "compat", **more).example(
        dialogue("<image>" + long, "red", images=1), RNG
    )
    assert int((example.labels != IGNORE).nonzero()[0]) == 31  # BOS does not count
    text = encode(tokenizer, "minigpt_v2", "compat", **more).example(dialogue(long, "red"), RNG)
    assert int((text.labels != IGNORE).nonzero()[0]) > 100
    with pytest.raises(SkipSample, match=r"too_long: rows.json:7: .*take \d+ places.*max_context_len=30"):
        encode(tokenizer, "minigpt_v2", "compat", **more).example(dialogue(long + "<image>", "red", images=1), RNG)


def test_the_profile_chooses_the_encoder(tokenizer: Any, encode: Encode, dialogue: Dialogue) -> None:
    assert type(encode(tokenizer, "minigpt_v2")) is SampleEncoder
    assert type(encode(tokenizer, "minigpt_v2", "compat")) is CompatEncoder
    with pytest.raises(SkipSample, match="no_target"):
        encode(tokenizer, "minigpt_v2", "compat").example(dialogue("what?"), RNG)
