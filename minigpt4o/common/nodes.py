"""The keys every data set has, whatever its builder: declared once, read by the configuration check and by the docs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from minigpt4o.common.registry import Part, part


@dataclass(kw_only=True)
class DatasetCommon:
    """Common part of a `datasets.<name>` node."""

    sample_ratio: float = 1.0  # weight of this set in the training mixture
    batch_size: int | None = None  # samples of this set per step and process; null: the runner's
    vis_processor: dict[Literal["train", "eval"], Part] = part("processor", many=True)  # pictures, by use: train, eval
    audio_processor: dict[Literal["train", "eval"], Part] = part("processor", many=True)  # sounds, by use: train, eval
    text_processor: dict[Literal["train", "eval"], Part] = part("processor", many=True)  # texts, by use: train, eval
    clean: list[Literal["question", "answer"]] = field(
        default_factory=lambda: ["answer"]
    )  # the texts that text_processor cleans, as often as they are named
    clean_compat: list[Literal["question", "answer"]] | None = (
        None  # the same in profile compat, where blip_caption does it if no text_processor is named; null: as `clean`
    )
    replacement: bool = False  # draw each sample independently, so that an epoch misses some and repeats others
    task: Part | None = part("task", default=None)  # what this set is scored as in an evaluation
    max_samples: int | None = None  # use only so many samples; null: all
    about: dict[Literal["licence", "source", "layout", "download", "count", "notes"], str] = field(
        default_factory=dict
    )  # for people: licence, where it is from, the files expected, how to get them, how many; no run reads it
    language: str = ""  # en, ja, ...: scores are also told per language


@dataclass(kw_only=True)
class DatasetSpec(DatasetCommon):
    """One data set of a configuration, checked."""

    name: str
    builder: Part = field(default_factory=lambda: Part("builder", ""))
