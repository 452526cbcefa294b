"""The files of one picture or one sound and its rows in every annotation file; a pure function of seed and index."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from minigpt4o.datasets.toy_world import dialogue
from minigpt4o.datasets.toy_world import language as say
from minigpt4o.datasets.toy_world.draw import png_of
from minigpt4o.datasets.toy_world.sound import encode, wave_of
from minigpt4o.datasets.toy_world.words import LANGUAGES
from minigpt4o.datasets.toy_world.world import SIDE, SPLITS, Noise, Scene, draw_noise, draw_scene, item_rng

Rows = dict[str, list]  # name of an annotation file -> rows that belong to it, in order

QUESTIONS_EACH = 3  # per picture or sound and language
FLAC_EVERY = 4  # one sound in so many is a FLAC file, the others are WAV
TALK_EVERY = 20  # one row of small talk per so many sounds and language


@dataclass(frozen=True)
class World:
    """What decides every byte."""

    seed: int
    level: str


def scene_of(world: World, split: str, index: int) -> Scene:
    return draw_scene(item_rng(world.seed, "scene", world.level, split, index), split, world.level)


def noise_of(world: World, split: str, index: int) -> Noise:
    return draw_noise(item_rng(world.seed, "noise", split, index), split)


def picture_name(split: str, index: int) -> str:
    return f"pictures/{split}/{index:05d}.png"


def sound_name(split: str, index: int) -> str:
    return f"sounds/{split}/{index:05d}.{'flac' if index % FLAC_EVERY == 3 else 'wav'}"


def picture_file(world: World, split: str, index: int) -> bytes:
    return png_of(scene_of(world, split, index), item_rng(world.seed, "ink", split, index))


def sound_file(world: World, split: str, index: int) -> bytes:
    rng = np.random.default_rng([world.seed, SPLITS.index(split), index])
    return encode(wave_of(noise_of(world, split, index), rng), sound_name(split, index).rpartition(".")[2])


def picture_rows(world: World, split: str, index: int) -> Rows:
    """Truth, and in each language a caption, questions, one expression and one conversation."""
    scene, image = scene_of(world, split, index), picture_name(split, index)
    rows: Rows = {f"objects/{split}": [{"image": image, "objects": [asdict(t) for t in scene]}]}
    relations = world.level == "scene"
    for lang in LANGUAGES:
        rng = item_rng(world.seed, "words", lang, split, index)
        drawn = item_rng(world.seed, "drawn", lang, split, index)
        file = f"{lang}_{split}"
        words = {"caption": say.caption(scene, lang), "attributes": say.attributes(scene, lang)}
        rows[f"captions/{file}"] = [{"image": image, **words, "image_id": f"{split}_{index:05d}", "language": lang}]
        about = {"image_id": f"{split}_{index:05d}", "image": image, "language": lang}
        rows[f"grounded/{file}"] = [{**about, "grounded_caption": say.grounded_caption(scene, lang)}]
        asked = say.questions(scene, lang, rng, QUESTIONS_EACH, relations)
        rows[f"vqa/{file}"] = [
            {
                "question": q.text,
                "question_id": f"{split}_{index:05d}_{i}",
                "answer": [q.answer],
                "image": image,
                "dataset": "toy_vqa",
                "question_type": q.type,
                "language": lang,
            }
            for i, q in enumerate(asked)
        ]
        rows[f"refer/{file}"] = [_refer_row(scene, image, lang, f"{split}_{index:05d}", rng)]
        rows[f"identify/{file}"] = [_identify_row(scene, image, lang, f"{split}_{index:05d}", drawn)]
        talk = dialogue.picture_talk(scene, lang, rng, relations)
        speaker = {"user": "human", "assistant": "gpt"}
        turns = [{"from": speaker[m["role"]], "value": m["content"]} for m in talk]
        row = {"id": f"{split}_{index:05d}", "image": image, "conversations": turns, "language": lang}
        rows[f"llava/{file}"] = [row]
    return rows


def _refer_row(scene: Scene, image: str, lang: str, name: str, rng) -> dict:
    thing = rng.choice(scene)
    return _boxed(thing.box, say.expression(thing, scene, lang, rng), image, lang, name)


def _identify_row(scene: Scene, image: str, lang: str, name: str, rng) -> dict:
    """One object, what it is in full, and its box as a person would draw it."""
    thing = rng.choice(scene)
    return _boxed(say.drawn_box(thing, rng).xyxy, say.full_name(thing, lang), image, lang, name)


def _boxed(box: tuple, said: str, image: str, lang: str, name: str) -> dict:
    x1, y1, x2, y2 = box
    return {
        "img_id": name,
        "image": image,
        "sents": said,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "height": SIDE,
        "width": SIDE,
        "language": lang,
    }


def sound_rows(world: World, split: str, index: int, pictures: int) -> Rows:
    """Truth, and in each language a caption, questions, a conversation, and one that adds a picture."""
    noise, audio = noise_of(world, split, index), sound_name(split, index)
    rows: Rows = {f"objects/{split}_sounds": [{"audio": audio, **asdict(noise)}]}
    for lang in LANGUAGES:
        rng = item_rng(world.seed, "heard", lang, split, index)
        file, name = f"{lang}_{split}", f"{split}_{index:05d}"
        words = "|".join(say.sound_attributes(noise, lang))
        rows[f"audiocaps/{file}"] = [[name, audio, say.sound_caption(noise, lang), lang, words]]
        rows[f"audio_qa/{file}"] = [
            {
                "question_id": f"{name}_{i}",
                "audio": audio,
                "question": q.text,
                "answer": [q.answer],
                "question_type": q.type,
                "language": lang,
            }
            for i, q in enumerate(say.sound_questions(noise, lang, rng, QUESTIONS_EACH))
        ]
        rows[f"messages/{file}"] = _message_rows(world, split, index, pictures, lang, rng)
    return rows


def _message_rows(world: World, split: str, index: int, pictures: int, lang: str, rng) -> list[dict]:
    noise, audio = noise_of(world, split, index), sound_name(split, index)
    shown = rng.randrange(pictures)
    scene, image = scene_of(world, split, shown), picture_name(split, shown)

    def row(kind: str, messages: list, images: list[str], audios: list[str]) -> dict:
        name = f"{split}_{index:05d}_{kind}"
        return {"id": name, "messages": messages, "images": images, "audios": audios, "language": lang}

    found = [
        row("sound", dialogue.sound_talk(noise, lang, rng), [], [audio]),
        row("both", dialogue.both_talk(scene, noise, lang, rng), [image], [audio]),
    ]
    if index % TALK_EVERY == 0:
        found.append(row("talk", dialogue.small_talk(lang, rng), [], []))
    return found
