"""Pictures cropped, flipped or letterboxed on the way to the model, with the geometry by which their boxes follow."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.geometry import XYXY, Geometry, Size, cropped, flipped, padded, resized
from minigpt4o.processors.image import CLIP_MEAN, Blip2ImageEval, open_image

Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels
Fit = Literal["stretch", "pad", "crop"]

DRAWS = 10  # of a window: until it fits into the picture, and again until all boxes stay in sight


@dataclass(frozen=True)
class Plan:
    """What is done to one picture of a known size."""

    window: Window  # what is taken of it
    inner: Size  # the size it is given
    at: tuple[int, int]  # where it is laid on the square
    flip: bool = False

    def geometry(self, size: Size, side: int) -> Geometry:
        """From the picture to the square."""
        found = cropped(size, self.window)
        found = found.then(resized(found.target, self.inner)).then(padded(self.inner, (side, side), self.at))
        return found.then(flipped(found.target)) if self.flip else found


@registry.register("processor", "image_augment")
class ImageAugment:
    """Random crops and flips, and other ways to make a picture square; boxes of a sample are moved along.

    With the defaults it does what `blip2_image_eval` does. LAVIS's training processor is crop_scale [0.5, 1.0] and
    flip 0.5. The geometry of each picture goes with it (`open`), and boxes are written in the frame that is shown.
    """

    @dataclass
    class Config:
        image_size: int = 224  # side of the square in pixels
        mean: tuple[float, ...] | None = None  # per channel; null = CLIP's
        std: tuple[float, ...] | None = None  # per channel; null = CLIP's
        crop_scale: tuple[float, ...] = (
            1.0,
            1.0,
        )  # least and largest share of the area of a random crop; 1, 1 = none
        crop_ratio: tuple[float, ...] = (0.75, 1.3333)  # least and largest width / height of a random crop
        flip: float = 0.0  # probability of a mirrored picture; above 0 texts that say left or right become wrong
        keep_aspect: Literal["stretch", "pad", "crop"] = (
            "stretch"  # the way to a square: change the aspect, lay on a ground (letterbox), or take the centre
        )
        pad_colour: tuple[int, ...] | None = None  # ground of `pad`: red, green, blue, 0 to 255; null = the mean colour
        min_visible: float = 0.3  # least share of every box that a crop must leave; else another, at last no crop
        max_pixels: int = 50_000_000  # larger pictures are skipped undecoded (image_too_large)
        max_aspect: float = 200.0  # pictures with more extreme sides are skipped (extreme_aspect)

    def __init__(self, config: Config) -> None:
        self.config = config
        _check(config)
        self.square = Blip2ImageEval(
            Blip2ImageEval.Config(image_size=config.image_size, mean=config.mean, std=config.std)
        )
        mean = CLIP_MEAN if config.mean is None else tuple(config.mean)
        colour = [round(255 * m) for m in mean] if config.pad_colour is None else config.pad_colour
        self.ground = (int(colour[0]), int(colour[1]), int(colour[2]))

    def __call__(self, media: Media, rng: random.Random | None = None) -> torch.Tensor:
        """(3, S, S) float32. Raises SkipSample."""
        return self.open(media, rng or random.Random(0))[0]

    def open(self, media: Media, rng: random.Random, boxes: Sequence[XYXY] = ()) -> tuple[torch.Tensor, Geometry]:
        """(3, S, S) float32 and where the picture's points went. Raises SkipSample.

        `boxes` are those that must stay in sight, in shares of the picture's sides. All draws are from `rng`.
        """
        picture = open_image(media, self.config.max_pixels, self.config.max_aspect)
        plan = self.plan(picture.size, rng, boxes)
        square = self.apply(plan, picture)
        return self.square.tensor(square), plan.geometry(picture.size, self.config.image_size)

    def plan(self, size: Size, rng: random.Random, boxes: Sequence[XYXY] = ()) -> Plan:
        """What to do to a picture of (width, height), drawn until every box stays in sight."""
        flip = self.config.flip > 0 and rng.random() < self.config.flip
        random_crop = tuple(self.config.crop_scale) != (1.0, 1.0)
        if not random_crop and self.config.keep_aspect != "crop":
            return self._fit((0, 0, *size), self.config.keep_aspect, flip)
        truth = [(x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1]) for x1, y1, x2, y2 in boxes]
        for _ in range(DRAWS if random_crop else 1):
            window = self._window(size, rng) if random_crop else (0, 0, *size)
            plan = self._fit(window, self.config.keep_aspect, flip)
            geometry = plan.geometry(size, self.config.image_size)
            if all(geometry.visible_share(box) >= self.config.min_visible for box in truth):
                return plan
        return self._fit((0, 0, *size), "pad" if self.config.keep_aspect == "crop" else self.config.keep_aspect, flip)

    def apply(self, plan: Plan, picture: Image.Image) -> Image.Image:
        """The RGB square that the plan makes of a picture."""
        side = self.config.image_size
        taken = picture if plan.window == (0, 0, *picture.size) else picture.crop(plan.window)
        if taken.size != plan.inner:
            taken = taken.resize(plan.inner, Image.Resampling.BICUBIC)
        if plan.inner != (side, side):
            ground = Image.new("RGB", (side, side), self.ground)
            ground.paste(taken, plan.at)
            taken = ground
        return taken.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if plan.flip else taken

    def _fit(self, window: Window, fit: Fit, flip: bool) -> Plan:
        side = self.config.image_size
        left, top, right, bottom = window
        width, height = right - left, bottom - top
        if fit == "pad":
            scale = side / max(width, height)
            inner = (max(1, round(width * scale)), max(1, round(height * scale)))
            return Plan(window, inner, ((side - inner[0]) // 2, (side - inner[1]) // 2), flip)
        if fit == "crop":
            short = min(width, height)
            left, top = left + (width - short) // 2, top + (height - short) // 2
            window = (left, top, left + short, top + short)
        return Plan(window, (side, side), (0, 0), flip)

    def _window(self, size: Size, rng: random.Random) -> Window:
        """A window of random area, shape and place, drawn as torchvision's RandomResizedCrop does."""
        width, height = size
        (least, largest), (narrow, wide) = self.config.crop_scale, self.config.crop_ratio
        for _ in range(DRAWS):
            area = width * height * rng.uniform(least, largest)
            ratio = math.exp(rng.uniform(math.log(narrow), math.log(wide)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = rng.randint(0, width - w), rng.randint(0, height - h)
                return left, top, left + w, top + h
        w = min(width, max(1, round(height * wide)))
        h = min(height, max(1, round(width / narrow)))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


def _check(config: ImageAugment.Config) -> None:
    """Raises ConfigError if a number cannot be used."""
    for name, top in (("crop_scale", 1.0), ("crop_ratio", math.inf)):
        values = tuple(getattr(config, name))
        if len(values) != 2 or not 0 < values[0] <= values[1] <= top:
            limit = " and not above 1" if top == 1.0 else ""
            raise ConfigError(f"{name}: {list(values)} must be two numbers, the least first, above 0{limit}")
    for name in ("flip", "min_visible"):
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"{name}: {getattr(config, name)} is not a share; give a number of 0 to 1")
    colour = config.pad_colour
    if colour is not None and (len(colour) != 3 or not all(0 <= value <= 255 for value in colour)):
        raise ConfigError(f"pad_colour: {list(colour)} must be three numbers of 0 to 255 (red, green, blue)")
