"""Pieces of real data that nobody of this project made, each read by a few lines of YAML (skipped where absent)."""

import json
import os
import random
from pathlib import Path

import minigpt4_files as files
import pytest

from minigpt4o.common.config import load_settings
from minigpt4o.conversation.objects import written
from minigpt4o.processors.audio import open_audio
from minigpt4o.processors.image import open_image
from minigpt4o.runners.build import build_builders

DATA = Path(os.environ.get("MINIGPT4O_TEST_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA} (MINIGPT4O_TEST_DATA)")

YAML = """
datasets:
  shard:                      # webdataset's own sample: 90 pictures with classes, gzipped
    like: own_webdataset
    annotations: {test: "${oc.env:PIECES}/webdataset/sample.tgz"}
    fields: {image: png, text: cls}
    folds: 0
  vqa:                        # VQA v2: 200 questions of ten answers; its pictures are not here
    like: own_questions
    annotations: {test: "${oc.env:PIECES}/vqa/vqa_v2_dev200.json"}
    fields: {id: question_id}
    media_root: ""
    folds: 0
  refcoco:                    # 60 expressions of MiniGPT-4's evaluation files
    like: benchmark_refcoco
    annotations: {test: "${oc.env:PIECES}/refcoco/refcoco_dev60.json"}
    media_root: "${oc.env:PICTURES}"
  asked_en:                   # LLaVA's 90 questions about COCO pictures: what might one ask?
    like: own_table
    annotations: {test: "${oc.env:PIECES}/instructions/llava_qa90_questions.jsonl"}
    media_root: "${oc.env:PICTURES}"
    fields: {id: question_id, image: image, text: text}
    prompts: ["What might one ask about this picture?"]
    folds: 0
  asked_ja:                   # the same in Japanese, of heron: a text is translated
    like: own_table
    language: ja
    annotations: {test: "${oc.env:PIECES}/instructions/heron_qa90_questions_ja.jsonl"}
    fields: {id: question_id, text: text_JA}
    media_root: ""
    prompts: ["日本語にしてください。{text}"]
    folds: 0
  seeds:                      # self-instruct: text alone
    like: unnatural_instruction
    annotations: {test: "${oc.env:PIECES}/instructions/selfinstruct_seed_tasks.jsonl"}
    prompts: ["{instruction} {instances.0.input?}"]
  sounds:                     # 464 sounds with five captions each; the sounds are not here
    like: own_table
    annotations: {test: "${oc.env:PIECES}/captions/aac_1/example_1.csv"}
    fields: {text: "caption_?"}
    media_root: ""
    prompts: []
    folds: 0
  speech:                     # eleven utterances
    like: own_sounds
    annotations: {test: "${oc.env:PIECES}/speech/transcripts.json"}
    media_root: "${oc.env:PIECES}/speech"
    fields: {audio: file, text: text, language: lang}
    prompts: transcribe_en
    folds: 0
"""
COUNTS = {
    "shard": 90,
    "vqa": 200,
    "refcoco": 60,
    "asked_en": 90,
    "asked_ja": 90,
    "seeds": 175,
    "sounds": 464,
    "speech": 11,
}


@pytest.fixture(scope="module")
def builders(tmp_path_factory):
    """All pieces. Of pictures that do not come with them a blank one of the same size stands in."""
    folder = tmp_path_factory.mktemp("pieces")
    for row in json.loads((DATA / "refcoco/refcoco_dev60.json").read_text())["items"]:
        files.put(folder / f"{row['img_id'][:27]}.jpg", files.picture(row["width"], row["height"]))
    for line in (DATA / "instructions/llava_qa90_questions.jsonl").read_text().splitlines():
        files.put(folder / json.loads(line)["image"], files.picture())
    (folder / "pieces.yaml").write_text(YAML, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIECES", str(DATA.resolve()))
        patch.setenv("PICTURES", str(folder))
        return build_builders(load_settings(folder / "pieces.yaml", needs=()), "test")


@pytest.mark.parametrize("name", COUNTS)
def test_a_real_piece_is_read_whole(builders, name):
    builder = builders[name]
    assert len(builder) == COUNTS[name]
    for index in range(len(builder)):
        sample = written(builder.sample(index, random.Random(0)))
        assert sample.turns[-1].text == sample.turns[-1].text.strip() != ""
        assert sample.answers
    for media in sample.images:
        assert open_image(media).size
    for media in sample.audios:
        assert open_audio(media)[0].size > 1000


def test_what_the_pieces_say(builders):
    first = {name: written(builder.sample(0, random.Random(0))) for name, builder in builders.items()}
    assert first["shard"].answers[0].isdigit()
    assert (first["vqa"].turns[0].text, first["vqa"].answers) == (
        "What insurance company is a sponsor? Answer in a word or two.",
        ["state farm"] * 10,
    )
    assert first["refcoco"].turns[0].text.endswith("bowl behind the others can only see part")
    assert first["refcoco"].turns[1].text == "{<73><0><100><27>}"
    assert first["asked_en"].answers == ["What is the color of the two suitcases in the image?"]
    assert (first["asked_ja"].language, first["asked_ja"].answers) == (
        "ja",
        ["画像の2つのスーツケースの色は何色ですか？"],
    )
    assert first["asked_ja"].turns[0].text.endswith("What is the color of the two suitcases in the image?")
    assert first["seeds"].turns[0].text.startswith("Is there anything I can eat for a breakfast")
    assert len(first["sounds"].answers) == 5
    assert first["speech"].answers[0].startswith("And so my fellow Americans")
