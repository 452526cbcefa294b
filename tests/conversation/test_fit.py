"""A prompt that is too long loses its oldest words and never its media; one that cannot fit says both sizes at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.batch import IMAGE_SLOT
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.fit import fit_turns
from minigpt4o.conversation.sample import Sample, Turn
from minigpt4o.conversation.template import template_names

Encode = Callable[..., SampleEncoder]
Dialogue = Callable[..., Sample]
RNG = random.Random(0)


def talk(rounds: int, system: bool = False) -> list[Turn]:
    turns = [Turn("system", "sys")] if system else []
    for i in range(rounds):
        turns += [Turn("user", f"<image>q{i}"), Turn("assistant", f"<image> a{i}")]
    return [*turns, Turn("user", "last")]


def letters(turns: Sequence[Turn]) -> int:
    return sum(len(turn.text.replace("<image>", "")) for turn in turns)


def test_a_conversation_that_fits_is_left_as_it_is() -> None:
    turns = talk(3)
    fit = fit_turns(turns, letters(turns), letters)
    assert fit.turns == turns and fit.dropped == 0 and fit.places == letters(turns)


@pytest.mark.parametrize("system", [False, True])
def test_the_fewest_oldest_exchanges_are_dropped_for_any_room(system: bool) -> None:
    turns = talk(6, system)
    for room in range(letters(turns)):
        fit = fit_turns(turns, room, letters)
        head, kept = fit.turns[: int(system)], fit.turns[int(system) :]
        assert [t.role for t in head] == ["system"] * int(system)
        assert kept[-1].text.endswith("last") and kept[0].role == "user"
        assert fit.dropped == len(turns) - len(fit.turns) and fit.dropped % 2 == 0
        if fit.places <= room and fit.dropped:  # one exchange more would not fit
            more = turns[int(system) + fit.dropped - 2 :]
            assert letters([*head, *more]) > room
        if fit.places > room:
            assert len(kept) == 1
        assert sum(t.text.count("<image>") for t in fit.turns if t.role == "user") == 6


def test_marks_of_dropped_turns_move_to_the_front_in_order() -> None:
    turns = [
        Turn("user", "<image>a<audio>"),
        Turn("user", "b<image>"),
        Turn("assistant", "<image> is only a word here"),
        Turn("user", "c<audio>"),
    ]
    assert fit_turns(turns, 1, letters).turns == [Turn("user", "<image><audio><image>c<audio>")]


def test_a_long_conversation_is_counted_a_few_times_only() -> None:
    counted = 0

    def places(turns: Sequence[Turn]) -> int:
        nonlocal counted
        counted += 1
        return letters(turns)

    fit_turns(talk(1000), 50, places)
    assert counted <= 14


@pytest.mark.parametrize("profile", ["default", "compat"])
@pytest.mark.parametrize("template", template_names())
def test_a_prompt_keeps_all_media_and_the_newest_words(
    tokenizer: Any, encode: Encode, dialogue: Dialogue, template: str, profile: str
) -> None:
    said = ["<image>what is this? " + "old words " * 20, "an answer " * 20] * 3
    sample = dialogue(*said, "<image>and the star?", images=4)
    whole = encode(tokenizer, template, profile).prompt(sample, RNG)
    assert len(whole.input_ids) > 400
    encoder = encode(tokenizer, template, profile, positions=300, answer_room=20)
    prompt = encoder.prompt(sample, RNG)
    ids = prompt.input_ids.tolist()
    assert ids.count(IMAGE_SLOT) == 16 and len(prompt.images) == 4 and len(ids) <= 280
    assert prompt.truncated == len(whole.input_ids) - len(ids)
    assert "and the star?" in tokenizer.decode([i for i in ids if i >= 0])
    assert encoder.places(sample.turns) == len(whole.input_ids)
    assert prompt.sample is sample  # reports show what was asked


def test_a_prompt_leaves_room_for_the_answer_whatever_the_model_s_positions(
    tokenizer: Any, encode: Encode, dialogue: Dialogue
) -> None:
    sample = dialogue(*["<image>old", "words"] * 10, "<image>and the star?", images=11)
    lengths = set()
    for positions in range(120, 240):
        prompt = encode(tokenizer, positions=positions, answer_room=20).prompt(sample, RNG)
        assert len(prompt.input_ids) <= positions - 20
        lengths.add(len(prompt.input_ids))
    assert len(lengths) > 5


def test_words_and_media_that_cannot_fit_are_named(tokenizer: Any, encode: Encode, dialogue: Dialogue) -> None:
    encoder = encode(tokenizer, positions=64, answer_room=8)
    with pytest.raises(
        SkipSample, match=r"rows.json:7: the row takes \d{3} places .* has 64, 8 of them for the answer"
    ):
        encoder.prompt(dialogue("<image>" + "word " * 100, images=1), RNG)
    with pytest.raises(SkipSample, match="too_long"):
        encoder.prompt(dialogue("<image>" * 16 + "what?", images=16), RNG)
    with pytest.raises(SkipSample, match="the row takes .* but the model has 64$"):  # learning: media count there too
        encode(tokenizer, positions=64).example(dialogue("<image>" * 16 + "what?", "red", images=16), RNG)


@pytest.mark.parametrize("kind", ["tokenizer", "unigram", "words", "llama"])
@pytest.mark.parametrize("text", ["word " * 20_000, "w" * 100_000, "色" * 100_000, "$" * 100_000, " " * 100_000])
@pytest.mark.parametrize("profile", ["default", "compat"])
def test_a_hundred_thousand_characters_are_refused_within_a_moment(
    request: pytest.FixtureRequest, encode: Encode, dialogue: Dialogue, profile: str, kind: str, text: str
) -> None:
    tokenizer = request.getfixturevalue(kind)
    encoder = encode(tokenizer, "minigpt_v2", profile, positions=2048, answer_room=20)
    sample = dialogue("<image>" + text, images=1)
    started = time.perf_counter()
    if encoder.places(sample.turns) <= 2028:  # one unknown word, or blanks that are normalised away
        assert kind == "words" or (kind, text[0]) == ("unigram", " ")
        return
    with pytest.raises(SkipSample, match=r"too_long: .*takes \d+ places .* but the model has 2048, 20 of them"):
        encoder.prompt(sample, RNG)
    assert time.perf_counter() - started < 5
