"""Every benchmark from its published files through the whole chain: truth reaches the ceiling, nonsense the floor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from oracle import WAYS, StandIn, judge

import published_benchmarks  # isort: skip - found by oracle
from published_sets import WRITTEN_BY  # isort: skip

from minigpt4o.common.config import load_settings
from minigpt4o.common.registry import registry
from minigpt4o.conversation.template import load_template
from minigpt4o.runners import evaluate, evaluate_ranking
from minigpt4o.runners.evaluate_from import rescore
from minigpt4o.runners.evaluate_model import Variant

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(file.stem for file in (ROOT / "minigpt4o/configs/datasets").glob("benchmark_*.yaml"))
SMALL = {"image": {"image_size": 32}, "audio": {"seconds": 0.2}}
JUDGED = "benchmark_llava_bench"
# metric -> what the truth reaches, where that is not 1: and within what
CEILINGS = {
    "cider_d": (10.0, 1e-6),
    "cider": (10.0, 1e-6),
    "wer": (0.0, 0.0),
    "cer": (0.0, 0.0),
    "mean_iou": (0.95, 0.05),  # boxes are written in hundredths
    "meteor_exact": (0.99, 0.02),  # 1 - half of (1 / matched words) cubed
    "score": (10.0, 0.0),
    "reference_score": (10.0, 0.0),
    "bleu_1": (1.0, 1e-6),  # the COCO tools' guards against 0/0
    "bleu_2": (1.0, 1e-6),
    "bleu_3": (1.0, 1e-6),
    "bleu_4": (1.0, 1e-6),
}
NO_QUALITY = {"answer_words", "yes_share", "ranked_yes_share", "reference_score"}  # tell no right from wrong
ERRORS = {"wer", "cer"}
FLOOR = 1e-6
MEMES = [{"id": i, "img": "img/01.png", "text": f"it's a dog {i}", "label": i % 2} for i in range(4)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of all benchmarks."""
    root = tmp_path_factory.mktemp("benchmarks")
    for write in dict.fromkeys(WRITTEN_BY[name] for name in NAMES):
        write(root)
    published_benchmarks.richer(root)
    published_benchmarks.put_lines(root / "eval/hateful_meme/dev.jsonl", MEMES)
    return root


@pytest.fixture(scope="module")
def settings_of(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Settings of an evaluation of benchmarks by their names alone, on small pictures and short sounds."""
    from minigpt4o.datasets.known import known_set

    def make(names: list[str], out: Path, url: str = "", **run: Any) -> Any:
        nodes: dict[str, Any] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MINIGPT4O_DATA", str(data))
            patch.setenv("MINIGPT4O_CACHE", str(data / "cache"))
            for name in names:
                node = known_set(name).node
                fields = {"image": "vis_processor", "audio": "audio_processor"}
                nodes[name] = {
                    field: {"eval": node[field]["eval"] | SMALL[kind]}
                    for kind, field in fields.items()
                    if field in node
                }
                if name == JUDGED and url:
                    nodes[name]["task"] = {"url": url, "model": "judge"}
            model = {"arch": "aligned", "template": "plain", "llm": {"name": "causal_lm"}}
            run = {"runner": "evaluate", "output_dir": str(out), "run_id": "r", "device": "cpu", "baselines": []} | run
            run = {"bootstrap": 10, "report": False, "batch_size_eval": 3} | run
            file = out / "benchmarks.yaml"
            file.write_text(yaml.safe_dump({"model": model, "datasets": nodes, "run": run}), encoding="utf-8")
            return load_settings(file, needs=("datasets", "run"))

    return make


@pytest.fixture(scope="module")
def evaluated(settings_of: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run an evaluation whose model answers in one way; returns (its settings, its folder, the model)."""

    def run(way: str, names: list[str] = NAMES, **run_values: Any) -> tuple[Any, Path, StandIn]:
        out = tmp_path_factory.mktemp(way)
        with judge() as (url, _), pytest.MonkeyPatch.context() as patch:
            patch.setenv("MINIGPT4O_CACHE", str(out / "cache"))
            settings = settings_of(names, out, url, **run_values)
            tasks = {name: registry.build(spec.task) for name, spec in settings.datasets.items()}
            model = StandIn(tasks, way, load_template("plain"))
            patch.setattr(evaluate, "build_variant", lambda *_: Variant("model", model, "", "0" * 64))
            patch.setattr(evaluate_ranking, "rank_batch", model.rank)
            registry.build(settings.run, settings=settings).run()
        return settings, out / "eval/r", model

    return run


@pytest.fixture(scope="module")
def runs(evaluated: Any) -> dict[str, tuple[Any, Path, StandIn]]:
    return {way: evaluated(way) for way in WAYS}


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())["datasets"]
    return found


