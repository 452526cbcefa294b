"""Ids of text in which nothing is special, by the shortest way that a tokenizer has."""

from __future__ import annotations

from typing import Any


class PlainWords:
    """Text -> ids without special tokens, as `tokenizer(text, add_special_tokens=False, split_special_tokens=True)`.

    What transformers does around the tokenizer's own work for every call takes longer than that work for a sentence.
    So where a tokenizer of the `tokenizers` library is called in the usual way, it is asked itself.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._direct = _is_usual(tokenizer)

    def __call__(self, text: str) -> list[int]:
        """Raises TypeError or UnicodeError for what is no text."""
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


def _is_usual(tokenizer: Any) -> bool:
    """Whether transformers would hand a text over to the `tokenizers` library and change nothing."""
    from transformers import PreTrainedTokenizerFast

    kind = type(tokenizer)
    steps = ("__call__", "_encode_plus", "_batch_encode_plus", "_switch_to_input_mode")
    return issubclass(kind, PreTrainedTokenizerFast) and all(
        getattr(kind, step, None) is getattr(PreTrainedTokenizerFast, step, None) for step in steps
    )
