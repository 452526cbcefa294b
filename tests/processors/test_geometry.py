"""Where a point goes: maps undo themselves, join into one, and are what happens to the pixels."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from minigpt4o.conversation.sample import Media
from minigpt4o.processors.geometry import Geometry, clipped, cropped, flipped, padded, resized, upright
from minigpt4o.processors.image import open_image

RED = (255, 0, 0)


def any_box(rng, size):
    x, y = sorted(rng.uniform(0, size[0]) for _ in range(2)), sorted(rng.uniform(0, size[1]) for _ in range(2))
    return (x[0], y[0], x[1], y[1])


def any_map(rng, size):
    """One of the maps that a processor makes, of a picture of this size."""
    side = (rng.randint(8, 90), rng.randint(8, 90))
    corner = (rng.randint(0, size[0] // 2), rng.randint(0, size[1] // 2))
    window = (*corner, corner[0] + rng.randint(1, size[0] // 2 + 1), corner[1] + rng.randint(1, size[1] // 2 + 1))
    return rng.choice(
        [
            resized(size, side),
            cropped(size, window),
            padded(size, (size[0] + 10, size[1] + 7), (3, 2)),
            flipped(size),
            upright(size, rng.randint(1, 8)),
        ]
    )


def any_chain(rng):
    size = (rng.randint(8, 90), rng.randint(8, 90))
    chain = [any_map(rng, size)]
    for _ in range(rng.randint(0, 4)):
        chain.append(any_map(rng, chain[-1].target))
    return chain


@pytest.mark.parametrize("seed", range(200))
def test_a_map_undoes_itself_and_a_chain_of_maps_is_one_map(seed):
    rng = random.Random(seed)
    chain = any_chain(rng)
    whole = chain[0]
    for after in chain[1:]:
        whole = whole.then(after)
    assert (whole.source, whole.target) == (chain[0].source, chain[-1].target)
    box = any_box(rng, whole.source)
    stepped = box
    for one in chain:
        stepped = one.forward(stepped)
    assert whole.forward(box) == pytest.approx(stepped)
    assert whole.inverse(whole.forward(box)) == pytest.approx(box)
    assert whole.forward(whole.inverse(stepped)) == pytest.approx(stepped)


@pytest.mark.parametrize("seed", range(50))
def test_what_is_visible_lies_in_the_frame_and_its_share_is_its_area(seed):
    rng = random.Random(seed)
    geometry = cropped((80, 60), (20, 10, 61, 45)).then(resized((41, 35), (64, 64)))
    box = any_box(rng, (80, 60))
    seen, share = geometry.visible(box), geometry.visible_share(box)
    assert (seen is None) == (share == 0)
    if seen is not None:
        assert 0 <= seen[0] <= seen[2] <= 64 and 0 <= seen[1] <= seen[3] <= 64
        back = geometry.inverse(seen)
        area = (box[2] - box[0]) * (box[3] - box[1])
        assert share == pytest.approx((back[2] - back[0]) * (back[3] - back[1]) / area)


def test_what_hangs_over_the_picture_itself_is_no_loss_and_lines_count_by_their_length():
    half = cropped((100, 100), (0, 0, 50, 100))
    assert half.visible_share((-20, 0, 50, 100)) == 1.0
    assert half.visible_share((0, 0, 100, 100)) == 0.5
    assert half.visible_share((40, 10, 60, 10)) == 0.5  # a line
    assert half.visible_share((50, 0, 100, 100)) == 0.0 and half.visible((50, 0, 100, 100)) is None  # they touch
    assert half.visible_share((200, 200, 300, 300)) == 0.0


def test_only_a_whole_unturned_picture_keeps_boxes_as_shares():
    assert resized((37, 91), (64, 64)).whole
    assert cropped((10, 10), (0, 0, 10, 10)).whole and flipped((9, 9)).then(flipped((9, 9))).whole
    for changed in (
        flipped((9, 9)),
        cropped((10, 10), (0, 0, 9, 10)),
        padded((8, 4), (8, 8), (0, 2)),
        upright((9, 9), 5),
        upright((9, 9), 3),
    ):
        assert not changed.whole


def test_clipping_keeps_what_is_inside_and_nothing_else():
    window = (0, 0, 10, 10)
    assert clipped((-5, 2, 20, 8), window) == (0, 2, 10, 8)
    assert clipped((3, 3, 3, 3), window) == (3, 3, 3, 3)
    assert clipped((10, 0, 20, 5), window) is None


def test_a_crop_laid_on_a_ground_shows_nothing_beside_the_crop():
    geometry = cropped((100, 100), (0, 0, 50, 100)).then(padded((50, 100), (100, 100), (25, 0)))
    assert geometry.visible((40, 0, 100, 100)) == (65, 0, 75, 100)
    assert geometry.visible((60, 0, 100, 100)) is None and geometry.visible_share((60, 0, 100, 100)) == 0
    again = geometry.then(cropped((100, 100), (75, 0, 100, 100)))
    assert again.visible((0, 0, 100, 100)) is None


def drawn(size, box):
    picture = Image.new("RGB", size, (0, 0, 255))
    picture.paste(RED, tuple(int(v) for v in box))
    return picture


def found(picture):
    """The box of what is rather red than blue."""
    pixels = np.asarray(picture).astype(int)
    red = pixels[..., 0] > pixels[..., 2]
    columns, rows = np.flatnonzero(red.any(axis=0)), np.flatnonzero(red.any(axis=1))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rectangle_in_a_stored_picture_is_found_upright_where_its_orientation_says(orientation):
    size, box = (48, 32), (6, 4, 20, 10)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    drawn(size, box).save(file, "PNG", exif=exif)
    opened = open_image(Media(data=file.getvalue(), name="turned.png"))
    geometry = upright(size, orientation)
    assert opened.size == geometry.target
    assert found(opened) == geometry.forward(box)
    assert geometry.inverse(found(opened)) == box


@pytest.mark.parametrize("seed", range(20))
def test_a_rectangle_is_found_where_the_maps_of_its_picture_s_transforms_say(seed):
    rng = random.Random(seed)
    size, box = (70, 50), (20, 15, 46, 37)
    picture, geometry = drawn(size, box), Geometry(size, size)
    window = (rng.randint(0, 12), rng.randint(0, 9), rng.randint(55, 70), rng.randint(44, 50))
    side = (rng.randint(30, 90), rng.randint(30, 90))
    picture = picture.crop(window).resize(side, Image.Resampling.BICUBIC).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    geometry = geometry.then(cropped(size, window))
    geometry = geometry.then(resized(geometry.target, side)).then(flipped(side))
    assert np.abs(np.array(found(picture)) - np.array(geometry.forward(box))).max() <= 1
