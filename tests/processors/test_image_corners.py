"""Corners of opening pictures: a clear grey among 16 bits; that `draft` really decodes at a fraction of the size."""

import io
import random

import numpy as np
from PIL import Image

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.image import open_image


def test_the_clear_grey_of_a_16_bit_picture_is_white():
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 65535], [300, 40000]], np.uint16)).save(file, "PNG", transparency=300)
    assert np.asarray(open_image(Media(data=file.getvalue())))[..., 0].tolist() == [[0, 255], [255, 156]]


def test_draft_decodes_a_large_jpeg_at_a_fraction_of_its_size():
    noise = np.random.default_rng(0).integers(0, 256, (320, 320, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((640, 640), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
    made = {}
    for decoder in ("fast", "draft"):
        part = Part("processor", "blip2_image_eval", {"image_size": 64, "decoder": decoder, "std": [1, 1, 1]})
        made[decoder] = 255 * registry.build(part)(Media(data=file.getvalue()), random.Random(0))
    apart = (made["fast"] - made["draft"]).abs()
    assert 0 < apart.mean() < 3


def test_compat_has_the_references_pixels_of_turned_clear_and_deep_pictures():
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    colours = Image.fromarray(rng.integers(0, 256, (24, 40, 3), np.uint8))
    clear = colours.copy()
    clear.putalpha(Image.fromarray(rng.integers(0, 256, (24, 40), np.uint8)))
    deep = Image.fromarray(rng.integers(0, 65536, (24, 40), np.uint16))
    for picture, form, words in ((colours, "JPEG", {"exif": exif}), (clear, "PNG", {}), (deep, "PNG", {})):
        file = io.BytesIO()
        picture.save(file, form, **words)
        stored = Image.open(io.BytesIO(file.getvalue())).convert("RGB").resize((16, 16), Image.Resampling.BICUBIC)
        wanted, ours = (
            registry.build(Part("processor", "blip2_image_eval", {"image_size": 16, "profile": profile}))
            for profile in ("compat", "default")
        )
        plain = wanted.tensor(stored)
        assert (wanted(Media(data=file.getvalue())) == plain).all()
        assert not (ours(Media(data=file.getvalue())) == plain).all()
