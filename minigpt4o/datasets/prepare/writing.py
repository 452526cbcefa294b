"""Write long files piece by piece so that a name stands only for what is whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.files import TMP_PREFIX, fsync_folder, room_on_disk


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write that takes its name when the block ends well, and leaves nothing behind when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.parent / f"{TMP_PREFIX}{path.name}-{os.getpid()}-{secrets.token_hex(4)}"
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "surrogatepass", "newline": ""}
    try:
        with room_on_disk(path, lambda: tmp.stat().st_size if tmp.exists() else 0), tmp.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(tmp, path)
        fsync_folder(path.parent)
    finally:
        tmp.unlink(missing_ok=True)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raises ConfigError if something of that name is there and may not be replaced."""
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists; name another place, or add --overwrite to replace it")
