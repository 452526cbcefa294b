"""Cores this process may use: what it is bound to, and what its container may take."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def cores(group: Path = _CGROUP) -> int:
    """Cores this process may use: those it is bound to, and no more than the quota of its container."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(bound, math.ceil(_quota(group) or bound)))


def _quota(group: Path) -> float | None:
    """Cores' worth of time the container may take; None = all."""
    second = _words(group / "cpu.max")
    first = {name: _words(group / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")}
    pair = second if len(second) == 2 else [*first["quota"], *first["period"]]
    if len(pair) != 2 or not all(word.isdigit() for word in pair) or int(pair[1]) == 0:  # "max", "-1": no limit
        return None
    return int(pair[0]) / int(pair[1])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []
