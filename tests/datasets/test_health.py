"""What the health report counts: leaks, duplicates, scripts, boxes; and that a sample costs little memory."""

from __future__ import annotations

import io
import os
import random
import struct
import tracemalloc
import zlib
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.conversation.sample import Box, Media, Sample, Turn
from minigpt4o.datasets.prepare.health import Look, Looker, SplitHealth, near_hash
from minigpt4o.datasets.prepare.health_report import duplicates, lengths, published_counts, shared
from minigpt4o.datasets.prepare.scripts import script_of, script_of_turns
from minigpt4o.datasets.prepare.stats import HEAD, Measurer, SplitStats, picture_size
from minigpt4o.datasets.prepare.walk import spread, walk


@dataclass
class Made:
    """A builder of samples that a test makes."""

    samples: list = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, index: int, rng: random.Random) -> Sample:
        found = self.samples[index]
        if isinstance(found, Exception):
            raise found
        return found


def said(text: str, media: bytes | None = None, boxes: tuple = ()) -> Sample:
    images = [] if media is None else [Media(data=media)]
    turns = [Turn("user", "<image>?" if images else "?"), Turn("assistant", text)]
    return Sample(id=text, turns=turns, images=images, boxes=list(boxes))


def health_of(split: str, samples: list, dataset: str = "a", openers: dict | None = None) -> SplitHealth:
    builder = Made(samples)
    health = SplitHealth(dataset, split, len(builder), openers is not None)
    for look in walk(builder, range(len(builder)), Looker(openers), 0):
        health.add(look)
    return health


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("a dog", "Latin"),
        ("Köln", "Latin"),
        ("犬がいる", "Japanese"),
        ("カメラ", "Japanese"),
        ("一只狗", "Chinese"),
        ("개", "Korean"),
        ("собака и a dog", "Cyrillic"),
        ("{<1><2>} 7%", "no letters"),
        ("", "no letters"),
        ("ქართული", "other"),
    ],
)
def test_the_script_of_a_text_is_told_by_its_letters(text, script):
    assert script_of(text) == script


def test_a_box_has_the_script_of_its_question():
    assert script_of_turns("左の物", "{<1><2><3><4>}") == "Japanese" and script_of_turns("左の物", "left") == "Latin"


def test_a_sample_again_is_a_duplicate_but_another_caption_of_its_picture_is_none():
    health = health_of("train", [said("a", b"1"), said("b", b"1"), said("a", b"1"), said("a", b"2"), said("a", b"1")])
    count, pairs = duplicates(health)
    assert count == 2 and pairs == ["[2] is [0] again", "[4] is [2] again"]


def test_boxes_make_equal_words_different():
    one, other = (Box((0, 0, x, 9), (100, 100)) for x in (10, 50))
    assert duplicates(health_of("train", [said("<bbox>", None, (one,)), said("<bbox>", None, (other,))]))[0] == 0
    assert duplicates(health_of("train", [said("<bbox>", None, (one,)), said("<bbox>", None, (one,))]))[0] == 1


def test_a_picture_of_train_in_test_is_a_leak_and_between_sets_it_is_shared():
    train = health_of("train", [said("a", b"1"), said("b", b"2"), said("c", b"3")])
    test = health_of("test", [said("x", b"9"), said("y", b"2"), said("z", b"2")])
    other = health_of("val", [said("x", b"3")], dataset="b")
    first, second = shared([train, test, other])
    assert (first.same_set, first.media, first.texts) == (True, 1, 0)
    assert first.first == ["test[1] is train[1]", "test[2] is train[1]"]
    assert (second.same_set, second.held, second.media) == (False, "b val", 1)


def test_a_text_alone_leaks_too_and_clean_splits_share_nothing():
    train = health_of("train", [said("a"), said("b")])
    assert shared([train, health_of("val", [said("b")])])[0].media == 1
    assert shared([train, health_of("val", [said("c")])]) == []


