"""A file written for MiniGPT-v2 runs unchanged: its questions letter for letter, its prompt with two BOS."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from oracle import StandIn  # puts the folder of the published files on the path

from test_benchmarks import ASKED, PICTURES  # isort: skip
from test_benchmarks import FILES as QUESTIONS  # isort: skip
from minigpt4_files import picture, put  # isort: skip

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
from reference_files import FILES as REFERENCE  # isort: skip

from minigpt4o.common.config import load_settings
from minigpt4o.common.registry import registry
from minigpt4o.conversation.template import load_template
from minigpt4o.runners import evaluate, evaluate_ranking
from minigpt4o.runners.evaluate_model import Variant

FILE = "eval_configs/minigptv2_benchmark_evaluation.yaml"
ANNOTATIONS = {  # what eval_file_path names, below the root
    "okvqa": "eval/okvqa",
    "gqa": "eval/gqa/testdev_balanced_questions.json",
    "vizwiz": "eval/vizwiz/val.json",
    "iconvqa": "eval/iconvqa/choose_text_val.json",
    "hm": "eval/hateful_meme/dev.jsonl",
    **dict.fromkeys(("refcoco", "refcoco+", "refcocog"), "eval"),
}
IMAGES = {
    "okvqa": "coco/images/train2017",
    "gqa": "gqa/images",
    "vizwiz": "eval/vizwiz/vizwiz_images",
    "iconvqa": "eval/iconvqa/iconvqa_images",
    "vsr": "eval/vsr/vsr_images",
    "hm": "eval/hateful_meme/hm_images",
    **dict.fromkeys(("refcoco", "refcoco+", "refcocog"), "coco/images"),
}
HEADLINES = {
    "okvqa": "vqa_accuracy",
    "gqa": "accuracy",
    "vizwiz": "vizwiz_accuracy",
    "iconvqa": "ranked_accuracy",
    "vsr": "accuracy",
    "hm": "accuracy",
    **dict.fromkeys(("refcoco", "refcocop", "refcocog"), "acc@0.5"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    for name, tree in QUESTIONS.items():
        put(folder / name, json.dumps(tree).encode())
    for name in PICTURES:
        put(folder / name, picture())
    return folder


def run(root: Path, out: Path, *options: str, way: str = "truth") -> tuple[Any, Path, StandIn]:
    """The reference's file as its users have it, only with their own paths in it."""
    tree = json.loads(json.dumps(REFERENCE[FILE]))
    for name, one in tree["evaluation_datasets"].items():
        one["eval_file_path"] = f"{root}/{ANNOTATIONS[name]}" if name in ANNOTATIONS else one["eval_file_path"]
        one["img_path"] = f"{root}/{IMAGES[name]}"
    tree["run"]["save_path"] = str(out)
    file = out / Path(FILE).name
    file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    quick = ["run.run_id=r", "run.bootstrap=10", "run.report=false", "run.baselines=[]", "run.device=cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGPT4O_DATA", str(root))
        patch.setenv("MINIGPT4O_CACHE", str(out / "cache"))
        settings = load_settings(file, [*quick, *options], needs=("datasets", "run"))
        settings.model.values["ckpt"] = ""
        tasks = {name: registry.build(spec.task) for name, spec in settings.datasets.items()}
        template = load_template(settings.model["template"], settings.model["profile"])
        model = StandIn(tasks, way, template)
        patch.setattr(evaluate, "build_variant", lambda *_: Variant("model", model, "", "0" * 64))
        patch.setattr(evaluate_ranking, "rank_batch", model.rank)
        registry.build(settings.run, settings=settings).run()
    return settings, out / "minigptv2_evaluation/r", model


@pytest.fixture(scope="module")
def compat(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, StandIn]:
    return run(root, tmp_path_factory.mktemp("compat"), "profile=compat")


def short(name: str) -> str:
    return name.removeprefix("benchmark_").partition("_")[0]


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    text = (folder / f"predictions/model.{name}.seen.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()[1:]]


def test_its_fourteen_data_sets_are_asked_and_the_truth_scores_100_percent(compat: Any) -> None:
    settings, folder, _ = compat
    found = json.loads((folder / "results.json").read_text())["datasets"]
    assert len(found) == len(settings.datasets) == 14
    for name, one in found.items():
        scores = one["variants"]["model"]["conditions"]["seen"]["scores"]
        assert one["headline"] == HEADLINES[short(name)], name
        assert scores[one["headline"]]["value"] == pytest.approx(1.0), name
        assert one["decoding"]["max_new_tokens"] == 20
        assert one["prompt"]["profile"] == "compat"


def test_each_prompt_is_the_references_with_its_question_letter_for_letter(compat: Any) -> None:
    settings, folder, _ = compat
    for name in settings.datasets:
        for row in rows(folder, name):
            asked = row["prompt"].replace("<s>", "")  # the ids tell of BOS, below
            assert asked == f"[INST] <Img><image></Img> {ASKED[short(name)]} [/INST]"


def test_each_prompt_begins_with_bos_twice_in_compat_and_once_without(compat: Any, root: Path, tmp_path: Path) -> None:
    _, _, model = compat
    bos = model.tokenizer.bos_token_id
    assert model.begins == {(bos, bos)}
    _, folder, plain = run(root, tmp_path)
    assert {begin[0] for begin in plain.begins} == {bos}
    assert not any(begin[1] == bos for begin in plain.begins)
    assert {row["prompt"].count("<s>") for row in rows(folder, "benchmark_gqa")} <= {0, 1}


@pytest.mark.parametrize("way", ["empty", "garbage"])
def test_what_says_nothing_right_scores_nothing(root: Path, tmp_path: Path, way: str) -> None:
    _, folder, _ = run(root, tmp_path, "profile=compat", way=way)
    found = json.loads((folder / "results.json").read_text())["datasets"]
    for name, one in found.items():
        scores = one["variants"]["model"]["conditions"]["seen"]["scores"]
        assert scores[one["headline"]]["value"] == 0.0, name
        assert scores[one["headline"]]["n"] == 1
