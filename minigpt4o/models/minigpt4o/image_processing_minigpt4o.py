"""Pictures to pixels for Minigpt4o's picture tower: one square size, values from 0 to 1, nothing absurd let through."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import PILImageResampling, is_valid_image, load_image
from transformers.processing_utils import ImagesKwargs

SIZE = 768  # pixels of a side; the tower makes 16 x 16 soft tokens of it
MAX_PIXELS = 1 << 26  # 67 million: above any camera, below what fills a memory
LAST_CHANNELS = (1, 3, 4)  # sizes of an axis that holds colours, not pixels


class Minigpt4oImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """What a call may change; `max_pixels`: a picture of more (width x height) is refused."""

    max_pixels: int


class Minigpt4oImageProcessor(TorchvisionBackend):
    """Resizes to 768 x 768 (bilinear, whatever the shape was) and divides by 255; the tower wants no more.

    Takes PIL pictures, arrays and tensors (channels first or last), paths, URLs and base64 text.
    Raises ValueError on a picture without pixels, of more than `max_pixels`, or that cannot be read.
    """

    valid_kwargs = Minigpt4oImageProcessorKwargs
    model_input_names = ["pixel_values"]  # noqa: RUF012 (the base class declares it so)
    resample = PILImageResampling.BILINEAR
    image_mean = (0.5, 0.5, 0.5)
    image_std = (0.5, 0.5, 0.5)
    size = {"height": SIZE, "width": SIZE}  # noqa: RUF012
    default_to_square = False
    do_resize = True
    do_rescale = True
    do_normalize = False  # the tower was made for values from 0 to 1
    do_convert_rgb = True
    max_pixels = MAX_PIXELS

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Open what is a path, a URL or base64 text, also deep in lists; the rest stays as it is."""
        if isinstance(image_url_or_urls, list | tuple):
            return [self.fetch_images(image) for image in image_url_or_urls]
        if isinstance(image_url_or_urls, str | Path):
            return self._opened(str(image_url_or_urls))
        if is_valid_image(image_url_or_urls):
            gray = getattr(image_url_or_urls, "ndim", 3) == 2
            return image_url_or_urls[None] if gray else image_url_or_urls
        raise ValueError(
            f"a picture is a {type(image_url_or_urls).__name__}; known: PIL pictures, arrays, tensors, paths, URLs"
        )

    def _opened(self, source: str) -> PIL.Image.Image:
        told = source if len(source) < 200 else f"{source[:80]}..."
        try:
            if os.path.isfile(source):  # a header says how large a picture is before it is decoded
                with PIL.Image.open(source) as header:
                    check_pixels(header.size, self.max_pixels, told)
            return load_image(source)
        except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            raise ValueError(f"{told}: not a picture that can be read ({error})") from error

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One picture as a (C, H, W) tensor."""
        most = kwargs.pop("max_pixels", None) or self.max_pixels
        if isinstance(image, PIL.Image.Image):
            check_pixels(image.size, most, "a PIL picture")
        elif isinstance(image, np.ndarray | torch.Tensor):
            check_pixels(sides(tuple(image.shape)), most, f"a picture of shape {tuple(image.shape)}")
        return super().process_image(image, *args, **kwargs)


def sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height of a picture of this shape."""
    if len(shape) == 3:
        shape = shape[:2] if shape[2] in LAST_CHANNELS and shape[0] not in LAST_CHANNELS else shape[1:]
    if len(shape) != 2:
        raise ValueError(
            f"a picture has shape {shape}: give (height, width), (channels, height, width) or channels last"
        )
    return shape[1], shape[0]


def check_pixels(size: tuple[int, int], most: int, what: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"{what}: it has {width} x {height} pixels, that is none; leave it out")
    if width * height > most:
        raise ValueError(
            f"{what}: it has {width} x {height} = {width * height:,} pixels, at most {most:,} are taken; "
            "make it smaller, or raise the image processor's max_pixels"
        )


__all__ = ["Minigpt4oImageProcessor"]
