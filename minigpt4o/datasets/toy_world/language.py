"""Say what a scene or a sound of the toy world holds: captions, questions with answers, expressions, scene texts."""

from __future__ import annotations

import random
from dataclasses import dataclass

from minigpt4o.conversation.boxes import box_text
from minigpt4o.conversation.sample import Box
from minigpt4o.datasets.toy_world.words import COLOUR_ANSWER, NAMES, OBJECTS, TIMES, TIMES_ANSWER, YES_NO
from minigpt4o.datasets.toy_world.world import COLOURS, KINDS, PITCHES, SHAPES, SIDE, Noise, Scene, Thing


@dataclass(frozen=True)
class Question:
    """A question with its one answer; `type` is what it asks for."""

    text: str
    answer: str
    type: str


# --- captions ---------------------------------------------------------------------------------------------------


def caption(scene: Scene, lang: str) -> str:
    """All objects in reading order: "a big red circle at the top left and a small blue star at the bottom"."""
    if lang == "ja":
        return "、".join(f"{NAMES['ja'][t.place]}に{_full(t, 'ja')}" for t in scene)
    phrases = [_an(_full(t, "en")) + " " + _at(t.place) for t in scene]
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


def grounded_caption(scene: Scene, lang: str) -> str:
    """The caption with a box behind each object: "<p>a big red circle</p> {<5><8><40><43>} at the top left"."""
    boxes = [box_text(pixel_box(t)) for t in scene]
    if lang == "ja":
        said = [f"{NAMES['ja'][t.place]}に<p>{_full(t, 'ja')}</p> {box}" for t, box in zip(scene, boxes, strict=True)]
        return "、".join(said)
    said = [f"<p>{_an(_full(t, 'en'))}</p> {box} {_at(t.place)}" for t, box in zip(scene, boxes, strict=True)]
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def attributes(scene: Scene, lang: str) -> list[list[str]]:
    """For each object its size, colour, shape and place, as the caption says them."""
    return [[NAMES[lang][word] for word in (t.size, t.colour, t.shape, t.place)] for t in scene]


def sound_caption(noise: Noise, lang: str) -> str:
    """ "a high bell three times", 「高いベルの音が三回」."""
    pitch, kind, times = sound_attributes(noise, lang)
    return f"{pitch}{kind}が{times}" if lang == "ja" else f"{_an(pitch)} {kind} {times}"


def sound_attributes(noise: Noise, lang: str) -> list[str]:
    """Pitch, kind and number, as the caption says them."""
    return [NAMES[lang][noise.pitch], NAMES[lang][noise.kind], TIMES[lang][noise.count]]


def scene_text(scene: Scene, lang: str) -> str:
    """What stands in place of the picture in the language corpus."""
    name, gap = NAMES[lang], "" if lang == "ja" else " "
    told = [gap + gap.join((name[t.size], name[t.colour], name[t.shape])) for t in scene]
    return ";".join(
        f"{words} {box_text(pixel_box(t))}{gap}{name[t.place]}" for words, t in zip(told, scene, strict=True)
    )


def sound_text(noise: Noise, lang: str) -> str:
    """What stands in place of the sound in the language corpus."""
    gap = "" if lang == "ja" else " "
    words = (*sound_attributes(noise, lang), TIMES_ANSWER[lang][noise.count])
    return gap + gap.join(words)


def pixel_box(thing: Thing) -> Box:
    return Box(thing.box, (SIDE, SIDE), f"{thing.colour} {thing.shape}")


DRAWN = 2  # a person's box misses the object's by at most this many pixels on each side


def drawn_box(thing: Thing, rng: random.Random) -> Box:
    """The box of an object as a person draws it: each side somewhat off."""
    x1, y1, x2, y2 = (side + rng.randint(-DRAWN, DRAWN) for side in thing.box)
    corners = (max(x1, 0), max(y1, 0), min(x2, SIDE), min(y2, SIDE))
    return Box(corners, (SIDE, SIDE), f"{thing.colour} {thing.shape}")


