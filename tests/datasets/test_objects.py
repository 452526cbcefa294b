"""Boxes of annotations become objects with marks: ms-swift's schema, several boxes a row, stored and upright frames."""

import io
import json
import random

import pytest
from PIL import Image

from minigpt4o.common.errors import SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.marks import unescape_marks
from minigpt4o.conversation.objects import written
from minigpt4o.conversation.phrases import read_phrases
from minigpt4o.conversation.sample import Box

SIZE = (200, 100)
ASKED = {"role": "user", "content": "<image>Describe the image."}


@pytest.fixture
def folder(tmp_path):
    """A wide picture, a tall one, and one that its EXIF orientation turns upright."""
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", SIZE).save(tmp_path / "wide.png")
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "tall.png")
    Image.new("RGB", SIZE).save(tmp_path / "turned.jpg", exif=turned)
    return tmp_path


def build(folder, builder, rows, **values):
    (folder / "rows.json").write_text(json.dumps(rows))
    values = {"annotations": {"train": str(folder / "rows.json")}, "media_root": str(folder), **values}
    return registry.build(Part("builder", builder, values), name="mine", split="train")


def told(folder, *said, builder="conversations", images=("wide.png",), rounds=0, **objects):
    """The sample of one conversation: texts of user and assistant by turns."""
    messages = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(said)]
    row = {"messages": messages, "images": list(images), "objects": objects}
    return build(folder, builder, [row], rounds=rounds).sample(0, random.Random(0))


def texts(sample):
    return [turn.text for turn in sample.turns]


def refused(*values, **more):
    with pytest.raises(SkipSample) as caught:
        told(*values, **more)
    assert "rows.json row 1" in caught.value.detail
    return caught.value.reason, caught.value.detail


def test_the_example_of_ms_swift_becomes_phrases_with_boxes(folder):
    sample = told(
        folder,
        "<image>Describe the image.",
        "<ref-object><bbox> and <ref-object><bbox> are playing on the beach",
        ref=["a dog", "a woman"],
        bbox=[[20.0, 10, 60, 80], [120, 0, 200, 100]],
    )
    assert texts(sample)[1] == "<p>a dog</p> <bbox> and <p>a woman</p> <bbox> are playing on the beach"
    assert sample.boxes == [Box((20, 10, 60, 80), SIZE, "a dog"), Box((120, 0, 200, 100), SIZE, "a woman")]
    (answer,) = sample.answers
    assert answer == texts(written(sample))[1]
    assert [(p.text, p.boxes) for p in read_phrases(answer)] == [
        ("a dog", [(10, 10, 30, 80)]),
        ("a woman", [(60, 0, 100, 100)]),
    ]


def test_a_name_alone_is_plain_and_boxes_side_by_side_are_parted(folder):
    sample = told(
        folder,
        "<image>Find the <ref-object> in the image",
        "<bbox><bbox>",
        ref=["sheep"],
        bbox=[[0, 0, 20, 10], [100, 50, 120, 60]],
    )
    assert texts(sample) == ["<image>Find the sheep in the image", "<bbox><delim><bbox>"]
    assert [box.label for box in sample.boxes] == ["", ""]
    many = told(
        folder, "<image>?", "<ref-object><bbox> <bbox>.", ref=["cups"], bbox=[[0, 0, 20, 10], [100, 0, 120, 60]]
    )
    assert texts(many)[1] == "<p>cups</p> <bbox><delim><bbox>."


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [("real", [20, 10, 60, 80]), ("norm1", [0.1, 0.1, 0.3, 0.8]), ("norm1000", [100, 100, 300, 800])],
)
def test_pixels_shares_and_thousandths_mean_the_same_box(folder, kind, numbers):
    sample = told(folder, "<image>?", "<bbox>", ref=[], bbox=[numbers], bbox_type=kind)
    assert sample.boxes[0].xyxy == pytest.approx((20, 10, 60, 80)) and sample.boxes[0].image_size == SIZE


def test_each_box_lies_in_the_picture_that_image_id_says(folder):
    sample = told(
        folder,
        "<image><image>Where?",
        "<bbox> and <bbox>",
        images=("wide.png", "tall.png"),
        bbox=[[0, 0, 50, 50], [0, 0, 50, 50]],
        image_id=[1, 0],
    )
    assert [(box.image, box.image_size) for box in sample.boxes] == [(1, (100, 200)), (0, (200, 100))]
    assert texts(written(sample))[1] == "{<0><0><50><25>} and {<0><0><25><50>}"
    assert refused(folder, "<image>?", "<bbox>", bbox=[[0, 0, 9, 9]], image_id=[1])[0] == "media_mismatch"
    assert refused(folder, "<image>?", "<bbox>", bbox=[[0, 0, 9, 9]], image_id=[0, 0])[0] == "media_mismatch"


def test_marks_and_objects_that_disagree_are_counted(folder):
    reason, detail = refused(folder, "<image>?", "<bbox> <bbox>", bbox=[[0, 0, 9, 9]])
    assert reason == "media_mismatch" and "2 <bbox> mark(s), but objects.bbox lists 1" in detail
    reason, detail = refused(folder, "<image>?", "none", ref=["dog"], bbox=[])
    assert reason == "media_mismatch" and "0 <ref-object> mark(s), but objects.ref lists 1" in detail


