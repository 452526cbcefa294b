"""Any ordinary picture becomes upright RGB; whatever cannot be used says why; tensors are those of the reference."""

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minigpt4o.common.errors import ConfigError, SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.image import open_image

SHARED = Path(os.environ.get("MINIGPT4O_TEST_DATA", "../shared/data")) / "image_formats"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not there (set MINIGPT4O_TEST_DATA)")

# Four quarters of four colours: no turn or flip leaves it as it is.
CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))


def quarters(width=48, height=32):
    picture = Image.new("RGB", (width, height))
    for i, colour in enumerate(CORNERS):
        x, y = (i % 2) * width // 2, (i // 2) * height // 2
        picture.paste(colour, (x, y, x + width // 2, y + height // 2))
    return picture


def encoded(picture, format, **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return Media(data=file.getvalue(), name=f"test.{format.lower()}")


def colours(picture):
    w, h = picture.size
    return [picture.getpixel(at) for at in ((5, 5), (w - 6, 5), (5, h - 6), (w - 6, h - 6))]


def close(a, b, tolerance=40):
    return all(abs(x - y) <= tolerance for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


def reason(media, **options):
    with pytest.raises(SkipSample) as caught:
        open_image(media, **options)
    assert str(media) in caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_ordinary_formats_open(format):
    picture = open_image(encoded(quarters(), format))
    assert (picture.mode, picture.size) == ("RGB", (48, 32))
    assert close(colours(picture), CORNERS)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(format, orientation):
    stored = {  # how the upright picture has to be stored so that the orientation mends it
        1: lambda p: p,
        2: lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda p: p.transpose(Image.Transpose.ROTATE_180),
        4: lambda p: p.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda p: p.transpose(Image.Transpose.TRANSPOSE),
        6: lambda p: p.transpose(Image.Transpose.ROTATE_90),
        7: lambda p: p.transpose(Image.Transpose.TRANSVERSE),
        8: lambda p: p.transpose(Image.Transpose.ROTATE_270),
    }[orientation](quarters())
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = open_image(encoded(stored, format, exif=exif))
    assert picture.size == (48, 32)
    assert close(colours(picture), CORNERS)


def test_hidden_colours_of_alpha_do_not_show():
    picture = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, 4, 8))
    for media in (encoded(picture, "PNG"), encoded(picture, "WEBP", lossless=True), encoded(picture, "TIFF")):
        opened = open_image(media)
        assert opened.getpixel((6, 4)) == (255, 255, 255)
        assert opened.getpixel((1, 4)) == (0, 0, 255)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255] + [0] * 762)
    palette.paste(0, (4, 0, 8, 8))
    opened = open_image(encoded(palette, "PNG", transparency=0))
    assert [opened.getpixel((x, 4)) for x in (1, 6)] == [(0, 0, 255), (255, 255, 255)]
    grey = open_image(encoded(Image.new("LA", (4, 4), (0, 128)), "PNG"))
    assert abs(grey.getpixel((0, 0))[0] - 127) <= 1


def test_16_bit_grey_is_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    opened = np.asarray(open_image(encoded(Image.fromarray(ramp), "PNG")))[:, :, 0]
    assert np.abs(opened.ravel().astype(int) - np.arange(256)).max() <= 1
    assert len(np.unique(opened)) == 256
    fraction = Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16))
    assert np.abs(np.asarray(open_image(encoded(fraction, "TIFF")))[:, :, 0].ravel() - np.arange(256)).max() <= 1


def test_cmyk_and_one_bit_open():
    cyan = open_image(encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG"))
    assert close([cyan.getpixel((4, 4))], [(0, 255, 255)], 6)
    assert open_image(encoded(Image.new("1", (8, 8), 1), "PNG")).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in CORNERS[:3]]
    media = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert close([open_image(media).getpixel((4, 4))], [CORNERS[0]])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "TIFF", "BMP"])
