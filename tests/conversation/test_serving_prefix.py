"""What serving sends is a prefix of what training saw: every template, every kind of tokenizer, one turn to four."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.sample import Sample
from minigpt4o.conversation.template import template_names

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
    "two  blanks",
    "</s> typed",
    "$$",
    "\nユーザー: ",
    "[/INST]",
    "<image",
]


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["tokenizer", "unigram", "words", "llama"])
@pytest.mark.parametrize("template", template_names())
def test_what_serving_sends_is_a_prefix_of_what_training_saw(
    request: pytest.FixtureRequest,
    encode: Callable[..., SampleEncoder],
    dialogue: Callable[..., Sample],
    template: str,
    kind: str,
    rounds: int,
) -> None:
    tokenizer: Any = request.getfixturevalue(kind)
    encoder = encode(tokenizer, template, max_txt_len=2000, positions=4000)
    draw = random.Random(rounds)
    for _ in range(8):
        words = [draw.choice(WORDS) for _ in range(2 * rounds)]
        words[0] = draw.choice(["<image>{}<audio>", "{} <image> <audio>", "<audio><image>{}"]).format(words[0])
        system = draw.choice(["", "Be brief."])
        whole = encoder.example(dialogue(*words, images=1, audios=1, system=system), RNG).input_ids.tolist()
        for answered in range(1, rounds + 1):
            said = words[: 2 * answered - draw.randint(0, 1)]  # with its answer, which is left out, or without
            asked = encoder.prompt(dialogue(*said, images=1, audios=1, system=system), RNG)
            ids = asked.input_ids.tolist()
            assert whole[: len(ids)] == ids and len(ids) < len(whole) and asked.truncated == 0


def test_in_compat_the_reference_s_serving_is_no_such_prefix(
    tokenizer: Any, encode: Callable[..., SampleEncoder], dialogue: Callable[..., Sample]
) -> None:
    encoder = encode(tokenizer, "minigpt_v2", "compat")
    sample = dialogue("<image>what?", "a dog", images=1)
    whole = encoder.example(sample, RNG).input_ids.tolist()
    asked = encoder.prompt(sample, RNG).input_ids.tolist()
    bos = tokenizer.bos_token_id
    assert whole[:2].count(bos) == 1 and asked[:2] == [bos, bos] and asked[1:] == whole[: len(asked) - 1]
