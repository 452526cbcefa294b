"""The learning rates are those of MiniGPT-4, without its sawtooth."""

from __future__ import annotations

import pytest

from minigpt4o.common.errors import ConfigError
from minigpt4o.runners.schedule import Constant, LinearWarmupCosine, LinearWarmupStep, Rates

# (epoch, iteration, rate), computed by the original code with each recipe's values
STAGE_1 = [
    (0, 0, 1e-06), (0, 1, 1.0198e-06), (0, 2500, 5.05e-05), (0, 4999, 9.99802e-05), (1, 0, 9.707106781186548e-05),
    (1, 1, 9.706995700389971e-05), (2, 0, 9e-05), (3, 0, 8.292893218813453e-05), (3, 4999, 8.000000012337006e-05),
]  # fmt: skip
STAGE_2 = [
    (0, 0, 1e-06), (0, 100, 1.5499999999999997e-05), (0, 199, 2.9855e-05), (1, 0, 2.8090169943749472e-05),
    (2, 0, 2.3090169943749473e-05), (4, 0, 1.1909830056250527e-05), (4, 199, 1.000004934798142e-05),
]  # fmt: skip
V2 = [
    (0, 0, 1e-06), (0, 500, 5.5e-06), (0, 999, 9.991000000000001e-06), (1, 0, 9.991120277927222e-06),
    (10, 0, 9.140576474687265e-06), (25, 0, 5.5e-06), (49, 999, 1.000000008882644e-06),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rates", "golden"),
    [
        (Rates(1e-4, 8e-5, 1e-6, 5000, None, 4 * 5000, 5000), STAGE_1),
        (Rates(3e-5, 1e-5, 1e-6, 200, None, 5 * 200, 200), STAGE_2),
        (Rates(1e-5, 1e-6, 1e-6, 1000, None, 50 * 1000, 1000), V2),
    ],
)
def test_cosine_gives_the_rates_of_the_original_recipes(rates: Rates, golden: list[tuple[int, int, float]]) -> None:
    schedule = LinearWarmupCosine(rates=rates)
    for epoch, iteration, rate in golden:
        assert schedule.lr(epoch * rates.epoch_steps + iteration) == pytest.approx(rate, rel=1e-12)


def test_a_warm_up_longer_than_an_epoch_rises_without_falling_back() -> None:
    schedule = LinearWarmupCosine(rates=Rates(4e-5, 0.0, 0.0, 250, None, 400, 100))
    warm = [schedule.lr(step) for step in range(250)]
    assert warm == sorted(warm)
    assert warm[249] > 0.99 * 4e-5


def test_a_rate_depends_on_the_step_alone() -> None:
    schedule = LinearWarmupCosine(rates=Rates(1e-3, 1e-4, 0.0, 5, None, 50, 10))
    forwards = [schedule.lr(i) for i in range(50)]
    backwards = [schedule.lr(i) for i in reversed(range(50))]
    assert forwards == backwards[::-1]


def test_step_schedule_decays_once_per_epoch_and_stops_at_the_lowest_rate() -> None:
    schedule = LinearWarmupStep(rates=Rates(1.0, 0.3, 0.1, 4, 0.5, 100, 10))
    assert schedule.lr(0) == pytest.approx(0.1)
    assert schedule.lr(9) == 1.0
    assert schedule.lr(10) == 0.5
    assert schedule.lr(99) == 0.3


def test_step_schedule_asks_for_its_decay() -> None:
    with pytest.raises(ConfigError, match="lr_decay_rate"):
        LinearWarmupStep(rates=Rates(1.0))


def test_without_a_warm_up_rate_there_is_no_warm_up() -> None:
    assert Constant(rates=Rates(0.5, warmup_lr=-1, warmup_steps=10)).lr(0) == 0.5
    assert Constant(rates=Rates(0.5, warmup_lr=0.0, warmup_steps=10)).lr(5) == 0.25