def scores(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = results(folder)[name]["variants"]["model"]["conditions"]["seen"]["scores"]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_true_answers_reach_the_ceiling(runs: Any, name: str) -> None:
    found = scores(runs["truth"][1], name)
    assert found
    for metric, score in found.items():
        if metric in NO_QUALITY - {"reference_score"}:
            continue
        value, within = CEILINGS.get(metric, (1.0, 1e-9))
        assert score["value"] == pytest.approx(value, abs=within or 1e-12), metric
        assert score["unparsable"] == 0, metric
        assert score["variant"], metric


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("name", NAMES)
def test_empty_and_garbage_answers_reach_the_floor(runs: Any, name: str, way: str) -> None:
    found = scores(runs[way][1], name)
    for metric, score in found.items():
        if metric in NO_QUALITY:
            continue
        if metric in ERRORS:
            assert score["value"] >= 1.0, metric
        else:
            assert score["value"] <= FLOOR, metric
        assert score["n"] == results(runs[way][1])[name]["n"]
        if way == "empty" and not metric.startswith(("ranked", "auroc")):
            assert score["unparsable"] == score["n"], metric


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique_and_every_question_has_a_row(runs: Any, name: str) -> None:
    _, folder, _ = runs["truth"]
    lines = (folder / f"predictions/model.{name}.seen.jsonl").read_text(encoding="utf-8").splitlines()
    ids = [json.loads(line)["id"] for line in lines[1:]]
    assert len(ids) == len(set(ids)) == results(folder)[name]["n"]


def test_garbage_that_no_parser_reads_is_counted(runs: Any) -> None:
    unread = {name: scores(runs["garbage"][1], name) for name in NAMES}
    for name, metric in {
        "benchmark_refcoco_val": "acc@0.5",
        "benchmark_iconvqa": "choice_accuracy",
        "benchmark_scienceqa": "choice_accuracy",
        "benchmark_pope_random": "f1",
        "benchmark_esc50": "class_accuracy",
    }.items():
        assert unread[name][metric]["unparsable"] == unread[name][metric]["n"], name


def test_answers_handed_in_and_read_back_score_the_same(runs: Any, settings_of: Any, tmp_path: Path) -> None:
    _, folder, _ = runs["truth"]
    official = {n: r["variants"]["model"].get("official") for n, r in results(folder).items()}
    names = sorted(name for name, told in official.items() if told)
    assert {told["format"] for told in official.values() if told} >= {
        "vqa",
        "gqa",
        "vizwiz",
        "coco_caption",
        "nocaps",
        "pope",
        "refcoco",
        "scienceqa",
        "aokvqa",
    }
    assert not [name for name in names if official[name]["repeated"]]
    again = rescore(settings_of(names, tmp_path), folder / "predictions/official")
    for name in names:
        before, after = scores(folder, name), scores_of_any(again, name)
        shared = [metric for metric in after if metric in before]
        assert shared, name
        for metric in shared:
            assert after[metric]["value"] == pytest.approx(before[metric]["value"], abs=1e-12), (name, metric)


def scores_of_any(folder: Path, name: str) -> dict[str, Any]:
    (variant,) = results(folder)[name]["variants"].values()
    found: dict[str, Any] = variant["conditions"]["seen"]["scores"]
    return found


def test_our_own_predictions_scored_again_give_the_same(runs: Any, settings_of: Any, tmp_path: Path) -> None:
    _, folder, _ = runs["truth"]
    again = rescore(settings_of(NAMES, tmp_path), folder)
    for name in NAMES:
        before, after = scores(folder, name), scores_of_any(again, name)
        assert {metric: one["value"] for metric, one in after.items()} == {
            metric: one["value"] for metric, one in before.items() if metric in after
        }
    assert (
        scores_of_any(again, JUDGED)["relative_score"]["value"] == 1.0
    )  # nobody is asked: the words stand in the rows


def test_ranking_generates_only_where_both_are_wanted(runs: Any) -> None:
    _, folder, model = runs["truth"]
    assert model.asked["benchmark_hm_auroc"] == 0
    assert model.asked["benchmark_iconvqa"] == results(folder)["benchmark_iconvqa"]["n"]
    assert set(scores(folder, "benchmark_iconvqa")) == {"ranked_accuracy", "ranked_accuracy_sum", "choice_accuracy"}
    assert "likeliest" in results(folder)["benchmark_iconvqa"]["answered"]


def test_no_benchmark_asks_a_judge_or_anybody_unless_a_url_is_named(evaluated: Any, settings_of: Any) -> None:
    named = [n for n in NAMES if (ROOT / f"minigpt4o/configs/datasets/{n}.yaml").read_text().count("url: http")]
    assert named == []
    _, folder, _ = evaluated("truth", [JUDGED])
    row = json.loads((folder / f"predictions/model.{JUDGED}.seen.jsonl").read_text().splitlines()[1])
    assert row["meta"]["judge"].startswith("10 10\n")


def test_the_baselines_of_a_benchmark_are_asked_with_its_own_task(evaluated: Any) -> None:
    names = ["benchmark_pope_random", "benchmark_nocaps", "benchmark_esc50", "benchmark_reg_refcoco_testA"]
    _, folder, _ = evaluated("truth", names, baselines=["blind", "shuffled"])
    for name in names:
        conditions = results(folder)[name]["variants"]["model"]["conditions"]
        assert conditions["blind"]["scores"][results(folder)[name]["headline"]]["n"] == results(folder)[name]["n"]
