"""The benchmarks of MiniGPT-v2 by their presets: the question's words, the true answer, and how it is scored."""

import json
import os
import random
from pathlib import Path

import minigpt4_files as files
import pytest

from minigpt4o.common.config import load_settings
from minigpt4o.common.registry import registry
from minigpt4o.conversation.objects import written
from minigpt4o.runners.build import build_builders

DATA = Path(os.environ.get("MINIGPT4O_TEST_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))
REF_ID = "COCO_train2014_000000000009_4"
TEN = [{"answer": "dog"}] * 9 + [{"answer": "cat"}]
SHORT = "[vqa] Based on the image, respond to this question with a short answer: "
ROW = {"img_id": REF_ID, "sents": "the Man", "bbox": [10, 12, 20, 24], "height": 48, "width": 64}
FILES = {
    "eval/okvqa/okvqa_test_split.json": [{"image_id": 9, "question": "What is it?", "question_id": 7}],
    "eval/okvqa/mscoco_val2014_annotations_clean.json": {"annotations": [{"question_id": 7, "answers": TEN}]},
    "eval/gqa/testdev_balanced_questions.json": [{"image": "n1.jpg", "question": "What is it?", "answer": "dog"}],
    "eval/vizwiz/val.json": [{"image": "v.jpg", "question": "What is it?", "answers": TEN, "answer_type": "other"}],
    "eval/iconvqa/choose_text_val.json": [
        {"image_id": "12", "question": "How many?", "choices": ["two", "three"], "answer": 1}
    ],
    "eval/vsr/test.jsonl": {"image": "v.jpg", "caption": "The cat is on the mat.", "label": 1},
    "eval/hateful_meme/dev.jsonl": {"id": 1, "img": "img/01.png", "text": "it's a dog", "label": 0},
    **{
        f"eval/{name}/{name}_{split}.json": [ROW]
        for name, splits in (("refcoco", "val testA testB"), ("refcoco+", "val testA testB"), ("refcocog", "val test"))
        for split in splits.split()
    },
}
PICTURES = [
    "coco/images/train2017/000000000009.jpg",
    "coco/images/COCO_train2014_000000000009.jpg",
    "gqa/images/n1.jpg",
    "eval/vizwiz/vizwiz_images/v.jpg",
    "eval/iconvqa/iconvqa_images/12/image.png",
    "eval/vsr/vsr_images/v.jpg",
    "eval/hateful_meme/hm_images/img/01.png",
]
REFER = "[refer] give me the location of the Man"
UNABLE = "and reply 'unanswerable' when the provided information is insufficient"
VIZWIZ = f"answer the question with a single word or phrase. {UNABLE}"
ASKED = {
    "okvqa": SHORT + "What is it?",
    "gqa": SHORT + "What is it?",
    "vizwiz": f"[vqa] The question is 'What is it?' Based on the image, {VIZWIZ}",
    "iconvqa": SHORT + "How many?",
    "vsr": "[vqa] Based on the image, is this statement true or false? The cat is on the mat.",
    "hm": "This is an image writting 'it's a dog'. Is this image hateful? Answer yes or no. Answer:",
    "refcoco": REFER,
    "refcocop": REFER,
    "refcocog": REFER,
}
SPLIT_SETS = [f"{name}_{split}" for name in ("refcoco", "refcocop") for split in ("val", "testA", "testB")]
SPLIT_SETS += ["refcocog_val", "refcocog_test"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    for name, tree in FILES.items():
        files.put(folder / name, json.dumps(tree).encode())
    for name in PICTURES:
        files.put(folder / name, files.picture())
    return folder


@pytest.fixture
def opened(root, tmp_path, monkeypatch):
    """(builder, task) of a benchmark."""
    monkeypatch.setenv("MINIGPT4O_DATA", str(root))

    def open_one(name, profile):
        file = tmp_path / "eval.yaml"
        file.write_text(f"datasets: {{benchmark_{name}: {{profile: {profile}}}}}")
        settings = load_settings(file, needs=())
        spec = settings.datasets[f"benchmark_{name}"]
        return build_builders(settings, "test")[spec.name], registry.build(spec.task)

    return open_one


@pytest.mark.parametrize("profile", ["default", "compat"])
@pytest.mark.parametrize("name", [*ASKED, *SPLIT_SETS])
def test_the_question_is_the_references_letter_for_letter(opened, name, profile):
    sample = opened(name, profile)[0].sample(0, random.Random(0))
    assert sample.turns[0].text == "<image>" + ASKED[name.partition("_")[0]]


def score(opened, name, answer, profile="compat"):
    builder, task = opened(name, profile)
    prediction = task.prediction(builder.sample(0, random.Random(0)), "", answer)
    metric, found = next(iter(task.score([prediction], rounds=2).items()))
    return metric, found.value


@pytest.mark.parametrize(
    ("name", "answer", "metric", "value"),
    [
        ("okvqa", "A dog <unk>", "vqa_accuracy", 1.0),
        ("okvqa", "cat", "vqa_accuracy", 0.3),
        ("gqa", "Dog", "accuracy", 1.0),
        ("gqa", "a dog", "accuracy", 0.0),
        ("vizwiz", "Dog", "vizwiz_accuracy", 1.0),
        ("vizwiz", "CAT", "vizwiz_accuracy", 1 / 3),
        ("iconvqa", "three", "choice_accuracy", 1.0),
        ("iconvqa", "B", "choice_accuracy", 1.0),
        ("iconvqa", "two", "choice_accuracy", 0.0),
        ("vsr", "True", "accuracy", 1.0),
        ("vsr", "yes", "accuracy", 0.0),
        ("hm", " No", "accuracy", 1.0),
        ("hm", "It is not", "accuracy", 0.0),
        ("refcoco", "{<15><25><46><75>}", "acc@0.5", 1.0),
        ("refcoco", "{ <15> <25> <46> <75> } <unk>", "acc@0.5", 1.0),
        ("refcoco", "it is {<15><25><46><75>}", "acc@0.5", 0.0),
        ("refcoco", "{<15><25><46><999>}", "acc@0.5", 0.0),
    ],
)
def test_answers_are_scored_as_the_reference_scores_them(opened, name, answer, metric, value):
    assert score(opened, name, answer) == (metric, pytest.approx(value))


def test_without_compat_a_box_may_stand_anywhere_in_the_answer():
    from minigpt4o.common.registry import Part

    truth = '{"id": "1", "dataset": "d", "language": "", "prompt": "", "truth": [], "answer": "it is {<0><0><50><50>}"'
    boxes = '"boxes": [{"xyxy": [0, 0, 50, 50], "image_size": [100, 100], "label": "", "image": 0}]}'
    from minigpt4o.tasks.base import Prediction

    prediction = Prediction.from_row(json.loads(f"{truth}, {boxes}"))
    values = {}
    for profile in ("default", "compat"):
        task = registry.build(Part("task", "referring", {"profile": profile}))
        values[profile] = task.score([prediction], rounds=2)["acc@0.5"].value
    assert values == {"default": 1.0, "compat": 0.0}


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA} (MINIGPT4O_TEST_DATA)")
@pytest.mark.parametrize("profile", ["default", "compat"])
def test_an_oracle_that_says_the_true_boxes_scores_100_percent_on_real_refcoco(tmp_path, monkeypatch, profile):
    rows = json.loads((DATA / "refcoco/refcoco_dev60.json").read_text())["items"]
    for row in rows:  # the pictures themselves are not there: blank ones of the same size
        name = tmp_path / f"coco/images/{row['img_id'][:27]}.jpg"
        if not name.exists():
            files.put(name, files.picture(row["width"], row["height"]))
    files.put(tmp_path / "eval/refcoco/refcoco_testA.json", json.dumps(rows[:30]).encode())
    files.put(tmp_path / "eval/refcoco/refcoco_testB.json", json.dumps(rows[30:]).encode())
    monkeypatch.setenv("MINIGPT4O_DATA", str(tmp_path))
    file = tmp_path / "eval.yaml"
    file.write_text(f"datasets: {{benchmark_refcoco: {{profile: {profile}}}}}")
    settings = load_settings(file, needs=())
    task = registry.build(settings.datasets["benchmark_refcoco"].task)
    builder = build_builders(settings, "test")["benchmark_refcoco"]
    samples = [written(builder.sample(i, random.Random(0))) for i in range(len(builder))]
    found = task.score([task.prediction(s, "", s.turns[1].text) for s in samples], rounds=10)
    assert len(samples) == 60
    assert (found["acc@0.5"].value, found["acc@0.5"].unparsable) == (1.0, 0)
    assert found["mean_iou"].value > 0.93