def test_a_cut_file_is_skipped_and_never_half_grey(format):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    media = encoded(noise, format)
    assert reason(Media(data=media.data[: len(media.data) * 2 // 3], name="cut")) == "unreadable_image"


def test_what_is_no_picture_is_skipped(tmp_path):
    assert reason(Media(data=b"", name="empty")) == "unreadable_image"
    assert reason(Media(data=b"<html>404</html>", name="page.jpg")) == "unreadable_image"
    assert reason(Media(data=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", name="a.eps")) == "unreadable_image"
    assert reason(Media(path=str(tmp_path / "nowhere.png"))) == "missing_file"
    assert reason(Media(path=str(tmp_path))) == "read_error"


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return Media(data=b"\x89PNG\r\n\x1a\n" + body, name=f"{width}x{height}.png")


@pytest.mark.parametrize("size", [(8000, 8000), (12000, 9000), (60000, 60000)])
def test_a_bomb_is_refused_before_it_is_decoded(size):
    assert reason(png_header(*size)) == "image_too_large"


def test_limits_are_the_users():
    media = encoded(quarters(), "PNG")
    assert reason(media, max_pixels=48 * 32 - 1) == "image_too_large"
    assert open_image(media, max_pixels=48 * 32).size == (48, 32)
    assert reason(encoded(Image.new("RGB", (1, 300)), "PNG")) == "extreme_aspect"
    assert open_image(encoded(Image.new("RGB", (1, 1)), "PNG")).size == (1, 1)


# --- tensors --------------------------------------------------------------------------------------------------------


def synthetic():
    """97x61: R = 255x/96, G = 255y/60, B = 7(x+y) mod 256."""
    y, x = np.mgrid[0:61, 0:97]
    picture = Image.fromarray(np.stack([x * 255 // 96, y * 255 // 60, ((x + y) * 7) % 256], 2).astype(np.uint8))
    return encoded(picture, "PNG")


REFERENCE = {  # made by MiniGPT-4's processors: sum over all, three channels at (0, 0) and at (100, 150)
    224: (28909.317311857, (-1.79226255, -1.75209713, -1.48021984), (0.70406842, -0.05621931, 0.35416883)),
    448: (115707.892724007, (-1.79226255, -1.75209713, -1.48021984), (-0.55139625, -0.91166210, -0.61279577)),
}


@pytest.mark.parametrize("size", REFERENCE)
@pytest.mark.parametrize("name", ["blip2_image_train", "blip2_image_eval"])
def test_tensors_are_those_of_the_reference(name, size):
    processor = registry.build(Part("processor", name, {"image_size": size, "min_scale": 0.5, "max_scale": 1.0}))
    tensor = processor(synthetic(), None)
    total, first, inner = REFERENCE[size]
    assert tensor.shape == (3, size, size)
    assert tensor.dtype == torch.float32
    assert tensor.double().sum().item() == pytest.approx(total, abs=0.1)
    assert tensor[:, 0, 0].tolist() == pytest.approx(first, abs=1e-5)
    assert tensor[:, 100, 150].tolist() == pytest.approx(inner, abs=1e-5)


def test_mean_and_std_are_the_users():
    values = {"image_size": 4, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    processor = registry.build(Part("processor", "blip2_image_eval", values))
    assert processor(encoded(Image.new("RGB", (4, 4), (255, 0, 255)), "PNG"))[:, 0, 0].tolist() == [1, -1, 1]
    for wrong in ({"mean": [0.5]}, {"std": [1, 0, 1]}, {"image_size": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            registry.build(Part("processor", "blip2_image_eval", wrong))


@needs_shared
def test_every_real_file_opens_or_says_why():
    expected = json.loads((SHARED / "expected_pillow_13.json").read_text())
    # Pillow's plain convert() drops alpha and clips 16 bits; there only the size is compared.
    other_pixels = {"16bit.cropped.tif", "p_trns_single.png", "rgb_trns.png", "pil123rgba.png", "pil136.tiff"}
    other_pixels |= {"transparent.png", "transparent.webp", "hfdatasets_test_image_rgba.png"}
    for name, truth in expected.items():
        media = Media(path=str(SHARED / name))
        if "error" in truth or name.endswith(".tga"):  # TGA is not among the formats
            assert reason(media) == ("image_too_large" if "bomb" in name else "unreadable_image"), name
            continue
        picture = open_image(media)
        assert (picture.mode, list(picture.size)) == ("RGB", truth["upright_rgb_size"]), name
        if name not in other_pixels:
            mean = np.asarray(picture).reshape(-1, 3).mean(0)
            assert mean == pytest.approx(truth["mean_rgb"], abs=0.6), name
