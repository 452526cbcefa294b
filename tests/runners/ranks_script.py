"""Started by test_distributed.py, with torchrun or alone: the same few steps with several engines, in one launch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import tiny_world  # noqa: E402
from torch import distributed as dist  # noqa: E402

from minigpt4o.common import distributed  # noqa: E402
from minigpt4o.common.registry import Part, registry  # noqa: E402
from minigpt4o.models.base import LossSum  # noqa: E402


@registry.register("task", "spoil_rank_1")
class SpoilRank1:
    """In the third step the loss of rank 1, and of no other, is not a number."""

    def __init__(self) -> None:
        self.calls = 0

    def train_step(self, model: Any, batch: Any) -> LossSum:
        found = model(batch)
        self.calls += model.training
        spoil = model.training and self.calls == 3 and distributed.get_rank() == 1
        return LossSum(found.loss_sum * float("nan"), found.count) if spoil else found


def main(world: Path, output: Path, plan: Path) -> None:
    """`plan` is a list of {name, engine, zero_stage, and values of the run node}."""
    ours = distributed.start("cpu", 60, force_group=True)
    for values in json.loads(plan.read_text()):
        engine = Part("engine", values.pop("engine"), values.pop("options", {}))
        if "task" in values:
            values["task"] = Part("task", values["task"])
        settings = tiny_world.tiny_settings(world, output, engine=engine, **values)
        tiny_world.train(settings)
        dist.barrier()
    distributed.finish(ours)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
