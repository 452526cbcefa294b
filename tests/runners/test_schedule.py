"""The learning rates are those of MiniGPT-4, without its sawtooth."""

from __future__ import annotations

import pytest

from minigpt4o.common.errors import ConfigError
from minigpt4o.runners.pace import CompatPace
from minigpt4o.runners.schedule import Constant, LinearWarmupCosine, LinearWarmupStep, Paced, Rates

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
# init 1e-4, lowest 0, warm-up of 250 from 0, epochs of 100: each epoch of the warm-up starts again
SAWTOOTH = [
    (0, 0, 0.0), (0, 99, 3.96e-05), (1, 0, 0.0), (1, 99, 3.96e-05), (2, 0, 0.0), (2, 49, 1.96e-05),
    (2, 50, 3.086582838174553e-05), (2, 51, 3.0503615610590586e-05),
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


def test_compat_has_the_sawtooth_of_the_original() -> None:
    schedule = LinearWarmupCosine(rates=Rates(1e-4, 0.0, 0.0, 250, None, 400, 100, compat=True))
    for epoch, iteration, rate in SAWTOOTH:
        assert schedule.lr(epoch * 100 + iteration) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("golden", [STAGE_1, STAGE_2, V2])
def test_compat_gives_the_original_rates_of_the_recipes(golden: list[tuple[int, int, float]]) -> None:
    rates = {
        id(STAGE_1): (1e-4, 8e-5, 1e-6, 5000, None, 4 * 5000, 5000),
        id(STAGE_2): (3e-5, 1e-5, 1e-6, 200, None, 5 * 200, 200),
        id(V2): (1e-5, 1e-6, 1e-6, 1000, None, 50 * 1000, 1000),
    }[id(golden)]
    schedule = LinearWarmupCosine(rates=Rates(*rates, compat=True))
    for epoch, iteration, rate in golden:
        assert schedule.lr(epoch * rates[-1] + iteration) == pytest.approx(rate, rel=1e-12)


def test_under_compat_a_step_has_the_rate_of_its_last_micro_iteration() -> None:
    inner = LinearWarmupCosine(rates=Rates(1e-3, 1e-4, 0.0, 4, None, 15, 5, compat=True))
    pace = CompatPace(6, 2, 2, epoch_iters=5)
    paced = Paced(inner, pace)
    assert [pace.tick(step) for step in range(6)] == [1, 3, 6, 8, 11, 13]
    assert [paced.lr(step) for step in range(6)] == [inner.lr(t) for t in (1, 3, 6, 8, 11, 13)]
    assert pace.total_ticks == 15


def test_step_and_constant_schedules_under_compat_are_those_of_lavis() -> None:
    step = LinearWarmupStep(rates=Rates(1.0, 0.3, 0.1, 4, 0.5, 100, 10, compat=True))
    assert step.lr(2) == pytest.approx(0.1 + 0.9 * 2 / 4)
    assert step.lr(9) == 1.0
    assert step.lr(10) == 0.5
    long = Constant(rates=Rates(1.0, 0.0, 0.0, 20, None, 100, 10, compat=True))
    assert long.lr(9) == pytest.approx(9 / 20)
    assert long.lr(10) == 1.0  # the warm-up ends with epoch 0
