"""The body of a request -> how its answer is generated and sent. `messages` are read in messages.py.

The rule for everything OpenAI's API knows and this server does not do: a value that would change the answer is refused
(400, `unsupported_parameter`), its neutral value is taken, and what changes nothing in the answer is ignored, as are
fields nobody knows.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from minigpt4o.conversation.batch import Decoding
from minigpt4o.serve.api.errors import ApiError, invalid

MAX_STOPS, MAX_STOP_CHARS = 4, 256
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),  # without tools
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    # words of vLLM, llama.cpp and transformers
    "top_k": (0, -1),
    "min_p": (0,),
    "typical_p": (1,),
    "length_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "use_beam_search": (False,),
    "num_beams": (1,),
    "ignore_eos": (False,),
    "echo": (False,),
    "continue_final_message": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "prompt_logprobs": (0,),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "json_schema": (),
    "grammar": ("",),
    "chat_template": (),
    "lora": ([],),
}


@dataclass(frozen=True)
class Asked:
    """A request, apart from its messages."""

    decoding: Decoding
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False  # of a stream: a last chunk with the counts
    cache_key: str = ""  # conversations of one key may begin with the same words


def read_json(body: bytes) -> dict[str, Any]:
    """The object of a body. Raises ApiError."""

    def no_number(word: str) -> NoReturn:
        raise ValueError(f"{word} is no number of JSON")

    try:
        tree = json.loads(body, parse_constant=no_number)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        what = str(error) if isinstance(error, json.JSONDecodeError) else "it is not UTF-8, or too deep"
        raise invalid(f"The body is not valid JSON: {what[:120]}.", code="invalid_json") from error
    if not isinstance(tree, dict):
        raise invalid(f"The body is a {_kind(tree)}; it must be an object with `model` and `messages`.")
    return tree


def read_params(tree: Mapping[str, Any], model: str, default: Decoding) -> Asked:
    """Raises ApiError for a value that cannot be followed. `default`: how answers are generated if nothing is said."""
    _check_model(tree.get("model"), model)
    for name, neutral in _NEUTRAL.items():
        value = tree.get(name)
        if value is not None and value not in neutral:
            raise invalid(_unsupported(name, neutral), name, "unsupported_parameter")
    stream = _flag(tree, "stream")
    key = tree.get("prompt_cache_key")
    if key is not None and not isinstance(key, str):
        raise _wrong("prompt_cache_key", key, "a string")
    return Asked(_decoding(tree, default), _stop(tree.get("stop")), stream, _include_usage(tree, stream), key or "")


def _check_model(given: Any, model: str) -> None:
    if given is None:
        return
    if not isinstance(given, str):
        raise _wrong("model", given, "a string")
    if given != model:
        raise ApiError(
            404,
            f"The model {given[:80]!r} does not exist; this server has {model!r}.",
            param="model",
            code="model_not_found",
        )


def _unsupported(name: str, neutral: tuple[Any, ...]) -> str:
    mend = f"leave it out or send {json.dumps(neutral[0])}" if neutral else "leave it out"
    return f"`{name}` would change the answer and cannot be followed by this server; {mend}."


def _decoding(tree: Mapping[str, Any], default: Decoding) -> Decoding:
    longest = _number(tree, "max_completion_tokens", 1, None, whole=True)
    if longest is None:
        longest = _number(tree, "max_tokens", 1, None, whole=True)
    tokens = default.max_new_tokens if longest is None else int(longest)
    shortest = _number(tree, "min_tokens", 0, tokens, whole=True)
    temperature, top_p = _number(tree, "temperature", 0, 2), _number(tree, "top_p", 0, 1)
    penalty = _number(tree, "repetition_penalty", 0.01, 10)
    seed = _number(tree, "seed", -(2**63), 2**63 - 1, whole=True)
    sampled = default.do_sample if temperature is None and top_p is None else temperature != 0 and top_p != 0
    changed = replace(
        default,
        max_new_tokens=tokens,
        min_new_tokens=min(default.min_new_tokens if shortest is None else int(shortest), tokens),
        do_sample=sampled,
        repetition_penalty=default.repetition_penalty if penalty is None else penalty,
        seed=secrets.randbits(62) if seed is None else int(seed),
    )
    if not sampled:
        return replace(changed, temperature=1.0, top_p=1.0)
    return replace(
        changed,
        num_beams=1,
        temperature=default.temperature if temperature is None else temperature,
        top_p=default.top_p if top_p is None else top_p,
    )


def _number(tree: Mapping[str, Any], name: str, low: float, high: float | None, whole: bool = False) -> Any:
    value = tree.get(name)
    if value is None:
        return None
    what = f"{'a whole number' if whole else 'a number'} " + (
        f"of {low:g} or more" if high is None else f"from {low:g} to {high:g}"
    )
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise _wrong(name, value, what)
    if value < low or (high is not None and value > high) or (whole and value != int(value)):
        raise _wrong(name, value, what)
    return int(value) if whole else float(value)


def _flag(tree: Mapping[str, Any], name: str) -> bool:
    value = tree.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, value, "true or false")
    return bool(value)


def _include_usage(tree: Mapping[str, Any], stream: bool) -> bool:
    options = tree.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise invalid("`stream_options` belongs to a request with `stream`: true.", "stream_options")
    if not isinstance(options, dict):
        raise _wrong("stream_options", options, "an object")
    return _flag(options, "include_usage")


def _stop(value: Any) -> tuple[str, ...]:
    stops = [] if value is None else value if isinstance(value, list) else [value]
    if len(stops) > MAX_STOPS:
        raise invalid(f"`stop` has {len(stops)} strings; at most {MAX_STOPS} are taken.", "stop")
    for word in stops:
        if not isinstance(word, str) or not 0 < len(word) <= MAX_STOP_CHARS:
            raise _wrong("stop", word, f"a string of 1 to {MAX_STOP_CHARS} characters, or a list of such")
    return tuple(stops)


def _wrong(name: str, value: Any, what: str) -> ApiError:
    said = json.dumps(value) if isinstance(value, int | float | str) else f"a {_kind(value)}"
    return invalid(f"`{name}` is {said[:80]}; it must be {what}.", name, "invalid_value")


def _kind(value: Any) -> str:
    """The word JSON has for it."""
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
