"""A run and its data: exact epochs, grouped batches, what was bad is told at the end, a killed worker costs nothing."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_world import bytes_of, lines, stopped_at, train, with_run

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.registry import Part, registry

Make = Callable[..., Any]


@pytest.fixture
def spoiled(make_settings: Make, tmp_path: Path) -> Make:
    """Settings whose second data set has six texts that cannot be used, of 24."""

    def make(**run: Any) -> Any:
        settings = make_settings(**{"max_bad_fraction": 0.5, **run})
        rows = [{"id": f"w{i}", "caption": " " if i % 4 == 3 else f"word {i}"} for i in range(24)]
        (tmp_path / "words.json").write_text(json.dumps(rows))
        words = settings.datasets["words"]
        values = {**words.builder.values, "annotations": {"train": str(tmp_path / "words.json")}}
        datasets = {**settings.datasets, "words": replace(words, builder=Part("builder", "pairs", values))}
        return replace(settings, datasets=datasets)

    return make


def report(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "data_report.json").read_text())
    return found


def test_an_exact_epoch_takes_the_last_short_batch_and_ends(make_settings: Make) -> None:
    settings = make_settings(exact_epoch=True, max_steps=None, max_epoch=2, batch_size_train=5, save_freq=3)
    run = train(settings)
    rows = lines(run)
    assert len(rows) == 2 * math.ceil(48 / 5)  # both sets of 24, once each, whatever their ratios
    assert report(run)["good"] == 96
    assert all(row["loss"] > 0 for row in rows)
    parts = with_run(settings, job_name="parts", batch_size_train=1, accum_grad_iters=5)
    for one, other in zip(rows, lines(train(parts)), strict=True):
        assert one["ids"] == other["ids"] and one["learned"] == other["learned"]
    assert rows[9]["learned"] < min(row["learned"] for row in rows[:9])


def test_the_rows_that_fill_the_last_batch_teach_nothing(make_settings: Make) -> None:
    model = {"lora_dropout": 0.0}
    filled = make_settings(exact_epoch=True, max_steps=None, batch_size_train=40, job_name="filled", model=model)
    exact = make_settings(exact_epoch=True, max_steps=None, batch_size_train=8, job_name="exact", model=model)
    last = lines(train(with_run(filled, init_lr=1e-12)))[-1]  # 48 = 40 + 8: 32 rows are filled up
    alone = lines(train(with_run(exact, init_lr=1e-12)))[-1]
    assert last["learned"] == alone["learned"]
    assert last["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert last["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-4)


def test_stopped_and_continued_equals_never_stopped_with_every_order(spoiled: Make) -> None:
    for name, values in {
        "grouped": {"group_by_length": True, "group_window": 24},
        "both": {"group_by_length": True, "exact_epoch": True, "batch_size_train": 7, "num_workers": 1},
    }.items():
        settings = spoiled(job_name=name, max_steps=9, valid_freq=4, resume_ckpt_path="auto", **values)
        peace = train(with_run(settings, job_name=f"{name}-peace", resume_ckpt_path=""))
        stopped_at(settings, 3)
        run = stopped_at(settings, 8).path
        assert report(run)["ended"].startswith("stopped at step 8")
        train(settings)
        assert bytes_of(run) == bytes_of(peace)
        assert report(run) == report(peace)
        assert report(run)["datasets"]["words"]["bad"] > 0


def test_the_report_tells_what_was_bad_also_when_the_run_fails(spoiled: Make) -> None:
    run = train(spoiled(max_steps=24))
    found = report(run)
    assert found["ended"] == "finished" and found["step"] == 24
    words = found["datasets"]["words"]["reasons"]["bad_text"]
    assert len({e["id"] for e in words["examples"]} & {f"w{i}" for i in range(3, 24, 4)}) == 3
    assert all("words.json" in e["detail"] for e in words["examples"])
    assert found["datasets"]["colours"]["bad"] == 0
    settings = spoiled(job_name="strict", max_steps=200, max_bad_fraction=0.001, valid_splits=[], save_freq=500)
    runner = registry.build(settings.run, settings=settings)
    with pytest.raises(DataError, match="max_bad_fraction 0.001") as told:
        runner.run()
    assert told.value.exit_code == 3
    found = report(runner.path)
    assert found["ended"] == str(told.value).splitlines()[0]
    assert found["bad"] > 0.001 * found["good"]
    rows = [json.loads(line) for line in (runner.path / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == sorted(f"w{i}" for i in range(3, 24, 4))


def test_a_killed_worker_ends_the_run_with_a_word_and_nothing_is_lost(make_settings: Make) -> None:
    peace = train(make_settings(job_name="peace", max_steps=8, valid_splits=[]))
    settings = make_settings(job_name="killed", max_steps=8, valid_splits=[], num_workers=1, resume_ckpt_path="auto")
    runner = registry.build(settings.run, settings=settings)
    original = runner.train_step

    def train_step() -> dict[str, Any]:
        if runner.progress.step == 3:
            worker = runner.loader._loader._iterator._workers[0]
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
        return original()

    runner.train_step = train_step
    with pytest.raises(DataError, match="worker process died") as told:
        runner.run()
    assert told.value.exit_code == 3
    assert "worker process died" in report(runner.path)["ended"]
    again = train(settings)
    assert again == runner.path
    assert (again / "metrics.jsonl").read_bytes() == (peace / "metrics.jsonl").read_bytes()


def test_the_time_spent_waiting_for_data_is_told(make_settings: Make) -> None:
    run = train(make_settings(max_steps=3, log_freq=1, num_workers=1, prefetch_factor=1))
    curves = [json.loads(line) for line in (run / "curves.jsonl").read_text().splitlines()]
    shares = [row["speed/data_wait"] for row in curves if "speed/data_wait" in row]
    assert len(shares) == 3
    assert all(0 <= share <= 1 for share in shares)
    assert shares[0] > 0  # the first batch had to be made


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"exact_epoch": True, "profile": "compat"}, "run.exact_epoch"),
        ({"exact_epoch": True, "iters_per_epoch": 5}, "run.iters_per_epoch: 5"),
        ({"prefetch_factor": 0}, "run.prefetch_factor: 0"),
        ({"group_window": -1}, "run.group_window: -1"),
    ],
)
def test_wishes_that_contradict_one_another_are_refused(make_settings: Make, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train(make_settings(**values))


def test_replacement_and_exact_epochs_contradict_one_another(make_settings: Make) -> None:
    settings = make_settings(exact_epoch=True, max_steps=2)
    datasets = {name: replace(spec, replacement=True) for name, spec in settings.datasets.items()}
    with pytest.raises(ConfigError, match=r"datasets\.colours\.replacement"):
        train(replace(settings, datasets=datasets))
    assert len(lines(train(with_run(replace(settings, datasets=datasets), exact_epoch=False)))) == 2
