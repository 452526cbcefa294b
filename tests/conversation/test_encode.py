"""Who learns what, where media stand, what is cut, and that typed specials stay words."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from transformers import PreTrainedTokenizerFast

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.batch import AUDIO_SLOT, IGNORE, IMAGE_SLOT
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.marks import escape_marks
from minigpt4o.conversation.sample import Media, Sample

Encode = Callable[..., SampleEncoder]
Dialogue = Callable[..., Sample]
RNG = random.Random(0)


def test_only_the_assistants_words_and_their_end_are_learned(
    tokenizer: PreTrainedTokenizerFast, encode: Encode, dialogue: Dialogue
) -> None:
    example = encode(tokenizer).example(dialogue("what colour?", "red", "and now?", "star"), RNG)
    learned = example.input_ids[example.labels != IGNORE]
    assert tokenizer.decode(learned) == " red</s> star</s>"
    assert (example.labels[example.labels != IGNORE] == learned).all()


LED = {"roles": {"user": {}, "assistant": {"before": "<assistant>", "lead": " ", "after": "</s>"}}}


@pytest.fixture
def templates(tmp_path: Path) -> tuple[str, str]:
    """The same template with a blank that leads the answer, and without."""
    plain = {"roles": {"user": {}, "assistant": {"before": "<assistant>", "after": "</s>"}}}
    for name, tree in (("led", LED), ("bare", plain)):
        OmegaConf.save(OmegaConf.create(tree), tmp_path / f"{name}.yaml")
    return str(tmp_path / "led.yaml"), str(tmp_path / "bare.yaml")


def test_the_lead_of_an_answer_is_learned_with_it(
    tokenizer: PreTrainedTokenizerFast, templates: tuple[str, str], encode: Encode, dialogue: Dialogue
) -> None:
    led, bare = (encode(tokenizer, name) for name in templates)
    talk = dialogue("what colour?", "red")
    with_lead, without = led.example(talk, RNG), bare.example(talk, RNG)
    said = [tokenizer.decode(e.labels[e.labels != IGNORE]) for e in (with_lead, without)]
    assert said == [" red</s>", "red</s>"]
    assert led.prompt(talk, RNG).input_ids.tolist() == bare.prompt(talk, RNG).input_ids.tolist()  # never asked for


def test_a_lead_lets_an_answer_s_first_word_be_cut_as_in_running_text(
    tokenizer: PreTrainedTokenizerFast, templates: tuple[str, str], encode: Encode, dialogue: Dialogue
) -> None:
    led, bare = (encode(tokenizer, name) for name in templates)
    running = tokenizer.encode("the star is the star", add_special_tokens=False)
    (word,) = tokenizer.encode(" the", add_special_tokens=False)
    assert running.count(word) == 1
    answers = [e.example(dialogue("what?", "the star"), RNG) for e in (led, bare)]
    first = [int(e.labels[e.labels != IGNORE][0]) for e in answers]
    assert first[0] == word != first[1]


def test_a_long_answer_is_cut_with_its_lead(
    tokenizer: PreTrainedTokenizerFast, templates: tuple[str, str], encode: Encode, dialogue: Dialogue
) -> None:
    example = encode(tokenizer, templates[0], max_txt_len=20).example(dialogue("what?", "red star " * 30), RNG)
    learned = tokenizer.decode(example.labels[example.labels != IGNORE])
    assert learned.startswith(" red star") and learned.endswith("</s>")
    assert len(example.input_ids) <= 20


def test_each_medium_fills_its_slots_where_its_mark_stands(
    tokenizer: PreTrainedTokenizerFast, encode: Encode, dialogue: Dialogue
) -> None:
    example = encode(tokenizer).example(dialogue("<image>and<image><audio>same?", "red", images=2, audios=1), RNG)
    ids = example.input_ids.tolist()
    assert ids.count(IMAGE_SLOT) == 8 and ids.count(AUDIO_SLOT) == 2
    assert len(example.images) == 2 and len(example.audios) == 1
    first = ids.index(IMAGE_SLOT)
    assert tokenizer.decode(ids[first - 1]) == "<Img>" and tokenizer.decode(ids[first + 4]) == "</Img>"


def test_special_tokens_and_marks_typed_by_a_person_are_only_words(
    tokenizer: PreTrainedTokenizerFast, encode: Encode, dialogue: Dialogue
) -> None:
    encoder = encode(tokenizer)
    plain = encoder.prompt(dialogue("hello"), RNG).input_ids.tolist()
    specials = set(tokenizer.all_special_ids)
    for typed in [*tokenizer.all_special_tokens, escape_marks("<image>"), escape_marks("<audio>")]:
        ids = encoder.prompt(dialogue("hello" + typed), RNG).input_ids.tolist()
        assert [i for i in ids if i in specials] == [i for i in plain if i in specials]
        assert min(ids) >= 0
    assert "<image>" in tokenizer.decode(encoder.prompt(dialogue(escape_marks("a <image> b")), RNG).input_ids)


def test_a_long_answer_is_cut_but_keeps_its_end(
    tokenizer: PreTrainedTokenizerFast, encode: Encode, dialogue: Dialogue
) -> None:
    encoder = encode(tokenizer, max_txt_len=30)
    example = encoder.example(dialogue("what?", "red " * 60), RNG)
    assert example.input_ids[-1] == tokenizer.eos_token_id and len(example.input_ids) <= 30
    assert example.truncated > 0
    with pytest.raises(SkipSample, match=r"too_long: .*row of \d+ text tokens; max_txt_len is 30"):
        encoder.example(dialogue("what? " * 60, "red"), RNG)


def test_places_and_media_that_disagree_are_named(
    tokenizer: PreTrainedTokenizerFast, encode: Encode, dialogue: Dialogue
) -> None:
    with pytest.raises(SkipSample, match=r"rows.json:7: the text has 1 place\(s\) for image.*2 came"):
        encode(tokenizer).example(dialogue("<image>what?", "red", images=2), RNG)
    with pytest.raises(SkipSample, match=r"the text has 2 place\(s\) for image, 2 of them in the row, but 1 came"):
        encode(tokenizer).prompt(dialogue("<image><image>what?", images=1), RNG)
    with pytest.raises(SkipSample, match=r"0 place\(s\) for audio, 0 of them in the row, but 1 came"):
        encode(tokenizer, profile="compat").prompt(dialogue("what?", audios=1), RNG)
    with pytest.raises(SkipSample, match="a place for audio, but the model takes image"):
        encode(tokenizer, slots={"image": 4}).prompt(dialogue("<audio>what?", audios=1), RNG)
    with pytest.raises(SkipSample, match="no_target"):
        encode(tokenizer).example(dialogue("what?"), RNG)


def test_media_reach_the_example_in_the_order_of_their_marks(
    tokenizer: PreTrainedTokenizerFast, encode: Encode, dialogue: Dialogue
) -> None:
    sample = dialogue("<image>what?", "red", "<image>and here?", "star", images=2)
    sample.images[1] = Media(data=b"x", name="longer")
    example = encode(tokenizer).example(sample, RNG)
    assert [float(image[0, 0, 0]) for image in example.images] == [2.0, 6.0]  # open_media: the length of the name
