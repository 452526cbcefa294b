"""JPEG -> small square picture without Pillow's cost: torchvision's decoder, turns, torch's 8-bit resize."""

# H, W height and width of the picture, S side of the square

from __future__ import annotations

import torch
from torch.nn.functional import interpolate


def decode_jpeg(data: bytes, size: tuple[int, int]) -> torch.Tensor | None:
    """(3, H, W) uint8 of a JPEG of the size (width, height) that its header tells; None if it is not decoded so.

    libjpeg-turbo serves both torchvision and Pillow: the pixels are equal. What it calls damaged is left to Pillow,
    whose word decides whether a file can be used. libjpeg's remarks on damaged data go to stderr.
    """
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_jpeg as decode

    try:
        pixels: torch.Tensor = decode(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError:
        return None
    width, height = size
    return pixels if pixels.shape == (3, height, width) else None


def resize(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """(3, H, W) uint8 -> (3, S, S) uint8, bicubic with antialiasing, as Pillow's but for its rounding."""
    if pixels.shape[1:] == (side, side):
        return pixels
    return interpolate(pixels.unsqueeze(0), (side, side), mode="bicubic", antialias=True)[0]


def turn(pixels: torch.Tensor, orientation: int) -> torch.Tensor:
    """(3, H, W) upright by its EXIF orientation, 1 to 8. Before the resize, which rounds between its two passes."""
    if orientation in (5, 6, 7, 8):  # stored lying on its side
        pixels = pixels.transpose(1, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels.flip(2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels.flip(1)
    return pixels
