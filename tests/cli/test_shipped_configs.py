"""Every YAML that is shipped passes the check, and no slip in one crashes it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.problems import ConfigProblems

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(file for folder in ("train_configs", "eval_configs") for file in (ROOT / folder).rglob("*.yaml"))
SLIPS = 10  # of each file
# file -> init_lr, min_lr, warmup_lr, warmup_steps, max_epoch, iters_per_epoch, batch_size_train, max_txt_len
RECIPES = {
    "minigpt4_stage1_pretrain": (1e-4, 8e-5, 1e-6, 5000, 4, 5000, 64, 32),
    "minigpt4_llama2_stage1_pretrain": (1e-4, 8e-5, 1e-6, 5000, 4, 5000, 64, 32),
    "minigpt4_stage2_finetune": (3e-5, 1e-5, 1e-6, 200, 5, 200, 12, 160),
    "minigpt4_llama2_stage2_finetune": (3e-5, 1e-5, 1e-6, 200, 5, 200, 12, 160),
    "minigptv2_finetune": (1e-5, 1e-6, 1e-6, 1000, 50, 1000, 4, 1024),
    "bilingual_neox_stage1": (1e-4, 8e-5, 1e-6, 5000, 4, 5000, 64, 160),
}
CHATS = ("minigpt4_eval", "minigpt4_llama2_eval", "minigptv2_eval", "bilingual_neox_eval")
PRESETS = {  # arch, model_type -> bridge, what learns, size of the picture, template, rank of the adapters
    ("minigpt4", "pretrain_vicuna0"): ("qformer", ["bridges.image.proj"], 224, "caption", 0),
    ("minigpt4", "pretrain_vicuna0_13b"): ("qformer", ["bridges.image.proj"], 224, "caption", 0),
    ("minigpt4", "pretrain_llama2"): ("grouped", ["bridges.image"], 224, "caption", 0),
    ("minigpt4", "pretrain_neox"): ("qformer", ["bridges.image.proj"], 224, "rinna_neox", 0),
    ("minigpt_v2", "pretrain"): ("grouped", ["bridges.image", "lora"], 448, "minigpt_v2", 64),
}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_shipped_file_is_valid_but_for_what_the_user_must_fill_in(file: Path) -> None:
    try:
        settings = load_settings(file)
        assert settings.model.name
    except ConfigProblems as error:
        left = [str(problem) for problem in error.problems if "placeholder" not in problem.what]
        assert not left, "\n".join(left)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_published_settings_and_no_foreign_words(name: str) -> None:
    settings = load_settings(ROOT / "train_configs" / f"{name}.yaml")
    run = settings.run
    keys = ("init_lr", "min_lr", "warmup_lr", "warmup_steps", "max_epoch", "iters_per_epoch", "batch_size_train")
    assert (*(run[key] for key in keys), settings.model["max_txt_len"]) == RECIPES[name]
    assert run["weight_decay"] == 0.05
    assert run["lr_sched"].name == "linear_warmup_cosine_lr"
    assert not settings.notes


def test_the_data_of_the_recipes_are_weighed_as_published() -> None:
    one = load_settings(ROOT / "train_configs/minigpt4_stage1_pretrain.yaml").datasets
    assert {name: spec.sample_ratio for name, spec in one.items()} == {"laion": 115, "cc_sbu": 14}
    two = load_settings(ROOT / "train_configs/minigptv2_finetune.yaml").datasets
    assert len(two) == 22
    assert sum(spec.sample_ratio for spec in two.values()) == 2850  # released ratio x released batch size, summed
    sizes = {spec.vis_processor["train"]["image_size"] for spec in two.values() if spec.vis_processor}
    assert sizes == {448}


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_opens_pictures_at_the_size_of_its_encoder(name: str) -> None:
    settings = load_settings(ROOT / "eval_configs" / f"{name}.yaml")
    assert settings.run.name == "chat"
    assert settings.run["vis_processor"]["image_size"] == settings.model["encoders"]["image"]["image_size"]
    assert settings.model["ckpt"]


def test_the_benchmarks_are_asked_as_their_authors_did() -> None:
    settings = load_settings(ROOT / "eval_configs/minigptv2_benchmark_evaluation.yaml")
    assert settings.model["profile"] == "compat"
    assert len(settings.datasets) == 14
    for spec in settings.datasets.values():
        assert spec.task is not None
        assert spec.task["max_new_tokens"] == 20
        assert list(spec.builder["annotations"]) == ["test"]


@pytest.mark.parametrize(("arch", "model_type"), PRESETS)
def test_a_preset_is_the_published_model(arch: str, model_type: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"model: {{arch: {arch}, model_type: {model_type}}}\nrun: {{runner: chat}}\n", encoding="utf-8")
    model = load_settings(file).model
    image, bridge = model["encoders"]["image"], model["bridges"]["image"]
    found = (bridge.name, model["train"], image["image_size"], model["template"], model["lora_r"])
    assert found == PRESETS[(arch, model_type)]
    assert (image.name, image["depth"], image["width"], image["weights"]) == ("eva_vit", 39, 1408, "eva_vit_g.pth")
    assert model["feature_norm"] is True
    assert bool(model["feature_norm_weights"]) == (bridge.name == "qformer")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_slip_in_a_shipped_file_is_valid_or_refused(file: Path, tmp_path: Path) -> None:
    plain = file.read_text(encoding="utf-8")
    for number in range(SLIPS):
        tree = yaml.safe_load(plain)
        _slip(tree, random.Random(f"{file.name}/{number}"))
        slipped = tmp_path / "slipped.yaml"
        slipped.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
        try:
            load_settings(slipped)
        except ConfigError as error:
            assert str(slipped) in str(error) or "slipped.yaml" in str(error)  # noqa: PT017 - both ends are fine


def _slip(tree: dict[str, Any], rng: random.Random) -> None:
    """Delete, rename or retype one key."""
    nodes = [tree]
    for node in nodes:
        nodes += [value for value in node.values() if isinstance(value, dict) and value]
    node = rng.choice(nodes)
    key = rng.choice(list(node))
    act = rng.choice(["delete", "rename", "retype"])
    value = node.pop(key)
    if act == "rename":
        node[f"{key}s"] = value
    elif act == "retype":
        node[key] = rng.choice([None, True, 3, 1.5, "word", [], [1], {}, {"a": 1}, "${x}", {"name": 3}])
