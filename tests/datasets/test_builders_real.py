"""Real data that nobody of this project made, read by configuration alone (skipped where the folder is absent)."""

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.objects import written
from minigpt4o.processors.audio import open_audio
from minigpt4o.processors.image import open_image

DATA = Path(os.environ.get("MINIGPT4O_TEST_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA} (MINIGPT4O_TEST_DATA)")

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
FOLDS = {"folds": 10, "val_folds": [1], "test_folds": [0]}
LABELS = {str(i): word for i, word in enumerate(WORDS)}
EASY_VQA = {
    "annotations": {"all": str(DATA / "easy_vqa/easy_vqa_train.tar")},
    "fields": {"image": "png"},
    "questions": {"list": "json.qa", "question": "0", "answer": "1"},
    **FOLDS,
}
SPOKEN = {
    "annotations": {"all": str(DATA / "digits/fsdd_train.tar")},
    "kind": "audio",
    "pattern": r"^(?P<label>\d)_(?P<speaker>\w+)_(?P<take>\d+)\.wav$",
    "labels": LABELS,
    "prompts": ["Which digit is spoken?"],
    **FOLDS,
}
WRITTEN = {
    "annotations": {"all": str(DATA / "digits/mnist8000-images-idx3-ubyte.gz")},
    "label_files": {"all": str(DATA / "digits/mnist8000-labels-idx1-ubyte.gz")},
    "labels": LABELS,
    "prompts": ["Which digit is written?"],
    **FOLDS,
}


def build(name, split, values):
    return registry.build(Part("builder", name, values), name="real", split=split)


@pytest.fixture(scope="module")
def easy():
    return {split: build("shards", split, EASY_VQA) for split in ("train", "val", "test")}


def test_every_question_of_easy_vqa_is_there_once_and_no_picture_is_in_two_splits(easy):
    assert sum(map(len, easy.values())) == 38_575
    pictures = {split: {group.key for group, _ in builder.items} for split, builder in easy.items()}
    assert sum(map(len, pictures.values())) == 4000
    assert not pictures["train"] & pictures["test"]
    assert 300 < len(pictures["test"]) < 500


def test_easy_vqa_samples_hold_picture_question_and_answer(easy):
    samples = [easy["test"].sample(i, random.Random(0)) for i in range(0, len(easy["test"]), 40)]
    assert len({s.id for s in samples}) == len(samples)
    assert all(open_image(s.images[0]).size == (64, 64) for s in samples[:20])
    assert all(s.turns[0].text.startswith("<image>") and s.turns[1].text == s.answers[0] for s in samples)
    assert {"yes", "no", "circle"} <= {s.answers[0] for s in samples}


def test_spoken_digits_take_label_and_speaker_from_the_name():
    splits = [build("labelled", split, SPOKEN | {"fold_by": "speaker", "folds": 3}) for split in ("train", "test")]
    speakers = [{item.groups["speaker"] for item in b.items} for b in splits]
    assert not speakers[0] & speakers[1]
    spoken = build("labelled", "train", SPOKEN | {"annotations": {"train": SPOKEN["annotations"]["all"]}, "folds": 0})
    assert Counter(spoken.label(i) for i in range(len(spoken))) == dict.fromkeys(WORDS, 60)
    sample = spoken.sample(599, random.Random(0))
    assert (sample.answers, sample.meta["speaker"], sample.meta["label"]) == (["nine"], "yweweler", "9")
    wave, rate = open_audio(sample.audios[0])
    assert rate == 8000
    assert wave.size > 1000


def test_written_digits_are_read_from_idx_and_handed_on_as_pictures():
    splits = [build("labelled", split, WRITTEN) for split in ("train", "val", "test")]
    assert sum(map(len, splits)) == 8000
    sample = splits[2].sample(0, random.Random(0))
    assert open_image(sample.images[0]).size == (28, 28)
    assert sample.answers[0] in WORDS
    assert [t.text for t in sample.turns] == ["<image>Which digit is written?", sample.answers[0]]


def test_written_and_spoken_digits_are_paired_half_and_half():
    values = {
        "first": Part("builder", "labelled", WRITTEN),
        "second": Part("builder", "labelled", SPOKEN),
        "prompts": ["Are the written and the spoken digit the same?"],
    }
    builder = build("match", "test", values)
    samples = [builder.sample(i, random.Random(0)) for i in range(len(builder))]
    assert Counter(s.answers[0] for s in samples) == {"yes": len(builder) // 2, "no": len(builder) // 2}
    assert all((s.meta["first"] == s.meta["second"]) == (s.answers[0] == "yes") for s in samples)
    assert samples[3].turns[0].text == "<image><audio>Are the written and the spoken digit the same?"
    again = build("match", "test", values)
    assert [s.id for s in samples] == [again.sample(i, random.Random(9)).id for i in range(len(again))]
    more = build("match", "test", values | {"pairs": 3 * len(builder)})
    assert len({more.sample(i, random.Random(0)).id.split(":", 1)[1] for i in range(len(more))}) > 2 * len(builder)


def test_a_gzipped_shard_made_elsewhere_is_read():
    values = {
        "annotations": {"train": str(DATA / "webdataset/sample.tgz")},
        "fields": {"image": "png", "text": "cls"},
        "answers": LABELS,
        "prompts": ["Which digit?"],
    }
    builder = build("shards", "train", values)
    assert len(builder) == 90
    samples = [builder.sample(i, random.Random(0)) for i in range(90)]
    assert all(open_image(s.images[0]).size for s in samples)
    assert {s.answers[0] for s in samples} <= {*WORDS}


def test_vqa_and_refcoco_samples_are_read_as_they_are():
    asked = {"annotations": {"val": str(DATA / "vqa/vqa_v2_dev200.json")}, "fields": {"id": "question_id"}}
    vqa = build("questions", "val", asked)
    samples = [vqa.sample(i, random.Random(0)) for i in range(len(vqa))]
    assert len(samples) == 200
    assert all(len(s.answers) == 10 for s in samples)
    photo = str(DATA / "captions/clipscore_pair")
    refer = build(
        "boxes",
        "val",
        {
            "annotations": {"val": str(DATA / "refcoco/refcoco_dev60.json")},
            "media_root": photo,
            "image_template": "image1.jpg",  # the sizes stand in the rows; any picture will do
            "fields": {"expression": "sents", "box": "bbox", "width": "width", "height": "height"},
        },
    )
    found = [written(refer.sample(i, random.Random(0))) for i in range(len(refer))]
    assert len(found) == 60
    assert all(s.turns[1].text == s.answers[0] and s.answers[0].startswith("{<") for s in found)


def test_captions_of_a_table_with_five_columns_are_all_kept():
    values = {"annotations": {"test": str(DATA / "captions/aac_1/example_1.csv")}, "fields": {"text": "caption_?"}}
    builder = build("pairs", "test", values)
    assert len(builder) == 464
    assert all(len(builder.sample(i, random.Random(0)).answers) == 5 for i in range(464))