def full_name(thing: Thing, lang: str) -> str:
    """ "a big red circle", 「大きい赤い丸」."""
    return _full(thing, lang) if lang == "ja" else _an(_full(thing, lang))


# --- expressions that mean exactly one object of the scene (shapes, colours and places all differ) -----------------


def expression(thing: Thing, scene: Scene, lang: str, rng: random.Random) -> str:
    """A referring expression; every way of saying it is unambiguous."""
    way = rng.choice(("full", "full", "shape", "colour", "place"))
    return _refer(thing, lang, way)


def _refer(thing: Thing, lang: str, way: str) -> str:
    name = NAMES[lang]
    if lang == "ja":
        return {
            "full": f"{name[thing.colour]}{name[thing.shape]}",
            "shape": name[thing.shape],
            "colour": f"{name[thing.colour]}物",
            "place": f"{name[thing.place]}の物",
            "any": "物",
        }[way]
    return {
        "full": f"the {name[thing.colour]} {name[thing.shape]}",
        "shape": f"the {name[thing.shape]}",
        "colour": f"the {name[thing.colour]} object",
        "place": f"the object {_at(thing.place)}",
        "any": "the object",
    }[way]


def _full(thing: Thing, lang: str) -> str:
    words = [NAMES[lang][word] for word in (thing.size, thing.colour, thing.shape)]
    return "".join(words) if lang == "ja" else " ".join(words)


