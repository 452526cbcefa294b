"""How many of the machine's cores compute, so that those who read requests and send answers have one as well."""

from __future__ import annotations

import os

from minigpt4o.common.cores import cores

SAID_BY_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # what torch itself obeys


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
