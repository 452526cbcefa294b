"""Write so that a kill at any instant leaves the old state or the new one; read nothing that does not verify."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import CheckpointError, Minigpt4oError

log = logging.getLogger(__name__)

MANIFEST = "MANIFEST.json"
CHECKPOINTS = "checkpoints"  # folder of a run that holds its step folders
STEP_PREFIX = "step-"
TMP_PREFIX = ".tmp-"
CHUNK = 1 << 20  # bytes read at once while hashing
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Content = bytes | Iterable[bytes]


def dump_json(value: Any) -> bytes:
    """JSON a person can read; equal values give equal bytes."""
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Replace a small file as a whole."""
    write_bytes(path, dump_json(value))


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file as a whole: temporary file, fsync, rename, fsync of the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.parent / f"{TMP_PREFIX}{path.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        _write_file(tmp, data)
        os.replace(tmp, path)
        fsync_folder(path.parent)
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise


def publish(folder: Path, contents: Mapping[str, Content]) -> None:
    """Write a folder that is either absent or whole, with a MANIFEST.json of sizes and SHA-256.

    A name may hold slashes. A folder of that name that exists is replaced.
    Nothing may be called saved before this returns.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    token = f"{folder.name}-{os.getpid()}-{secrets.token_hex(4)}"
    tmp = folder.parent / f"{TMP_PREFIX}{token}"
    try:
        tmp.mkdir()
        files = {}
        for name, content in contents.items():
            (tmp / name).parent.mkdir(parents=True, exist_ok=True)
            files[name] = _write_file(tmp / name, content)
        _write_file(tmp / MANIFEST, dump_json({"files": files}))
        for inner in {(tmp / name).parent for name in files} | {tmp}:
            fsync_folder(inner)
        if folder.exists():
            os.rename(folder, folder.parent / f"{TMP_PREFIX}old-{token}")
        os.rename(tmp, folder)
        fsync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise
    shutil.rmtree(folder.parent / f"{TMP_PREFIX}old-{token}", ignore_errors=True)


def _write_file(path: Path, content: Content) -> dict[str, Any]:
    """Write and fsync; returns size and SHA-256 of what was written."""
    digest, size = hashlib.sha256(), 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        with room_on_disk(path, lambda: size):
            for chunk in (content,) if isinstance(content, bytes) else content:
                _write_all(handle, chunk)
                digest.update(chunk)
                size += len(chunk)
            os.fsync(handle)
    finally:
        os.close(handle)
    return {"size": size, "sha256": digest.hexdigest()}


def _write_all(handle: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while len(view):
        view = view[os.write(handle, view) :]


@contextmanager
def room_on_disk(path: Path, written: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Turn "disk full" into a message that says where, how much was written and how much is free."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        free = shutil.disk_usage(Path(path).parent).free
        raise Minigpt4oError(
            f"{path}: no space left after {written():,} bytes ({os.strerror(error.errno)}); {free:,} bytes are free "
            "there; free some space or set run.output_dir to another disk, then start the same command again"
        ) from error


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder last."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def pieces(path: Path) -> Iterator[bytes]:
    """The bytes of a file, piece by piece."""
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    for chunk in pieces(path):
        digest.update(chunk)
    return digest.hexdigest()


def verify(folder: Path) -> list[str]:
    """What is wrong with a published folder, in words; an empty list if all is well."""
    manifest = Path(folder) / MANIFEST
    try:
        files = json.loads(manifest.read_bytes())["files"]
        listed = {str(name): (int(fact["size"]), str(fact["sha256"])) for name, fact in files.items()}
    except FileNotFoundError:
        return [f"{manifest} is missing"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{manifest} cannot be read ({type(error).__name__}: {error})"]
    problems = []
    for name, (size, sha256) in sorted(listed.items()):
        file = Path(folder) / name
        if not file.is_file():
            problems.append(f"{file} is missing")
        elif file.stat().st_size != size:
            problems.append(f"{file} has {file.stat().st_size:,} bytes, not {size:,}")
        elif sha256_of(file) != sha256:
            problems.append(f"{file} has another SHA-256 than when it was saved")
    return problems


def sweep(parent: Path) -> int:
    """Remove what dead writers left behind. Only the one who holds the run's lock may call this."""
    left = list(Path(parent).glob(f"{TMP_PREFIX}*")) if Path(parent).is_dir() else []
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if left:
        log.info("removed %d unfinished file(s) of an earlier writer in %s", len(left), parent)
    return len(left)


def step_folders(run: Path) -> list[Path]:
    """The step folders of a run, newest step first."""
    found = []
    for folder in (Path(run) / CHECKPOINTS).glob(f"{STEP_PREFIX}*"):
        number = folder.name.removeprefix(STEP_PREFIX)
        if folder.is_dir() and number.isdigit():
            found.append((int(number), folder))
    return [folder for _, folder in sorted(found, reverse=True)]


def run_folders(job: Path) -> list[Path]:
    """The run folders of a job, the one whose newest checkpoint is youngest first."""
    runs = [(folder, step_folders(folder)) for folder in Path(job).iterdir() if (folder / CHECKPOINTS).is_dir()]
    dated = [(steps[0].stat().st_mtime_ns, folder.name, folder) for folder, steps in runs if steps]
    return [folder for _, _, folder in sorted(dated, reverse=True)]


def find_checkpoint(path: str | Path) -> Path:
    """The step folder meant by a step folder, a pointer file (`best`, `last`), a run folder or a job folder.

    Of several the newest that verifies is taken; damaged ones are passed over with a warning.
    Raises CheckpointError that says what was looked at.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint; give a step folder, a run folder or output/<job_name>")
    if path.is_file():
        return _named_by(path)
    if (path / MANIFEST).exists() or path.name.startswith(STEP_PREFIX):
        problems = verify(path)
        if problems:
            raise CheckpointError(f"{path} is damaged: {'; '.join(problems)}; give another step or the run folder")
        return path
    runs = [path] if (path / CHECKPOINTS).is_dir() else run_folders(path)
    looked: list[str] = []
    for run in runs:
        for folder in step_folders(run):
            problems = verify(folder)
            if not problems:
                return folder
            log.warning("DAMAGED CHECKPOINT passed over: %s: %s", folder, "; ".join(problems))
            looked.append(f"{folder} ({problems[0]})")
    seen = "; looked at " + ", ".join(looked) if looked else ": it holds no step folder (checkpoints/step-N)"
    raise CheckpointError(f"{path}: no usable checkpoint{seen}")


def _named_by(pointer: Path) -> Path:
    name = pointer.read_text(encoding="utf-8", errors="replace").strip()[:200]
    folder = pointer.parent / CHECKPOINTS / name
    if not name.startswith(STEP_PREFIX) or "/" in name or not folder.is_dir():
        raise CheckpointError(f"{pointer} is a file that names no step folder; give a step folder or the run folder")
    return find_checkpoint(folder)
