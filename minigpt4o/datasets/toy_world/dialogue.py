"""Conversations of the toy world as lists of messages: about a picture, a sound, both, or nothing in particular."""

from __future__ import annotations

import random

from minigpt4o.conversation.boxes import box_text
from minigpt4o.conversation.sample import AUDIO_MARK, IMAGE_MARK
from minigpt4o.datasets.toy_world import language as say
from minigpt4o.datasets.toy_world.words import LANGUAGES, PROMPTS, SMALL_TALK
from minigpt4o.datasets.toy_world.world import Noise, Scene, draw_noise, draw_scene

Message = dict[str, str]  # role, content

COUNT_IN_PICTURE = {"en": "how many objects are in the picture?", "ja": "絵に物はいくつありますか？"}


def picture_talk(scene: Scene, lang: str, split: str, rng: random.Random, relations: bool = False) -> list[Message]:
    """Two or three rounds about one picture; the first may ask for a description."""
    rounds = rng.randint(2, 3)
    pairs = [(q.text, q.answer) for q in say.questions(scene, lang, split, rng, rounds, relations)]
    if rng.random() < 0.3:
        pairs[0] = (rng.choice(PROMPTS["caption"][lang]), say.caption(scene, lang))
    return _messages(pairs, IMAGE_MARK)


def sound_talk(noise: Noise, lang: str, rng: random.Random) -> list[Message]:
    """Two or three rounds about one sound."""
    pairs = [(q.text, q.answer) for q in say.sound_questions(noise, lang, rng, rng.randint(2, 3))]
    if rng.random() < 0.3:
        pairs[0] = (rng.choice(PROMPTS["audio_caption"][lang]), say.sound_caption(noise, lang))
    return _messages(pairs, AUDIO_MARK)


def both_talk(scene: Scene, noise: Noise, lang: str, split: str, rng: random.Random) -> list[Message]:
    """Two or three rounds about a picture and a sound given together: at least one round about each."""
    seen = say.question(scene, lang, split, rng, rng.choice(say.QUESTION_TYPES))
    text = COUNT_IN_PICTURE[lang] if seen.type == "count" else seen.text
    heard = say.sound_questions(noise, lang, rng, rng.randint(1, 2))
    pairs = [(text, seen.answer), *((q.text, q.answer) for q in heard)]
    rng.shuffle(pairs)
    return _messages(pairs, IMAGE_MARK + AUDIO_MARK)


def small_talk(lang: str, rng: random.Random) -> list[Message]:
    """One or two rounds of text alone."""
    return _messages(rng.sample(SMALL_TALK[lang], rng.randint(1, 2)), "")


def _messages(pairs: list[tuple[str, str]], media: str) -> list[Message]:
    messages = []
    for i, (asked, answer) in enumerate(pairs):
        messages.append({"role": "user", "content": (media if i == 0 else "") + asked})
        messages.append({"role": "assistant", "content": answer})
    return messages


# What the rows of the language corpus are about, and how often.
CORPUS_MIX = {
    "caption": 20,
    "vqa": 32,
    "refer": 14,
    "audio_caption": 8,
    "audio_qa": 9,
    "picture_talk": 8,
    "sound_talk": 3,
    "both_talk": 4,
    "small_talk": 2,
}


def corpus_row(split: str, level: str, rng: random.Random) -> dict:
    """A conversation in which the picture or sound is told in words where its features will stand later."""
    task = rng.choices(tuple(CORPUS_MIX), tuple(CORPUS_MIX.values()))[0]
    lang = rng.choice(LANGUAGES)
    scene, noise = draw_scene(rng, split, level), draw_noise(rng, split)
    if task == "small_talk":
        messages = small_talk(lang, rng)
    elif task == "both_talk":
        messages = both_talk(scene, noise, lang, split, rng)
    elif task == "picture_talk":
        messages = picture_talk(scene, lang, split, rng, level == "scene")
    elif task == "sound_talk":
        messages = sound_talk(noise, lang, rng)
    else:
        messages = _one_round(task, scene, noise, lang, split, level, rng)
    first = messages[0]
    first["content"] = (
        first["content"]
        .replace(IMAGE_MARK, f"<Img>{say.scene_text(scene)}</Img>")
        .replace(AUDIO_MARK, f"<Aud>{say.sound_text(noise)}</Aud>")
    )
    return {"messages": messages, "language": lang, "task": task}


def _one_round(
    task: str, scene: Scene, noise: Noise, lang: str, split: str, level: str, rng: random.Random
) -> list[Message]:
    if task == "caption":
        asked, answer = "", say.caption(scene, lang)
    elif task == "vqa":
        found = say.questions(scene, lang, split, rng, 1, level == "scene")[0]
        asked, answer = found.text, found.answer
    elif task == "refer":
        thing = rng.choice(scene)
        asked, answer = say.expression(thing, scene, lang, rng), box_text(say.pixel_box(thing))
    elif task == "audio_caption":
        asked, answer = "", say.sound_caption(noise, lang)
    else:
        found = say.sound_questions(noise, lang, rng, 1)[0]
        asked, answer = found.text, found.answer
    mark = AUDIO_MARK if task.startswith("audio") else IMAGE_MARK
    prompt = rng.choice(PROMPTS[task][lang]).replace("{}", asked)
    return _messages([(prompt, answer)], mark)
