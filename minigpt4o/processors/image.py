"""Open any ordinary picture as upright RGB, or say why not; and make of it the tensor that a vision encoder eats."""

from __future__ import annotations

import io
import math
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from minigpt4o.common.errors import ConfigError, SkipSample
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Media
from minigpt4o.processors import fast_image
from minigpt4o.processors.orientation import DAMAGED, orientation, seen_size
from minigpt4o.processors.reading import read_media

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # nothing else is even tried
MAX_PIXELS = 50_000_000  # a larger picture is refused before it is decoded
MAX_ASPECT = 200.0  # longer side / shorter side; beyond it nothing is left after resizing to a square
MAX_BYTES = 256 << 20  # of one picture's file; a larger file is not read
PngImagePlugin.MAX_TEXT_MEMORY = (
    4 << 20
)  # bytes that all texts inside a PNG may unpack to; Pillow's own limit is 64 MiB

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(
    media: Media, max_pixels: int = MAX_PIXELS, max_aspect: float = MAX_ASPECT, max_bytes: int = MAX_BYTES
) -> Image.Image:
    """The picture in RGB, turned upright by its EXIF orientation, alpha laid on white; first frame of an animation.

    16-bit pictures are scaled to 8 bits, not clipped. Raises SkipSample (missing_file, read_error,
    unreadable_image, image_too_large, extreme_aspect); a picture that is too large is not decoded.
    """
    data = read_media(media, "unreadable_image", max_bytes, "image_too_large")
    with _quiet():
        return _upright_rgb(_header(data, media, max_pixels, max_aspect), media)


def upright_size(media: Media, max_bytes: int = MAX_BYTES) -> tuple[int, int]:
    """(width, height) of a picture as it is seen upright, from the header alone, however large. Raises SkipSample."""
    data = read_media(media, "unreadable_image", max_bytes, "image_too_large")
    with _quiet():
        picture = _header(data, media, sys.maxsize, math.inf)
        return seen_size(picture)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings about sizes and metadata: sizes are checked here, metadata do not matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _header(data: bytes, media: Media, max_pixels: int, max_aspect: float) -> Image.Image:
    """The picture with its size checked; its pixels are not decoded yet."""
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise SkipSample("image_too_large", f"{media}: {error}") from error
    except UnidentifiedImageError as error:
        detail = f"{media}: not a picture that can be read; formats: {', '.join(FORMATS)}"
        raise SkipSample("unreadable_image", detail) from error
    except DAMAGED as error:
        raise SkipSample("unreadable_image", f"{media}: {error}") from error
    width, height = picture.size
    if width * height > max_pixels:
        detail = f"{media}: {width}x{height} pixels, at most {max_pixels:,} are read"
        raise SkipSample("image_too_large", detail)
    if max(width, height) > max_aspect * min(width, height):
        raise SkipSample("extreme_aspect", f"{media}: {width}x{height}, one side over {max_aspect:g} times the other")
    return picture


def _upright_rgb(picture: Image.Image, media: Media, as_stored: bool = False) -> Image.Image:
    """Decoded by Pillow. `as_stored`: neither turned nor laid on white, 16 bits clipped, as the reference has it."""
    try:
        picture.load()
        return picture.convert("RGB") if as_stored else _flatten(_turn_upright(picture))
    except Image.DecompressionBombError as error:
        raise SkipSample("image_too_large", f"{media}: {error}") from error
    except DAMAGED as error:
        raise SkipSample("unreadable_image", f"{media}: {error}") from error


