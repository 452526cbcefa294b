"""Ids of text in which nothing is special, by the shortest way that a tokenizer has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


class PlainWords:
    """Text -> ids without special tokens, as `tokenizer(text, add_special_tokens=False, split_special_tokens=True)`.

    What transformers does around the tokenizer's own work for every call takes longer than that work for a sentence.
    So where a tokenizer of the `tokenizers` library is called in the usual way, it is asked itself.

    A tokenizer may hold a mark of the template as an added word that it does not call special, and then finds it in
    any text. Of `marks` (texts of the template) such words are cut behind their first letter.
    """

    def __init__(self, tokenizer: Any, marks: Iterable[str] = ()) -> None:
        self.tokenizer = tokenizer
        self._direct = _is_usual(tokenizer)
        found = [token for token in _added_words(tokenizer) if any(token in mark for mark in marks)]
        self._inside = re.compile("|".join(f"(?<={re.escape(t[0])})(?={re.escape(t[1:])})" for t in found))
        self._cuts = bool(found)

    def __call__(self, text: str) -> list[int]:
        """Raises TypeError or UnicodeError for what is no text."""
        if self._cuts and isinstance(text, str):
            return [i for piece in self._inside.split(text) if piece for i in self._ids(piece)]
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        if not self._direct:
            return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        backend = self.tokenizer.backend_tokenizer  # its settings are those of whoever called last
        if not backend.encode_special_tokens:
            backend.encode_special_tokens = True
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        return ids


def _added_words(tokenizer: Any) -> list[str]:
    """Added tokens of two letters or more that are not called special."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return [token.content for token in added if not token.special and len(token.content) > 1]


def _is_usual(tokenizer: Any) -> bool:
    """Whether transformers would hand a text over to the `tokenizers` library and change nothing."""
    from transformers import PreTrainedTokenizerFast

    kind = type(tokenizer)
    steps = ("__call__", "_encode_plus", "_batch_encode_plus", "_switch_to_input_mode")
    return issubclass(kind, PreTrainedTokenizerFast) and all(
        getattr(kind, step, None) is getattr(PreTrainedTokenizerFast, step, None) for step in steps
    )
