"""RefCOCO's and Visual Genome's own files: read as published, a pickle never run, what is missing told."""

import collections
import json
import os
import pickle
import random

import minigpt4_files as files
import pytest

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.objects import written
from minigpt4o.datasets.tables.plain_pickle import read_plain_pickle

VALUES = [{"a": [1, -(2**70), 1.5, None, True, False], "b": ("x", (), (1, 2, 3, 4)), "c": {}, "é": "日本"}]
VALUES.append(VALUES[0])
REFER = {"layout": "refer", "image_template": "{image_id}.jpg", "fields": {"expression": "sentences", "box": "bbox"}}


@pytest.fixture
def folder(tmp_path):
    files.put(tmp_path / "9.jpg", files.picture())
    files.put(tmp_path / "instances.json", json.dumps(files.INSTANCES).encode())
    return tmp_path


def build(folder, name="refs(unc).p", **values):
    values = {"annotations": {"train": str(folder / name)}, "media_root": str(folder)} | REFER | values
    return registry.build(Part("builder", "boxes", values), name="mine", split="train")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_read_from_every_protocol(tmp_path, protocol):
    files.put(tmp_path / "x.p", pickle.dumps(VALUES, protocol))
    assert read_plain_pickle(tmp_path / "x.p")[0] == VALUES


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_not_run(folder, protocol):
    trap = folder / "owned"
    files.put(folder / "refs(unc).p", pickle.dumps([{"ref_id": Malicious(trap)}], protocol))
    with pytest.raises(DataError, match="wants to import code; only plain"):
        build(folder)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (pickle.dumps(collections.OrderedDict(a=1)), "import code"),
        (pickle.dumps({1, 2}, 4), "build an object"),
        (pickle.dumps(VALUES)[:-9], "damaged pickle"),
        (b"", "damaged pickle"),
        (b"not a pickle", "damaged pickle"),
        (b"\x80\x02a.", "damaged pickle"),
        (b"(lp0\nI" + b"9" * 9000 + b"\n.", "damaged pickle"),
        (pickle.dumps({"a": 1}), "holds a dict, not a list of refs"),
    ],
)
def test_what_is_not_plain_or_not_whole_is_told(folder, raw, what):
    files.put(folder / "refs(unc).p", raw)
    with pytest.raises(DataError, match=what):
        build(folder)


def test_refs_of_python_2_are_read_and_joined_with_their_boxes(folder):
    text = "(lp1\n(dp2\nS'sentences'\np3\n(lp4\n(dp5\nS'raw'\np6\nS'The Man!'\np7\nsasS'ann_id'\np8\nI7\n"
    files.put(folder / "refs(unc).p", (text + "sS'image_id'\np9\nL9L\nsS'split'\nVtrain\nsa.").encode())
    sample = written(build(folder, prompts=["{expression}"]).sample(0, random.Random(0)))
    assert [t.text for t in sample.turns] == ["<image>The Man!", "{<16><25><47><75>}"]


def test_the_same_refs_may_be_json(folder):
    files.put(folder / "refs.json", json.dumps(files.REFS).encode())
    assert build(folder, "refs.json").sample(0, random.Random(0)).answers == ["{<16><25><47><75>}"]


def test_a_ref_without_its_box_is_skipped_and_named(folder):
    files.put(folder / "refs(unc).p", pickle.dumps([files.REFS[0] | {"ann_id": 8}]))
    with pytest.raises(SkipSample, match="ann_id 8 is not in instances.json"):
        build(folder).sample(0, random.Random(0))


def test_the_file_beside_is_asked_for_by_name(folder):
    files.put(folder / "refs(unc).p", pickle.dumps(files.REFS))
    (folder / "instances.json").unlink()
    with pytest.raises(DataError, match=r"needs instances.json in the same folder"):
        build(folder)


def test_compat_truncates_the_box_and_keeps_what_lies_outside(folder):
    far = {**files.INSTANCES, "annotations": [files.INSTANCES["annotations"][0] | {"bbox": [-9.0, 29, 80, 24]}]}
    files.put(folder / "instances.json", json.dumps(far).encode())
    files.put(folder / "refs(unc).p", pickle.dumps(files.REFS))
    assert build(folder, profile="compat").sample(0, random.Random(0)).answers == ["{<-14><60><110><110>}"]
    with pytest.raises(SkipSample, match="reaches out of its 64x48 picture"):
        build(folder).sample(0, random.Random(0))


def test_visual_genome_drops_regions_of_16384_pixels(folder):
    regions = [{"region_id": i, "width": 128, "height": 128 - i, "phrase": "x", "x": 0, "y": 0} for i in (0, 1)]
    files.put(folder / "region_descriptions.json", json.dumps([{"id": 1, "regions": regions}]).encode())
    files.put(folder / "image_data.json", json.dumps([{"image_id": 1, "url": "u/VG/1.jpg"}]).encode())
    values = {"layout": "visual_genome", "fields": {"id": "region_id", "expression": "phrase", "box": "bbox"}}
    name = "region_descriptions.json"
    assert build(folder, name, **values, max_area=16384).table.ids == ["1"]
    assert len(build(folder, name, **values)) == 2


def test_a_wrong_picture_folder_is_told_before_anything_is_learned(folder):
    rows = [{"image": f"train2014/{i}.jpg", "caption": "a cat"} for i in range(20)]
    files.put(folder / "rows.json", json.dumps(rows).encode())
    files.put(folder / "images/elsewhere/0.jpg", b"")
    values = {"annotations": {"train": str(folder / "rows.json")}, "media_root": str(folder / "images")}
    with pytest.raises(DataError, match=r"20 of 20 media looked for are missing.*images.*holds elsewhere/"):
        registry.build(Part("builder", "pairs", values), name="mine", split="train")
    for i in range(20):
        files.put(folder / f"images/{'train/' * (i % 2)}{i}.jpg", b"x")
    both = values | {"image_template": "{image:name}|train/{image:name}"}
    builder = registry.build(Part("builder", "pairs", both), name="mine", split="train")
    assert [builder.sample(i, random.Random(0)).images[0].name for i in (2, 3)] == ["2.jpg", "train/3.jpg"]
