"""Draw a scene of the toy world as a 64x64 PNG, smooth at the edges; each shape fills its box exactly."""

from __future__ import annotations

import io
import math
import random
from functools import lru_cache

from PIL import Image, ImageDraw

from minigpt4o.datasets.toy_world.world import SIDE, Scene

RGB = {
    "red": (220, 35, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 212, 30),
    "purple": (135, 50, 175),
    "orange": (245, 130, 20),
    "black": (25, 25, 28),
    "pink": (250, 145, 195),
}
# Shades vary a little, so that no exact number tells a colour.
LIGHT_JITTER = 8  # all channels of an object move together by at most this much
COLOUR_JITTER = 6  # and each by itself by at most this much
GROUND = (215, 247)  # grey level of the background
GROUND_TINT = 4  # a channel of it moves by at most this much
FINE = 4  # each pixel is drawn as FINE x FINE and then scaled down


def png_of(scene: Scene, rng: random.Random) -> bytes:
    """The encoded picture; `rng` serves the shade of the background and of each colour."""
    picture = Image.new("RGB", (SIDE, SIDE), _shade((rng.randint(*GROUND),) * 3, 0, GROUND_TINT, rng))
    for thing in scene:
        ink = _shade(RGB[thing.colour], LIGHT_JITTER, COLOUR_JITTER, rng)
        x1, y1, x2, _ = thing.box
        picture.paste(ink, (x1, y1), stencil(thing.shape, x2 - x1))
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=6)
    return file.getvalue()


def _shade(colour: tuple[int, ...], light: int, own: int, rng: random.Random) -> tuple[int, ...]:
    together = rng.randint(-light, light)
    return tuple(min(255, max(0, channel + together + rng.randint(-own, own))) for channel in colour)


@lru_cache(maxsize=1024)
def stencil(shape: str, side: int) -> Image.Image:
    """How much of each pixel of a box the shape covers: an L picture of side x side."""
    n = side * FINE
    mask = Image.new("L", (n, n), 0)
    draw = ImageDraw.Draw(mask)
    last = n - 1
    if shape == "circle":
        draw.ellipse((0, 0, last, last), fill=255)
    elif shape == "ring":
        draw.ellipse((0, 0, last, last), fill=255)
        hole = round(0.24 * n)
        draw.ellipse((hole, hole, last - hole, last - hole), fill=0)
    elif shape == "square":
        draw.rectangle((0, 0, last, last), fill=255)
    elif shape == "cross":
        arm = round(0.33 * n)
        draw.rectangle((arm, 0, last - arm, last), fill=255)
        draw.rectangle((0, arm, last, last - arm), fill=255)
    else:
        draw.polygon([(x * last, y * last) for x, y in _corners(shape)], fill=255)
    return mask.resize((side, side), Image.Resampling.LANCZOS)


def _corners(shape: str) -> list[tuple[float, float]]:
    """Corners on the unit square, stretched so that they touch all four sides."""
    if shape == "triangle":
        return [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)]
    assert shape == "star", f"no such shape: {shape}"
    points = []
    for i in range(10):
        radius = 1.0 if i % 2 == 0 else 0.42
        angle = math.pi * (i / 5 - 0.5)
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    top, bottom = min(y for _, y in points), max(y for _, y in points)
    return [((x - left) / (right - left), (y - top) / (bottom - top)) for x, y in points]
