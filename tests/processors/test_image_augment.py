"""Crops, flips and letterboxes: boxes follow their picture, stay in sight, and nothing is drawn but from the rng."""

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from minigpt4o.common.errors import ConfigError, SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Media

SIDE = 64
PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
WAYS = {
    "stretch": {},
    "crop": {"crop_scale": [0.4, 1.0]},
    "flip": {"flip": 1.0},
    "crop and flip": {"crop_scale": [0.4, 1.0], "flip": 0.5},
    "letterbox": {"keep_aspect": "pad", "pad_colour": [0, 0, 255]},
    "centre": {"keep_aspect": "crop"},
    "crop in a letterbox": {"keep_aspect": "pad", "crop_scale": [0.4, 1.0], "pad_colour": [0, 0, 255], "flip": 0.5},
    "crop of a centre": {"keep_aspect": "crop", "crop_scale": [0.4, 1.0]},
}


def processor(**values):
    return registry.build(Part("processor", "image_augment", {"image_size": SIDE, **values}))


def drawn(size, box, format="PNG"):
    picture = Image.new("RGB", size, (0, 0, 255))
    picture.paste((255, 0, 0), box)
    file = io.BytesIO()
    picture.save(file, format)
    return Media(data=file.getvalue(), name=f"drawn.{format.lower()}")


def found(pixels):
    """The box of what is rather red than blue in a (3, S, S) picture."""
    red = (pixels[0] > pixels[2]).numpy()
    columns, rows = np.flatnonzero(red.any(axis=0)), np.flatnonzero(red.any(axis=1))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def shares(box, size):
    return tuple(v / size[i % 2] for i, v in enumerate(box))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [(96, 60), (60, 96), (64, 64)])
def test_a_drawn_box_is_found_where_the_geometry_says(way, size):
    look = processor(**PLAIN, **WAYS[way])
    for seed in range(8):
        rng = random.Random(f"{seed}/{size}")
        x, y = rng.randint(0, size[0] - 20), rng.randint(0, size[1] - 20)
        box = (x, y, x + rng.randint(8, 20), y + rng.randint(8, 20))
        picture, geometry = look.open(drawn(size, box), rng, [shares(box, size)])
        assert picture.shape == (3, SIDE, SIDE) and (geometry.source, geometry.target) == (size, (SIDE, SIDE))
        expected = geometry.visible(box)
        assert expected is not None and geometry.visible_share(box) >= 0.3
        assert np.abs(np.array(found(picture)) - np.array(expected)).max() <= 1


def test_by_default_it_is_the_plain_processor_and_draws_nothing():
    plain = registry.build(Part("processor", "blip2_image_eval", {"image_size": SIDE, "decoder": "pillow"}))
    media, rng = drawn((70, 33), (3, 4, 40, 20)), random.Random(5)
    before = rng.getstate()
    picture, geometry = processor().open(media, rng)
    assert torch.equal(picture, plain(media)) and geometry.whole
    assert rng.getstate() == before
    assert torch.equal(processor()(media), picture)


def test_all_draws_come_from_the_given_rng():
    look, media = processor(crop_scale=[0.3, 0.9], flip=0.5), drawn((90, 70), (10, 10, 50, 50))
    one, same, other = (look.open(media, random.Random(seed)) for seed in (1, 1, 2))
    assert torch.equal(one[0], same[0]) and one[1] == same[1]
    assert one[1] != other[1]


def test_a_crop_has_the_area_and_the_shape_that_were_asked_for():
    look = processor(crop_scale=[0.5, 0.8], crop_ratio=[0.75, 1.3333])
    for seed in range(200):
        left, top, right, bottom = look.plan((200, 160), random.Random(seed)).window
        area, ratio = (right - left) * (bottom - top) / (200 * 160), (right - left) / (bottom - top)
        assert 0.49 <= area <= 0.81 and 0.73 <= ratio <= 1.36
        assert 0 <= left < right <= 200 and 0 <= top < bottom <= 160


def test_a_crop_never_pushes_a_box_out_and_is_given_up_rather_than_do_so():
    look = processor(crop_scale=[0.05, 0.2], min_visible=0.9)
    box = (0.0, 0.0, 0.1, 0.1)
    for seed in range(50):
        plan = look.plan((100, 80), random.Random(seed), [box])
        assert plan.geometry((100, 80), SIDE).visible_share((0, 0, 10, 8)) >= 0.9
    corners = [box, (0.9, 0.9, 1.0, 1.0)]  # no window of a fifth holds both
    assert look.plan((100, 80), random.Random(0), corners).window == (0, 0, 100, 80)
    free = [look.plan((100, 80), random.Random(seed)).window for seed in range(20)]
    assert (0, 0, 100, 80) not in free


def test_a_centre_that_would_lose_a_box_becomes_a_letterbox():
    look = processor(keep_aspect="crop")
    rng = random.Random(0)
    assert look.plan((200, 100), rng).window == (50, 0, 150, 100)
    kept = look.plan((200, 100), rng, [(0.0, 0.0, 0.1, 1.0)])
    assert (kept.window, kept.inner, kept.at) == ((0, 0, 200, 100), (SIDE, SIDE // 2), (0, SIDE // 4))


def test_the_ground_of_a_letterbox_is_the_mean_unless_a_colour_is_named():
    media = drawn((64, 16), (0, 0, 64, 16))
    assert processor(keep_aspect="pad").open(media, random.Random(0))[0][:, 0].abs().max() < 0.02
    named = processor(**PLAIN, keep_aspect="pad", pad_colour=[0, 255, 0]).open(media, random.Random(0))[0]
    assert named[:, 0, 0].tolist() == [0.0, 1.0, 0.0] and named[:, 32, 0].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"crop_scale": [0.0, 1.0]}, "crop_scale"),
        ({"crop_scale": [0.5, 1.5]}, "not above 1"),
        ({"crop_ratio": [2.0, 1.0]}, "crop_ratio"),
        ({"flip": 2.0}, "flip"),
        ({"min_visible": -0.1}, "min_visible"),
        ({"pad_colour": [0, 0]}, "pad_colour"),
        ({"image_size": 0}, "image_size"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_name(values, told):
    with pytest.raises(ConfigError, match=told):
        processor(**values)


def test_a_picture_that_cannot_be_read_is_skipped():
    with pytest.raises(SkipSample, match="unreadable_image"):
        processor(flip=0.5).open(Media(data=b"no picture", name="x.png"), random.Random(0))
