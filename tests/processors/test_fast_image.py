"""Fast JPEG decoding gives the reference's pixels within its stated tolerance, and refuses exactly what Pillow does."""

import io
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from minigpt4o.common.errors import SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Media
from minigpt4o.processors import fast_image
from minigpt4o.processors.image import open_image

SHARED = Path(os.environ.get("MINIGPT4O_TEST_DATA", "../shared/data")) / "image_formats"
MEAN, LARGEST = 0.02, 3.01  # in units of 1/255, as the processor's docstring states


def processor(decoder="auto", side=64, **values):
    return registry.build(Part("processor", "blip2_image_eval", {"image_size": side, "decoder": decoder, **values}))


def pixels(made_by, media):
    """(3, S, S) in 0..255, normalisation undone."""
    return (made_by(media) * made_by.std + made_by.mean) * 255


def outcome(made_by, media):
    try:
        return made_by(media)
    except SkipSample as skip:
        return skip.reason


def picture(width, height, seed, kind):
    """Smooth colours with edges, as photographs have; or noise, the hardest of all for a resize."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    total = np.zeros((height, width, 3))
    for octave in range(1, 7):
        coarse = Image.fromarray(rng.integers(0, 256, (2**octave, 2**octave, 3), np.uint8))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float) * 0.6**octave
    total[: height // 3, : width // 4] = rng.integers(0, 256, 3)
    return Image.fromarray(np.clip(total * 0.8, 0, 255).astype(np.uint8))


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return Media(data=file.getvalue(), name="test.jpg")


@pytest.fixture(autouse=True)
def _room_to_encode(monkeypatch):
    monkeypatch.setattr(ImageFile, "MAXBLOCK", 1 << 20)  # Pillow's own does not hold progressive noise


SIZES = [(97, 61), (64, 64), (340, 256), (31, 200), (5, 3), (1, 1), (17, 64)]


@pytest.mark.parametrize("kind", ["photograph", "noise"])
def test_fast_pixels_are_pillows_within_the_stated_tolerance(kind):
    fast, pillow = processor("fast"), processor("pillow")
    variants = itertools.product(SIZES, (0, 1, 2), (False, True), (30, 75, 95))
    for seed, ((width, height), subsampling, progressive, quality) in enumerate(variants):
        image = picture(width, height, seed, kind)
        media = jpeg(image, subsampling=subsampling, progressive=progressive, quality=quality)
        difference = (pixels(fast, media) - pixels(pillow, media)).abs()
        assert difference.mean() <= MEAN, (width, height, subsampling, progressive, quality)
        assert difference.max() <= LARGEST, (width, height, subsampling, progressive, quality)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_as_pillow_turns_it(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    media = jpeg(picture(90, 50, orientation, "photograph"), exif=exif, quality=90)
    fast, pillow = processor("fast"), processor("pillow")
    difference = (pixels(fast, media) - pixels(pillow, media)).abs()
    assert difference.mean() <= MEAN
    assert difference.max() <= LARGEST


def test_grey_jpegs_go_fast_and_cmyk_ones_go_through_pillow(monkeypatch):
    decoded = []
    real = fast_image.decode_jpeg
    monkeypatch.setattr(fast_image, "decode_jpeg", lambda *given: decoded.append(given[1]) or real(*given))
    fast, pillow = processor("fast", side=20), processor("pillow", side=20)
    for mode in ("L", "RGB", "CMYK"):
        media = jpeg(picture(40, 30, 1, "photograph").convert(mode))
        difference = (pixels(fast, media) - pixels(pillow, media)).abs()
        assert difference.max() <= LARGEST, mode
    assert decoded == [(40, 30), (40, 30)]


def test_auto_is_fast_for_jpeg_and_pillow_for_all_else_and_in_compat():
    image = picture(90, 70, 5, "noise")
    media = jpeg(image, quality=95)
    fast, pillow = processor("fast")(media), processor("pillow")(media)
    assert not torch.equal(fast, pillow), "the two ways must be told apart by this test"
    assert torch.equal(processor("auto")(media), fast)
    assert torch.equal(processor("auto", profile="compat")(media), pillow)
    assert torch.equal(processor("fast", profile="compat")(media), fast)
    for format in ("PNG", "WEBP", "BMP"):
        file = io.BytesIO()
        image.save(file, format)
        media = Media(data=file.getvalue(), name=format)
        assert torch.equal(processor("auto")(media), processor("pillow")(media)), format
        assert (pixels(processor("fast"), media) - pixels(processor("pillow"), media)).abs().max() <= LARGEST, format


def test_the_profile_of_a_file_reaches_its_processors(tmp_path):
    from minigpt4o.common.config import load_settings

    text = """
    profile: compat
    model: {arch: aligned, encoders: {image: timm_vit}, llm: {name: causal_lm, path: nowhere}}
    datasets:
      one: {builder: pairs, annotations: {train: a.jsonl}, vis_processor: {train: {name: blip2_image_train}}}
    run: {task: image_text_pretrain}
    """
    file = tmp_path / "a.yaml"
    file.write_text(text)
    spec = load_settings(file, []).datasets["one"].vis_processor["train"]
    assert spec.values["profile"] == "compat"
    assert registry.build(spec).decoder == "pillow"


def test_a_picture_of_the_wanted_size_is_not_resized():
    media = jpeg(picture(64, 64, 3, "noise"), quality=90)
    assert torch.equal(processor("fast")(media), processor("pillow")(media))


def test_truncated_and_damaged_jpegs_have_the_same_fate_and_are_never_half_grey():
    fast, pillow = processor("fast"), processor("pillow")
    whole = jpeg(picture(70, 50, 7, "noise"), quality=80).data
    for progressive in (False, True):
        whole = jpeg(picture(70, 50, 7, "noise"), quality=80, progressive=progressive).data
        for keep in range(2, len(whole) - 2, len(whole) // 60):
            cut = Media(data=whole[:keep], name="cut.jpg")
            assert outcome(fast, cut) == outcome(pillow, cut) == "unreadable_image", keep
    rng = np.random.default_rng(0)
    fates = {True: 0, False: 0}
    for _ in range(400):
        broken = bytearray(whole)
        for at in rng.integers(0, len(broken), rng.integers(1, 4)):
            broken[at] = rng.integers(0, 256)
        media = Media(data=bytes(broken), name="broken.jpg")
        a, b = outcome(fast, media), outcome(pillow, media)
        fates[isinstance(b, str)] += 1
        if isinstance(a, str) or isinstance(b, str):
            assert a == b
        else:
            assert ((a - b) * pillow.std).abs().max() * 255 <= LARGEST
    assert min(fates.values()) > 20, f"both fates should be met often: {fates}"


def test_draft_is_near_on_large_photographs_and_does_not_touch_small_ones():
    draft, fast, pillow = processor("draft"), processor("fast"), processor("pillow")
    small = jpeg(picture(200, 150, 1, "photograph"), quality=90)
    assert torch.equal(draft(small), fast(small))
    exif = Image.Exif()
    exif[0x0112] = 6
    for subsampling in (0, 2):
        media = jpeg(picture(800, 600, 2, "photograph"), quality=90, subsampling=subsampling, exif=exif)
        difference = (pixels(draft, media) - pixels(pillow, media)).abs()
        assert 0 < difference.mean() <= 1.5


def test_limits_hold_for_every_decoder():
    media = jpeg(picture(48, 32, 1, "photograph"))
    for decoder in ("auto", "pillow", "fast", "draft"):
        for limit, reason in (("max_pixels", "image_too_large"), ("max_bytes", "image_too_large")):
            assert outcome(processor(decoder, **{limit: 500}), media) == reason
        assert outcome(processor(decoder, max_aspect=1.2), media) == "extreme_aspect"
    assert open_image(media).size == (48, 32)


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not there (set MINIGPT4O_TEST_DATA)")
@pytest.mark.parametrize("decoder", ["auto", "fast", "draft"])
def test_every_real_file_has_the_fate_and_the_pixels_that_pillow_gives_it(decoder):
    other, pillow = processor(decoder, side=56), processor("pillow", side=56)
    for name, truth in json.loads((SHARED / "expected_pillow_13.json").read_text()).items():
        media = Media(path=str(SHARED / name))
        a, b = outcome(other, media), outcome(pillow, media)
        assert isinstance(b, str) == ("error" in truth or name.endswith(".tga")), name  # TGA is not among the formats
        if isinstance(b, str):
            assert a == b, name
        else:
            difference = (pixels(other, media) - pixels(pillow, media)).abs()
            assert difference.mean() <= (1.5 if decoder == "draft" else MEAN), name
            assert difference.max() <= (60 if decoder == "draft" else LARGEST), name