def _an(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _at(place: str) -> str:
    return "in the middle" if place == "middle" else f"at the {place}"


# --- questions about a picture -----------------------------------------------------------------------------------

ASK = {
    "en": {
        "colour": "what colour is {}?",
        "shape": "what shape is {}?",
        "size": "is {} big or small?",
        "place": "where is {}?",
        "count": "how many objects are there?",
        "exist": "is there {}?",
    },
    "ja": {
        "colour": "{}は何色ですか？",
        "shape": "{}は何の形ですか？",
        "size": "{}は大きいですか、小さいですか？",
        "place": "{}はどこにありますか？",
        "count": "物はいくつありますか？",
        "exist": "{}はありますか？",
    },
}
# By what an object may be named when this is asked of it.
WAYS = {
    "colour": ("shape", "place"),
    "shape": ("colour", "place"),
    "size": ("shape", "colour", "full", "place"),
    "place": ("shape", "colour", "full"),
}
QUESTION_TYPES = ("colour", "shape", "size", "place", "count", "exist")


def questions(scene: Scene, lang: str, rng: random.Random, count: int, relations: bool) -> list[Question]:
    """`count` questions of different types. With `relations` some ask what lies beside an object."""
    types: list[str] = rng.sample(QUESTION_TYPES, count)
    asked = [question(scene, lang, rng, type) for type in types]
    if relations and len(scene) > 1 and rng.random() < 0.6:
        found = _relation(scene, lang, rng)
        if found is not None:
            asked[rng.randrange(count)] = found
    return asked


def question(scene: Scene, lang: str, rng: random.Random, type: str) -> Question:
    """One question of a type about one object of the scene, or about the whole of it."""
    if type == "count":
        return Question(ASK[lang]["count"], OBJECTS[lang][len(scene) - 1], type)
    if type == "exist":
        return _exist(scene, lang, rng)
    thing = rng.choice(scene)
    ways = WAYS[type] + (("any",) if len(scene) == 1 else ())
    asked = ASK[lang][type].format(_refer(thing, lang, rng.choice(ways)))
    names = COLOUR_ANSWER[lang] if type == "colour" else NAMES[lang]
    return Question(asked, names[getattr(thing, type)], type)


def _exist(scene: Scene, lang: str, rng: random.Random) -> Question:
    """Yes or no with equal chance."""
    yes, no = YES_NO[lang]
    true = rng.random() < 0.5
    way = rng.choice(("shape", "shape", "colour", "colour", "full"))
    if true:
        shape, colour = (thing := rng.choice(scene)).shape, thing.colour
    else:
        shape, colour = _absent(scene, way, rng)
    name = NAMES[lang]
    if lang == "ja":
        words = {"shape": name[shape], "colour": f"{name[colour]}物", "full": f"{name[colour]}{name[shape]}"}[way]
    else:
        words = {"shape": name[shape], "colour": f"{name[colour]} object", "full": f"{name[colour]} {name[shape]}"}[way]
        words = _an(words)
    return Question(ASK[lang]["exist"].format(words), yes if true else no, "exist")


def _absent(scene: Scene, way: str, rng: random.Random) -> tuple[str, str]:
    """A (shape, colour) that is not there; by "full", half of them share shape or colour with one that is."""
    shapes, colours = {t.shape for t in scene}, {t.colour for t in scene}
    if way != "full":
        return rng.choice([s for s in SHAPES if s not in shapes]), rng.choice([c for c in COLOURS if c not in colours])
    there = {(t.shape, t.colour) for t in scene}
    near = rng.random() < 0.5
    pairs = [(s, c) for s in SHAPES for c in COLOURS if (s, c) not in there]
    return rng.choice([(s, c) for s, c in pairs if ((s in shapes) or (c in colours)) == near])


RELATIONS = {  # name -> (axis, sign), English, Japanese
    "left": (0, -1, "what is left of {}?", "{}の左には何がありますか？"),
    "right": (0, 1, "what is right of {}?", "{}の右には何がありますか？"),
    "above": (1, -1, "what is above {}?", "{}の上には何がありますか？"),
    "below": (1, 1, "what is below {}?", "{}の下には何がありますか？"),
}
APART = 10  # pixels between centres before one thing is called left of another


def _relation(scene: Scene, lang: str, rng: random.Random) -> Question | None:
    """What lies left of, right of, above or below an object, where exactly one thing does; None if none does."""
    choices = []
    for thing in scene:
        for axis, sign, en, ja in RELATIONS.values():
            beside = [t for t in scene if sign * (t.centre[axis] - thing.centre[axis]) > APART]
            if len(beside) == 1:
                text = (ja if lang == "ja" else en).format(_refer(thing, lang, "full"))
                choices.append(Question(text, _refer(beside[0], lang, "full").removeprefix("the "), "relation"))
    return rng.choice(choices) if choices else None


# --- questions about a sound -------------------------------------------------------------------------------------

ASK_SOUND = {
    "en": {
        "kind": "what sound is it?",
        "pitch": "is the sound high or low?",
        "count": "how many times do you hear the sound?",
        "exist": "do you hear {}?",
    },
    "ja": {
        "kind": "何の音ですか？",
        "pitch": "音は高いですか、低いですか？",
        "count": "音は何回聞こえますか？",
        "exist": "{}は聞こえますか？",
    },
}
SOUND_TYPES = ("kind", "pitch", "count", "exist")


def sound_questions(noise: Noise, lang: str, rng: random.Random, count: int) -> list[Question]:
    """`count` questions of different types about a sound."""
    return [sound_question(noise, lang, rng, type) for type in rng.sample(SOUND_TYPES, count)]


def sound_question(noise: Noise, lang: str, rng: random.Random, type: str) -> Question:
    if type == "exist":
        return _sound_exists(noise, lang, rng)
    answer = TIMES_ANSWER[lang][noise.count] if type == "count" else NAMES[lang][getattr(noise, type)]
    return Question(ASK_SOUND[lang][type], answer, type)


def _sound_exists(noise: Noise, lang: str, rng: random.Random) -> Question:
    yes, no = YES_NO[lang]
    true, with_pitch = rng.random() < 0.5, rng.random() < 0.2
    kind, pitch = noise.kind, noise.pitch
    if not true:
        if with_pitch and rng.random() < 0.5:
            pitch = PITCHES[1 - PITCHES.index(pitch)]
        else:
            kind = rng.choice([k for k in KINDS if k != kind])
    name = NAMES[lang]
    words = [name[pitch], name[kind]] if with_pitch else [name[kind]]
    said = "".join(words) if lang == "ja" else _an(" ".join(words))
    return Question(ASK_SOUND[lang]["exist"].format(said), yes if true else no, "exist")