def _turn_upright(picture: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(orientation(picture))
    if turn is None:
        return picture
    turned = picture.transpose(turn)
    turned.info.update({k: v for k, v in picture.info.items() if k == "transparency"})
    return turned


def _flatten(picture: Image.Image) -> Image.Image:
    """8-bit RGB of any mode, alpha laid on white."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep(picture)
    if picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _from_deep(picture: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, scaled so that white is 65535 for whole numbers and 1.0 for fractions.

    Values that would all be black so (whole numbers up to 255) or white (fractions up to 255) are 8-bit ones in a
    wide file; if there are larger ones than white, the largest is white.
    """
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a pixel is not a finite number")
    top = float(values.max())
    if top <= 1.0 and picture.mode == "F":
        white = 1.0
    elif top <= 255.0:
        white = 255.0
    else:
        white = top if picture.mode == "F" else max(65535.0, top)
    grey = np.clip(np.round(values * (255.0 / white)), 0, 255).astype(np.uint8)
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB")


@registry.register("processor", "blip2_image_eval")
class Blip2ImageEval:
    """Resize to a square whatever the aspect (bicubic), scale to 0..1, normalise; no crop, no flip: boxes stay true.

    `decoder` says how pixels are made. `pillow`: as the reference does it, pixel for pixel, but for pictures that the
    reference shows turned on their side (EXIF), with their alpha dropped, or with 16 bits clipped to white; in profile
    compat those, too. `fast`: JPEG by torchvision, resized in 8 bits by torch; against `pillow` in units of 1/255 the
    mean difference of a picture is at most 0.02 and the largest 3, at 2 to 4 times the speed. `draft`: JPEGs of 4 times
    the wanted side and more are decoded at a fraction of their size, at least twice the wanted one, then as `fast`:
    mean difference up to 1.5 on photographs. `auto`: `fast` for JPEG and `pillow` for all else; in profile compat
    `pillow` for all.
    What can be opened, and why not, is the same for all of them.
    """

    @dataclass
    class Config:
        image_size: int = 224  # side of the square in pixels
        mean: tuple[float, ...] | None = None  # per channel; null = CLIP's
        std: tuple[float, ...] | None = None  # per channel; null = CLIP's
        min_scale: float = 0.5  # taken from older files and not used: pictures are never cropped
        max_scale: float = 1.0  # taken from older files and not used: pictures are never cropped
        max_pixels: int = 50_000_000  # larger pictures are skipped undecoded (image_too_large)
        max_aspect: float = 200.0  # pictures with more extreme sides are skipped (extreme_aspect)
        max_bytes: int = 268_435_456  # larger files are skipped unread (image_too_large)
        decoder: Literal["auto", "pillow", "fast", "draft"] = (
            "auto"  # pillow = as the reference resizes; fast = 2 to 4 times faster, within 3/255; auto = fast for JPEG
        )
        profile: Literal["default", "compat"] = "default"  # compat: the reference's pixels, decoder auto means pillow

    def __init__(self, config: Config) -> None:
        self.config = config
        if config.image_size < 1:
            raise ConfigError(f"image_size: {config.image_size} is not a number of pixels; give 1 or more")
        self.decoder = "pillow" if (config.decoder, config.profile) == ("auto", "compat") else config.decoder
        self.mean = _per_channel("mean", config.mean, CLIP_MEAN)
        self.std = _per_channel("std", config.std, CLIP_STD)
        if (self.std == 0).any():
            raise ConfigError("std: must not be 0, pictures are divided by it")

    def __call__(self, media: Media, rng: random.Random | None = None) -> torch.Tensor:
        """(3, S, S) float32. Raises SkipSample; `rng` is not used."""
        config = self.config
        data = read_media(media, "unreadable_image", config.max_bytes, "image_too_large")
        with _quiet():
            picture = _header(data, media, config.max_pixels, config.max_aspect)
            square = self._fast_square(picture, data)
            if square is not None:
                return self._normalised(square)
            return self.tensor(_upright_rgb(picture, media, as_stored=config.profile == "compat"))

    def tensor(self, picture: Image.Image) -> torch.Tensor:
        """(3, S, S) float32 of an RGB picture that is already open."""
        side = self.config.image_size
        if picture.size != (side, side):
            if self.decoder in ("fast", "draft"):
                pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
                return self._normalised(fast_image.resize(pixels, side))
            picture = picture.resize((side, side), Image.Resampling.BICUBIC)
        return self._normalised(torch.from_numpy(np.array(picture)).permute(2, 0, 1))

    def _fast_square(self, picture: Image.Image, data: bytes) -> torch.Tensor | None:
        """(3, S, S) uint8, upright; None where Pillow has to decide: no ordinary JPEG, or a damaged one."""
        if self.decoder == "pillow" or picture.format not in ("JPEG", "MPO") or picture.mode not in ("RGB", "L"):
            return None
        side = self.config.image_size
        whole = picture.size
        if self.decoder == "draft":
            picture.draft("RGB", (2 * side, 2 * side))
            if picture.size != whole:
                return None  # Pillow decodes it at that size
        pixels = fast_image.decode_jpeg(data, whole)
        if pixels is None:
            return None
        return fast_image.resize(fast_image.turn(pixels, orientation(picture)), side)

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """(3, S, S) uint8 -> float32."""
        return pixels.contiguous().to(torch.float32).div_(255).sub_(self.mean).div_(self.std)


@registry.register("processor", "blip2_image_train")
class Blip2ImageTrain(Blip2ImageEval):
    """The same for training: MiniGPT-4 learns from whole pictures, neither cropped nor flipped."""


def _per_channel(name: str, values: tuple[float, ...] | None, default: tuple[float, ...]) -> torch.Tensor:
    chosen = default if values is None else tuple(values)
    if len(chosen) != 3:
        raise ConfigError(f"{name}: {len(chosen)} numbers, but a picture has 3 channels (red, green, blue)")
    return torch.tensor(chosen, dtype=torch.float32).view(3, 1, 1)
