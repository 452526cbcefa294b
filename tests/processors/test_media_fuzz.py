"""Ten thousand damaged pictures, sounds and texts: no crash, every one counted as good or bad, memory bounded."""

import io
import json
import random
import resource
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from minigpt4o.common.errors import SKIP_REASONS, DataError, SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import Example
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.datasets.bad import BadSample, BadSamples, attempt

SAMPLES = 10_000
SIDE = 32


def pictures():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).resize((96, 72), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"JPEG": [{}, {"progressive": True, "exif": exif}, {"subsampling": 0}], "PNG": [{}, {"exif": exif}]}
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        for option in options.get(format, [{}]):
            file = io.BytesIO()
            noise.save(file, format, **option)
            yield file.getvalue()
    for mode, format in (("CMYK", "JPEG"), ("L", "JPEG"), ("P", "PNG"), ("LA", "PNG"), ("1", "TIFF")):
        file = io.BytesIO()
        noise.convert(mode).save(file, format)
        yield file.getvalue()


def sounds():
    wave = 0.3 * np.sin(np.arange(4000) * 0.2) + np.random.default_rng(1).normal(0, 0.05, 4000)
    for format, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", None),
        ("OGG", None),
        ("MP3", None),
        ("AIFF", None),
    ):
        file = io.BytesIO()
        soundfile.write(file, wave.astype(np.float32), 16000, format=format, subtype=subtype)
        yield file.getvalue()


def texts():
    yield json.dumps({"caption": "a red circle left of a blue square", "n": [1, 2, 3]}).encode()
    yield "左上に大きい赤い丸、右下に小さい青い四角".encode()


def damaged(data, rng):
    """One to three faults: bytes changed, the end cut, a piece doubled, left out or overwritten, or nothing left."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        if not found:
            break
        at, length = rng.randrange(len(found)), rng.choice((1, 2, 4, 16, 64))
        kind = rng.randrange(7)
        if kind == 0:
            found[at] = rng.randrange(256)
        elif kind == 1:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del found[at:]
        elif kind == 3:
            found[at:at] = found[at : at + length]
        elif kind == 4:
            del found[at : at + length]
        elif kind == 5:
            found[at : at + length] = bytes(rng.choice((0, 255)) for _ in range(length))
        else:  # where headers keep sizes and rates
            place = rng.randrange(min(64, len(found)))
            found[place : place + 4] = rng.randbytes(4)
    return bytes(found)


@dataclass
class Damaged:
    """A builder whose samples are damaged each in its own way: a third pictures, a third sounds, a third texts."""

    seeds: dict

    def __len__(self):
        return SAMPLES

    def sample(self, index, rng):
        kind = ("image", "audio", "text")[index % 3]
        chosen = random.Random(index)
        data = damaged(chosen.choice(self.seeds[kind]), chosen)
        media = Media(data=data, name=f"{kind} {index}")
        text = "what?"
        if kind == "text":
            text = read_text(data)
        images, audios = [media] if kind == "image" else [], [media] if kind == "audio" else []
        return Sample(str(index), [Turn("user", text), Turn("assistant", text)], images, audios, where=str(index))


def read_text(data):
    """As a member of a shard is read."""
    from minigpt4o.datasets.shards.index import DECODERS

    try:
        return str(DECODERS["json" if data[:1] == b"{" else "txt"](data))
    except UnicodeDecodeError as error:
        raise SkipSample("bad_text", str(error)) from error
    except json.JSONDecodeError as error:
        raise SkipSample("bad_json", str(error)) from error


def encoder():
    picture = registry.build(Part("processor", "blip2_image_train", {"image_size": SIDE}))
    sound = registry.build(Part("processor", "log_mel", {"seconds": 0.3, "n_mels": 16}))
    caption = registry.build(Part("processor", "blip_caption"))

    def encode(sample, rng):
        ids = torch.tensor([ord(c) for c in caption(sample.turns[0].text)][:50] or [0])
        images, audios = [picture(m, rng) for m in sample.images], [sound(m, rng) for m in sample.audios]
        assert all(i.shape == (3, SIDE, SIDE) and torch.isfinite(i).all() for i in images)
        assert all(a.shape == (30, 16) and torch.isfinite(a).all() for a in audios)
        return Example(ids, ids, images, audios, sample)

    return encode


def test_ten_thousand_damaged_media_are_all_counted_and_none_crashes(tmp_path, capfd):
    builder = Damaged({"image": list(pictures()), "audio": list(sounds()), "text": list(texts())})
    encode, bad = encoder(), BadSamples(1.0, tmp_path / "quarantine.jsonl")
    for media in next(pictures()), next(sounds()):  # what is imported at the first use is not timed
        kind = {"audios": [Media(data=media)]} if media[:4] == b"RIFF" else {"images": [Media(data=media)]}
        encode(Sample("warm", [Turn("user", "what?")], **kind), random.Random(0))
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    slowest = 0.0
    good = Counter()
    for index in range(SAMPLES):
        before = time.process_time()
        result = attempt(builder, index, index, encode)
        slowest = max(slowest, time.process_time() - before)
        if isinstance(result, Example):
            good[index % 3] += 1
            bad.count({"fuzz": 1}, [])
        else:
            bad.count({}, [BadSample("fuzz", index, index, *result)])
    seconds = time.process_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert bad.good + bad.total == SAMPLES
    assert set(bad.reasons) <= SKIP_REASONS
    assert sum(bad.reasons.values()) == len((tmp_path / "quarantine.jsonl").read_text().splitlines())
    assert min(good.values()) > 300, f"the damage should leave many usable: {good}, {bad.reasons}"
    assert bad.total > 3000, f"the damage should be felt: {good}, {bad.reasons}"
    assert seconds < 40
    assert slowest < 0.5
    assert grown < 300


def test_a_set_of_damaged_media_stops_above_the_allowed_share(tmp_path):
    builder = Damaged({"image": list(pictures()), "audio": list(sounds()), "text": list(texts())})
    encode, bad = encoder(), BadSamples(0.05, tmp_path / "quarantine.jsonl")

    def go_through():
        for index in range(1000):
            result = attempt(builder, index, index, encode)
            fine = isinstance(result, Example)
            bad.count({"fuzz": int(fine)}, [] if fine else [BadSample("fuzz", index, index, *result)])

    with pytest.raises(DataError, match="max_bad_fraction") as caught:
        go_through()
    assert str(caught.value).count("fuzz[") == 3
