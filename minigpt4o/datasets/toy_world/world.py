"""What exists in the toy world, which combinations only its test split shows, and how scenes are chosen."""

from __future__ import annotations

import random
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "pink")
SIZES = {"small": (15, 18), "big": (24, 28)}  # side of the box in pixels, both ends included
PLACES = (
    "top left", "top", "top right",
    "left", "middle", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
SIDE = 64  # of a picture, in pixels
CENTRES = (12, 32, 52)  # of the three columns and of the three rows, in pixels
JITTER = 2  # a centre moves by at most this many pixels

KINDS = ("beep", "rising", "falling", "bell", "buzz", "hiss")
PITCHES = ("low", "high")
COUNTS = (1, 2, 3)

SPLITS = ("train", "val", "test")
LEVELS = {"single": (1, 1), "pair": (1, 2), "scene": (1, 4)}  # fewest and most objects in one picture

# Only the test split shows these, and it shows nothing else. Every pair of attributes is seen in training, so that
# the test asks for putting together what is known, not for guessing what is unknown.
HELD_OUT = frozenset(
    (shape, colour, tuple(SIZES)[(i + j) // 3 % 2])
    for i, shape in enumerate(SHAPES)
    for j, colour in enumerate(COLOURS)
    if (i + j) % 3 == 0
)
HELD_OUT_SOUNDS = frozenset((KINDS[i], PITCHES[i % 2], COUNTS[i % 3]) for i in range(len(KINDS)))
_LOOKS = {
    True: sorted(HELD_OUT),
    False: sorted({(s, c, z) for s in SHAPES for c in COLOURS for z in SIZES} - HELD_OUT),
}
_SOUNDS = {
    True: sorted(HELD_OUT_SOUNDS),
    False: sorted({(k, p, n) for k in KINDS for p in PITCHES for n in COUNTS} - HELD_OUT_SOUNDS),
}


@dataclass(frozen=True)
class Thing:
    """One object of a picture."""

    shape: str
    colour: str
    size: str
    place: str
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are the first pixel outside

    @property
    def centre(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True)
class Noise:
    """One sound: something heard `count` times."""

    kind: str
    pitch: str
    count: int


Scene = tuple[Thing, ...]  # in reading order: by place, top left first; shapes and colours are all different


def item_rng(seed: int, *key: str | int) -> random.Random:
    """A generator that depends on its key alone, so that an item does not depend on who draws it, or when."""
    return random.Random("/".join(str(part) for part in (seed, *key)))


def allowed_looks(split: str) -> list[tuple[str, str, str]]:
    """The (shape, colour, size) combinations that pictures of a split show."""
    return _LOOKS[split == "test"]


def draw_scene(rng: random.Random, split: str, level: str = "pair", count: int = 0) -> Scene:
    """Objects of different shapes and colours at different places, none overlapping; `count` 0 = as the level says."""
    count = count or rng.randint(*LEVELS[level])
    while True:
        things: list[Thing] = []
        for look in _different(rng, allowed_looks(split), count):
            thing = _place(rng, look, things)
            if thing is None:
                break  # too crowded: begin again
            things.append(thing)
        if len(things) == count:
            return tuple(sorted(things, key=lambda t: PLACES.index(t.place)))


def draw_noise(rng: random.Random, split: str) -> Noise:
    """A sound of the combinations that a split may use."""
    return Noise(*rng.choice(_SOUNDS[split == "test"]))


def _different(rng: random.Random, looks: list[tuple[str, str, str]], count: int) -> list[tuple[str, str, str]]:
    chosen: list[tuple[str, str, str]] = []
    while len(chosen) < count:
        look = rng.choice(looks)
        if all(look[0] != other[0] and look[1] != other[1] for other in chosen):
            chosen.append(look)
    return chosen


def _place(rng: random.Random, look: tuple[str, str, str], others: list[Thing], tries: int = 12) -> Thing | None:
    shape, colour, size = look
    for _ in range(tries):
        place = rng.randrange(len(PLACES))
        side = rng.randint(*SIZES[size])
        x1 = _start(rng, CENTRES[place % 3], side)
        y1 = _start(rng, CENTRES[place // 3], side)
        box = (x1, y1, x1 + side, y1 + side)
        if all(t.place != PLACES[place] and not _overlap(t.box, box) for t in others):
            return Thing(shape, colour, size, PLACES[place], box)
    return None


def _start(rng: random.Random, centre: int, side: int) -> int:
    start = centre + rng.randint(-JITTER, JITTER) - side // 2
    return min(max(start, 1), SIDE - 1 - side)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
