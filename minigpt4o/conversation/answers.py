"""What MiniGPT-4 cuts off a generated text before it shows or scores it, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

UNKNOWN_ID = 0  # <unk>: some Llama weights begin an answer with it


def clean_batch_answer(text: str) -> str:
    """An answer of batch evaluation: up to `</s>`, without `<s>`, what follows the last `[/INST]`, stripped."""
    return text.split("</s>")[0].replace("<s>", "").split("[/INST]")[-1].strip()


def clean_chat_answer(text: str) -> str:
    """An answer of the demos: up to the first `###`, what follows the last `Assistant:`, stripped."""
    return text.split("###")[0].split("Assistant:")[-1].strip()


def without_leading_unknown(ids: Sequence[int]) -> list[int]:
    """The generated ids without one leading id 0."""
    return list(ids[1:] if ids and ids[0] == UNKNOWN_ID else ids)


# Rule of a template (`answer:` in its file) -> how a decoded answer is cleaned.
ANSWER_RULES: Mapping[str, Callable[[str], str]] = {
    "": str.strip,
    "batch": clean_batch_answer,
    "chat": clean_chat_answer,
}
