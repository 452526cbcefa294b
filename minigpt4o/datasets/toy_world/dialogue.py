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


def picture_talk(scene: Scene, lang: str, rng: random.Random, relations: bool = False) -> list[Message]:
    """Two or three rounds about one picture; the first may ask for a description."""
    rounds = rng.randint(2, 3)
    pairs = [(q.text, q.answer) for q in say.questions(scene, lang, rng, rounds, relations)]
    if rng.random() < 0.3:
        pairs[0] = (rng.choice(PROMPTS["caption"][lang]), say.caption(scene, lang))
    return _messages(pairs, IMAGE_MARK)


def sound_talk(noise: Noise, lang: str, rng: random.Random) -> list[Message]:
    """Two or three rounds about one sound."""
    pairs = [(q.text, q.answer) for q in say.sound_questions(noise, lang, rng, rng.randint(2, 3))]
    if rng.random() < 0.3:
        pairs[0] = (rng.choice(PROMPTS["audio_caption"][lang]), say.sound_caption(noise, lang))
    return _messages(pairs, AUDIO_MARK)


def both_talk(scene: Scene, noise: Noise, lang: str, rng: random.Random) -> list[Message]:
    """Two or three rounds about a picture and a sound given together: at least one round about each."""
    seen = say.question(scene, lang, rng, rng.choice(say.QUESTION_TYPES))
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
CORPUS_MIX = {"picture": 66, "sound": 18, "both": 12, "small_talk": 4}
CORPUS_OBJECTS = (1, 2, 2, 3)  # objects of a scene that is only told: more of them make the reader choose
CORPUS_ROUNDS = 6  # many questions about one scene: more to learn for the same reading
# Whether a thing is there is hardest to read; captions with boxes are longest, and cost most.
PICTURE_ROUNDS = {"caption": 4, "refer": 6, "identify": 3, "grounding": 1, "question": 15, "exist": 9}
SOUND_ROUNDS = {"caption": 1, "question": 3, "exist": 1}


def corpus_row(split: str, level: str, rng: random.Random) -> dict:
    """A conversation in which the picture or sound is told in words where its features will stand later."""
    about = rng.choices(tuple(CORPUS_MIX), tuple(CORPUS_MIX.values()))[0]
    lang = rng.choice(LANGUAGES)
    if about == "small_talk":
        return {"messages": small_talk(lang, rng), "language": lang, "task": about}
    scene, noise = draw_scene(rng, split, level, rng.choice(CORPUS_OBJECTS)), draw_noise(rng, split)
    told, pairs = "", []
    if about != "sound":
        told += f"<Img>{say.scene_text(scene, lang)}</Img>"
        pairs += [_picture_round(scene, lang, rng, level) for _ in range(CORPUS_ROUNDS)]
    if about != "picture":
        told += f"<Aud>{say.sound_text(noise, lang)}</Aud>"
        pairs += [_sound_round(noise, lang, rng) for _ in range(CORPUS_ROUNDS - 2)]
    if about == "both":
        rng.shuffle(pairs)
        pairs = pairs[:CORPUS_ROUNDS]
    return {"messages": _messages(pairs, told), "language": lang, "task": about}


def _picture_round(scene: Scene, lang: str, rng: random.Random, level: str) -> tuple[str, str]:
    task = rng.choices(tuple(PICTURE_ROUNDS), tuple(PICTURE_ROUNDS.values()))[0]
    if task == "caption":
        return rng.choice(PROMPTS["caption"][lang]), say.caption(scene, lang)
    if task == "refer":
        thing = rng.choice(scene)
        asked = rng.choice(PROMPTS["refer"][lang]).replace("{}", say.expression(thing, scene, lang, rng))
        return asked, box_text(say.pixel_box(thing))
    if task == "identify":
        thing = rng.choice(scene)
        box = box_text(say.drawn_box(thing, rng))
        return rng.choice(PROMPTS["identify"][lang]).replace("{}", box), say.full_name(thing, lang)
    if task == "grounding":
        return rng.choice(PROMPTS["grounding"][lang]), say.grounded_caption(scene, lang)
    if task == "exist":
        found = say.question(scene, lang, rng, task)
    else:
        found = say.questions(scene, lang, rng, 1, level == "scene")[0]
    return found.text, found.answer


def _sound_round(noise: Noise, lang: str, rng: random.Random) -> tuple[str, str]:
    task = rng.choices(tuple(SOUND_ROUNDS), tuple(SOUND_ROUNDS.values()))[0]
    if task == "caption":
        return rng.choice(PROMPTS["audio_caption"][lang]), say.sound_caption(noise, lang)
    if task == "exist":
        found = say.sound_question(noise, lang, rng, task)
    else:
        found = say.sound_questions(noise, lang, rng, 1)[0]
    return found.text, found.answer
