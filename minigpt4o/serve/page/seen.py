"""What the model saw: media as their processors hand them over, the prompt as it was read, counts and times."""

from __future__ import annotations

import random
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.batch import SLOTS
from minigpt4o.processors.image import CLIP_MEAN, CLIP_STD
from minigpt4o.serve.page.words import word

if TYPE_CHECKING:
    from minigpt4o.serve.chat import ChatSession
    from minigpt4o.serve.engine import Answering

_LEAST = 192  # pixels of the shorter side of what is shown
_HEAT = np.array([(13, 8, 60), (99, 20, 130), (200, 60, 90), (250, 150, 40), (252, 250, 170)], dtype=np.float32)


def media_seen(session: ChatSession) -> list[tuple[Image.Image, str]]:
    """The media of the newest message that had any, each with its name and size."""
    for exchange in reversed(session.exchanges):
        found = []
        for kind, media in (("image", exchange.images), ("audio", exchange.audios)):
            for medium in media:
                tensor = _opened(session.encoder.processors[kind], medium)
                if tensor is None:
                    continue
                show = _picture if kind == "image" else _mel
                found.append((show(tensor, session.encoder.processors[kind]), f"{medium} - {_size(kind, tensor)}"))
        if found:
            return found
    return []


def _opened(processor: Any, medium: Any) -> Any:
    look = getattr(processor, "open", None)
    try:
        return look(medium, random.Random(0), [])[0] if look else processor(medium, random.Random(0))
    except SkipSample:
        return None


def _size(kind: str, tensor: Any) -> str:
    if kind == "image":
        return f"{tensor.shape[-1]} x {tensor.shape[-2]}"
    return f"{tensor.shape[-2]} x {tensor.shape[-1]} mel"


def _picture(tensor: Any, processor: Any) -> Image.Image:
    """(3, S, S), normalised -> the pixels it stands for."""
    config = getattr(processor, "config", None)
    mean = np.array(getattr(config, "mean", None) or CLIP_MEAN, dtype=np.float32)
    std = np.array(getattr(config, "std", None) or CLIP_STD, dtype=np.float32)
    pixels = tensor.float().numpy().transpose(1, 2, 0) * std + mean
    return _large(Image.fromarray((pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)))


def _mel(tensor: Any, processor: Any) -> Image.Image:
    """(F, K) log-mel -> time from left to right, low tones below, loud is bright."""
    mel = tensor.float().numpy().T[::-1]
    low, high = float(mel.min()), float(mel.max())
    at = (mel - low) / max(high - low, 1e-6) * (len(_HEAT) - 1)
    base = np.minimum(at.astype(int), len(_HEAT) - 2)
    share = (at - base)[..., None]
    return _large(Image.fromarray((_HEAT[base] * (1 - share) + _HEAT[base + 1] * share).astype(np.uint8)))


def _large(picture: Image.Image) -> Image.Image:
    """Small ones enlarged by whole pixels, so that each pixel the model sees can be seen."""
    times = -(-_LEAST // min(picture.size))
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def numbers(last: Answering | None, language: str) -> str:
    """Counts and times of an answer as a Markdown table."""
    if last is None:
        return word("nothing", language)
    seconds = (last.seconds or 0.0) - (last.first_token_s or 0.0)
    speed = f"{(last.answer_tokens - 1) / seconds:.1f}" if last.answer_tokens > 1 and seconds > 0 else "-"
    first = f"{last.first_token_s * 1000:.0f} ms" if last.first_token_s is not None else "-"
    rows = {
        "text_tokens": last.prompt_tokens,
        "media_tokens": last.media_tokens,
        "reused": last.reused_tokens,
        "answer_tokens": last.answer_tokens,
        "first": first,
        "speed": speed,
        "ended": word(f"ended_{last.finish_reason}", language) if last.finish_reason else "-",
    }
    return "\n".join(["| | |", "|---|---:|", *(f"| {word(key, language)} | {value} |" for key, value in rows.items())])


def prompt_seen(session: ChatSession) -> str:
    """The row that the model read, as text; a run of features is said in brackets."""
    if session.last is None:
        return ""
    kinds = {slot: kind for kind, slot in SLOTS.items()}
    pieces = []
    for slot, run in groupby(session.last.prompt_ids, lambda i: min(i, 0)):
        ids = list(run)
        if slot:
            pieces.append(f"\u27e8{kinds[slot]}: {len(ids)}\u27e9")
        else:
            pieces.append(session.encoder.tokenizer.decode(ids, skip_special_tokens=False))
    return "".join(pieces)
