"""Data sets with batch sizes of their own, as in MiniGPT-v2: one batch mixes them in the proportions of the recipe."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tiny_world import lines, train

from minigpt4o.common.nodes import DatasetSpec
from minigpt4o.datasets.order import MixtureSchedule
from minigpt4o.runners.data import BATCH_SIZE, common_batch_size, sample_weights

# batch_size, sample_ratio of MiniGPT-v2's third stage
V2 = [(2, 50), (2, 30), (1, 10), (6, 40), (4, 20), (4, 80), (2, 80), (2, 80), (2, 80), (6, 10), (6, 30)]
V2 += [(6, 25)] * 3 + [(6, 10)] * 3 + [(6, 15), (6, 8), (6, 12), (6, 50), (6, 30)]


def sets(settings: Any, pairs: list[tuple[int | None, float]]) -> Any:
    specs = [DatasetSpec(name=f"s{i}", batch_size=size, sample_ratio=ratio) for i, (size, ratio) in enumerate(pairs)]
    return replace(settings, datasets={spec.name: spec for spec in specs})


@pytest.mark.parametrize(
    ("pairs", "size", "weights"),
    [
        ([(4, 1), (4, 3)], 4, [1, 3]),
        ([(None, 1), (None, 3)], BATCH_SIZE, [1, 3]),
        ([(2, 1), (6, 3)], 5, [2, 18]),
        ([(2, 1), (6, 1), (None, 1)], 4, [2, 6, 4]),
        ([(1, 0), (6, 2)], 6, [0, 12]),
        (V2, 4, [size * ratio for size, ratio in V2]),
    ],
)
def test_a_set_comes_as_often_as_if_each_step_held_one_set(
    make_settings: Callable[..., Any], pairs: list[tuple[int | None, float]], size: int, weights: list[float]
) -> None:
    settings = sets(make_settings(batch_size_train=None), pairs)
    assert common_batch_size(settings) == size
    assert list(sample_weights(settings, settings.datasets).values()) == pytest.approx(weights)


def test_it_is_said_once(make_settings: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        common_batch_size(sets(make_settings(), [(4, 1), (4, 2)]))
        assert "batch_size" not in caplog.text
        common_batch_size(sets(make_settings(), [(1, 1), (6, 1)]))
    assert caplog.text.count("datasets.*.batch_size differ (1 to 6): a batch of 4 rows mixes the data sets") == 1


def test_such_a_recipe_trains(make_settings: Callable[..., Any]) -> None:
    settings = make_settings(batch_size_train=None, max_steps=2, save_freq=2)
    data = settings.datasets
    data = {"colours": replace(data["colours"], batch_size=2), "words": replace(data["words"], batch_size=6)}
    run = train(replace(settings, datasets=data))
    steps = [row for row in lines(run) if "loss" in row]
    assert len(steps) >= 2
    assert all(row["loss"] > 0 for row in steps)


def test_the_loader_draws_by_these_weights(make_settings: Callable[..., Any]) -> None:
    settings = make_settings(batch_size_train=None)
    data = {
        name: replace(spec, batch_size=size)
        for (name, spec), size in zip(settings.datasets.items(), (2, 6), strict=True)
    }
    weights = sample_weights(replace(settings, datasets=data), data)
    schedule = MixtureSchedule(dict.fromkeys(data, 9), weights, seed=0)
    drawn = Counter(schedule.at(position).dataset for position in range(10 * schedule.block))
    assert drawn["words"] * 2 * 2 == drawn["colours"] * 6  # sample_ratio 2 : 1, batch_size 2 : 6


def test_a_batch_size_of_the_run_stands_in_place_of_them_all(make_settings: Callable[..., Any]) -> None:
    settings = sets(make_settings(batch_size_train=8), [(2, 1), (6, 3)])
    assert sample_weights(settings, settings.datasets) == {"s0": 1, "s1": 3}
