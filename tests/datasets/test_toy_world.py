"""The toy world: exact truth, nothing of the test split leaks, the formats of real sets, the same bytes each time."""

import csv
import hashlib
import io
import json
import re
import tarfile
from collections import Counter

import numpy as np
import pytest
import soundfile
from PIL import Image

from minigpt4o.common.errors import DataError
from minigpt4o.datasets.toy_world import language as say
from minigpt4o.datasets.toy_world import rows, sound
from minigpt4o.datasets.toy_world.draw import png_of
from minigpt4o.datasets.toy_world.words import LANGUAGES, NAMES, SMALL_TALK
from minigpt4o.datasets.toy_world.world import (
    COLOURS,
    HELD_OUT,
    HELD_OUT_SOUNDS,
    KINDS,
    LEVELS,
    SHAPES,
    SIDE,
    Noise,
    Thing,
    draw_scene,
    item_rng,
)
from minigpt4o.datasets.toy_world.write import write_toy_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("toy") / "world"
    write_toy_world(out, "tiny")
    return out


def load(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# --- the same bytes -------------------------------------------------------------------------------------------------


def test_the_bytes_depend_on_the_seed_and_not_on_the_number_of_workers(world, tmp_path):
    write_toy_world(tmp_path / "two", "tiny", workers=2)
    assert digest(tmp_path / "two") == digest(world)
    write_toy_world(tmp_path / "two", "tiny", seed=1)  # over an older world
    other = digest(tmp_path / "two")
    assert other.keys() == digest(world).keys()
    assert other["captions/en_train.json"] != digest(world)["captions/en_train.json"]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="holds something else"):
        write_toy_world(tmp_path, "tiny")
    with pytest.raises(DataError, match="tiny, small, medium"):
        write_toy_world(tmp_path / "new", "huge")


# --- pictures and sounds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [12, 15, 22, 26])
def test_a_shape_fills_its_box_exactly(shape, side):
    thing = Thing(shape, "black", "big", "middle", (20, 17, 20 + side, 17 + side))
    pixels = np.asarray(Image.open(io.BytesIO(png_of((thing,), item_rng(0))))).astype(int)
    inked = np.abs(pixels - pixels[0, 0]).sum(2) > 0
    rows_, columns = np.where(inked.any(1))[0], np.where(inked.any(0))[0]
    assert (columns[0], rows_[0], columns[-1] + 1, rows_[-1] + 1) == thing.box


@pytest.mark.parametrize("level", LEVELS)
def test_objects_lie_inside_and_apart_and_every_word_names_one(level):
    for i in range(150):
        scene = draw_scene(item_rng(i), "train", level)
        assert LEVELS[level][0] <= len(scene) <= LEVELS[level][1]
        covered = np.zeros((SIDE, SIDE), int)
        for thing in scene:
            x1, y1, x2, y2 = thing.box
            assert 0 <= x1 < x2 <= SIDE
            assert 0 <= y1 < y2 <= SIDE
            covered[y1:y2, x1:x2] += 1
        assert covered.max() == 1
        for of in ("shape", "colour", "place"):
            assert len({getattr(t, of) for t in scene}) == len(scene)


def test_pitch_and_number_can_be_heard():
    def loudest(wave):
        spectrum = np.abs(np.fft.rfft(wave))
        return np.fft.rfftfreq(len(wave), 1 / sound.RATE)[spectrum.argmax()]

    for kind in KINDS:
        for count in (1, 2, 3):
            low, high = (sound.wave_of(Noise(kind, p, count), np.random.default_rng(5)) for p in ("low", "high"))
            assert loudest(low) < 950 < loudest(high), kind
            assert len(low) <= 1.2 * sound.RATE
            assert np.abs(high).max() <= 1
            loud = np.abs(high).reshape(-1, 160).max(1) > 0.04  # in steps of 10 ms
            assert int((np.diff(loud.astype(int)) == 1).sum()) == count, kind


def test_files_are_what_their_names_say(world):
    for split in ("train", "val", "test"):
        for truth in load(world / f"objects/{split}.json"):
            with Image.open(world / truth["image"]) as picture:
                assert (picture.size, picture.mode, picture.format) == ((64, 64), "RGB", "PNG")
        kinds = set()
        for truth in load(world / f"objects/{split}_sounds.json"):
            about = soundfile.info(world / truth["audio"])
            assert (about.samplerate, about.channels) == (16000, 1)
            assert truth["audio"].endswith(about.format.lower())
            kinds.add(about.format)
        assert kinds == {"WAV", "FLAC"}


# --- nothing of the test split leaks --------------------------------------------------------------------------------


