"""Where curves go besides metrics.jsonl: a plain file, TensorBoard, Weights & Biases. None of them can stop a run."""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from minigpt4o.common.registry import Part, registry

log = logging.getLogger(__name__)

PATIENCE_S = 10.0  # the longest a tracker may keep the run waiting, at its end
QUEUE = 10_000  # rows that may wait for a slow tracker before new ones are dropped


class Tracker(Protocol):
    """Takes named numbers of a step."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


@registry.register("tracker", "jsonl")
class JsonLines:
    """curves.jsonl: one line per progress line, with speed and time (metrics.jsonl holds the exact numbers)."""

    def __init__(self, *, run: Path, job_name: str, tree: Mapping[str, Any]) -> None:
        self._file = (run / "curves.jsonl").open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


@registry.register("tracker", "tensorboard")
class TensorBoard:
    """Event files in the run's folder `tensorboard`."""

    def __init__(self, *, run: Path, job_name: str, tree: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


@registry.register("tracker", "wandb")
class WandB:
    """Weights & Biases in a thread of its own: no network, no key or a dead service never hold up the run.

    Without an API key, and unless WANDB_MODE says otherwise, it writes offline files that `wandb sync` uploads later.
    """

    def __init__(self, *, run: Path, job_name: str, tree: Mapping[str, Any]) -> None:
        self._rows: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue(QUEUE)
        self._told = False
        self._thread = threading.Thread(target=self._work, args=(run, job_name, dict(tree)), daemon=True)
        self._thread.start()

    def _work(self, run: Path, job_name: str, tree: dict[str, Any]) -> None:
        try:
            import wandb

            mode: Any = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
            settings = wandb.Settings(init_timeout=PATIENCE_S, silent=True)
            board = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "minigpt4o"),
                group=job_name, name=run.name, id=run.name, resume="allow",
                dir=str(run), config=tree, mode=mode, settings=settings,
            )  # fmt: skip
            while (row := self._rows.get()) is not None:
                board.log(row[1], step=row[0])
            board.finish()
        except Exception as error:  # noqa: BLE001 - whatever a tracker does, the run goes on; it is told once
            log.warning("wandb is off: %s: %s", type(error).__name__, error)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        try:
            self._rows.put_nowait((step, dict(values)))
        except queue.Full:
            if not self._told:
                log.warning("wandb does not keep up; some rows are dropped (metrics.jsonl has them all)")
            self._told = True

    def close(self) -> None:
        if self._thread.is_alive():
            try:
                self._rows.put_nowait(None)
            except queue.Full:
                return
            self._thread.join(PATIENCE_S)
            if self._thread.is_alive():
                log.warning("wandb did not finish in %.0f s; it is left behind", PATIENCE_S)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.is_file() and "wandb" in netrc.read_text(errors="ignore")


def open_trackers(names: list[str], run: Path, job_name: str, tree: Mapping[str, Any]) -> list[Tracker]:
    """The trackers by name; one that cannot start is left out with a warning."""
    found: list[Tracker] = []
    for name in dict.fromkeys(names):
        try:
            found.append(registry.build(Part("tracker", name), run=run, job_name=job_name, tree=tree))
        except ImportError as error:
            log.warning("tracker %s is off: %s", name, error)
    return found
