"""Any picture a program may hold (path, PIL, array, bytes, tensor) -> the tensor a model eats."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.objects import Geometry
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.image import open_image

_PNG_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "I;16")


class VisProcessor:
    """A registered image processor as LAVIS hands it out: call it with a picture, get (3, S, S)."""

    def __init__(self, chosen: Part) -> None:
        self.chosen = chosen
        self.processor: Callable[..., Tensor] = registry.build(chosen)

    @property
    def image_size(self) -> int:
        return int(self.processor.config.image_size)  # type: ignore[attr-defined]

    def __call__(self, picture: Any) -> Tensor:
        """(3, S, S) float32; a tensor stays as it is. Raises DataError if this is no picture that can be read."""
        return self.open(picture)[0]

    def open(self, picture: Any) -> tuple[Tensor, Geometry | None]:
        """The same, and how the frame of the picture was changed; None where the whole of it is shown."""
        if isinstance(picture, Tensor):
            return picture, None
        look, rng = getattr(self.processor, "open", None), random.Random(0)
        try:
            if look is None:
                return self.processor(as_media(picture), rng), None
            shown, geometry = look(as_media(picture), rng)
        except SkipSample as problem:
            raise DataError(str(problem)) from problem
        return shown, None if geometry.whole else geometry

    def __repr__(self) -> str:
        return f"VisProcessor({self.chosen.name}, image_size={self.image_size})"


def as_media(picture: Any) -> Media:
    """A path, encoded bytes, a PIL picture or an array (H, W), (H, W, 3 or 4) uint8 in RGB order, as `Media`."""
    if isinstance(picture, Media):
        return picture
    if isinstance(picture, str) and "://" in picture:
        raise DataError(f"{picture}: addresses are not fetched; give a file, a PIL picture or an array")
    if isinstance(picture, str | Path):
        path = Path(picture).expanduser()
        if not path.is_file():
            kind = "is a folder; give its files as a list" if path.is_dir() else "does not exist"
            raise DataError(f"picture {path} {kind}")
        return Media(str(path))
    if isinstance(picture, bytes):
        return Media(data=picture, name="bytes in memory")
    if isinstance(picture, np.ndarray):
        return Media(data=_png(_of_array(picture)), name=f"array {picture.shape}")
    if isinstance(picture, Image.Image):
        return Media(data=_png(picture), name=getattr(picture, "filename", "") or f"picture {picture.size}")
    raise DataError(
        f"a picture of type {type(picture).__name__} is not understood; give a path, bytes, a PIL picture, "
        "an array (H, W, 3) of uint8, or a tensor that a processor made"
    )


def _of_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise DataError(
            f"an array of shape {array.shape} and type {array.dtype} is no picture; it must be (H, W), (H, W, 3) or "
            "(H, W, 4) of uint8, colours in the order red, green, blue"
        )
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else np.ascontiguousarray(array))


def _png(picture: Image.Image) -> bytes:
    """The picture without loss, its orientation tag included, so that it goes the way files go."""
    try:
        if picture.mode == "F":
            return _saved(picture, "TIFF")
        return _saved(picture if picture.mode in _PNG_MODES else picture.convert("RGB"), "PNG", compress_level=1)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"the PIL picture cannot be read: {error}") from error


def _saved(picture: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, exif=picture.getexif(), **how)
    return file.getvalue()


def size_of(picture: Any) -> tuple[int, int] | None:
    """Width and height of an upright picture; None for a tensor, which no longer knows."""
    return None if isinstance(picture, Tensor) else open_image(as_media(picture)).size