def test_only_the_test_split_shows_held_out_combinations_and_nothing_else(world):
    for split in ("train", "val", "test"):
        pairs = [(t["shape"], t["colour"]) for p in load(world / f"objects/{split}.json") for t in p["objects"]]
        sounds = [(s["kind"], s["pitch"], s["count"]) for s in load(world / f"objects/{split}_sounds.json")]
        held = [pair in HELD_OUT for pair in pairs] + [noise in HELD_OUT_SOUNDS for noise in sounds]
        assert all(held) if split == "test" else not any(held)


def test_no_text_outside_the_test_split_names_a_held_out_combination(world):
    english = "|".join(f"{c} {s}" for s, c in HELD_OUT)
    japanese = "|".join(NAMES["ja"][c] + NAMES["ja"][s] for s, c in HELD_OUT)
    told = "|".join(f"{k} {p} {('one', 'two', 'three')[n - 1]}" for k, p, n in HELD_OUT_SOUNDS)
    heard = "|".join(
        f"{join.join(words[:2])}{'が' if lang == 'ja' else ' '}{words[2]}"
        for lang, join in (("en", " "), ("ja", ""))
        for words in (say.sound_attributes(Noise(*n), lang) for n in HELD_OUT_SOUNDS)
    )
    forbidden = re.compile("|".join((english, japanese, told, heard)))
    texts = [p for p in world.rglob("*") if p.suffix in (".json", ".jsonl", ".csv", ".txt")]
    seen = [p for p in texts if "_test" not in p.name and p.name != "test.json"]
    assert len(seen) > 30
    for path in seen:
        assert forbidden.search(path.read_text(encoding="utf-8")) is None, path
    for path in world.glob("laion/*.tar"):
        assert forbidden.search(path.read_bytes().decode("utf-8", "ignore")) is None
    for kind in ("captions/en_test.json", "captions/ja_test.json", "audiocaps/en_test.csv", "audiocaps/ja_test.csv"):
        assert forbidden.search((world / kind).read_text(encoding="utf-8"))  # the search can find


@pytest.mark.parametrize("level", ["pair", "scene"])
def test_questions_about_absent_objects_keep_the_secret_too(level):
    forbidden = re.compile("|".join(f"{c} {s}" for s, c in HELD_OUT))
    for i in range(600):
        rng = item_rng(i)
        scene = draw_scene(rng, "train", level)
        question = say.question(scene, "en", "train", rng, "exist")
        assert not forbidden.search(question.text)
        if question.answer == "no" and (both := re.search(r"there an? (\w+) (\w+)", question.text)):
            colour, shape = both.groups()
            assert not any(t.colour == colour and shape in (t.shape, "object") for t in scene)


# --- language -------------------------------------------------------------------------------------------------------


def test_captions_say_what_is_there_in_both_languages():
    star = Thing("star", "blue", "small", "bottom", (26, 44, 38, 56))
    circle = Thing("circle", "red", "big", "top left", (2, 2, 26, 26))
    assert say.caption((circle, star), "en") == "a big red circle at the top left and a small blue star at the bottom"
    assert say.caption((circle, star), "ja") == "左上に大きい赤い丸、下に小さい青い星"
    assert say.scene_text((star,)) == "small blue star bottom {<41><69><59><88>}"
    assert say.sound_caption(Noise("bell", "high", 3), "en") == "a high bell three times"
    assert say.sound_caption(Noise("bell", "high", 3), "ja") == "高いベルの音が三回"
    assert say.sound_text(Noise("bell", "high", 3)) == "bell high three"


