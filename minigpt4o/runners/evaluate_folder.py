"""The folder of an evaluation: a new one, or the unfinished one of the same configuration, held by one process."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

from minigpt4o.common import distributed
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.files import sweep, write_bytes, write_json
from minigpt4o.runners.rundir import LOCK, check_writable, new_run_id
from minigpt4o.runners.setup import config_text

log = logging.getLogger(__name__)

MARK = "evaluation.json"  # written first: which configuration is evaluated here
CONFIG = "evaluation.yaml"  # the resolved configuration: what --from and people read
RESULTS = "results.json"  # written last
PREDICTIONS = "predictions"  # folder of the answers
# Settings of `run` that may change between a stopped evaluation and its continuation.
_FREE = "run_id resume num_workers threads device report report_mb curves gallery bootstrap group_by max_bad_fraction"
FREE_KEYS = frozenset(_FREE.split())


def config_hash(settings: Any, dataset: str = "") -> str:
    """SHA-256 of what decides the answers: model, data sets (or one of them), and the run's own choices."""
    tree = settings.tree
    chosen: dict[str, Any] = {"model": tree.get("model")}
    if dataset:
        chosen["dataset"] = tree.get("datasets", {}).get(dataset)
    else:
        chosen["datasets"] = tree.get("datasets")
        chosen["run"] = {k: v for k, v in (tree.get("run") or {}).items() if k not in FREE_KEYS}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True, default=str).encode()).hexdigest()


def file_name(*words: str) -> str:
    """Words as the stem of a file."""
    return ".".join(re.sub(r"[^\w-]+", "_", word) for word in words)


class EvaluationFolder:
    """`<output_dir>/<job_name>/<run_id>`; rank 0 chooses and locks it, the others follow."""

    def __init__(self, config: Any, identity: str, settings: Any) -> None:
        self.resumed = config.resume
        self._config = config_text(settings)
        self._lock: int | None = None
        job = Path(config.output_dir) / config.job_name
        self.path = Path(distributed.main_decides(lambda: str(self._choose(job, config, identity))))

    def _choose(self, job: Path, config: Any, identity: str) -> Path:
        check_writable(job)
        if config.run_id:
            folder = job / config.run_id
            if not self._take(folder):
                raise ConfigError(f"{folder} is being written by another process; stop it or give another run.run_id")
        else:
            folder = self._unfinished(job, identity) if config.resume else None
            if folder is not None:
                log.info("continuing %s", folder)
            else:
                folder = job / new_run_id()
                self._take(folder)
        for place in (folder, folder / PREDICTIONS):
            sweep(place)
        write_json(folder / MARK, {"config": identity})
        write_bytes(folder / CONFIG, self._config.encode())
        return folder

    def _unfinished(self, job: Path, identity: str) -> Path | None:
        """The newest folder of the same configuration that has no results and that nobody holds; it is taken."""
        for mark in sorted(job.glob(f"*/{MARK}"), key=lambda m: (m.stat().st_mtime_ns, m.parent.name), reverse=True):
            try:
                same = json.loads(mark.read_text(encoding="utf-8")).get("config") == identity
            except (OSError, ValueError):
                continue
            if same and not (mark.parent / RESULTS).exists() and self._take(mark.parent):
                return mark.parent
        return None

    def _take(self, folder: Path) -> bool:
        """Lock a folder for this process; the lock dies with it."""
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def predictions(self, variant: str, dataset: str, condition: str) -> Path:
        """The predictions file of one variant, data set and condition."""
        return self.path / PREDICTIONS / f"{file_name(variant, dataset, condition)}.jsonl"

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
