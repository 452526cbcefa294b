"""Parts of the engine's tests: samples with media, what a model answers alone, an engine that steps when told."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.datasets.collate import collate
from minigpt4o.serve.engine import Engine

DECODINGS = [
    Decoding(12, min_new_tokens=3),
    Decoding(30),
    Decoding(9, repetition_penalty=1.4, min_new_tokens=9),
    Decoding(14, do_sample=True, temperature=0.9, top_p=0.9, seed=3),
    Decoding(20, do_sample=True, temperature=1.5, seed=4, repetition_penalty=1.2),
]


def picture(number: int) -> Media:
    draw = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(draw.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(file, "PNG")
    return Media(data=file.getvalue(), name=f"{number}.png")


def sound(number: int) -> Media:
    import soundfile

    file = io.BytesIO()
    wave = np.random.default_rng(number).normal(0, 0.2, 3200)
    soundfile.write(file, wave.astype("float32"), 16000, format="WAV")
    return Media(data=file.getvalue(), name=f"{number}.wav")


def sample(number: int, draw: random.Random | None = None) -> Sample:
    """A question with some media, drawn by its number; few different media, so that some are met again."""
    draw = draw or random.Random(number)
    images = [picture(draw.randrange(4)) for _ in range(draw.choice([0, 1, 1, 2]))]
    audios = [sound(draw.randrange(3)) for _ in range(draw.choice([0, 0, 1]))]
    words = " ".join(draw.choice(["what", "is", "there", "red", "丸", "left"]) for _ in range(draw.randrange(1, 12)))
    text = "<image>" * len(images) + "<audio>" * len(audios) + words
    return Sample(f"s{number}", [Turn("user", text), Turn("assistant", "")], images, audios)


def alone(model: Any, encoder: SampleEncoder, asked: Sample, decoding: Decoding, stop: Sequence[str] = ()) -> str:
    """What `model.generate` answers to this sample by itself."""
    batch = collate([encoder.prompt(asked, random.Random(0))], model.tokenizer.pad_token_id or 0, side="left")
    return model.generate(batch, decoding, stop=[*encoder.template.serving.stop, *stop])[0]


class SteppedEngine(Engine):
    """An engine without a thread: `turn()` is one step, in the test's own thread."""

    def _start(self) -> None:
        pass

    def turn(self) -> None:
        with torch.no_grad(), self.model.autocast():
            self._worker.turn()

    def finish(self) -> None:
        while len(self._queue) or self._worker.groups:
            self.turn()


def native(folder: Path) -> tuple[Any, SampleEncoder]:
    """A tiny Minigpt4o: shared keys and values, a sliding window, per-layer inputs."""
    import tiny_native

    model = tiny_native.make_native(tiny_native.make_tokenizer(folder)).eval()
    processors = {"image": _numbers(3, tiny_native.SIDE, tiny_native.SIDE), "audio": _frames(tiny_native)}
    return model, open_encoder(model.tokenizer, model.conversation, model.slots, processors)


def _numbers(*shape: int) -> Callable[[Media, random.Random], torch.Tensor]:
    def opened(media: Media, rng: random.Random) -> torch.Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(sum(media.read())))

    return opened


def _frames(parts: Any) -> Callable[[Media, random.Random], torch.Tensor]:
    opened = _numbers(parts.FRAMES, parts.BINS)

    def half(media: Media, rng: random.Random) -> torch.Tensor:
        frames = opened(media, rng)
        frames[parts.FRAMES // 2 :] = torch.nan  # no sound there
        return frames

    return half
