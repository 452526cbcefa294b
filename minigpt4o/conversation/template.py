"""A chat template is data: what stands before and after each speaker's words and each medium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, get_args

from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.answers import ANSWER_RULES
from minigpt4o.conversation.marks import split_at_marks
from minigpt4o.conversation.sample import MARKS, Turn
from minigpt4o.conversation.template_file import (
    TEMPLATES,
    find_template,
    overlaid,
    read_template,
    reference_words,
    template_names,
)

__all__ = ["TEMPLATES", "Around", "Profile", "Segment", "Template", "load_template", "template_names"]

SegmentKind = Literal["control", "said", "learned", "image", "audio"]
Profile = Literal["default", "compat"]  # compat: equal to the reference id for id, its faults included
LITERAL_BOS = "<s>"  # what the reference writes before every later question of a conversation


@dataclass(frozen=True)
class Around:
    """Text put before and after something."""

    before: str = ""
    after: str = ""
    lead: str = ""  # learned with an assistant's words, in front of them: " " makes its first word cut like any other
    again: str | None = None  # stands in place of `before` where an answer has just ended; None: `before`
    behind_system: str | None = None  # stands in place of `before` behind the system's words; None: `before`


@dataclass(frozen=True)
class Segment:
    """A piece of a rendered conversation.

    `control` is the template's own text (its special tokens count as such), `said` is what a person or a data set
    wrote outside the learned turns (special tokens in it are plain text), `learned` is an assistant's turn, whose
    `end` closes it and is learned too; `image` and `audio` are places of media.
    """

    kind: SegmentKind
    text: str = ""
    end: str = ""


@dataclass(frozen=True)
class Template:
    """How turns become text. Source of a file: `conversation/templates/<name>.yaml`."""

    name: str
    roles: dict[str, Around]  # system, user, assistant
    media: dict[str, Around]  # image, audio
    bos: bool = True  # start the row with the tokenizer's BOS, if it has one
    system: str = ""  # said first if the conversation brings no system turn of its own
    stop: tuple[str, ...] = field(default_factory=tuple)  # an answer ends before any of these, or at EOS
    profile: Profile = "default"
    # Only where the reference serves otherwise than it trains:
    joined: bool = False  # cut the text between two media as one string, special tokens found anywhere in it
    forgets: bool = False  # earlier answers are left out, only their ends stay
    answer: str = ""  # how a generated answer is cleaned: a key of answers.ANSWER_RULES
    serve: Template | None = None

    @property
    def serving(self) -> Template:
        """What prompts for generation are rendered with: this template itself in the default profile."""
        return self.serve or self

    def render(self, turns: Sequence[Turn], *, open_answer: bool = False) -> list[Segment]:
        """The conversation as segments; with `open_answer` it ends where the assistant is about to speak.

        What this gives for a prompt is a prefix of what it gives for the whole conversation.
        """
        if self.system and not (turns and turns[0].role == "system"):
            turns = [Turn("system", self.system), *turns]
        segments: list[Segment] = []
        last = ""
        for turn in turns:
            segments.append(self._opening(turn.role, last))
            last = turn.role
            answered = last == "assistant"
            around = self.roles[turn.role]
            if answered:
                words = "" if self.forgets else turn.text
                segments.append(Segment("learned", around.lead + words, around.after))
            else:
                segments += self._said(turn.text)
                segments.append(Segment("control", around.after))
        if open_answer:
            segments.append(self._opening("assistant", last))
        return [s for s in segments if s.text or s.kind not in ("control", "said")]

    def _opening(self, role: str, last: str) -> Segment:
        """What stands before the words of `role`, behind a turn of the role `last`."""
        around = self.roles[role]
        special = {"assistant": around.again, "system": around.behind_system}.get(last)
        return Segment("control", around.before if special is None else special)

    def _said(self, text: str) -> list[Segment]:
        kinds = {mark: kind for kind, mark in MARKS.items()}
        segments: list[Segment] = []
        for piece in split_at_marks(text):
            if piece in kinds:
                around = self.media[kinds[piece]]
                segments += [Segment("control", around.before), Segment(kinds[piece])]
                segments.append(Segment("control", around.after))
            else:
                segments.append(Segment("said", piece))
        return segments


@lru_cache(maxsize=64)
def load_template(name: str, profile: Profile = "default", prompt_template: str = "", end_sym: str = "") -> Template:
    """A template by its name, or by the path of a YAML file of the same form.

    `prompt_template` and `end_sym` are the reference's words ("###Human: {} ###Assistant: ", "###"); "" is not set.
    If both together are those of a known template, that template is meant. Else they replace the template's own words
    around a user's text and after an assistant's.
    Raises ConfigError if there is no such template, or if a key of it is unknown or missing.
    """
    if profile not in get_args(Profile):
        raise ConfigError(f"unknown profile {profile!r}; known: {', '.join(get_args(Profile))}")
    if prompt_template and prompt_template.count("{}") != 1:
        raise ConfigError(f"prompt_template {prompt_template!r} must hold {{}} once: the place of a user's words")
    meant = reference_words().get(("" if prompt_template == "{}" else prompt_template, end_sym))
    if meant is not None:
        name, prompt_template, end_sym = meant, "", ""
    path = find_template(name)
    tree = read_template(path)
    if profile == "default":
        return _with_words(_template(path.stem, tree, profile), prompt_template, end_sym)
    overlays = tree.get("compat", {})
    train = _template(path.stem, overlaid(tree, overlays.get("train", {})), profile)
    train = _with_words(train, prompt_template, end_sym)
    if "serve" not in overlays:
        return train
    return replace(train, serve=_template(path.stem, overlaid(tree, overlays["serve"]), profile))


def _template(name: str, tree: Mapping[str, Any], profile: Profile) -> Template:
    answer = tree.get("answer", "")
    if answer not in ANSWER_RULES:
        raise ConfigError(f"template {name}: answer is {answer!r}, but must be one of {', '.join(ANSWER_RULES)}")
    roles, media = tree["roles"], tree.get("media") or {}
    return Template(
        name=name,
        roles={role: Around(**roles.get(role, {})) for role in ("system", "user", "assistant")},
        media={kind: Around(**media.get(kind, {})) for kind in MARKS},
        bos=tree.get("bos", True),
        system=tree.get("system", ""),
        stop=tuple(tree.get("stop", ())),
        profile=profile,
        joined=tree.get("joined", False),
        forgets=tree.get("forgets", False),
        answer=answer,
    )


def _with_words(template: Template, prompt_template: str, end_sym: str) -> Template:
    """The template with the reference's words in place of its own; "" leaves them as they are."""
    roles, stop = dict(template.roles), template.stop
    end = end_sym or roles["assistant"].after
    if end_sym:
        own = roles["assistant"].after
        stop = tuple(dict.fromkeys([*(word for word in stop if word != own), end_sym]))
        roles["assistant"] = replace(roles["assistant"], after=end_sym)
    if prompt_template:
        before, after = prompt_template.split("{}")
        if template.profile == "compat":
            again: str | None = LITERAL_BOS + before
        else:  # the end symbol of the last answer may be the beginning of the next question
            again = before[len(end) :] if end and before.startswith(end) else None
        roles["user"] = Around(before, after, again=again)
        roles["assistant"] = replace(roles["assistant"], before="", again=None)
    return replace(template, roles=roles, stop=stop)
