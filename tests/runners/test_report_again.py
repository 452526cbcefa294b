"""Claims about `report`: an evaluation's page is made again to the byte, and what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluate_world import evaluated, make_world

from minigpt4o.cli import main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return evaluated(make_world(tmp_path, 12, report=True, baselines=["blind"]))


def test_the_page_is_made_again_to_the_byte_without_the_model(run, monkeypatch, capsys) -> None:
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    monkeypatch.setattr("evaluate_world.Echo.__init__", None)  # no model may be built
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_bytes() == before
    assert f"report: {run / 'report.html'}" in capsys.readouterr().out


def test_a_job_folder_means_its_newest_evaluation_and_another_place_can_be_named(run, tmp_path) -> None:
    assert main(["report", str(run.parent), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_bytes() == (run / "report.html").read_bytes()


def test_without_its_data_the_page_has_scores_and_says_that_it_has_no_examples(run, tmp_path, capsys) -> None:
    (tmp_path / "questions.json").unlink()
    assert main(["report", str(run)]) == 0
    assert "no examples in the report" in capsys.readouterr().err
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "number 3 and" not in page and "words" in page


def test_what_is_no_evaluation_is_refused(run, tmp_path, capsys) -> None:
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "results.json" in capsys.readouterr().err
    (run / "results.json").write_text(json.dumps([]))
    assert main(["report", str(run)]) == 2
    assert "cannot be read" in capsys.readouterr().err
