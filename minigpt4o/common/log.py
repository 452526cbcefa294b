"""Logging of a run: plain lines on stderr, rank 0 speaks and the others only warn, optionally a file beside."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TextIO

_OURS = "minigpt4o"


class _Plain(logging.Formatter):
    """`12:30:05 text`; a warning says so, and a rank other than 0 says which it is."""

    def __init__(self, rank: int) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")
        self.rank = rank

    def formatMessage(self, record: logging.LogRecord) -> str:
        words = [record.asctime]
        if self.rank:
            words.append(f"[rank {self.rank}]")
        if record.levelno >= logging.WARNING:
            words.append(f"{record.levelname.lower()}:")
        return " ".join([*words, record.message])


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what stderr is at that moment: threads that outlive a redirection of it must not meet a closed file."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def rank_of_environment() -> int:
    """This process's rank as torchrun tells it; 0 for a single process. Needs no torch."""
    word = os.environ.get("RANK", "0")
    return int(word) if word.isdigit() else 0


def setup(file: str | Path | None = None, verbose: bool = False) -> logging.Logger:
    """Set the logging of this process up (again); returns the package's logger."""
    rank = rank_of_environment()
    level = (logging.DEBUG if verbose else logging.INFO) if rank == 0 else logging.WARNING
    logger = logging.getLogger(_OURS)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)
    logger.propagate = False
    _add(logger, _Stderr(), rank)
    if file is not None:
        log_to(file)
    return logger


def log_to(file: str | Path) -> logging.Handler:
    """From now on write the lines to a file too (appended)."""
    logger = logging.getLogger(_OURS)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    return _add(logger, logging.FileHandler(file, encoding="utf-8"), rank_of_environment())


def _add(logger: logging.Logger, handler: logging.Handler, rank: int) -> logging.Handler:
    handler.setFormatter(_Plain(rank))
    logger.addHandler(handler)
    return handler
