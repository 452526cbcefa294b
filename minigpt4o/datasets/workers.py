"""Processes that make batches: started quietly, one thread each, their errors told as they are, ended at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.batch import Batch
from minigpt4o.datasets.bad import BadSample

# What a worker hands over: the batch, and the samples that were bad. In place of the batch the error that ends the
# run, as a value, so that it arrives with its own words and not wrapped in a traceback.
Made = tuple[Batch | DataError | None, list[BadSample]]

DYING_S = 2.0  # seconds in which a killed process is gone


def start_loader(
    dataset: Dataset,
    batches: Iterable[list[int]],
    num_workers: int,
    persistent: bool,
    prefetch_factor: int = 2,
    pin_memory: bool = False,
) -> DataLoader:
    """A loader whose `dataset` turns each list of numbers into a whole batch (`__getitems__` gives a `Made`)."""
    if num_workers > 0:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a tokenizer's threads do not survive a fork
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
        persistent_workers=persistent and num_workers > 0,
        prefetch_factor=prefetch_factor if num_workers > 0 else None,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else every start of the loader would draw from the run's own generator
    )


def _as_it_is(made: Any) -> Any:
    return made


def _start_worker(number: int) -> None:
    """One thread each; Ctrl-C and SIGTERM are the main process's business, which ends its workers itself."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def made_by(loader: DataLoader) -> Iterator[Made]:
    """What the workers made. Raises DataError if one of them died, and names it."""
    batches = _started(loader)
    while True:
        try:
            made = next(batches)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            dead = _dead(batches)
            if not dead and "DataLoader worker" not in str(error):
                raise
            end_workers(loader)
            raise DataError(
                f"a loader's worker process died ({error or type(error).__name__}{dead}); mostly the machine ran out "
                f"of memory: lower run.num_workers or the batch size"
            ) from error
        yield made


def _dead(batches: Any) -> str:
    """The process ids of workers that have ended, in words; "" if all live.

    Torch itself looks at the same moment at which a batch cannot be fetched from a worker. One that is just dying
    seems alive to it then, and what it raises is whatever the broken connection said.
    """
    workers = {worker.sentinel: worker.pid for worker in getattr(batches, "_workers", ())}
    ended = wait(list(workers), timeout=DYING_S) if workers else []
    return "".join(f"; process {workers[one]} has ended" for one in ended if isinstance(one, int))


def _started(loader: DataLoader) -> Iterator[Any]:
    """The loader's iterator, without the signal handler by which torch tells of a dead worker.

    That handler raises in whatever line the main process happens to be in, be it the optimizer's step or the writing
    of a checkpoint. Without it the death is found when the next batch is asked for, within 5 seconds.
    """
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if loader.num_workers > 0 and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)
    return batches


def end_workers(loader: DataLoader) -> None:
    """Without it Python ends them when it collects garbage, which may take 5 seconds for each."""
    workers = loader._iterator  # set only if the workers are persistent
    if workers is not None:
        workers._shutdown_workers()  # type: ignore[attr-defined]
        loader._iterator = None
