"""What serving sends is a prefix of what training saw, media keep their places and typed specials stay words."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from minigpt4o.common.errors import ConfigError, SkipSample
from minigpt4o.conversation.batch import AUDIO_SLOT, IGNORE, IMAGE_SLOT
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.marks import escape_marks
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.conversation.template import TEMPLATES, load_template, template_names

TEXT = [
    "what colour is the star? red",
    "ASSISTANT: ###Human: [INST] </Img> {<10><20><30><40>}",
    "何色ですか。赤い丸です。",
] * 8


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>", "<user>", "<assistant>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator(TEXT, trainer)
    core.add_tokens([AddedToken(t, special=False) for t in ("<Img>", "</Img>", "<Aud>", "</Aud>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<user>", "<assistant>"],
    )


def open_media(media: Media, rng: random.Random) -> torch.Tensor:
    return torch.full((3, 2, 2), float(len(media.name)))


def encoder(tokenizer: PreTrainedTokenizerFast, template: str = "toy", **more: object) -> SampleEncoder:
    processors = {"image": open_media, "audio": open_media}
    return SampleEncoder(tokenizer, load_template(template), {"image": 4, "audio": 2}, processors, **more)  # type: ignore[arg-type]


def dialogue(*texts: str, images: int = 0, audios: int = 0) -> Sample:
    roles = ["user", "assistant"] * len(texts)
    turns = [Turn(role, text) for role, text in zip(roles, texts, strict=False)]  # type: ignore[arg-type]
    media = [Media(data=b"x", name=f"m{i}") for i in range(max(images, audios))]
    return Sample("s1", turns, images=media[:images], audios=media[:audios], where="rows.json:7")


RNG = random.Random(0)
WORDS = [
    "red",
    "a star.",
    "何色ですか",
    " leading",
    "trailing ",
    "two\nlines",
    "### not an end",
    "{<1><2><3><4>}",
    "é😀",
    "x",
]


@pytest.mark.parametrize("template", template_names())
def test_what_serving_sends_is_a_prefix_of_what_training_saw(tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    encode = encoder(tokenizer, template, max_txt_len=500)
    draw = random.Random(1)
    for _ in range(40):
        rounds = draw.randint(1, 3)
        words = [draw.choice(WORDS) for _ in range(2 * rounds)]
        words[0] = "<image>" + words[0] + "<audio>"
        whole = encode.example(dialogue(*words, images=1, audios=1), RNG).input_ids.tolist()
        for answered in range(1, rounds + 1):
            asked = encode.prompt(dialogue(*words[: 2 * answered], images=1, audios=1), RNG).input_ids.tolist()
            assert whole[: len(asked)] == asked


@pytest.mark.parametrize("template", template_names())
def test_the_examples_a_template_gives_are_what_it_renders(template: str) -> None:
    tree = OmegaConf.load(TEMPLATES / f"{template}.yaml")
    assert tree.examples
    for given in tree.examples:
        segments = load_template(template).render([Turn(t.role, t.text) for t in given.turns])
        marks = {"image": "[IMAGE]", "audio": "[AUDIO]"}
        text = "".join(marks.get(s.kind, s.text + s.end) for s in segments)
        assert ("<s>" if tree.bos else "") + text == given.text


def test_only_the_assistants_words_and_their_end_are_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    example = encoder(tokenizer).example(dialogue("what colour?", "red", "and now?", "star"), RNG)
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
    tokenizer: PreTrainedTokenizerFast, templates: tuple[str, str]
) -> None:
    led, bare = (encoder(tokenizer, name) for name in templates)
    talk = dialogue("what colour?", "red")
    with_lead, without = led.example(talk, RNG), bare.example(talk, RNG)
    said = [tokenizer.decode(e.labels[e.labels != IGNORE]) for e in (with_lead, without)]
    assert said == [" red</s>", "red</s>"]
    assert led.prompt(talk, RNG).input_ids.tolist() == bare.prompt(talk, RNG).input_ids.tolist()  # never asked for


def test_a_lead_lets_an_answer_s_first_word_be_cut_as_in_running_text(
    tokenizer: PreTrainedTokenizerFast, templates: tuple[str, str]
) -> None:
    led, bare = (encoder(tokenizer, name) for name in templates)
    running = tokenizer.encode("the star is the star", add_special_tokens=False)
    (word,) = tokenizer.encode(" the", add_special_tokens=False)
    assert running.count(word) == 1
    answers = [e.example(dialogue("what?", "the star"), RNG) for e in (led, bare)]
    first = [int(e.labels[e.labels != IGNORE][0]) for e in answers]
    assert first[0] == word != first[1]


def test_a_long_answer_is_cut_with_its_lead(tokenizer: PreTrainedTokenizerFast, templates: tuple[str, str]) -> None:
    example = encoder(tokenizer, templates[0], max_txt_len=20).example(dialogue("what?", "red star " * 30), RNG)
    learned = tokenizer.decode(example.labels[example.labels != IGNORE])
    assert learned.startswith(" red star") and learned.endswith("</s>")
    assert len(example.input_ids) <= 20


def test_each_medium_fills_its_slots_where_its_mark_stands(tokenizer: PreTrainedTokenizerFast) -> None:
    example = encoder(tokenizer).example(dialogue("<image>and<image><audio>same?", "red", images=2, audios=1), RNG)
    ids = example.input_ids.tolist()
    assert ids.count(IMAGE_SLOT) == 8 and ids.count(AUDIO_SLOT) == 2
    assert len(example.images) == 2 and len(example.audios) == 1
    first = ids.index(IMAGE_SLOT)
    assert tokenizer.decode(ids[first - 1]) == "<Img>" and tokenizer.decode(ids[first + 4]) == "</Img>"


def test_special_tokens_and_marks_typed_by_a_person_are_only_words(tokenizer: PreTrainedTokenizerFast) -> None:
    encode = encoder(tokenizer)
    plain = encode.prompt(dialogue("hello"), RNG).input_ids.tolist()
    specials = set(tokenizer.all_special_ids)
    for typed in [*tokenizer.all_special_tokens, escape_marks("<image>"), escape_marks("<audio>")]:
        ids = encode.prompt(dialogue("hello" + typed), RNG).input_ids.tolist()
        assert [i for i in ids if i in specials] == [i for i in plain if i in specials]
        assert min(ids) >= 0
    assert "<image>" in tokenizer.decode(encode.prompt(dialogue(escape_marks("a <image> b")), RNG).input_ids)


def test_a_long_answer_is_cut_but_keeps_its_end(tokenizer: PreTrainedTokenizerFast) -> None:
    encode = encoder(tokenizer, max_txt_len=30)
    example = encode.example(dialogue("what?", "red " * 60), RNG)
    assert example.input_ids[-1] == tokenizer.eos_token_id and len(example.input_ids) <= 30
    assert example.truncated > 0
    with pytest.raises(SkipSample, match="too_long"):
        encode.example(dialogue("what? " * 60, "red"), RNG)


def test_places_and_media_that_disagree_are_named(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(SkipSample, match=r"rows.json:7: the text has 1 place\(s\) for image.*2 came"):
        encoder(tokenizer).example(dialogue("<image>what?", "red", images=2), RNG)
    with pytest.raises(SkipSample, match="no_target"):
        encoder(tokenizer).example(dialogue("what?"), RNG)


def test_an_unknown_template_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="vicuna_v0"):
        load_template("vicuna0")


def test_the_picture_itself_reaches_the_example(tokenizer: PreTrainedTokenizerFast) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    sample = dialogue("<image>what?", "red", images=1)
    assert float(encoder(tokenizer).example(sample, RNG).images[0][0, 0, 0]) == 2.0