def test_every_attribute_word_stands_in_its_caption(world):
    for lang in LANGUAGES:
        for row in load(world / f"captions/{lang}_train.json"):
            assert all(word in row["caption"] for thing in row["attributes"] for word in thing)
            assert {len(thing) for thing in row["attributes"]} == {4}
        with (world / f"audiocaps/{lang}_train.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                assert all(word in row["caption"] for word in row["attributes"].split("|"))
                assert (world / row["file_name"]).exists()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_answers_are_true_and_yes_and_no_are_even(lang):
    names, yes = Counter(), 0
    for i in range(2000):
        rng = item_rng(i)
        scene = draw_scene(rng, "train", "single")
        question = say.questions(scene, lang, "train", rng, 1, False)[0]
        names[question.type] += 1
        thing = scene[0]
        if question.type in ("shape", "size", "place"):
            assert question.answer == NAMES[lang][getattr(thing, question.type)]
        if question.type == "exist":
            yes += question.answer in ("yes", "はい")
    assert set(names) == set(say.QUESTION_TYPES)
    assert 0.4 < yes / names["exist"] < 0.6


def test_relations_are_asked_at_the_hard_level_only():
    types = {level: set() for level in LEVELS}
    for level in LEVELS:
        for i in range(200):
            rng = item_rng(i)
            scene = draw_scene(rng, "train", level)
            asked = say.questions(scene, "en", "train", rng, 3, level == "scene")
            assert len({q.type for q in asked}) == 3
            types[level] |= {q.type for q in asked}
    assert "relation" in types["scene"]
    assert "relation" not in types["single"] | types["pair"]


def test_small_talk_says_what_the_world_holds():
    talk = dict(SMALL_TALK["en"])
    said = re.findall(r"\w+", talk["what colours do you know?"])
    assert set(COLOURS) <= set(said)
    assert len(SMALL_TALK["en"]) == len(SMALL_TALK["ja"])


# --- formats --------------------------------------------------------------------------------------------------------


def test_rows_have_the_fields_of_the_real_sets(world):
    fields = {
        "captions/en_val.json": {"image", "caption", "attributes", "image_id", "language"},
        "vqa/ja_test.json": {
            *("question", "question_id", "answer", "image", "dataset", "question_type", "language"),
        },
        "refer/en_train.json": {"img_id", "image", "sents", "bbox", "height", "width", "language"},
        "llava/ja_train.json": {"id", "image", "conversations", "language"},
        "audio_qa/en_val.jsonl": {"question_id", "audio", "question", "answer", "question_type", "language"},
        "messages/ja_train.jsonl": {"id", "messages", "images", "audios", "language"},
        "language/train.jsonl": {"messages", "language", "task"},
    }
    for name, expected in fields.items():
        found = load(world / name)
        assert {frozenset(row) for row in found} == {frozenset(expected)}, name
        for key in ("id", "image_id", "question_id"):
            ids = [row[key] for row in found if key in row]
            assert len(ids) == len(set(ids)), name


def test_marks_and_media_agree_in_conversations(world):
    shapes = set()
    for lang in LANGUAGES:
        for row in load(world / f"messages/{lang}_train.jsonl"):
            text = "".join(message["content"] for message in row["messages"])
            assert text.count("<image>") == len(row["images"])
            assert text.count("<audio>") == len(row["audios"])
            assert all((world / media).exists() for media in row["images"] + row["audios"])
            assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)
            shapes.add((len(row["images"]), len(row["audios"])))
        for row in load(world / f"llava/{lang}_train.json"):
            assert row["conversations"][0]["value"].startswith("<image>")
            assert [t["from"] for t in row["conversations"]] == ["human", "gpt"] * (len(row["conversations"]) // 2)
    assert shapes == {(0, 0), (0, 1), (1, 1)}


def test_boxes_of_expressions_are_the_true_ones(world):
    truth = {t["image"]: t["objects"] for t in load(world / "objects/train.json")}
    for row in load(world / "refer/en_train.json"):
        x, y, w, h = row["bbox"]
        (meant,) = [t for t in truth[row["image"]] if tuple(t["box"]) == (x, y, x + w, y + h)]
        assert any(word in row["sents"] for word in (meant["shape"], meant["colour"], meant["place"]))


def test_shards_hold_the_pictures_with_their_captions(world):
    captions = load(world / "captions/en_train.json")
    with tarfile.open(world / "laion/00000.tar") as tar:
        members = tar.getmembers()
        assert len(members) == 3 * len(captions)
        assert {(m.mtime, m.uid, m.uname) for m in members} == {(0, 0, "")}
        assert tar.extractfile("000000003.png").read() == (world / captions[3]["image"]).read_bytes()
        assert json.load(tar.extractfile("000000003.json"))["caption"] == captions[3]["caption"]
        assert tar.extractfile("000000003.txt").read().decode() == captions[3]["caption"]


def test_the_language_corpus_tells_the_scene_where_the_picture_will_stand(world):
    found = load(world / "language/train.jsonl")
    assert len({row["messages"][0]["content"] for row in found}) > 0.8 * len(found)
    for row in found:
        first = row["messages"][0]["content"]
        assert "<image>" not in first
        assert "<audio>" not in first
        if row["task"] == "refer":
            box = row["messages"][1]["content"]
            assert box in first.split("</Img>")[0]  # the LM can read the answer off the scene
        if row["task"] not in ("small_talk", "audio_caption", "audio_qa", "sound_talk"):
            assert first.startswith("<Img>")
    assert not (world / "language/test.jsonl").exists()


def test_an_item_is_a_function_of_its_index_alone():
    toy = rows.World(seed=3, level="pair")
    assert rows.picture_rows(toy, "val", 11) == rows.picture_rows(toy, "val", 11)
    assert rows.picture_file(toy, "val", 11) == rows.picture_file(toy, "val", 11)
    assert rows.scene_of(toy, "val", 11) != rows.scene_of(toy, "val", 12)