def test_a_resized_picture_looks_alike_and_a_plain_one_like_nothing():
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((224, 224), Image.Resampling.BICUBIC)

    def hashed(image: Image.Image) -> int:
        return near_hash(torch.from_numpy(np.array(image.resize((224, 224)))).permute(2, 0, 1))

    assert hashed(picture) == hashed(picture.resize((100, 100))) != 0
    assert hashed(picture) != hashed(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert hashed(Image.new("RGB", (64, 64), "white")) == 0


def test_bad_samples_are_counted_by_reason_and_the_first_three_are_named():
    def refuse(media):
        raise SkipSample("unreadable_image", f"{media}: broken")

    bad = [SkipSample("bad_json", f"row {n}") for n in range(5)]
    health = health_of("train", [*bad, said("a", b"1"), said("b")], openers={"image": refuse})
    assert health.bad == {"bad_json": 5, "unreadable_image": 1} and len(health.whole) == 1
    assert health.first["bad_json"] == ["[0] row 0", "[1] row 1", "[2] row 2"]


def test_boxes_out_of_their_picture_are_counted():
    inside, outside = Box((0, 0, 10, 10), (10, 10)), Box((0, 0, 10.1, 10), (10, 10))
    health = health_of("train", [said("<bbox><bbox>", None, (inside, outside))])
    assert (health.boxes, health.outside) == (2, 1)


def test_lengths_are_of_the_words_without_marks():
    health = health_of("train", [said("abc", b"1"), said("abcde", b"2")])
    assert lengths(health.asked)["max"] == 1 and lengths(health.answered) == {
        "min": 3,
        "p1": 3,
        "p50": 4,
        "p99": 4,
        "max": 5,
    }


@pytest.mark.parametrize(
    ("count", "found"),
    [
        ("train 42,404; val 3,811", {"train": 42404, "val": 3811}),
        ("414,113 train, 5,000 for val", {"train": 414113, "val": 5000}),
        ("about 14 million pairs", {}),
        ("trainer 7", {}),
    ],
)
def test_published_counts_are_read_where_a_split_is_named(count, found):
    assert published_counts({"count": count}, ["train", "val"]) == found


def test_a_sample_costs_less_than_a_hundred_bytes():
    health = SplitHealth("a", "train", 10**6, True)
    tracemalloc.start()
    for n in range(20_000):
        health.add(Look(n, str(n), whole=n * 7919, text=n * 7907, media=[n * 7901], near=[n], asked=3, answered=9))
    per_sample = tracemalloc.get_traced_memory()[0] / 20_000
    tracemalloc.stop()
    assert per_sample < 100


class Slow:
    """Looks that tell in which process they were made."""

    def __call__(self, builder, index):
        return index, os.getpid()


class Dying:
    def __call__(self, builder, index):
        os._exit(9)


def test_workers_hand_their_findings_over_in_order():
    found = list(walk(Made(), spread(1000, 0), Slow(), 2))
    assert [index for index, _ in found] == list(range(1000))
    assert len({pid for _, pid in found} - {os.getpid()}) >= 1 and os.getpid() not in {pid for _, pid in found}


def test_a_worker_that_dies_is_an_error_that_says_where():
    with pytest.raises(DataError, match="near samples 0 to 63"):
        list(walk(Made(), range(200), Dying(), 1))


def test_a_limit_is_spread_evenly():
    assert list(spread(10, 3)) == [0, 3, 6] and list(spread(3, 10)) == [0, 1, 2] and list(spread(3, 0)) == [0, 1, 2]


def test_stats_name_the_most_frequent_answers_and_the_sizes(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    picture = (tmp_path / "a.png").read_bytes()
    samples = [said("dog", picture), said("cat"), said("dog", b"no picture"), said("two words")]
    stats, builder = SplitStats("a", "train", 4), Made(samples)
    for measured in walk(builder, range(4), Measurer(True), 0):
        stats.add(measured)
    assert stats.frequent() == [(0, 2)] and stats.different() == 3 and stats.unread == 1
    assert stats.spread("picture width")["max"] == 30 and stats.spread("answered words")["mean"] == 1.25
    assert stats.spread("seconds") == {}


def test_the_size_of_a_picture_is_read_from_its_head_and_upright(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 200)).save(tmp_path / "a.jpg", exif=exif)
    raw = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "tar").write_bytes(b"before" + raw + b"after")
    inside = Media(path=str(tmp_path / "tar"), offset=6, size=len(raw))
    assert picture_size(Media(path=str(tmp_path / "a.jpg"))) == picture_size(inside) == (200, 300)
    monkeypatch.setattr("minigpt4o.datasets.prepare.stats.HEAD", 16)  # a header longer than the first piece
    assert picture_size(inside) == (200, 300) and picture_size(Media(data=b"")) is None


def test_the_orientation_of_a_picture_may_stand_behind_its_pixels(tmp_path) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    Image.effect_noise((400, 300), 60).save(file, "PNG")
    exif[0x0112] = 6
    body = b"eXIf" + exif.tobytes()[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    plain = file.getvalue()
    end = plain.rindex(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(plain[:end] + chunk + plain[end:])
    assert len(plain) > HEAD
    assert picture_size(Media(path=str(tmp_path / "a.png"))) == (300, 400)
