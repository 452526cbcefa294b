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
from minigpt4o.conversation.boxes import parse_boxes, to_pixels
from minigpt4o.datasets.toy_world import language as say
from minigpt4o.datasets.toy_world import rows, sound
from minigpt4o.datasets.toy_world.dialogue import CORPUS_MIX, CORPUS_ROUNDS, corpus_row
from minigpt4o.datasets.toy_world.draw import png_of
from minigpt4o.datasets.toy_world.words import (
    COLOUR_ANSWER,
    LANGUAGES,
    NAMES,
    OBJECTS,
    SMALL_TALK,
    TIMES_ANSWER,
    YES_NO,
)
from minigpt4o.datasets.toy_world.world import (
    COLOURS,
    COUNTS,
    HELD_OUT,
    HELD_OUT_SOUNDS,
    KINDS,
    LEVELS,
    PITCHES,
    SHAPES,
    SIDE,
    SIZES,
    Noise,
    Thing,
    allowed_looks,
    draw_noise,
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


def looks_of(path):
    return [(t["shape"], t["colour"], t["size"]) for picture in load(path) for t in picture["objects"]]


def test_only_the_test_split_shows_held_out_combinations_and_nothing_else(world):
    for split in ("train", "val", "test"):
        sounds = [(s["kind"], s["pitch"], s["count"]) for s in load(world / f"objects/{split}_sounds.json")]
        held = [look in HELD_OUT for look in looks_of(world / f"objects/{split}.json")]
        held += [noise in HELD_OUT_SOUNDS for noise in sounds]
        assert all(held) if split == "test" else not any(held)


def test_every_pair_of_attributes_of_a_held_out_thing_is_seen_in_training():
    looks = allowed_looks("train")
    sounds = {(k, p, n) for k in KINDS for p in PITCHES for n in COUNTS} - HELD_OUT_SOUNDS
    for held, seen in ((HELD_OUT, looks), (HELD_OUT_SOUNDS, sounds)):
        assert not held & set(seen)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert {(thing[one], thing[other]) for thing in held} <= {(thing[one], thing[other]) for thing in seen}


def test_the_held_out_combinations_are_a_fair_part_of_the_world():
    everything = len(SHAPES) * len(COLOURS) * len(SIZES)
    assert sorted(allowed_looks("test")) == sorted(HELD_OUT)
    assert set(allowed_looks("train")) == set(allowed_looks("val"))
    assert len(allowed_looks("train")) + len(HELD_OUT) == everything
    assert 0.1 < len(HELD_OUT) / everything < 0.3
    for place, known in enumerate((SHAPES, COLOURS, SIZES)):
        counts = Counter(look[place] for look in HELD_OUT)
        assert set(counts) == set(known) and max(counts.values()) <= 2 * min(counts.values())


def names_of_held_out():
    """What must not be said outside the test split: "small red circle", 小さい赤い丸, "high bell three times", ..."""
    said = []
    for shape, colour, size in HELD_OUT:
        english, japanese = ([NAMES[lang][word] for word in (size, colour, shape)] for lang in LANGUAGES)
        said += [r"[^\w\n]+".join(english), r"[^\w\n]*".join(japanese)]
    for noise in HELD_OUT_SOUNDS:
        english, japanese = (say.sound_attributes(Noise(*noise), lang) for lang in LANGUAGES)
        said += [r"[^\w\n]+".join(english), r"[^\w\n]*".join(japanese[:2]) + r"(?:が|[^\w\n])*" + japanese[2]]
    return re.compile("|".join(said))


def test_no_text_outside_the_test_split_names_a_held_out_combination(world):
    forbidden = names_of_held_out()
    texts = [p for p in world.rglob("*") if p.suffix in (".json", ".jsonl", ".csv", ".txt")]
    seen = [p for p in texts if "_test" not in p.name and p.name != "test.json"]
    assert len(seen) > 30
    for path in seen:
        assert forbidden.search(path.read_text(encoding="utf-8")) is None, path
    for path in world.glob("laion/*.tar"):
        assert forbidden.search(path.read_bytes().decode("utf-8", "ignore")) is None
    for lang in LANGUAGES:  # the search can find
        for kind in (f"captions/{lang}_test.json", f"grounded/{lang}_test.json", f"audiocaps/{lang}_test.csv"):
            found = forbidden.findall((world / kind).read_text(encoding="utf-8"))
            assert len(found) >= (8 if "audio" in kind else 16), kind


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_language_corpus_keeps_the_secret_at_every_level(split, level):
    forbidden = names_of_held_out()
    for i in range(150):
        told = json.dumps(corpus_row(split, level, item_rng(i)), ensure_ascii=False)
        assert forbidden.search(told) is None
    scene, noise = draw_scene(item_rng(0), "test", level), draw_noise(item_rng(0), "test")
    for lang in LANGUAGES:  # the search can find what the corpus would say
        assert forbidden.search(say.scene_text(scene, lang)) and forbidden.search(say.sound_text(noise, lang))
        assert forbidden.search(say.grounded_caption(scene, lang)) and forbidden.search(say.caption(scene, lang))


@pytest.mark.parametrize("level", ["pair", "scene"])
def test_what_is_said_to_be_absent_is_absent(level):
    absent = 0
    for i in range(600):
        rng = item_rng(i)
        scene = draw_scene(rng, "train", level)
        question = say.question(scene, "en", rng, "exist")
        colour, shape = re.fullmatch(r"is there an? (?:(\w+) )?(\w+)\?", question.text).groups()
        there = any(colour in (None, t.colour) and shape in (t.shape, "object") for t in scene)
        assert question.answer == ("yes" if there else "no"), question
        absent += not there
    assert 0.4 < absent / 600 < 0.6


# --- language -------------------------------------------------------------------------------------------------------


def test_captions_say_what_is_there_in_both_languages():
    star = Thing("star", "blue", "small", "bottom", (26, 44, 38, 56))
    circle = Thing("circle", "red", "big", "top left", (2, 2, 26, 26))
    assert say.caption((circle, star), "en") == "a big red circle at the top left and a small blue star at the bottom"
    assert say.caption((circle, star), "ja") == "左上に大きい赤い丸、下に小さい青い星"
    assert say.scene_text((circle, star), "en") == (
        " big red circle {<3><3><41><41>} top left; small blue star {<41><69><59><88>} bottom"
    )
    assert say.scene_text((star,), "ja") == "小さい青い星 {<41><69><59><88>}下"
    bell = Noise("bell", "high", 3)
    assert say.sound_caption(bell, "en") == "a high bell three times"
    assert say.sound_caption(bell, "ja") == "高いベルの音が三回"
    assert say.sound_text(bell, "en") == " high bell three times three"
    assert say.sound_text(bell, "ja") == "高いベルの音三回三回"


def test_a_grounded_caption_is_the_caption_with_the_true_boxes(world):
    star = Thing("star", "blue", "small", "bottom", (26, 44, 38, 56))
    assert say.grounded_caption((star,), "en") == "<p>a small blue star</p> {<41><69><59><88>} at the bottom"
    assert say.grounded_caption((star,), "ja") == "下に<p>小さい青い星</p> {<41><69><59><88>}"
    truth = {t["image"]: t["objects"] for t in load(world / "objects/val.json")}
    for lang in LANGUAGES:
        captions = {row["image"]: row["caption"] for row in load(world / f"captions/{lang}_val.json")}
        for row in load(world / f"grounded/{lang}_val.json"):
            bare = re.sub(r"</?p>| \{[<>0-9]+\}", "", row["grounded_caption"])
            assert bare == captions[row["image"]]
            boxes = [to_pixels(grid, (SIDE, SIDE)).xyxy for grid in parse_boxes(row["grounded_caption"])]
            wanted = [t["box"] for t in truth[row["image"]]]
            assert np.abs(np.array(boxes) - np.array(wanted)).max() <= 0.33  # a coordinate is a hundredth of the side


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
        question = say.questions(scene, lang, rng, 1, False)[0]
        names[question.type] += 1
        thing = scene[0]
        if question.type in ("shape", "size", "place"):
            assert question.answer == NAMES[lang][getattr(thing, question.type)]
        if question.type == "colour":
            assert question.answer == COLOUR_ANSWER[lang][thing.colour]
        if question.type == "count":
            assert question.answer == OBJECTS[lang][0]
        if question.type == "exist":
            yes += question.answer in ("yes", "はい")
    assert set(names) == set(say.QUESTION_TYPES)
    assert 0.4 < yes / names["exist"] < 0.6


@pytest.mark.parametrize("lang", LANGUAGES)
def test_answers_about_sounds_are_true(lang):
    yes = 0
    for i in range(400):
        rng = item_rng(i)
        noise = draw_noise(rng, "train")
        answers = {q.type: q for q in say.sound_questions(noise, lang, rng, 4)}
        assert set(answers) == set(say.SOUND_TYPES)
        assert answers["kind"].answer == NAMES[lang][noise.kind]
        assert answers["pitch"].answer == NAMES[lang][noise.pitch]
        assert answers["count"].answer == TIMES_ANSWER[lang][noise.count]
        asked, right = answers["exist"].text, NAMES[lang][noise.kind]
        pitches = [NAMES[lang][p] for p in PITCHES if NAMES[lang][p] in asked]
        heard = right in asked and pitches in ([], [NAMES[lang][noise.pitch]])
        assert answers["exist"].answer == YES_NO[lang][0 if heard else 1], (noise, answers["exist"])
        yes += heard
    assert 0.4 < yes / 400 < 0.6


def test_relations_are_asked_at_the_hard_level_only():
    types = {level: set() for level in LEVELS}
    for level in LEVELS:
        for i in range(200):
            rng = item_rng(i)
            scene = draw_scene(rng, "train", level)
            asked = say.questions(scene, "en", rng, 3, level == "scene")
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
        "grounded/ja_test.json": {"image_id", "image", "grounded_caption", "language"},
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
    assert {row["task"] for row in found} == set(CORPUS_MIX)
    marks = {"picture": ["<Img>"], "sound": ["<Aud>"], "both": ["<Img>", "<Aud>"], "small_talk": []}
    for row in found:
        first, *later = [message["content"] for message in row["messages"]]
        assert re.findall("<Img>|<Aud>", first) == marks[row["task"]]
        assert first.count("</Img>") + first.count("</Aud>") == len(marks[row["task"]])
        assert not re.search("<Img>|<Aud>|<image>|<audio>", "".join(later))  # told once, asked about in every round
        assert "<image>" not in first and "<audio>" not in first
    assert not (world / "language/test.jsonl").exists()


def test_one_telling_of_the_corpus_answers_many_questions(world):
    rounds = {"picture": CORPUS_ROUNDS, "sound": CORPUS_ROUNDS - 2, "both": CORPUS_ROUNDS}
    boxes = 0
    for row in load(world / "language/train.jsonl"):
        messages = row["messages"]
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        if row["task"] == "small_talk":
            continue
        assert len(messages) == 2 * rounds[row["task"]]
        told = messages[0]["content"]
        answers = [m["content"] for m in messages[1::2]]
        for answer in answers:
            boxes += answer.startswith("{<")
            if answer.startswith("{<") or answer in NAMES[row["language"]].values():
                assert answer in told  # a box or a name can be read off the telling
    assert boxes > 50


def test_an_item_is_a_function_of_its_index_alone():
    toy = rows.World(seed=3, level="pair")
    assert rows.picture_rows(toy, "val", 11) == rows.picture_rows(toy, "val", 11)
    assert rows.picture_file(toy, "val", 11) == rows.picture_file(toy, "val", 11)
    assert rows.scene_of(toy, "val", 11) != rows.scene_of(toy, "val", 12)
