"""Batches by position: exact order for any number of workers and ranks, bad samples counted and stood in for."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch.utils.data import Dataset

from minigpt4o.common.errors import CheckpointError, DataError
from minigpt4o.conversation.batch import Batch, Example
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.bad import BadSample, BadSamples, attempt
from minigpt4o.datasets.base import Builder, fingerprint_of, sha256
from minigpt4o.datasets.collate import collate
from minigpt4o.datasets.order import MixtureSchedule, Place, derive
from minigpt4o.datasets.workers import Made, end_workers, made_by, start_loader

IN_A_ROW = 100  # bad samples one after the other in one data set: it is not a few bad ones, it is the data set


class Encoder(Protocol):
    """Sample -> Example; `minigpt4o.conversation.encode.SampleEncoder` is one."""

    def example(self, sample: Sample, rng: random.Random) -> Example: ...

    def prompt(self, sample: Sample, rng: random.Random) -> Example: ...


class _Positions(Dataset):
    """Lists of positions -> batches; lives in the workers."""

    def __init__(
        self,
        builders: Mapping[str, Builder],
        encoders: Mapping[str, Encoder],
        schedule: MixtureSchedule,
        pad_id: int,
    ) -> None:
        self.builders, self.encoders = dict(builders), dict(encoders)
        self.schedule, self.pad_id = schedule, pad_id

    def __getitems__(self, positions: Sequence[int]) -> Made:
        bad: list[BadSample] = []
        try:
            examples = [self._example(position, bad) for position in positions]
            return collate(examples, self.pad_id, "right"), bad
        except DataError as error:
            return error

    def __getitem__(self, position: int) -> Made:
        return self.__getitems__([position])

    def _example(self, position: int, bad: list[BadSample]) -> Example:
        """The example of a position; if its sample is bad, the next in the order of the same pass stands in."""
        place = self.schedule.at(position)
        failed: list[BadSample] = []
        limit = min(IN_A_ROW, self.schedule.sizes[place.dataset])
        for number in range(limit):
            index = self._index(place, number)
            rng = random.Random(derive(self.schedule.seed, "sample", position, number))
            result = attempt(self.builders[place.dataset], index, rng, self.encoders[place.dataset].example)
            if isinstance(result, Example):
                result.skipped = [*result.skipped, *((b.reason, str(b)) for b in failed)]
                return result
            failed.append(BadSample(place.dataset, index, position, *result))
            bad.append(failed[-1])
        told = "\n".join(f"  {b}" for b in failed[:3])
        raise DataError(
            f"datasets.{place.dataset}: {limit} samples in a row cannot be used, the last place tried is position "
            f"{position}. The first three:\n{told}\nmend the files or the configuration of this data set"
        )

    def _index(self, place: Place, number: int) -> int:
        turn = (place.turn + number) % self.schedule.sizes[place.dataset]
        return self.schedule.index(place.dataset, place.epoch, turn)


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
    ) -> None:
        """`batch_size` is that of one rank; the global batch is `batch_size * world_size` positions."""
        for name, builder in builders.items():
            if len(builder) == 0:
                raise DataError(f"datasets.{name}: holds no sample")
        assert batch_size > 0, "a batch holds at least one sample"
        assert 0 <= rank < world_size, f"rank {rank} is not among {world_size}"
        self.sizes = {name: len(builder) for name, builder in builders.items()}
        self.seed, self.batch_size = seed, batch_size
        self.schedule = MixtureSchedule(self.sizes, ratios, seed)
        self.bad = BadSamples(max_bad_fraction, quarantine)
        self._fingerprints = {name: fingerprint_of(builder) for name, builder in builders.items()}
        self._slices = _Slices(start_position, batch_size, rank, world_size)
        self._loader = start_loader(
            _Positions(builders, encoders, self.schedule, pad_id), self._slices, num_workers, persistent=True
        )

    @property
    def position(self) -> int:
        """The next sample of the whole run that no batch has brought yet."""
        return self._slices.position

    @property
    def samples_per_epoch(self) -> int:
        """Positions after which every data set has been gone through at least once."""
        blocks = [self.sizes[name] / share for name, share in self.schedule.shares.items()]
        return int(max(blocks) * self.schedule.block)

    def __iter__(self) -> Iterator[Batch]:
        """Batches of this rank from `position` on. `position` moves on as each batch is handed over."""
        for batch, bad in made_by(self._loader):
            assert batch is not None, "training batches are never empty"
            self._slices.position += self._slices.step
            try:
                self.bad.count(len(batch), bad)
            except DataError:
                self.close()
                raise
            yield batch

    def close(self) -> None:
        """End the worker processes now. Iterating again starts new ones."""
        end_workers(self._loader)

    def state(self) -> dict[str, Any]:
        """What resuming needs: plain JSON values. The batch handed over last counts as done."""
        return {
            "position": self.position,
            "seed": self.seed,
            "shares": dict(self.schedule.shares),
            "fingerprints": dict(self._fingerprints),
            "bad": self.bad.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken, with any number of ranks and workers. Raises CheckpointError.

        Take it before iterating: batches that workers have already made for another position would come first.
        """
        ours = self.state()
        for key, what in (("seed", "run.seed"), ("shares", "the data sets or their sample_ratio")):
            if state[key] != ours[key]:
                raise CheckpointError(
                    f"the checkpoint's data order has {key} {state[key]}, this run has {ours[key]}: with another {key} "
                    f"the order would change in the middle of the run; set {what} back, or start a new run from weights"
                )
        changed = [name for name, known in state["fingerprints"].items() if ours["fingerprints"].get(name) != known]
        if changed:
            raise CheckpointError(
                f"the data changed since the checkpoint was written: {', '.join(changed)}. Bring the old files back, "
                f"or start a new run from the checkpoint's weights (model.ckpt)"
            )
        self._slices.position = int(state["position"])
        self.bad.load_state(state["bad"])

    def fingerprint(self) -> str:
        """One word for the data and their order: equal if and only if `load_state` may be used."""
        return sha256(self.seed, sorted(self.schedule.shares.items()), sorted(self._fingerprints.items()))


