"""How the page's visitor wishes to be answered, checked before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minigpt4o.conversation.batch import Decoding
from minigpt4o.serve.limits import ChatError

MAX_BEAMS = 10
MAX_TOKENS = 1024  # the longest answer the page lets choose, unless the settings allow more
# name of the field -> least and most
BOUNDS = {
    "temperature": (0.05, 2.0),
    "top_p": (0.05, 1.0),
    "num_beams": (1, MAX_BEAMS),
    "max_new_tokens": (1, MAX_TOKENS),
    "repetition_penalty": (0.8, 2.0),
}


def bounds(name: str, config: Any) -> tuple[float, float]:
    """What a control may be set to; what the settings say is always among it."""
    least, most = BOUNDS[name]
    own = getattr(config, name)
    return min(least, own), max(most, own)


def wished(base: Decoding, values: Sequence[Any], config: Any) -> Decoding:
    """`base` with the values of the controls: greedy, then those of `BOUNDS` in order. Raises ChatError."""
    greedy, *numbers = values
    chosen: dict[str, Any] = {"do_sample": not greedy}
    for name, value in zip(BOUNDS, numbers, strict=True):
        least, most = bounds(name, config)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            told = f"{name.replace('_', ' ')} must be a number from {least:g} to {most:g}."
            raise ChatError(told, "bad_number", name=name, least=f"{least:g}", most=f"{most:g}")
        chosen[name] = int(value) if name in ("num_beams", "max_new_tokens") else float(value)
    if base.min_new_tokens > chosen["max_new_tokens"]:
        chosen["min_new_tokens"] = chosen["max_new_tokens"]
    return replace(base, **chosen)
