"""Everything of a run that concerns its data: the endless training loader, an epoch's length, fingerprints."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt4o.common import distributed
from minigpt4o.common.distributed import World
from minigpt4o.common.errors import ConfigError, Preempted
from minigpt4o.common.files import write_json
from minigpt4o.datasets.bad import merged, report_of
from minigpt4o.datasets.base import fingerprint_of
from minigpt4o.datasets.loader import TrainLoader
from minigpt4o.runners.build import build_builders, build_encoders
from minigpt4o.runners.pace import COMPAT

if TYPE_CHECKING:
    from minigpt4o.common.config import Settings
    from minigpt4o.runners.base import Runner

log = logging.getLogger(__name__)

BATCH_SIZE = 32  # if nobody names one
REPORT = "data_report"  # .json: what was wrong with the data


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
    """The batch size of the data sets, LAVIS's way of saying it; if they differ, what a step holds on average there.

    MiniGPT-4 draws one data set for each step by `sample_ratio` and takes its `batch_size` rows. A batch here mixes the
    sets, each as often as it would come up there: see `sample_weights`.
    """
    sizes = [spec.batch_size for spec in settings.datasets.values() if spec.batch_size is not None]
    if len(set(sizes)) < 2:
        return next(iter(sizes), BATCH_SIZE)
    size = max(1, round(_mean_batch(settings)))
    log.info(
        "datasets.*.batch_size differ (%d to %d): a batch of %d rows mixes the data sets, each by sample_ratio x "
        "batch_size; run.batch_size_train would stand in place of them",
        min(sizes),
        max(sizes),
        size,
    )
    return size


def sample_weights(settings: Settings, names: Iterable[str]) -> dict[str, float]:
    """Each data set's weight in the stream of samples: sample_ratio, times batch_size where batch sizes differ.

    A run that names batch_size_train has put that in place of them all.
    """
    chosen = {name: settings.datasets[name] for name in names}
    if settings.run.values.get("batch_size_train") or len({spec.batch_size for spec in chosen.values()}) < 2:
        return {name: spec.sample_ratio for name, spec in chosen.items()}
    usual = _mean_batch(settings)
    return {name: spec.sample_ratio * (spec.batch_size or usual) for name, spec in chosen.items()}


def _mean_batch(settings: Settings) -> float:
    """The mean batch_size of the data sets that have one, weighted by sample_ratio."""
    sized = [(spec.sample_ratio, spec.batch_size) for spec in settings.datasets.values() if spec.batch_size]
    total = sum(ratio for ratio, _ in sized)
    return sum(ratio * size for ratio, size in sized) / total if total > 0 else float(BATCH_SIZE)


def quarantine_file(run: Path, world: World) -> Path:
    """Where this rank names its bad samples."""
    return run / ("quarantine.jsonl" if world.rank == 0 else f"quarantine.rank{world.rank}.jsonl")


def open_loader(runner: Runner, quarantine: Path | None) -> TrainLoader:
    """The endless training loader at its first position."""
    config, world, specs = runner.config, runner.world, runner.settings.datasets
    replacement = [name for name in runner.builders if getattr(specs[name], "replacement", False)]
    check_order(config, replacement)
    return TrainLoader(
        runner.builders,
        sample_weights(runner.settings, runner.builders),
        build_encoders(runner.settings, runner.model, "train"),
        seed=config.seed,
        batch_size=runner.batch_size,
        rank=world.rank,
        world_size=world.size,
        num_workers=config.num_workers,
        pad_id=pad_id(runner.model),
        max_bad_fraction=config.max_bad_fraction,
        quarantine=quarantine,
        global_batch=runner.global_batch,
        replacement=replacement,
        exact_epoch=config.exact_epoch,
        group_by_length=config.group_by_length,
        group_window=config.group_window,
        prefetch_factor=config.prefetch_factor,
        pin_memory=world.device.type == "cuda",
    )


def check_order(config: Any, replacement: Sequence[str]) -> None:
    """Raises ConfigError if the wishes for the order of samples contradict one another."""
    if config.prefetch_factor < 1 or config.group_window < 0:
        raise ConfigError(
            f"run.prefetch_factor: {config.prefetch_factor} must be 1 or more, run.group_window: "
            f"{config.group_window} 0 or more"
        )
    if config.exact_epoch and config.profile == COMPAT:
        raise ConfigError("run.exact_epoch: the reference's loop (run.profile: compat) knows no last batch; unset one")
    if config.exact_epoch and config.iters_per_epoch:
        raise ConfigError(
            f"run.iters_per_epoch: {config.iters_per_epoch} says how long an epoch is, and run.exact_epoch says that "
            "it is all samples; leave iters_per_epoch empty, or set run.max_steps to end the run earlier"
        )
    if config.exact_epoch and replacement:
        raise ConfigError(
            f"datasets.{replacement[0]}.replacement: a set drawn from with replacement has no pass in which each "
            "sample comes once, as run.exact_epoch wants; unset one of them"
        )


def bad_of_all_ranks(runner: Runner) -> dict[str, Any]:
    """The bad samples that all ranks have counted. Every rank must call it."""
    return merged(distributed.gather_objects(runner.loader.bad.state()))


def write_report(runner: Runner, error: BaseException | None = None) -> None:
    """`data_report.json` in the run's folder: bad samples by data set and reason, the first of each named.

    After an error nobody can be waited for, and each rank tells what it has seen itself.
    """
    if not hasattr(runner, "loader") or not runner.path.name:
        return
    together = error is None or isinstance(error, Preempted)
    state = bad_of_all_ranks(runner) if together else runner.loader.bad.state()
    report = report_of(state, runner.config.max_bad_fraction)
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    ended = {"step": runner.progress.step, "ended": "finished" if error is None else first}
    if together and runner.world.rank:
        return
    name = f"{REPORT}.rank{runner.world.rank}.json" if runner.world.rank else f"{REPORT}.json"
    try:
        write_json(runner.path / name, {**ended, **report})
    except OSError as trouble:  # the error that ends the run is the one to be told
        log.warning("%s cannot be written: %s", runner.path / name, trouble)
    if together:
        for old in runner.path.glob(f"{REPORT}.rank*.json"):  # of a part of this run that failed
            old.unlink()
    if report["bad"]:
        log.warning("%d of %d samples could not be used, see %s", report["bad"], report["bad"] + report["good"], name)


def pad_id(model: Any) -> int:
    """The tokenizer's padding id, or its end of sequence; the attention mask hides it either way."""
    tokenizer = model.tokenizer
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(found or 0)
