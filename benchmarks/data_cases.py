"""Shards to measure with, and three ways to read them: raw, the plain pipeline a user would write, and ours."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
import torchvision
import webdataset as wds
from PIL import Image
from transformers import AutoTokenizer

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.template import load_template
from minigpt4o.datasets.loader import TrainLoader
from minigpt4o.models.llms.tokenizer import train_tokenizer
from minigpt4o.processors.image import CLIP_MEAN, CLIP_STD

SIDE, SECONDS, RATE = 224, 10.0, 16000
MEL: dict[str, Any] = {"n_mels": 64, "n_fft": 400, "seconds": SECONDS, "sample_rate": RATE}
BATCH = 32
PER_SHARD = 200
REPEATS = 8  # of each medium: drawing it is slow, and words must be more than a tokenizer's cache holds
QUESTIONS = [
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
]
Batches = Iterator[tuple[list[str], torch.Tensor]]  # captions and media of one batch, without end


@dataclass
class Case:
    """One set of shards and the ways to read it; each way gives batches without end."""

    name: str
    tars: list[Path]
    samples: int
    plain: Callable[[list[Path]], Batches]
    ours: Callable[[list[Path]], Batches]
    unit: torch.Tensor | float = 1.0  # factor from the tensors' differences to the unit they are told in
    notes: str = ""
    encoded: int = field(default=0)  # bytes of one encoded medium, on average


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Colours with detail at every scale, less of it the finer it is, as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for octave in range(1, 9):
        coarse = Image.fromarray(rng.integers(0, 256, (2**octave, 2**octave, 3), np.uint8))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float) * 0.62**octave
    total -= total.min()
    return Image.fromarray((total * (255 / total.max())).astype(np.uint8))


def recording(rate: int, seed: int, seconds: float = SECONDS) -> np.ndarray:
    """Falling tones over noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * rng.uniform(80, 3000) * time**p) for p in (0.9, 1.0, 1.1))
    return (0.2 * tones + rng.normal(0, 0.02, len(time))).astype(np.float32)


def caption(number: int) -> str:
    """Words of a usual length, different for each sample."""
    return f"number {number}: a small red bird sits on a branch in front of a grey house by the sea"


