"""VLMEvalKit's model interface, `vlmeval.vlm.base.BaseModel`; `run_vlmevalkit` starts it. See docs/harnesses.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmeval.vlm.base import BaseModel

from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.sample import Role
from minigpt4o.serve.harness.answering import MAX_NEW_TOKENS, Answerer, decoding_of_task
from minigpt4o.serve.harness.requests import Part, medium_part, sample_of


class Minigpt4o(BaseModel):  # type: ignore[misc]
    """A model of ours for VLMEvalKit: one message, words and pictures in any order, one greedy answer."""

    INSTALL_REQ = False
    INTERLEAVE = True
    VIDEO_LLM = False  # a film comes as its pictures, where the data set offers that
    allowed_types = ("text", "image", "audio", "video")  # a film is refused by us, in words

    def __init__(
        self,
        path: str = "",
        checkpoint: str | None = None,
        profile: str = "",
        device: str = "auto",
        separator: str | None = None,
        system: str | None = None,
        options: Sequence[str] = (),
        prompts: Mapping[str, str] | None = None,
        **generation: Any,
    ) -> None:
        """`path`, `checkpoint`, `profile`, `options`: see `Answerer.open`. `separator`, `system`: over the YAML's.

        `prompts`: data set -> wording in place of the data set's own, with columns of its table in braces:
        `{"OCRVQA_TESTCORE": "[vqa] {question}"}`. `generation`: max_new_tokens, until, temperature, num_beams, ...
        """
        super().__init__()
        self.answerer = Answerer.open(path, checkpoint, profile=profile, device=device, options=options)
        self.separator = self.answerer.separator if separator is None else separator
        self.system = self.answerer.system if system is None else system
        self.prompts = dict(prompts or {})
        self.decoding, self.until = decoding_of_task(generation, Decoding(max_new_tokens=MAX_NEW_TOKENS))

    def use_custom_prompt(self, dataset: str) -> bool:
        """Whether `prompts` words this data set; otherwise VLMEvalKit does."""
        return dataset in self.prompts

    def build_prompt(self, line: Any, dataset: str) -> list[dict[str, str]]:
        """A row's pictures, then the wording with the row's columns put in."""
        wording = self.prompts[dataset]
        try:
            words = wording.format_map(dict(line))
        except (KeyError, ValueError, IndexError) as error:
            columns = ", ".join(map(str, dict(line)))
            raise ConfigError(f"prompts[{dataset!r}] is {wording!r}: {error!r}; columns: {columns}") from error
        paths = self.dump_image(line, dataset)
        pictures = [paths] if isinstance(paths, str) else list(paths)
        return [*({"type": "image", "value": str(p)} for p in pictures), {"type": "text", "value": words}]

    def generate_inner(self, message: Sequence[Mapping[str, Any]], dataset: str | None = None) -> str:
        """The answer to a message of `{"type": "text" or "image", "value"}`."""
        said = [_part(item) for item in message if item.get("role") == "system"]
        asked = [_part(item) for item in message if item.get("role") != "system"]
        turns: list[tuple[Role, list[Part]]] = [("system", said)] if said else []
        return self._answer([*turns, ("user", asked)], dataset)

    def chat_inner(self, message: Sequence[Mapping[str, Any]], dataset: str | None = None) -> str:
        """The answer to a conversation of `{"role", "content": [items as above]}`."""
        return self._answer([(turn["role"], [_part(item) for item in turn["content"]]) for turn in message], dataset)

    def _answer(self, turns: list[tuple[Role, list[Part]]], dataset: str | None) -> str:
        if self.system and turns[0][0] != "system":
            turns = [("system", [("text", self.system)]), *turns]
        sample = sample_of(dataset or "a message", turns, self.separator)
        return self.answerer.answer([sample], self.decoding, self.until)[0]


def _part(item: Mapping[str, Any]) -> Part:
    kind, value = str(item["type"]), item["value"]
    return ("text", str(value)) if kind == "text" else medium_part(value, kind)
