"""What picture encoders share: the size they were built for."""

from __future__ import annotations

import torch
from torch import Tensor

from minigpt4o.common.errors import ConfigError, DataError


def check_grid(name: str, image_size: int, patch_size: int, width: int, heads: int) -> None:
    """Raises ConfigError unless patches tile the picture and heads divide the width."""
    if image_size % patch_size or width % heads:
        raise ConfigError(
            f"encoder {name}: image_size {image_size} must be a multiple of patch_size {patch_size} and width {width} "
            f"of heads {heads}"
        )


def check_side(pictures: Tensor, image_size: int) -> None:
    """Raises DataError unless the pictures (N, 3, S, S) have the encoder's size."""
    if pictures.shape[-1] != image_size or pictures.shape[-2] != image_size:
        raise DataError(
            f"a picture of {pictures.shape[-1]}x{pictures.shape[-2]} pixels came to an encoder of image_size "
            f"{image_size}; set vis_processor.image_size and model.encoders.image.image_size to one value"
        )


def empty_picture(image_size: int) -> Tensor:
    """An empty picture (1, 3, S, S), for steps in which every rank must run the encoder."""
    return torch.zeros(1, 3, image_size, image_size)
