"""Which sample encoder a template's profile wants: the one place where what turns samples into ids is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigpt4o.conversation.compat import CompatEncoder
from minigpt4o.conversation.encode import MAX_CONTEXT_LEN, Processors, SampleEncoder
from minigpt4o.conversation.template import Template


def open_encoder(
    tokenizer: Any,
    template: Template,
    slots: Mapping[str, int],
    processors: Processors,
    max_txt_len: int = 160,
    *,
    max_context_len: int = MAX_CONTEXT_LEN,
    **room: int,
) -> SampleEncoder:
    """The sample encoder of the template's profile.

    `room`: `positions`, places the language model has for a row (0: no limit), and `answer_room`, how many of them a
    prompt leaves free for the answer. `max_context_len`: compat only, places kept of what stands before the answer.
    """
    if template.profile == "compat":
        return CompatEncoder(
            tokenizer, template, slots, processors, max_txt_len, max_context_len=max_context_len, **room
        )
    return SampleEncoder(tokenizer, template, slots, processors, max_txt_len, **room)