def write_shards(folder: Path, samples: int, extension: str, medium: Callable[[int], bytes]) -> tuple[list[Path], int]:
    """(tars, bytes of a medium on average): KEY.jpg or another medium, KEY.txt, KEY.json as img2dataset writes them.

    Each medium stands there REPEATS times, each time with other words.
    """
    folder.mkdir(parents=True)
    tars, size, made = [], 0, [medium(number) for number in range(samples // REPEATS)]
    for first in range(0, samples, PER_SHARD):
        tars.append(folder / f"{first // PER_SHARD:05d}.tar")
        with tarfile.open(tars[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(first, min(first + PER_SHARD, samples)):
                data, words = made[number % len(made)], caption(number)
                size += len(data)
                about = json.dumps({"caption": words, "key": f"{number:09d}", "status": "success"}).encode()
                for name, content in ((extension, data), ("txt", words.encode()), ("json", about)):
                    member = tarfile.TarInfo(f"{number:09d}.{name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return tars, size // samples


def jpeg(width: int, height: int) -> Callable[[int], bytes]:
    def encode(number: int) -> bytes:
        file = io.BytesIO()
        photograph(width, height, number).save(file, "JPEG", quality=90)
        return file.getvalue()

    return encode


def sound(rate: int, format: str, seconds: float = SECONDS) -> Callable[[int], bytes]:
    def encode(number: int) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, recording(rate, number, seconds), rate, format=format)
        return file.getvalue()

    return encode


# --- the plain pipelines --------------------------------------------------------------------------------------------


def plain_pictures(tars: list[Path]) -> Batches:
    """As MiniGPT-4 reads LAION and CC: webdataset, Pillow, torchvision."""
    from torchvision import transforms

    change = transforms.Compose(
        [
            transforms.Resize((SIDE, SIDE), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )
    stream = _stream(tars).decode("pilrgb", handler=wds.warn_and_continue)
    stream = stream.to_tuple("jpg", "json", handler=wds.warn_and_continue)
    return _batches(stream.map_tuple(change, handler=wds.warn_and_continue))


def plain_sounds(extension: str) -> Callable[[list[Path]], Batches]:
    """webdataset, soundfile, torchaudio; every transform made once."""

    def read(tars: list[Path]) -> Batches:
        kept: dict[int, Any] = {}
        spectrum = torchaudio.transforms.MelSpectrogram(
            RATE, MEL["n_fft"], hop_length=160, f_min=40.0, n_mels=MEL["n_mels"], pad_mode="constant"
        )

        def change(data: bytes) -> torch.Tensor:
            wave, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
            sound = torch.from_numpy(wave.mean(axis=1))
            if rate != RATE:
                sound = kept.setdefault(rate, torchaudio.transforms.Resample(rate, RATE))(sound)
            length = round(SECONDS * RATE)
            sound = torch.nn.functional.pad(sound[:length], (0, max(0, length - len(sound))))
            return ((spectrum(sound)[:, : length // 160].T + 1e-6).log() + 7.0) / 5.0

        stream = _stream(tars).to_tuple(extension, "json", handler=wds.warn_and_continue)
        return _batches(stream.map_tuple(change, json.loads, handler=wds.warn_and_continue))

    return read


def _stream(tars: list[Path]) -> Any:
    urls = [str(tar) for tar in tars]
    return wds.WebDataset(urls, shardshuffle=False, handler=wds.warn_and_continue).repeat().shuffle(1000)


def _batches(stream: Any) -> Batches:
    words: list[str] = []
    media: list[torch.Tensor] = []
    for medium, about in stream:
        words.append(about["caption"])
        media.append(medium)
        if len(media) == BATCH:
            yield words, torch.stack(media)
            words, media = [], []


# --- ours -----------------------------------------------------------------------------------------------------------


def ours(kind: str, extension: str, processor: Part) -> Callable[[list[Path]], Batches]:
    """Shards, template, tokenizer, processor, collate: whole training batches, in this process."""

    def read(tars: list[Path]) -> Batches:
        pattern = f"{tars[0].parent}/{{00000..{len(tars) - 1:05d}}}.tar"
        fields = {kind: extension, "text": "txt"}
        values = {"annotations": {"train": pattern}, "fields": fields, "prompts": QUESTIONS}
        builder = registry.build(Part("builder", "shards", values), name="set", split="train")
        words = _tokenizer(tars[0].parent)
        encoder = SampleEncoder(
            words, load_template("vicuna_v0"), {"image": 32, "audio": 32}, {kind: registry.build(processor)}
        )
        loader = TrainLoader({"set": builder}, {"set": 1.0}, {"set": encoder}, seed=0, batch_size=BATCH)
        for batch in loader:
            media = batch.images if kind == "image" else batch.audios
            assert media is not None, "every sample of these shards has its medium"
            yield [sample.answers[0] for sample in batch.samples], media

    return read


def _tokenizer(folder: Path) -> Any:
    """A byte-level one that has learned these questions and captions: a usual number of tokens for each."""
    text = folder / "words.txt"
    text.write_text("\n".join([*QUESTIONS, *map(caption, range(50))]), encoding="utf-8")
    return AutoTokenizer.from_pretrained(train_tokenizer([text], folder / "tokenizer", 600))


def picture_cases(folder: Path, samples: int) -> Iterator[Case]:
    """JPEG at two sizes, with the decoder that is the default and with the reference's."""
    unit = 255 * torch.tensor(CLIP_STD).view(3, 1, 1)
    for width, height in ((340, 256), (512, 384)):
        tars, size = write_shards(folder / f"{width}x{height}", samples, "jpg", jpeg(width, height))
        for decoder in ("auto", "pillow"):
            part = Part("processor", "blip2_image_train", {"image_size": SIDE, "decoder": decoder})
            name = f"jpeg {height}x{width}, decoder {decoder}"
            yield Case(name, tars, samples, plain_pictures, ours("image", "jpg", part), unit, "1/255", size)


def sound_cases(folder: Path, samples: int) -> Iterator[Case]:
    """Clips of 10 seconds, and longer ones of which 10 are heard; with the engine that is the default and with others.

    The plain pipeline decodes a recording as a whole.
    """
    kinds = (
        ("wav", RATE, SECONDS, ("auto", "fast")),
        ("flac", RATE, SECONDS, ("auto", "fast")),
        ("flac", 44100, SECONDS, ("auto", "exact")),
        ("mp3", 44100, SECONDS, ("auto", "exact")),
        ("flac", RATE, 30.0, ("auto", "fast")),
    )
    for format, rate, seconds, engines in kinds:
        made = sound(rate, format.upper(), seconds)
        tars, size = write_shards(folder / f"{format}{rate}x{seconds:g}", samples, format, made)
        for engine in engines:
            part = Part("processor", "log_mel", {**MEL, "engine": engine})
            name = f"{format} {seconds:g} s, {rate / 1000:g} kHz, {engine}"
            yield Case(name, tars, samples, plain_sounds(format), ours("audio", format, part), 1.0, "log-mel", size)


VERSIONS = {"torch": torch.__version__, "torchvision": torchvision.__version__, "webdataset": wds.__version__}
