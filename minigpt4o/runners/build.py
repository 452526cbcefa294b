"""From checked settings to the parts that walk: model, data set builders, sample encoders, task."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.nodes import DatasetSpec
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.encode import MAX_CONTEXT_LEN, SampleEncoder
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.base import fingerprint_of

if TYPE_CHECKING:
    from torch import nn

    from minigpt4o.common.config import Settings

log = logging.getLogger(__name__)

# Which field of a data set's node opens which kind of media.
PROCESSOR_FIELDS = {"image": "vis_processor", "audio": "audio_processor"}


def build_model(settings: Settings) -> nn.Module:
    """The model with its weights loaded, in the number format that `run.precision` (or LAVIS's `run.amp`) asks for."""
    chosen = settings.model
    wanted = wanted_precision(settings.run.values)
    known = {field.name for field in registry.entry("model", chosen.name).fields}
    if wanted != "auto" and "precision" in known and chosen.values.get("precision", "auto") == "auto":
        chosen = replace(chosen, values={**chosen.values, "precision": wanted})
    model: nn.Module = registry.build(chosen)
    return model


def wanted_precision(run: Mapping[str, Any]) -> str:
    """`auto`, `fp32` or `bf16`; `amp: false` means fp32 unless a precision is named."""
    precision = str(run.get("precision", "auto"))
    return "fp32" if precision == "auto" and run.get("amp") is False else precision


def build_builders(settings: Settings, split: str, names: Iterable[str] | None = None) -> dict[str, Any]:
    """One builder per data set that has this split, in the order of the configuration.

    `names` narrows the choice. Raises ConfigError when no data set is left.
    """
    chosen = list(settings.datasets) if names is None else list(names)
    found = {}
    for name in chosen:
        if name not in settings.datasets:
            known = ", ".join(settings.datasets) or "none"
            raise ConfigError(f"data set {name!r} is not under `datasets`; there are: {known}")
        spec = settings.datasets[name]
        if not has_split(spec.builder, split):
            continue
        found[name] = build_builder(spec, split)
    if not found:
        raise ConfigError(f"no data set under `datasets` ({', '.join(chosen) or 'none given'}) has a {split!r} split")
    return found


def build_builder(spec: DatasetSpec, split: str) -> Any:
    """The builder of one data set and split, its texts cleaned as in training. Raises DataError."""
    try:
        builder = registry.build(_thinned(spec), name=spec.name, split=split)
    except OSError as error:
        raise DataError(f"datasets.{spec.name}: its files cannot be read: {error}") from error
    return _cleaning(builder, spec, split)


def _cleaning(builder: Any, spec: DatasetSpec, split: str) -> Any:
    """The builder with its texts sent through the data set's text processor; in compat as the reference does it."""
    cleaner, which = spec.text_processor.get("train" if split == "train" else "eval"), spec.clean
    if spec.clean_compat is not None and spec.builder.values.get("profile") == "compat":
        cleaner, which = cleaner or Part("processor", "blip_caption"), spec.clean_compat
    if cleaner is None or not which:
        if cleaner is not None and spec.clean_compat:
            log.info("datasets.%s: text_processor %s cleans only in profile compat", spec.name, cleaner.name)
        return builder
    if hasattr(builder, "wording"):
        builder.wording.clean_with(registry.build(cleaner), which)
        return builder
    if list(which) != ["answer"]:
        raise ConfigError(f"datasets.{spec.name}.clean: builder {spec.builder.name!r} can clean answers only")
    return CleanedAnswers(builder, registry.build(cleaner), spec.name)


class CleanedAnswers:
    """A builder whose learned texts go through the data set's text processor; it does not do so itself."""

    def __init__(self, builder: Any, cleaner: Callable[[str], str], name: str) -> None:
        self.builder, self.cleaner, self.name = builder, cleaner, name

    def __len__(self) -> int:
        return len(self.builder)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """The inner sample, its assistant's turns cleaned."""
        found: Sample = self.builder.sample(index, rng)
        turns = [replace(t, text=self.cleaner(t.text)) if t.role == "assistant" else t for t in found.turns]
        return replace(found, turns=turns)

    def fingerprint(self) -> str:
        return fingerprint_of(self.builder)

    def __getattr__(self, name: str) -> Any:
        """What only some builders have: an order of their own, lengths, kinds of media."""
        if name.startswith("__") or name == "builder":
            raise AttributeError(name)
        return getattr(self.builder, name)


def _thinned(spec: Any) -> Part:
    """The builder's node, with the data set's `max_samples` if the builder knows how."""
    chosen: Part = spec.builder
    known = {field.name for field in registry.entry("builder", chosen.name).fields}
    if spec.max_samples is None or chosen.values.get("max_samples"):
        return chosen
    if "max_samples" not in known:
        raise ConfigError(f"datasets.{spec.name}.max_samples: builder {chosen.name!r} cannot take only some samples")
    return replace(chosen, values={**chosen.values, "max_samples": spec.max_samples})


def has_split(builder: Part, split: str) -> bool:
    """Whether the node names annotations, or folds of one file, for this split."""
    annotations = builder.values.get("annotations")
    if not isinstance(annotations, Mapping) or split in annotations:
        return True  # a builder that keeps no annotations is asked when it is built
    if "all" not in annotations:
        return False
    return split == "train" or bool(builder.values.get(f"{split}_folds"))


def build_encoders(settings: Settings, model: Any, split: str) -> dict[str, SampleEncoder]:
    """One sample encoder per data set: they share tokenizer and template and differ in their processors."""
    which = "train" if split == "train" else "eval"
    encoders = {}
    for name, spec in settings.datasets.items():
        processors = {}
        for kind, field in PROCESSOR_FIELDS.items():
            chosen = getattr(spec, field).get(which)
            if chosen is not None:
                processors[kind] = registry.build(chosen)
        encoders[name] = open_encoder(
            model.tokenizer,
            model.conversation,
            model.slots,
            processors,
            model.max_txt_len,
            positions=positions_of(model),
            answer_room=0 if split == "train" else answer_room(spec),
            max_context_len=getattr(model.config, "max_context_len", MAX_CONTEXT_LEN),
        )
    return encoders


def positions_of(model: Any) -> int:
    """How many places a row of this model may have; 0 if its language model does not say."""
    return int(getattr(getattr(model, "llm", None), "max_positions", None) or 0)


def answer_room(spec: Any) -> int:
    """Places that a prompt of this data set leaves free for its answer: as many as its task generates at most."""
    decoding = getattr(registry.build(spec.task), "decoding", None) if spec.task is not None else None
    return int(decoding.max_new_tokens) if decoding is not None else 0


def build_task(settings: Settings) -> Any:
    """The task of the run."""
    return registry.build(settings.run["task"])
