"""A run is a folder: who owns it, which one to continue, what is written into it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import secrets
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.common.files import (
    CHECKPOINTS,
    find_checkpoint,
    room_on_disk,
    step_folders,
    sweep,
    write_bytes,
    write_json,
)

log = logging.getLogger(__name__)

CONFIG, MANIFEST, METRICS, LOG, FINISHED, LOCK = (
    "config.yaml", "manifest.json", "metrics.jsonl", "log.txt", "finished.json", "lock"
)  # fmt: skip
AUTO = "auto"
TOLD = ("torch", "transformers", "timm", "deepspeed", "safetensors", "numpy", "peft")  # versions in the manifest


def new_run_id() -> str:
    """Sorts by time, unique even when many start in one second."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)


def choose(job: Path, run_id: str, resume: str) -> tuple[Path, Path | None]:
    """(run folder, step folder to continue from or None).

    `resume`: "" starts anew; "auto" continues the newest unfinished run of the job in its own folder, or starts one if
    there is none; a path starts a new run from that checkpoint and leaves the old run as it is.
    """
    check_writable(job)
    if resume and resume != AUTO:
        if not Path(resume).exists():
            raise CheckpointError(f"run.resume_ckpt_path: {resume} does not exist; give a step or run folder, or auto")
        from minigpt4o.models.weights import TORCH_FILES

        is_torch_file = Path(resume).suffix in TORCH_FILES  # written by MiniGPT-4's runner
        return job / (run_id or new_run_id()), Path(resume) if is_torch_file else find_checkpoint(resume)
    if resume == AUTO:
        run = job / run_id if run_id else newest_unfinished(job)
        if run is not None and run.is_dir():
            return run, newest_step(run)
        log.info("run.resume_ckpt_path is auto and %s holds no unfinished run: starting a new one", job)
    run = job / (run_id or new_run_id())
    if (run / METRICS).exists():
        raise ConfigError(f"run.run_id: {run} exists; set run.resume_ckpt_path: auto to continue it, or another run_id")
    return run, None


def newest_unfinished(job: Path) -> Path | None:
    """The youngest run folder without a finished marker."""
    found = [f for f in job.iterdir() if (f / CONFIG).exists() and not (f / FINISHED).exists()] if job.is_dir() else []
    return max(found, key=lambda f: ((f / CONFIG).stat().st_mtime_ns, f.name), default=None)


def newest_step(run: Path) -> Path | None:
    """The newest checkpoint of a run that verifies; None if it was stopped before its first."""
    if not step_folders(run):
        log.info("%s has no checkpoint yet: starting it from its first step", run)
        return None
    return find_checkpoint(run)


def check_writable(job: Path) -> None:
    """Raises ConfigError at once, and not after the first hour, if the output folder cannot be used."""
    try:
        job.mkdir(parents=True, exist_ok=True)
        probe = job / f".tmp-probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"run.output_dir: cannot write below {job} ({error.strerror}); name another folder"
        ) from error


class RunFolder:
    """An owned run folder. The lock goes away with the process that holds it, however it dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = (path / LOCK).read_text(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise ConfigError(
                f"{path} is being trained by process {owner}; stop it first, or set another run.job_name or run.run_id"
            ) from error
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode())
        sweep(path)
        sweep(path / CHECKPOINTS)

    def write_config(self, text: str, manifest: dict[str, Any]) -> None:
        write_json(self.path / MANIFEST, manifest)
        write_bytes(self.path / CONFIG, text.encode())

    def point(self, name: str, step_folder: str) -> None:
        """A small file `last` or `best` that names a step folder."""
        write_bytes(self.path / name, f"{step_folder}\n".encode())

    def finish(self, facts: dict[str, Any]) -> None:
        write_json(self.path / FINISHED, facts)

    def close(self) -> None:
        os.close(self._lock)


class StepLog:
    """metrics.jsonl: one line per optimizer step. Cut back to a checkpoint's offset, it holds no step twice."""

    def __init__(self, path: Path, offset: int = 0, before: bytes = b"") -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        if before:
            os.ftruncate(self._handle, 0)
            os.write(self._handle, before)
        size = os.fstat(self._handle).st_size
        if size < offset:
            raise CheckpointError(
                f"{path} has {size:,} bytes, the checkpoint counts on {offset:,}: it was cut or replaced"
            )
        os.ftruncate(self._handle, offset)
        self.offset = offset

    def write(self, row: dict[str, Any]) -> None:
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        with room_on_disk(self.path, lambda: self.offset):
            self.offset += os.write(self._handle, line)

    def sync(self) -> int:
        """Make the lines last; returns the offset that a checkpoint stores."""
        os.fsync(self._handle)
        return self.offset

    def close(self) -> None:
        os.close(self._handle)


def versions() -> dict[str, str]:
    """Python and the packages that shape numbers."""
    found = {"python": platform.python_version()}
    for name in ("minigpt4o", *TOLD):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """The commit of the source tree, with a plus if files differ from it; "" outside a repository."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5)
        if head.returncode:
            return ""
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, timeout=5
        )
        return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""


def hardware(device: str) -> dict[str, Any]:
    """What the run was computed on."""
    import torch

    facts: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return facts
