"""Generated text is cleaned as MiniGPT-4's evaluation and demos clean it."""

from __future__ import annotations

import pytest

from minigpt4o.conversation.answers import (
    ANSWER_RULES,
    clean_batch_answer,
    clean_chat_answer,
    without_leading_unknown,
)
from minigpt4o.conversation.template import load_template


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (" {<10><20><30><40>}</s>", "{<10><20><30><40>}"),
        ("<s> yes </s> and more", "yes"),
        ("a</s>b</s>", "a"),
        ("[INST] what? [/INST] a dog", "a dog"),
        ("[/INST] a [/INST] b ", "b"),
        ("###Human: x", "###Human: x"),
        ("</s> late", ""),
        ("", ""),
        ("\n犬です。\n", "犬です。"),
    ],
)
def test_a_batch_answer(text: str, clean: str) -> None:
    assert clean_batch_answer(text) == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("A dog.###", "A dog."),
        (" A dog. ###Human: why?###Assistant: since", "A dog."),
        ("Assistant: A dog.", "A dog."),
        ("Assistant: no Assistant: yes ", "yes"),
        ("###", ""),
        ("## A heading", "## A heading"),
        ("it ends</s>", "it ends</s>"),
        ("", ""),
    ],
)
def test_a_chat_answer(text: str, clean: str) -> None:
    assert clean_chat_answer(text) == clean


def test_one_leading_zero_is_dropped() -> None:
    assert without_leading_unknown([0, 0, 5]) == [0, 5]
    assert without_leading_unknown([5, 0]) == [5, 0]
    assert without_leading_unknown([]) == []


def test_templates_say_how_their_answers_are_cleaned() -> None:
    rules = {n: load_template(n, "compat").serving.answer for n in ("minigpt_v2", "vicuna_v0", "llama2", "rinna_neox")}
    assert rules == {"minigpt_v2": "batch", "vicuna_v0": "chat", "llama2": "chat", "rinna_neox": ""}
    assert ANSWER_RULES[""](" x ### </s> ") == "x ### </s>"
