"""Overlap of boxes as MiniGPT-4 measures it and as geometry does."""

from __future__ import annotations

import pytest

from minigpt4o.metrics.boxes import accuracy_at, box_in_pixels, iou, mean_iou, overlaps

# Measured with MiniGPT-4's evaluation: the last pixel counts.
FACTS = [
    ((0, 0, 9, 9), (0, 0, 9, 9), 1.0),
    ((0, 0, 9, 9), (5, 5, 14, 14), 0.14285714285714285),
    ((10, 10, 20, 20), (21, 10, 30, 20), 0.0),
    ((10, 10, 0, 0), (0, 0, 10, 10), 0.0),
    ((0, 0, 99.5, 50), (0, 0, 50, 50), 0.5074626865671642),
]


@pytest.mark.parametrize(("a", "b", "value"), FACTS)
def test_iou_with_the_last_pixel_agrees_with_the_reference(a: tuple, b: tuple, value: float) -> None:
    assert iou(a, b, plus_one=True) == pytest.approx(value, abs=1e-12)


def test_plain_iou_is_that_of_areas() -> None:
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0.0
    assert iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0.0


def test_every_sentence_counts_even_without_a_box() -> None:
    true = [[(0, 0, 10, 10)], [(0, 0, 10, 10), (20, 20, 30, 30)], [(0, 0, 10, 10)]]
    found = overlaps([(0, 0, 10, 10), (20, 20, 30, 30), None], true)
    assert found == [1.0, 1.0, 0.0]
    assert accuracy_at(found).value == pytest.approx(2 / 3)
    assert mean_iou(found).value == pytest.approx(2 / 3)
    assert accuracy_at([0.5]).value == 0.0  # strictly above


def test_percent_become_pixels() -> None:
    assert box_in_pixels((0, 25, 50, 100), (640, 480)) == (0, 120, 320, 480)
