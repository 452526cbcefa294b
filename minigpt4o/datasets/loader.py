"""Batches by position: exact order for any number of workers and ranks, bad samples counted and stood in for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import CheckpointError, DataError
from minigpt4o.conversation.batch import Batch
from minigpt4o.datasets.bad import BadSamples
from minigpt4o.datasets.base import Builder, fingerprint_of, sha256
from minigpt4o.datasets.epoch import EpochSchedule
from minigpt4o.datasets.grouping import Grouping, Schedule, window_of
from minigpt4o.datasets.order import MixtureSchedule
from minigpt4o.datasets.positions import Encoder, Positions
from minigpt4o.datasets.slices import Slices
from minigpt4o.datasets.workers import end_workers, made_by, start_loader

PROBED = 32  # positions whose samples are kept with the state, to know another order when it is met
COUNTED_ON = (
    ("exact_epoch", "run.exact_epoch"),
    ("seed", "run.seed"),
    ("shares", "the data sets or their sample_ratio"),
    ("replacement", "datasets.*.replacement"),
    ("window", "run.group_by_length and run.group_window"),
)  # what must be equal on both sides of a stop, and where it is set


class TrainLoader:
    """Batches without end. The order is a pure function of (seed, position); `position` counts samples of all ranks."""

    def __init__(
        self,
        builders: Mapping[str, Builder],
        ratios: Mapping[str, float],
        encoders: Mapping[str, Encoder],
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pad_id: int = 0,
        max_bad_fraction: float = 0.01,
        quarantine: Path | None = None,
        start_position: int = 0,
        global_batch: int | None = None,
        replacement: Collection[str] = (),
        exact_epoch: bool = False,
        group_by_length: bool = False,
        group_window: int = 0,
        prefetch_factor: int = 2,
        pin_memory: bool = False,
    ) -> None:
        """`batch_size` is that of one rank; a micro-batch is `batch_size * world_size` positions over all ranks.

        `global_batch` is what an optimizer step takes over all ranks and micro-batches, if that is more; `replacement`
        names the data sets that are drawn from with replacement.
        """
        _check(builders, batch_size, rank, world_size)
        self.sizes = {name: len(builder) for name, builder in builders.items()}
        self.seed, self.batch_size = seed, batch_size
        orders = {name: builder.order for name, builder in builders.items() if hasattr(builder, "order")}
        mixture = MixtureSchedule(self.sizes, ratios, seed, orders=orders, replacement=replacement)
        self.schedule: Schedule = mixture
        if exact_epoch:
            self.schedule = EpochSchedule(mixture)
        epoch = self.schedule.samples if isinstance(self.schedule, EpochSchedule) else 0
        self.samples_per_epoch = epoch or samples_of(mixture)
        self.bad = BadSamples(max_bad_fraction, quarantine)
        self._fingerprints = {name: fingerprint_of(builder) for name, builder in builders.items()}
        self._replacement = sorted(replacement)
        self._probe = probe_of(MixtureSchedule(self.sizes, ratios, seed, replacement=replacement), builders)
        self._slices = Slices(
            start_position, batch_size, rank, world_size, epoch, global_batch or batch_size * world_size
        )
        self._positions = Positions(builders, encoders, self.schedule, pad_id)
        self._group_window = group_window
        if group_by_length:
            self._group(self._slices.global_batch, window_of(group_window, self._slices.global_batch))
        self._loader = start_loader(self._positions, self._slices, num_workers, True, prefetch_factor, pin_memory)

    @property
    def position(self) -> int:
        """The next sample of the whole run that no batch has brought yet."""
        return self._slices.position

    def __iter__(self) -> Iterator[Batch]:
        """Batches of this rank from `position` on. `position` moves on as each batch is handed over."""
        spans = self._slices.spans()
        for batch, bad in made_by(self._loader):
            if isinstance(batch, DataError):
                self.bad.note(bad)
                self.close()
                raise batch
            assert batch is not None, "training batches are never empty"
            self._slices.position = next(spans)[1]
            real = batch.samples[: len(batch) - batch.fillers]
            try:
                self.bad.note_facts(batch.facts)
                self.bad.count(Counter(sample.dataset for sample in real), bad)
            except DataError:
                self.close()
                raise
            yield batch

    def close(self) -> None:
        """End the worker processes now. Iterating again starts new ones."""
        end_workers(self._loader)

    def state(self) -> dict[str, Any]:
        """What resuming needs: plain JSON values. The batch handed over last counts as done.

        Of them all only `position` moves; the others say which order it is a position of.
        """
        grouping = self._positions.grouping
        return {
            "position": self.position,
            "seed": self.seed,
            "shares": dict(self.schedule.shares),
            "exact_epoch": self._slices.epoch > 0,
            "replacement": list(self._replacement),
            "chunk": grouping.chunk if grouping else 0,
            "window": grouping.window if grouping else 0,
            "probe": self._probe,
            "fingerprints": dict(self._fingerprints),
            "bad": self.bad.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken, with any number of ranks and workers. Raises CheckpointError.

        Take it before iterating: batches that workers have already made for another position would come first.
        """
        grouping = self._positions.grouping
        if grouping and state.get("chunk"):  # the chunks of the run's start, whatever a step holds now
            chunk = int(state["chunk"])
            self._group(chunk, window_of(self._group_window or int(state["window"]), chunk))
        ours = self.state()
        for key, what in COUNTED_ON:
            saved = state.get(key, type(ours[key])())  # states of older versions lack what was not yet to be had
            if saved != ours[key]:
                raise CheckpointError(
                    f"the checkpoint's data order has {key} {saved}, this run has {ours[key]}: with another {key} "
                    f"the order would change in the middle of the run; set {what} back, or start a new run from weights"
                )
        changed = [name for name, known in state["fingerprints"].items() if ours["fingerprints"].get(name) != known]
        if changed:
            raise CheckpointError(
                f"the data changed since the checkpoint was written: {', '.join(changed)}. Bring the old files back, "
                f"or start a new run from the checkpoint's weights (model.ckpt)"
            )
        if state.get("probe", self._probe) != self._probe:
            raise CheckpointError(
                "the same data come in another order than when the checkpoint was written: a data set's own shuffling "
                "(its window), or this version of minigpt4o, differs; bring it back, or start a new run from weights"
            )
        self._slices.position = int(state["position"])
        if self._slices.rank == 0:  # it holds the counts of all ranks, which must not be added up once more
            self.bad.load_state(state["bad"])

    def fingerprint(self) -> str:
        """One word for the data and their order: equal if and only if `load_state` may be used."""
        return sha256(self.seed, sorted(self.schedule.shares.items()), sorted(self._fingerprints.items()))

    def _group(self, chunk: int, window: int) -> None:
        positions = self._positions
        positions.grouping = Grouping(
            self.schedule, positions.builders, chunk=chunk, window=window, epoch=self._slices.epoch
        )


def _check(builders: Mapping[str, Builder], batch_size: int, rank: int, world_size: int) -> None:
    for name, builder in builders.items():
        if len(builder) == 0:
            raise DataError(f"datasets.{name}: holds no sample")
    assert batch_size > 0, "a batch holds at least one sample"
    assert 0 <= rank < world_size, f"rank {rank} is not among {world_size}"


def samples_of(mixture: MixtureSchedule) -> int:
    """Positions after which every data set has been gone through once, to within one block of the mixture.

    The set that is largest for its ratio decides; the others have begun their next pass by then.
    """
    blocks = [mixture.sizes[name] / share for name, share in mixture.shares.items()]
    return int(max(blocks) * mixture.block)


def probe_of(mixture: MixtureSchedule, builders: Mapping[str, Any]) -> str:
    """One word for the order itself: some samples of a mixture without the data sets' own orders, and their names.

    Those orders are not asked for samples: it would make them fetch, here and now, what they think is next.
    """
    far = 3 * sum(mixture.sizes.values())
    places = [mixture.at(position) for first in (0, far) for position in range(first, first + PROBED // 2)]
    return sha256(*places, *(f"{name} {getattr(builder, 'order_name', '')}" for name, builder in builders.items()))
