"""Ranks of one job: start from torchrun's environment, agree, part. Every helper is a no-op in a single process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed as dist

from minigpt4o.common.errors import ConfigError, Minigpt4oError

T = TypeVar("T")
INIT_TIMEOUT_S = 600  # ranks may start minutes apart: imports, image pulls


@dataclass(frozen=True)
class World:
    """This process among all of the job."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device
    owner: bool = False  # whether this call made the process group, and so has to end it


def start(device: str = "auto", timeout_s: float = 300, force_group: bool = False) -> World:
    """Join the job described by torchrun's environment variables (RANK, WORLD_SIZE, LOCAL_RANK, ...).

    `force_group` makes a process group even for one process, for engines that insist on one.
    CPU tensors travel by gloo, CUDA tensors by nccl.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    world = World(
        rank, size, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", size)), pick_device(device, local_rank)
    )
    on_cuda = world.device.type == "cuda"
    if on_cuda:
        torch.cuda.set_device(world.device)
    if (size > 1 or force_group) and not dist.is_initialized():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            rank=rank,
            world_size=size,
            store=dist.HashStore() if size == 1 else None,
            timeout=timedelta(seconds=INIT_TIMEOUT_S if size > 1 and not on_cuda else timeout_s),
            device_id=world.device if on_cuda else None,
        )
        world = replace(world, owner=True)
        if size > 1:
            dist.barrier()
            _set_timeout(timeout_s)
    return world


def _set_timeout(seconds: float) -> None:
    """Once all ranks are there, a silent rank must end the job soon."""
    from torch.distributed.distributed_c10d import _set_pg_timeout

    _set_pg_timeout(timedelta(seconds=seconds))


def pick_device(device: str, local_rank: int = 0) -> torch.device:
    """`auto` is the local rank's GPU if there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda" and chosen.index is None:
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"run.device: local rank {local_rank} has no GPU ({torch.cuda.device_count()} visible); "
                "start fewer processes per node or set run.device: cpu"
            )
        chosen = torch.device("cuda", local_rank)
    return chosen


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def get_rank() -> int:
    return dist.get_rank() if is_distributed() else 0


def get_world_size() -> int:
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    return get_rank() == 0


def barrier() -> None:
    if is_distributed():
        dist.barrier()


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over ranks, in place."""
    if is_distributed():
        dist.all_reduce(tensor)
    return tensor


def all_gather(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Every rank's tensor (equal shapes), by rank."""
    if not is_distributed():
        return [tensor]
    found = [torch.empty_like(tensor) for _ in range(get_world_size())]
    dist.all_gather(found, tensor)
    return found


def main_decides(decide: Callable[[], T]) -> T:
    """Rank 0 calls `decide`; every rank gets its value, or raises the same error meant for the user."""
    box: list[Any] = [None, None]
    if is_main():
        try:
            box[0] = decide()
        except Minigpt4oError as error:
            box[1] = error
    if is_distributed():
        dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return box[0]


def gather_objects(value: T) -> list[T]:
    """Every rank's plain value, by rank."""
    if not is_distributed():
        return [value]
    found: list[Any] = [None] * get_world_size()
    dist.all_gather_object(found, value)
    return found


def finish(world: World) -> None:
    """Leave the job in good order, if this `start` joined it."""
    if world.owner and dist.is_initialized():
        dist.destroy_process_group()
