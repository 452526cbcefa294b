"""Overlap of boxes, and the share of sentences whose box was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from minigpt4o.metrics.result import Measured, mean

THRESHOLDS = (0.25, 0.5, 0.75)

XYXY = tuple[float, float, float, float]  # left, top, right, bottom


def iou(a: Sequence[float], b: Sequence[float], plus_one: bool = False) -> float:
    """Intersection over union of two (x1, y1, x2, y2) boxes.

    `plus_one` counts the last pixel in (width = x2 - x1 + 1), as MiniGPT-4's evaluation does; boxes are in pixels then.
    """
    extra = 1.0 if plus_one else 0.0
    width = min(a[2], b[2]) - max(a[0], b[0]) + extra
    height = min(a[3], b[3]) - max(a[1], b[1]) + extra
    shared = max(0.0, width) * max(0.0, height)
    union = _area(a, extra) + _area(b, extra) - shared
    return shared / union if union > 0 else 0.0


def _area(box: Sequence[float], extra: float) -> float:
    return (box[2] - box[0] + extra) * (box[3] - box[1] + extra)


def box_in_pixels(percent: Sequence[float], image_size: tuple[int, int]) -> XYXY:
    """A box in 0..100 of the picture's sides -> pixels."""
    width, height = image_size
    x1, y1, x2, y2 = percent
    return x1 / 100 * width, y1 / 100 * height, x2 / 100 * width, y2 / 100 * height


def overlaps(
    found: Sequence[Sequence[float] | None], true: Sequence[Sequence[Sequence[float]]], plus_one: bool = False
) -> list[float]:
    """(N,) best overlap of each found box with any of its true boxes; 0 where no box was found."""
    return [
        max((iou(box, t, plus_one) for t in boxes), default=0.0) if box is not None else 0.0
        for box, boxes in zip(found, true, strict=True)
    ]


def accuracy_at(ious: Sequence[float], threshold: float = 0.5, plus_one: bool = False) -> Measured:
    """Share of overlaps strictly above the threshold; every sentence counts, found or not."""
    each = [float(value > threshold) for value in ious]
    pixel = "+1 pixel (MiniGPT-4)" if plus_one else "continuous"
    return Measured(mean(each), each, f"acc@{threshold:g}: IoU > {threshold:g}, {pixel}, all sentences counted")


def mean_iou(ious: Sequence[float], plus_one: bool = False) -> Measured:
    """Mean overlap; an unreadable answer counts 0."""
    pixel = "+1 pixel (MiniGPT-4)" if plus_one else "continuous"
    return Measured(mean(list(ious)), list(ious), f"mean IoU, {pixel}, unreadable = 0")


def box_metrics(
    found: Sequence[Sequence[float] | None],
    true: Sequence[Sequence[Sequence[float]]],
    plus_one: bool = False,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, Measured]:
    """acc@ each threshold and mean_iou; a sentence whose answer held no box counts 0 and is named unread."""
    ious = overlaps(found, true, plus_one)
    unread = [box is None for box in found]
    measured = {f"acc@{threshold:g}": accuracy_at(ious, threshold, plus_one) for threshold in thresholds}
    measured["mean_iou"] = mean_iou(ious, plus_one)
    return {name: replace(one, unread=unread) for name, one in measured.items()}
