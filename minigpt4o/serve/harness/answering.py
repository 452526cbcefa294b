"""Open a checkpoint and answer samples: what every harness adapter shares. The way is that of our own evaluation."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import ConfigError, DataError, SkipSample
from minigpt4o.conversation.answers import ANSWER_RULES
from minigpt4o.conversation.batch import Decoding, Example
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.objects import in_original_frame
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.collate import collate
from minigpt4o.models.ranking import Likelihood, rank_batch
from minigpt4o.runners.build import positions_of
from minigpt4o.serve.inference import chat_config, open_chat
from minigpt4o.serve.opening import Source, build, source_of_path, source_of_preset

log = logging.getLogger(__name__)

MAX_NEW_TOKENS = 1024  # where neither task nor user says
# Other words for the fields of `Decoding`, and what harnesses set that has no meaning here.
_ALIASES = {"max_gen_toks": "max_new_tokens", "max_tokens": "max_new_tokens", "max_out_len": "max_new_tokens"}
_COUNTS = ("max_new_tokens", "min_new_tokens", "num_beams", "seed")
_FACTORS = ("temperature", "top_p", "repetition_penalty", "length_penalty")
_SPENT = ("until", "do_sample", *_ALIASES)
_told: set[str] = set()


def decoding_of_task(given: Mapping[str, Any], defaults: Decoding) -> tuple[Decoding, tuple[str, ...]]:
    """How a task wants its answers, and the strings at which they stop. Greedy unless the task asks for a draw.

    A temperature above 0 means a draw unless `do_sample` is false; 0 never does. Words nobody here knows are named
    once in the log. Raises ConfigError for values that cannot be.
    """
    values: dict[str, Any] = {_ALIASES.get(k, k): v for k, v in given.items() if v is not None}
    try:
        chosen: dict[str, Any] = {name: int(values[name]) for name in _COUNTS if name in values}
        chosen |= {name: float(values[name]) for name in _FACTORS if name in values}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"generation_kwargs {dict(given)}: {error}") from error
    heat = chosen.get("temperature")
    drawn = heat != 0 and bool(values.get("do_sample", (heat or 0) > 0))
    if not drawn:
        chosen.pop("temperature", None)
        chosen.pop("top_p", None)
    unknown = set(values) - set(_COUNTS) - set(_FACTORS) - set(_SPENT) - _told
    if unknown:
        _told.update(unknown)
        log.warning("generation_kwargs without a meaning for this model are left out: %s", ", ".join(sorted(unknown)))
    until = values.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(until)
    return replace(defaults, do_sample=drawn, **chosen), tuple(stop for stop in stops if stop)


@dataclass
class Answerer:
    """A model with its sample encoder. Answers do not depend on how samples are put into batches."""

    model: Any
    encoder: SampleEncoder
    separator: str = ""  # between media and the words behind them, as in the training data
    system: str = ""  # said before everything
    skipped: Counter[str] = field(default_factory=Counter)  # samples that could not be asked, by reason

    def __post_init__(self) -> None:
        """The encoder refuses, by name, what leaves no place for an answer."""
        self.encoder.positions, self.encoder.answer_room = positions_of(self.model), 1

    @classmethod
    def open(
        cls,
        path: str | Path,
        checkpoint: str | None = None,
        *,
        profile: str = "",
        device: str = "auto",
        options: Sequence[str] = (),
        weights: str | Path | None = None,
    ) -> Answerer:
        """`path`: a YAML (chat, evaluation, training), a checkpoint, run or job folder, or a preset, `arch:model_type`.

        `checkpoint`: laid over what the YAML names. `profile`: `compat` = the reference's prompts. `options`: as
        `--options` on the command line. Raises ConfigError with everything that is missing.
        """
        source = _source(str(path), checkpoint, options, profile)
        chat = open_chat(build(source, device, weights), chat_config(source.settings))
        return cls(chat.model, chat.encoder, chat.separator, chat.system)

    def answer(self, samples: Sequence[Sample], decoding: Decoding, until: Sequence[str] = ()) -> list[str]:
        """One answer a sample, cleaned by the template's rule, boxes in the frame of the picture as it was sent.

        A sample whose media cannot be opened, or that is too long, is named in the log and answered by "".
        """
        examples: dict[int, Example] = {}
        for place, sample in enumerate(samples):
            try:
                examples[place] = self._example(sample)
            except SkipSample as skip:
                self.skipped[skip.reason] += 1
                log.warning("not asked, counted as answered by nothing: %s (%s)", skip.detail, skip.reason)
        answers = [""] * len(samples)
        if not examples:
            return answers
        template = self.encoder.template.serving
        raw = self.model.generate(self._batch(examples), decoding, stop=(*template.stop, *until))
        for (place, example), text in zip(examples.items(), raw, strict=True):
            answers[place] = in_original_frame(ANSWER_RULES[template.answer](text), example.frame)
        return answers

    def likelihoods(self, samples: Sequence[Sample], answers: Sequence[Sequence[str]]) -> list[list[Likelihood]]:
        """How likely each sample's given answers are, the template's end included; a prompt runs once for all of them.

        Raises DataError for a sample that cannot be asked: there is no likelihood that would count as wrong.
        """
        examples: dict[int, Example] = {}
        for place, sample in enumerate(samples):
            try:
                examples[place] = self._example(sample)
            except SkipSample as skip:
                raise DataError(f"{skip.detail} ({skip.reason}); leave it out of the task") from skip
        ids = [[self.encoder.answer_ids(answer) for answer in given] for given in answers]
        return rank_batch(self.model, self._batch(examples), ids)

    def _example(self, sample: Sample) -> Example:
        for kind, media in (("image", sample.images), ("audio", sample.audios)):
            if media and kind not in self.encoder.processors:
                known = ", ".join(self.encoder.processors) or "nothing but text"
                raise DataError(
                    f"{sample.where}: the task sends {kind}, but this model is set up for {known}; choose other tasks, "
                    f"or a YAML with an encoder and a processor for {kind}"
                )
        return self.encoder.prompt(sample, random.Random(0))

    def _batch(self, examples: Mapping[int, Example]) -> Any:
        batch = collate(list(examples.values()), self.model.tokenizer.pad_token_id or 0, side="left")
        return batch.to(self.model.device)


def _source(path: str, checkpoint: str | None, options: Sequence[str], profile: str) -> Source:
    if not path:
        raise ConfigError("no model is named: give path=<YAML, run or checkpoint folder, or arch:model_type>")
    if not Path(path).expanduser().exists() and ":" in path and "/" not in path:
        arch, model_type = path.split(":", 1)
        return source_of_preset(arch, model_type, checkpoint, options, profile)
    return source_of_path(path, checkpoint, options, profile)
