"""Overlap of boxes as MiniGPT-4 measures it and as geometry does."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from minigpt4o.metrics.boxes import accuracy_at, box_in_pixels, box_metrics, iou, mean_iou, overlaps

DATA = Path(os.environ.get("MINIGPT4O_TEST_DATA", Path(__file__).parents[2] / "../shared/data")) / "refcoco"

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


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no referring expressions in {DATA} (MINIGPT4O_TEST_DATA)")
@pytest.mark.parametrize(("plus_one", "name"), [(True, "iou_minigpt4"), (False, "iou_plain")])
def test_sixty_real_expressions_overlap_as_in_both_conventions(plus_one: bool, name: str) -> None:
    rows = json.loads((DATA / "refcoco_dev60.json").read_text())
    found, true = [], []
    for item, text in zip(rows["items"], rows["predictions"], strict=True):
        percent = [int(number) for number in re.findall(r"\d+", text)]
        found.append(box_in_pixels(percent, (item["width"], item["height"])))
        x, y, width, height = item["bbox"]
        true.append([(x, y, x + width, y + height)])
    measured = box_metrics(found, true, plus_one)
    assert measured["mean_iou"].each == pytest.approx(rows[name], abs=1e-6)
    assert round(100 * measured["acc@0.5"].value, 2) == rows["acc_iou_gt_0.5_percent"]
