"""Text, pictures and sounds to what an exported aligned model eats, cut and opened as in its training."""

# No `from __future__ import annotations`: transformers reads annotations of processors.
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.utils.chat_template_utils import render_jinja_template

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.jinja import SLOT
from minigpt4o.conversation.sample import Media

NAMES = {"image": "pixel_values", "audio": "input_features"}
SOURCES = ("path", "url", "base64", "data")  # of a part of a message, beside its own type's name
_PLAIN = "\ue000"  # put into special words that a person typed, so that they are only words


class AlignedProcessor(ProcessorMixin):
    """Tokenizer, and the evaluation processors of training by kind of medium (`media`: {kind: {"name": ..., ...}}).

    In a text `<image>` and `<audio>` stand for one picture and sound each; `slots` says how many places one fills. In
    a chat special words that a person typed are only words, and earlier answers are cut alone, as in training.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat_template: str | None = None,
        media: dict[str, Any] | None = None,
        slots: dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.media, self.slots = dict(media or {}), dict(slots or {})
        super().__init__(tokenizer, chat_template=chat_template)
        self._openers = {kind: _opener(node) for kind, node in self.media.items()}
        words = sorted({*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}, key=len, reverse=True)
        self._special = re.compile("(" + "|".join(map(re.escape, words)) + ")")

    def __call__(  # type: ignore[override]
        self, images: Any = None, text: Any = None, audio: Any = None, return_tensors: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """`input_ids` and `attention_mask` (B, T), padded on the left; `pixel_values`, `input_features` in order."""
        rows = [text] if isinstance(text, str) else list(text if text is not None else [])
        return self._batch([self._ids(row) for row in rows], {"image": _flat(images), "audio": _flat(audio)})

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Any,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The text of one conversation or several, or with `tokenize` what `__call__` gives for them."""
        many = bool(conversation) and isinstance(conversation[0], list | tuple)
        talks = conversation if many else [conversation]
        found: dict[str, list[Any]] = {kind: [] for kind in NAMES}
        texts, spans = render_jinja_template(
            conversations=[[self._plain(message, found) for message in talk] for talk in talks],
            chat_template=chat_template or self.chat_template,
            add_generation_prompt=add_generation_prompt,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        if not tokenize:
            texts = [text.replace(_PLAIN, "") for text in texts]
            return texts if many else texts[0]
        rows = [self._spans(text, borders) for text, borders in zip(texts, spans, strict=True)]
        batch = self._batch(rows, found)
        return batch if return_dict else batch["input_ids"]

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        return self.tokenizer.batch_decode(*args, **kwargs)

    def decode(self, *args: Any, **kwargs: Any) -> str:
        return self.tokenizer.decode(*args, **kwargs)

    # ---- text ----

    def _plain(self, message: Mapping[str, Any], found: dict[str, list[Any]]) -> dict[str, Any]:
        """The message with special words in its text made harmless; its media go to `found`."""
        content = message["content"]
        if isinstance(content, str):
            return {**message, "content": self._words(content)}
        parts = []
        for part in content:
            kind = str(part.get("type", "")).removesuffix("_url").removeprefix("input_")
            if kind in NAMES:
                source = next((part[k] for k in (str(part["type"]), kind, *SOURCES) if part.get(k) is not None), None)
                found[kind].append(source)
                parts.append({"type": kind})
            else:
                parts.append({**part, "text": self._words(str(part.get("text", "")))})
        return {**message, "content": parts}

    def _words(self, text: str) -> str:
        return self._special.sub(lambda m: m[0][0] + _PLAIN + m[0][1:], text)

    def _spans(self, text: str, borders: list[tuple[int, int]]) -> list[int]:
        """Ids of a chat: every answer is cut alone, so that no token reaches over its borders."""
        ids: list[int] = []
        at = 0
        for start, end in [*borders, (len(text), len(text))]:
            ids += self._ids(text[at:start]) + self._ids(text[start:end])
            at = end
        return ids

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, piece in enumerate(self._special.split(text)):
            if i % 2:
                kind = next((kind for kind, mark in SLOT.items() if mark == piece), "")
                ids += [self.tokenizer.convert_tokens_to_ids(piece)] * (self.slots.get(kind, 1) if kind else 1)
            elif piece:
                piece = piece.replace(_PLAIN, "")
                ids += self.tokenizer(piece, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    # ---- media ----

    def _batch(self, rows: list[list[int]], media: Mapping[str, list[Any]]) -> BatchFeature:
        longest = max((len(row) for row in rows), default=0)
        pad = self.tokenizer.pad_token_id or 0
        found: dict[str, Any] = {}
        if rows:
            found["input_ids"] = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
            found["attention_mask"] = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows])
        for kind, values in media.items():
            if values:
                found[NAMES[kind]] = torch.stack([self._opened(kind, value) for value in values])
        return BatchFeature(found)

    def _opened(self, kind: str, value: Any) -> torch.Tensor:
        if kind not in self._openers:
            raise ValueError(f"this model takes {' and '.join(self._openers) or 'text'} only, no {kind}")
        opener = self._openers[kind]
        if isinstance(value, Mapping) and "array" not in value:
            value = next((value[key] for key in (kind, *SOURCES) if value.get(key) is not None), None)
        if isinstance(value, torch.Tensor) and value.ndim in (2, 3) and value.is_floating_point():
            return value  # processed already
        if isinstance(value, bytes | str | Path):
            return opener(_media(value))
        return _picture(opener, value) if kind == "image" else _wave(opener, value)


def _opener(node: Mapping[str, Any]) -> Any:
    return registry.build(Part("processor", node["name"], {k: v for k, v in node.items() if k != "name"}))


def _media(value: Any) -> Media:
    import base64

    if isinstance(value, bytes):
        return Media(data=value, name="bytes")
    text = str(value)
    if text.startswith("data:"):
        return Media(data=base64.b64decode(text.partition(",")[2]), name="data URL")
    if text.startswith(("http://", "https://")):
        import httpx

        return Media(data=httpx.get(text, follow_redirects=True, timeout=30.0).raise_for_status().content, name=text)
    if len(text) > 300 and not Path(text[:255]).exists():
        return Media(data=base64.b64decode(text), name="base64")
    return Media(path=text.removeprefix("file://"))


def _picture(opener: Any, value: Any) -> torch.Tensor:
    """A PIL picture or an array (H, W, 3) of whole numbers."""
    import io

    from PIL import Image

    picture = value if isinstance(value, Image.Image) else Image.fromarray(value)
    file = io.BytesIO()  # through a file, so that orientation and transparency are treated as everywhere
    picture.save(file, "PNG", exif=picture.getexif())
    return opener(Media(data=file.getvalue(), name="picture"))


def _wave(opener: Any, value: Any) -> torch.Tensor:
    """Samples, or {"array", "sampling_rate"}; samples alone are at the rate that the model wants."""
    import numpy as np

    rate = opener.config.sample_rate
    if isinstance(value, Mapping):
        value, rate = value["array"], int(value.get("sampling_rate", rate))
    wave = np.asarray(value, dtype=np.float32)
    return opener.tensor(wave.mean(axis=0) if wave.ndim > 1 else wave, rate)


def _flat(values: Any) -> list[Any]:
    """One medium, a list, or a list of lists -> a list."""
    if values is None:
        return []
    if isinstance(values, list | tuple):
        return [one for value in values for one in (_flat(value) if isinstance(value, list | tuple) else [value])]
    return [values]


__all__ = ["AlignedProcessor"]
