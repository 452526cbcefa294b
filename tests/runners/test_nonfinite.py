"""A loss or gradient that is not finite never reaches the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_world import lines, train

from minigpt4o.common.errors import NonFiniteError
from minigpt4o.common.registry import Part, registry
from minigpt4o.models.base import LossSum

Make = Callable[..., Any]


@registry.register("task", "spoiled_for_test")
class Spoiled:
    """Learns, but the losses of some steps are spoiled."""

    @dataclass
    class Config:
        steps: str = ""  # numbers of the spoiled steps, with commas
        value: str = "nan"  # what their loss is multiplied by; "gradient" or "loss" spoils only that

    def __init__(self, config: Config) -> None:
        self.config, self.calls = config, 0

    def train_step(self, model: Any, batch: Any) -> LossSum:
        found = model(batch)
        if not model.training:
            return found
        self.calls += 1
        if str(self.calls) not in self.config.steps.split(","):
            return found
        if self.config.value == "gradient":
            found.loss_sum.register_hook(lambda grad: grad * float("nan"))
            return found
        if self.config.value == "loss":
            return LossSum(found.loss_sum + float("nan"), found.count)
        return LossSum(found.loss_sum * float(self.config.value), found.count)


def spoiled(steps: str, value: str) -> Part:
    return Part("task", "spoiled_for_test", {"steps": steps, "value": value})


@pytest.mark.parametrize("value", ["nan", "inf", "gradient", "loss"])
def test_a_spoiled_step_changes_neither_weights_nor_moments(
    make_settings: Make, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = train(make_settings(task=spoiled("3", value), save_freq=1, keep_checkpoints=10, valid_splits=[]))
    rows = lines(run)
    assert [row.get("not_applied", False) for row in rows] == [False, False, True, False, False, False]
    for name in ("trained", "optimizer"):
        before, after, later = (
            load_file(run / "checkpoints" / f"step-00000{step}" / f"{name}.safetensors") for step in (2, 3, 4)
        )
        assert all(torch.equal(before[n], after[n]) for n in before)
        assert not all(torch.equal(before[n], later[n]) for n in before)
        assert all(bool(torch.isfinite(t).all()) for t in later.values())
    assert "colours:s" in caplog.text


def test_too_many_in_a_row_end_the_run_and_leave_the_last_good_checkpoint(make_settings: Make) -> None:
    settings = make_settings(task=spoiled("3,4,5", "nan"), save_freq=2)
    runner = registry.build(settings.run, settings=settings)
    with pytest.raises(NonFiniteError, match="3 steps in a row") as stop:
        runner.run()
    assert stop.value.exit_code == 5
    saved = load_file(Path(runner.path) / "checkpoints" / "step-000002" / "trained.safetensors")
    assert all(bool(torch.isfinite(t).all()) for t in saved.values())


def test_a_few_apart_do_not(make_settings: Make) -> None:
    rows = lines(train(make_settings(task=spoiled("1,2,4,5", "nan"))))
    assert sum(row.get("not_applied", False) for row in rows) == 4
    assert rows[0]["loss"] is None
    assert rows[0]["loss_hex"] == "nan"