@dataclass
class _Slices:
    """Sampler: this rank's positions of each global batch, without end, from `position` on.

    It must not know the loader: in a circle of references workers are told too late to end, and each takes 5 seconds.
    """

    position: int
    size: int  # of this rank's batch
    rank: int
    world_size: int

    @property
    def step(self) -> int:
        return self.size * self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        start = self.position + self.rank * self.size
        while True:
            yield list(range(start, start + self.size))
            start += self.step


class _Indices(Dataset):
    """Indices of one builder -> batches for evaluation; lives in the workers."""

    def __init__(
        self, name: str, builder: Builder, encoder: Encoder, pad_id: int, seed: int, mode: Literal["prompt", "example"]
    ) -> None:
        self.name, self.builder, self.encoder = name, builder, encoder
        self.pad_id, self.seed, self.mode = pad_id, seed, mode

    def __getitems__(self, indices: Sequence[int]) -> Made:
        examples, bad = [], []
        encode = self.encoder.prompt if self.mode == "prompt" else self.encoder.example
        try:
            for index in indices:
                rng = random.Random(derive(self.seed, "evaluation", index))
                result = attempt(self.builder, index, rng, encode)
                if isinstance(result, Example):
                    examples.append(result)
                else:
                    bad.append(BadSample(self.name, index, index, *result))
            side: Literal["left", "right"] = "left" if self.mode == "prompt" else "right"
            return (collate(examples, self.pad_id, side) if examples else None), bad
        except DataError as error:
            return error


class EvalLoader:
    """Each index once, in order. Bad samples are left out, and told in `skipped`: nothing stands in for them."""

    def __init__(self, dataset: _Indices, batches: list[list[int]], num_workers: int) -> None:
        self.skipped: list[BadSample] = []
        self._batches = batches
        self._loader = start_loader(dataset, batches, num_workers, persistent=False)

    def __len__(self) -> int:
        """Batches, if no batch consists of bad samples alone."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        self.skipped = []
        for batch, bad in made_by(self._loader):
            self.skipped += bad
            if batch is not None:
                batch.skipped += [(b.reason, str(b)) for b in bad]
                yield batch


def eval_loader(
    builder: Builder,
    encoder: Encoder,
    *,
    batch_size: int,
    num_workers: int = 0,
    pad_id: int = 0,
    indices: Sequence[int] | None = None,
    seed: int = 0,
    mode: Literal["prompt", "example"] = "prompt",
) -> EvalLoader:
    """Batches of prompts padded on the left, for generation; with mode "example" as in training, for a validation loss.

    What a sample's prompt is depends on `seed` and its index alone, not on the batch it comes in.
    """
    chosen = list(range(len(builder)) if indices is None else indices)
    batches = [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    name = str(getattr(builder, "name", type(builder).__name__))
    return EvalLoader(_Indices(name, builder, encoder, pad_id, seed, mode), batches, num_workers)
