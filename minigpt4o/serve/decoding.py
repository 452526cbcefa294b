"""Generation arguments by the names LAVIS, MiniGPT-4 and transformers use -> one `Decoding`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.source import nearest
from minigpt4o.conversation.batch import Decoding

KNOWN = {f.name: f.type for f in fields(Decoding)}
# Other frameworks' words. Lengths count new tokens: the prompt is embeddings and has no ids to count.
ALIASES = {
    "min_length": "min_new_tokens",
    "max_length": "max_new_tokens",
    "use_nucleus_sampling": "do_sample",
    "num_return_sequences": "",
    "num_captions": "",
}


def decoding_of(given: Mapping[str, Any], **defaults: Any) -> Decoding:
    """A `Decoding` of keyword arguments laid over defaults. Raises ConfigError for a word nobody knows."""
    values = dict(defaults)
    for name, value in given.items():
        if value is None:
            continue
        own = ALIASES.get(name, name)
        if not own:
            if int(value) != 1:
                raise ConfigError(f"{name} is {value}; one answer is given per picture, so it must be 1")
            continue
        if own not in KNOWN:
            words = [*KNOWN, *(alias for alias, meant in ALIASES.items() if meant)]
            close = nearest(name, words)
            mend = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(words)}"
            raise ConfigError(f"unknown argument {name!r}; {mend}")
        values[own] = _typed(name, own, value)
    return Decoding(**values)


def _typed(name: str, own: str, value: Any) -> Any:
    kind = {"int": int, "float": float, "bool": bool}[str(KNOWN[own])]
    try:
        if kind is int and int(value) != value:
            raise ValueError
        return kind(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {value!r}; it must be a {KNOWN[own]}") from None