@pytest.mark.parametrize(
    ("objects", "told_so"),
    [
        ({"bbox": [[615, 226]]}, "points are not supported"),
        ({"bbox": [[0, 0, 9]]}, "not four numbers"),
        ({"bbox": [[9, 0, 1, 9]]}, "no area"),
        ({"bbox": [[0, 0, 900, 9]]}, "reaches out of its 200x100 picture"),
        ({"bbox": [[0, 0, 9, 9]], "bbox_type": "norm100"}, "known: real, norm1, norm1000"),
        ({"bbox": [[0, 0, 1.5, 1]], "bbox_type": "norm1"}, "reaches out"),
    ],
)
def test_boxes_that_cannot_be_are_refused_with_their_fault(folder, objects, told_so):
    reason, detail = refused(folder, "<image>?", "<bbox>", **objects)
    assert reason == "bad_box" and told_so in detail
    assert refused(folder, "<image>?", "<bbox>", bbox="0 0 9 9")[0] == "bad_json"


def test_what_looks_like_a_mark_in_a_name_or_a_row_without_objects_is_only_words(folder):
    sample = told(folder, "<image>?", "<ref-object><bbox>", ref=["a <bbox>"], bbox=[[0, 0, 100, 100]])
    assert unescape_marks(texts(written(sample))[1]) == "<p>a <bbox></p> {<0><0><50><100>}"
    plain = build(folder, "conversations", [{"messages": [ASKED, {"role": "assistant", "content": "a <bbox> tag"}],
                                             "images": ["wide.png"]}]).sample(0, random.Random(0))  # fmt: skip
    assert plain.boxes == [] and written(plain) is plain
    assert unescape_marks(plain.turns[1].text) == "a <bbox> tag"
    pairs = build(folder, "pairs", [{"image": "wide.png", "caption": "a <bbox> tag"}]).sample(0, random.Random(0))
    assert written(pairs) is pairs and unescape_marks(pairs.turns[-1].text) == "a <bbox> tag"


def test_rounds_that_are_left_out_take_their_boxes_with_them(folder):
    said = ("<image>a <bbox>?", "<bbox>", "b?", "<bbox>")
    boxes = [[0, 0, 20, 10], [20, 0, 40, 10], [40, 0, 60, 10]]
    sample = told(folder, *said, rounds=1, bbox=boxes)
    assert texts(written(sample)) == ["<image>a {<0><0><10><10>}?", "{<10><0><20><10>}"]
    assert len(told(folder, *said, bbox=boxes).boxes) == 3


def test_a_row_may_hold_several_boxes(folder):
    row = {"image": "wide.png", "sents": "cups", "bbox": [[0, 0, 20, 10], [100, 50, 20, 10]]}
    fields = {"image": "image", "expression": "sents", "box": "bbox"}
    refer = build(folder, "boxes", [row], fields=fields).sample(0, random.Random(0))
    assert texts(refer)[1] == "<bbox><delim><bbox>"
    assert texts(written(refer))[1] == refer.answers[0] == "{<0><0><10><10>}<delim>{<50><50><60><60>}"
    assert [box.xyxy for box in refer.boxes] == [(0, 0, 20, 10), (100, 50, 120, 60)]
    identify = build(folder, "boxes", [row], fields=fields, ask="identify", prompts=["what: {box}"])
    assert texts(written(identify.sample(0, random.Random(0)))) == [f"<image>what: {refer.answers[0]}", "cups"]


def test_an_expression_cannot_bring_a_mark_or_a_place_of_its_own(folder):
    row = {"image": "wide.png", "sents": "the {box} <bbox>", "bbox": [0, 0, 20, 10]}
    for ask, at in (("refer", 0), ("identify", 1)):
        sample = build(folder, "boxes", [row], ask=ask).sample(0, random.Random(0))
        assert "{box} <bbox>" in unescape_marks(texts(written(sample))[at])
        assert texts(written(sample))[1 - at].count("{<0><0><10><10>}") == 1


def test_rounding_is_carried_to_where_the_box_is_written(folder):
    row = {"image": "wide.png", "sents": "x", "bbox": [0, 0, 21.9, 10]}
    said = {
        rounding: texts(written(build(folder, "boxes", [row], rounding=rounding).sample(0, random.Random(0))))[1]
        for rounding in ("round", "truncate")
    }
    assert said == {"round": "{<0><0><11><10>}", "truncate": "{<0><0><10><10>}"}


def test_boxes_of_the_stored_picture_are_turned_upright_with_it(folder):
    from minigpt4o.processors.image import open_image

    stored = Image.new("RGB", SIZE, (0, 0, 255))
    stored.paste((255, 0, 0), (10, 20, 60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    (folder / "marked.png").write_bytes(file.getvalue())
    for size in ({}, {"width": 400, "height": 200}):  # the row may speak of a larger copy of the file
        scale = size.get("width", SIZE[0]) / SIZE[0]
        row = {"image": "marked.png", "sents": "x", "bbox": [v * scale for v in (10, 20, 60, 40)], **size}
        builder = build(folder, "boxes", [row], box_frame="raw", box_format="xyxy")
        sample = builder.sample(0, random.Random(0))
        (box,) = sample.boxes
        assert box.image_size == (100, 200)
        upright = open_image(sample.images[0])
        assert upright.crop(tuple(int(v) for v in box.xyxy)).getcolors() == [(20 * 50, (255, 0, 0))]
