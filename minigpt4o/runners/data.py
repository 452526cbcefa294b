"""Everything of a run that concerns its data: the endless training loader, an epoch's length, fingerprints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt4o.common.distributed import World
from minigpt4o.common.errors import ConfigError
from minigpt4o.datasets.base import fingerprint_of
from minigpt4o.datasets.loader import TrainLoader
from minigpt4o.runners.build import build_builders, build_encoders

if TYPE_CHECKING:
    from minigpt4o.common.config import Settings
    from minigpt4o.runners.base import Runner

BATCH_SIZE = 32  # if nobody names one


def train_builders(settings: Settings, splits: Sequence[str]) -> dict[str, Any]:
    """The data sets that are learned from. Each has exactly one of the named splits."""
    found: dict[str, Any] = {}
    for split in splits:
        for name, builder in build_builders(settings, split).items():
            if name in found:
                raise ConfigError(f"run.train_splits: data set {name!r} has several of {list(splits)}; name one split")
            found[name] = builder
    if not found:
        raise ConfigError("run.train_splits is empty; name a split, for example [train]")
    return found


def fingerprints(builders: Mapping[str, Any]) -> dict[str, str]:
    """Data set -> one word for its content."""
    return {name: fingerprint_of(builder) for name, builder in builders.items()}


def common_batch_size(settings: Settings) -> int:
    """The batch size of the data sets, LAVIS's way of saying it: a batch mixes them, so they must agree."""
    sizes = {name: spec.batch_size for name, spec in settings.datasets.items() if spec.batch_size is not None}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ConfigError(
            f"datasets.*.batch_size differ ({listed}), but a batch mixes the data sets by sample_ratio; "
            "set run.batch_size_train"
        )
    return next(iter(sizes.values()), BATCH_SIZE)


def steps_of(samples: int, global_batch: int) -> int:
    """Optimizer steps that draw so many samples."""
    return max(1, math.ceil(samples / global_batch))


def quarantine_file(run: Path, world: World) -> Path:
    """Where this rank names its bad samples."""
    return run / ("quarantine.jsonl" if world.rank == 0 else f"quarantine.rank{world.rank}.jsonl")


def open_loader(runner: Runner, quarantine: Path | None) -> TrainLoader:
    """The endless training loader at its first position."""
    config, world = runner.config, runner.world
    return TrainLoader(
        runner.builders,
        {name: runner.settings.datasets[name].sample_ratio for name in runner.builders},
        build_encoders(runner.settings, runner.model, "train"),
        seed=config.seed,
        batch_size=runner.batch_size,
        rank=world.rank,
        world_size=world.size,
        num_workers=config.num_workers,
        pad_id=pad_id(runner.model),
        max_bad_fraction=config.max_bad_fraction,
        quarantine=quarantine,
    )


def pad_id(model: Any) -> int:
    """The tokenizer's padding id, or its end of sequence; the attention mask hides it either way."""
    tokenizer = model.tokenizer
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(found or 0)
