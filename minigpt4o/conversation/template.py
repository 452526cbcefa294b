"""A chat template is data: what stands before and after each speaker's words and each medium."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.source import nearest
from minigpt4o.conversation.marks import split_at_marks
from minigpt4o.conversation.sample import MARKS, Turn

TEMPLATES = Path(__file__).parent / "templates"
SegmentKind = Literal["control", "said", "learned", "image", "audio"]


@dataclass(frozen=True)
class Around:
    """Text put before and after something."""

    before: str = ""
    after: str = ""
    lead: str = ""  # learned with an assistant's words, in front of them: " " makes its first word cut like any other


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

    def render(self, turns: Sequence[Turn], *, open_answer: bool = False) -> list[Segment]:
        """The conversation as segments; with `open_answer` it ends where the assistant is about to speak.

        What this gives for a prompt is a prefix of what it gives for the whole conversation.
        """
        if self.system and not (turns and turns[0].role == "system"):
            turns = [Turn("system", self.system), *turns]
        segments: list[Segment] = []
        for turn in turns:
            around = self.roles[turn.role]
            segments.append(Segment("control", around.before))
            if turn.role == "assistant":
                segments.append(Segment("learned", around.lead + turn.text, around.after))
            else:
                segments += self._said(turn.text)
                segments.append(Segment("control", around.after))
        if open_answer:
            segments.append(Segment("control", self.roles["assistant"].before))
        return [s for s in segments if s.text or s.kind not in ("control", "said")]

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


def template_names() -> list[str]:
    """Names of the templates that come with the package."""
    return sorted(path.stem for path in TEMPLATES.glob("*.yaml"))


@lru_cache(maxsize=64)
def load_template(name: str) -> Template:
    """A template by its name, or by the path of a YAML file of the same form.

    Raises ConfigError if there is none, or if a key of it is unknown or missing.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else TEMPLATES / f"{name}.yaml"
    if not path.is_file():
        hint = nearest(name, template_names())
        mend = f"did you mean {hint[0]!r}?" if hint else f"known: {', '.join(template_names())}"
        raise ConfigError(f"unknown conversation template {name!r}; {mend}")
    from omegaconf import OmegaConf

    tree: Any = OmegaConf.to_container(OmegaConf.load(path))
    known = {"roles", "media", "bos", "system", "stop", "examples", "about"}
    unknown = sorted(set(tree) - known)
    if unknown:
        raise ConfigError(f"{path}: unknown key(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    for key, needed in (("roles", ("user", "assistant")), ("media", ())):
        missing = [n for n in needed if n not in (tree.get(key) or {})]
        if missing:
            raise ConfigError(f"{path}: `{key}` lacks {', '.join(missing)}")
    media: dict[str, Around] = {kind: Around(**(tree.get("media") or {}).get(kind, {})) for kind in MARKS}
    roles = {role: Around(**tree["roles"].get(role, {})) for role in ("system", "user", "assistant")}
    return Template(
        name=path.stem,
        roles=roles,
        media=media,
        bos=tree.get("bos", True),
        system=tree.get("system", ""),
        stop=tuple(tree.get("stop", ())),
    )
