"""Two evaluations compared pair by pair: right numbers, right refusals, a table and a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluate_world import evaluated, make_world, seen

from minigpt4o.cli import main
from minigpt4o.common.errors import DataError
from minigpt4o.metrics.result import Measured
from minigpt4o.runners.evaluate_compare import compare, difference


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """A poor and a good model on the same 60 questions."""
    yaml = make_world(tmp_path, 60)
    return [evaluated(yaml, f"model.skill={skill}", run_id=str(skill)) for skill in (0.2, 0.9)]


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions/model.words.seen.jsonl").read_text().splitlines()[1:]]


def test_the_difference_is_that_of_the_two_scores_and_counts_the_pairs_that_differ(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--compare", *map(str, runs)]) == 0
    (row,) = json.loads((runs[1] / "compare.json").read_text())["rows"]
    poor, good = ([r["answer"] == r["truth"][0] for r in rows_of(run)] for run in runs)
    assert (row["value_a"], row["value_b"]) == tuple(seen(r)["scores"]["exact_match"]["value"] for r in runs)
    assert row["difference"] == pytest.approx((sum(good) - sum(poor)) / 60)
    assert 0 < row["low"] < row["difference"] < row["high"] and row["better"] == "b" and row["n"] == 60
    alone = [sum(a and not b for a, b in zip(*pair, strict=True)) for pair in ((poor, good), (good, poor))]
    assert [row["mcnemar"]["only_first"], row["mcnemar"]["only_second"]] == alone
    assert row["mcnemar"]["p"] < 1e-4
    out = capsys.readouterr().out
    assert "B - A" in out and "words" in out and "1 of 1 intervals leave 0 out" in out


def test_the_other_way_round_it_is_the_negative(runs: list[Path], tmp_path: Path) -> None:
    there = compare(str(runs[0]), str(runs[1]), out=str(tmp_path / "x/there.json"))["rows"][0]
    back = compare(str(runs[1]), str(runs[0]), out=str(tmp_path / "back.json"))["rows"][0]
    assert there["difference"] == -back["difference"] and (there["better"], back["better"]) == ("b", "a")
    assert there["mcnemar"]["p"] == back["mcnemar"]["p"]
    assert json.loads((tmp_path / "x/there.json").read_text())["rows"] == [there]


def test_two_models_of_one_evaluation_are_named_behind_a_colon(tmp_path: Path) -> None:
    run = evaluated(make_world(tmp_path, 8), 'run.variants={one: "", two: ""}')
    (row,) = compare(f"{run}:one", f"{run}:two")["rows"]
    assert (row["a"], row["b"], row["difference"], row["better"]) == ("one", "two", 0.0, "even")
    assert len(compare(str(run), str(run.parent))["rows"]) == 2  # a job folder: its newest; models of one name
    with pytest.raises(DataError, match="no model 'three' in it; there are: one, two"):
        compare(f"{run}:three", str(run))


def test_other_questions_or_truths_are_refused_by_the_name_of_the_data_set(runs: list[Path], tmp_path: Path) -> None:
    rows = json.loads((tmp_path / "questions.json").read_text())
    rows[7]["answer"] = ["none"]
    (tmp_path / "questions.json").write_text(json.dumps(rows))
    other = evaluated(tmp_path / "eval.yaml", run_id="other")
    with pytest.raises(DataError, match=r"words \(seen\): 60 prompts, data .* against 60 prompts, data"):
        compare(str(runs[0]), str(other))
    fewer = evaluated(tmp_path / "eval.yaml", "run.limit=10", run_id="fewer")
    with pytest.raises(DataError, match=r"60 prompts.* against 10 prompts"):
        compare(str(runs[0]), str(fewer))


def test_another_template_or_checkpoint_does_not_hinder(runs: list[Path], tmp_path: Path) -> None:
    yaml = tmp_path / "eval.yaml"
    changed = evaluated(yaml, "datasets.words.task.max_new_tokens=9", "run.batch_size_eval=7", run_id="changed")
    assert compare(str(runs[0]), str(changed))["rows"][0]["n"] == 60


def test_answers_edited_after_scoring_are_refused(runs: list[Path]) -> None:
    file = runs[0] / "predictions/model.words.seen.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="is not the file results.json was made from"):
        compare(*map(str, runs))
    file.unlink()
    with pytest.raises(DataError, match="is missing; it holds the answers of words"):
        compare(*map(str, runs))


def test_what_was_not_measured_is_told(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--metric bleu: measured by neither; known: exact_match"):
        compare(*map(str, runs), metric="bleu")
    with pytest.raises(DataError, match=r"no results\.json in it"):
        compare(str(tmp_path), str(runs[0]))


def test_a_metric_of_sums_is_computed_anew_in_every_round_and_of_errors_the_lower_is_better() -> None:
    def rate(sums: Any) -> float:
        return float(sums[0] / sums[1])

    def errors(count: int) -> Measured:
        rows = [[float(count), 10.0 + i] for i in range(30)]
        return Measured(rate([30 * count, sum(r[1] for r in rows)]), [0.0] * 30, "wer", rows, rate, better="lower")

    found = difference(errors(5), errors(1), 200, 0)
    assert found["difference"] == pytest.approx(-4 * 30 / sum(10 + i for i in range(30)))
    assert found["better"] == "b" and found["high"] < 0 and "mcnemar" not in found
    with pytest.raises(DataError, match="two definitions of one metric"):
        difference(errors(1), Measured(0.0, [0.0] * 30, "cer"), 10, 0)
