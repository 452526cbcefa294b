"""Where a point of a picture goes when the picture is cropped, resized, padded, flipped or turned; and back again."""

from __future__ import annotations

from dataclasses import dataclass

XYXY = tuple[float, float, float, float]  # left, top, right, bottom
Size = tuple[int, int]  # width, height
Pair = tuple[float, float]

NOWHERE = (0.0, 0.0, 0.0, 0.0)
EXACT = 1e-6  # pixels; float error of a few maps one after the other

# EXIF orientation -> (sides swapped, x mirrored, y mirrored), in this order, from the stored picture to the upright.
_TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True)
class Geometry:
    """An affine map that keeps axes axes: x, y change places if `swap`, then `x * scale + offset`, in pixels.

    A pixel's left edge is its column, so that a whole picture is the box (0, 0, width, height). A negative scale is a
    mirror. Boxes stay (left, top, right, bottom) both ways.
    """

    source: Size  # of the picture before
    target: Size  # of the picture after
    scale: Pair = (1.0, 1.0)
    offset: Pair = (0.0, 0.0)
    swap: bool = False
    window: XYXY | None = None  # part of the target that shows the picture; None: as much as it covers

    @property
    def whole(self) -> bool:
        """Whether the whole picture fills the whole target unturned: boxes as shares of the sides stay as they are."""
        if self.swap or min(self.scale) < 0:
            return False
        moved = self.forward((0, 0, *self.source))
        return all(abs(a - b) <= EXACT for a, b in zip(moved, (0, 0, *self.target), strict=True))

    def forward(self, xyxy: XYXY) -> XYXY:
        """A box of the source in the target, not clipped."""
        x1, y1, x2, y2 = (xyxy[1], xyxy[0], xyxy[3], xyxy[2]) if self.swap else xyxy
        (sx, sy), (ox, oy) = self.scale, self.offset
        return _ordered(x1 * sx + ox, y1 * sy + oy, x2 * sx + ox, y2 * sy + oy)

    def inverse(self, xyxy: XYXY) -> XYXY:
        """A box of the target in the source, not clipped."""
        (sx, sy), (ox, oy) = self.scale, self.offset
        x1, y1, x2, y2 = xyxy
        found = _ordered((x1 - ox) / sx, (y1 - oy) / sy, (x2 - ox) / sx, (y2 - oy) / sy)
        return (found[1], found[0], found[3], found[2]) if self.swap else found

    def then(self, after: Geometry) -> Geometry:
        """This map followed by another, which starts from the picture that this one ends with."""
        assert after.source == self.target, f"{after.source} does not follow {self.target}"
        scale, offset = (self.scale[::-1], self.offset[::-1]) if after.swap else (self.scale, self.offset)
        (sx, sy), (ox, oy), (ax, ay), (bx, by) = scale, offset, after.scale, after.offset
        return Geometry(
            self.source,
            after.target,
            (sx * ax, sy * ay),
            (ox * ax + bx, oy * ay + by),
            self.swap != after.swap,
            after.visible(self._window()) or NOWHERE,
        )

    def visible(self, xyxy: XYXY) -> XYXY | None:
        """What is seen of a box of the source, in the target; None if nothing is."""
        inside = clipped(xyxy, (0, 0, *self.source))
        return clipped(self.forward(inside), self._window()) if inside is not None else None

    def visible_share(self, xyxy: XYXY) -> float:
        """How much of a box's area stays visible, 0 to 1; what hangs over the source's own border does not count."""
        inside = clipped(xyxy, (0, 0, *self.source))
        if inside is None:
            return 0.0
        before = self.forward(inside)
        after = clipped(before, self._window())
        if after is None:
            return 0.0
        share = 1.0
        for low, high in ((0, 2), (1, 3)):
            if before[high] > before[low]:
                share *= (after[high] - after[low]) / (before[high] - before[low])
        return share

    def _window(self) -> XYXY:
        return self.window or (0, 0, *self.target)


def resized(source: Size, target: Size) -> Geometry:
    """The whole picture at another size, whatever the aspect."""
    return Geometry(source, target, (target[0] / source[0], target[1] / source[1]))


def cropped(source: Size, window: tuple[int, int, int, int]) -> Geometry:
    """Only the window (left, top, right, bottom) of the picture, which may reach out of it."""
    left, top, right, bottom = window
    return Geometry(source, (right - left, bottom - top), offset=(-left, -top))


def padded(source: Size, target: Size, at: tuple[int, int]) -> Geometry:
    """The picture laid on a larger ground with its upper left corner `at` (x, y)."""
    return Geometry(source, target, offset=at)


def flipped(source: Size) -> Geometry:
    """Left and right exchanged."""
    return Geometry(source, source, (-1.0, 1.0), (source[0], 0.0))


def upright(stored: Size, orientation: int) -> Geometry:
    """From the picture as a file stores it to the picture as its EXIF orientation (1 to 8) turns it.

    Another number counts as 1, as it does when the picture is opened.
    """
    swap, mirror_x, mirror_y = _TURNS.get(orientation, _TURNS[1])
    width, height = stored[::-1] if swap else stored
    scale = (-1.0 if mirror_x else 1.0, -1.0 if mirror_y else 1.0)
    return Geometry(stored, (width, height), scale, (width if mirror_x else 0.0, height if mirror_y else 0.0), swap)


def clipped(xyxy: XYXY, window: XYXY) -> XYXY | None:
    """The part of a box inside a window; None if they only touch or do not meet."""
    (x1, y1, x2, y2), (left, top, right, bottom) = xyxy, window
    if x1 > right or x2 < left or y1 > bottom or y2 < top:
        return None
    inside = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
    if (x2 > x1 and inside[2] <= inside[0]) or (y2 > y1 and inside[3] <= inside[1]):
        return None
    return inside


def _ordered(x1: float, y1: float, x2: float, y2: float) -> XYXY:
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
