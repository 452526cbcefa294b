"""From checked settings to the parts that walk: model, data set builders, sample encoders, task."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.sample import Sample
from minigpt4o.conversation.template import load_template
from minigpt4o.datasets.base import fingerprint_of

if TYPE_CHECKING:
    from torch import nn

    from minigpt4o.common.config import Settings

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
        builder = registry.build(_thinned(spec), name=name, split=split)
        cleaner = spec.text_processor.get("train" if split == "train" else "eval")
        found[name] = builder if cleaner is None else CleanedAnswers(builder, registry.build(cleaner), name)
    if not found:
        raise ConfigError(f"no data set under `datasets` ({', '.join(chosen) or 'none given'}) has a {split!r} split")
    return found


class CleanedAnswers:
    """A builder whose learned texts go through the data set's text processor, as LAVIS does with captions."""

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
    template = load_template(model.template)
    which = "train" if split == "train" else "eval"
    encoders = {}
    for name, spec in settings.datasets.items():
        processors = {}
        for kind, field in PROCESSOR_FIELDS.items():
            chosen = getattr(spec, field).get(which)
            if chosen is not None:
                processors[kind] = registry.build(chosen)
        encoders[name] = SampleEncoder(model.tokenizer, template, model.slots, processors, model.max_txt_len)
    return encoders


def build_task(settings: Settings) -> Any:
    """The task of the run."""
    return registry.build(settings.run["task"])
