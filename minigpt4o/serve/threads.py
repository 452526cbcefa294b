"""How many of the machine's cores compute, so that those who read requests and send answers have one as well."""

from __future__ import annotations

import math
import os
from pathlib import Path

SAID_BY_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # what torch itself obeys
_CGROUP = Path("/sys/fs/cgroup")


def share_cores(wished: int = 0) -> int:
    """Set torch's threads, of this process and those begun after it, and return how many they are.

    `wished`: so many; 0 = as the environment says, else all cores but one. Where every core computes, a thread that
    reads a request takes the core of one, and all others wait for that one, spinning, at the end of each operation:
    many small operations are then several times slower.
    """
    import torch

    if wished:
        torch.set_num_threads(wished)
    elif not any(os.environ.get(name) for name in SAID_BY_USER):
        torch.set_num_threads(max(1, min(torch.get_num_threads(), cores() - 1)))
    return torch.get_num_threads()


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
