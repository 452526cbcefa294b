"""Each key of MiniGPT-4 and LAVIS, one by one: where it lands, or what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from minigpt4o.common.config import load_settings
from minigpt4o.common.dialect_data import WORDS as DATA_WORDS
from minigpt4o.common.dialect_model import WORDS as MODEL_WORDS
from minigpt4o.common.dialect_run import WORDS as RUN_WORDS
from minigpt4o.common.settings import Settings

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_tree(model: Any = None, run: Any = None, sets: Any = None, arch: str = "minigpt4") -> Settings:
        types = {"minigpt4": "pretrain_vicuna0", "llama2": "pretrain_llama2", "minigpt_v2": "pretrain"}
        name = "minigpt4" if arch == "llama2" else arch
        tree = {
            "model": {"arch": name, "model_type": types[arch], **(model or {})},
            "datasets": sets or {"coco_caption": {}},
            "run": {"task": "image_text_pretrain", **(run or {})},
        }
        path = tmp_path / "a.yaml"
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        return load_settings(path)

    return load_tree


def at(settings: Settings, dotted: str) -> Any:
    node: Any = settings.tree
    for word in dotted.split("."):
        node = node[word]
    return node


IMAGE, BRIDGE = "model.encoders.image", "model.bridges.image"
LANDS: list[tuple[str, dict[str, Any], str, Any]] = [  # arch, model keys of the reference -> our key, its value
    ("minigpt4", {"vit_model": "eva_clip_g"}, f"{IMAGE}.name", "eva_vit"),
    ("minigpt4", {"image_size": 364}, f"{IMAGE}.image_size", 364),
    ("minigpt4", {"drop_path_rate": 0.1}, f"{IMAGE}.drop_path", 0.1),
    ("minigpt4", {"drop_path_rate": 0}, f"{IMAGE}.drop_path", 0.0),
    ("minigpt4", {"use_grad_checkpoint": True, "freeze_vit": False}, f"{IMAGE}.gradient_checkpointing", True),
    ("minigpt4", {"freeze_vit": True}, "model.train", ["bridges.image.proj"]),
    (
        "minigpt4",
        {"freeze_vit": False},
        "model.train",
        ["bridges.image.proj", "encoders.image", "norms.image"],
    ),
    ("minigpt4", {"freeze_qformer": False}, "model.train", ["bridges.image"]),
    ("minigpt4", {"freeze_qformer": True}, "model.train", ["bridges.image.proj"]),
    ("minigpt4", {"num_query_token": 16}, f"{BRIDGE}.queries", 16),
    ("minigpt4", {"q_former_model": "/w/q.pth"}, f"{BRIDGE}.weights", "/w/q.pth"),
    ("minigpt4", {"q_former_model": "https://x.org/a/q.pth"}, f"{BRIDGE}.weights", "https://x.org/a/q.pth"),
    ("minigpt4", {"has_qformer": True}, f"{BRIDGE}.name", "qformer"),
    ("minigpt4", {"has_qformer": False}, BRIDGE + ".name", "grouped"),
    ("minigpt4", {"has_qformer": False}, BRIDGE + ".drop_cls", True),
    ("minigpt4", {"has_qformer": False}, "model.train", ["bridges.image"]),
    ("minigpt4", {"has_qformer": False}, "model.feature_norm_weights", ""),
    ("llama2", {"has_qformer": False}, f"{BRIDGE}.name", "grouped"),
    ("llama2", {"has_qformer": True}, f"{BRIDGE}.name", "qformer"),
    ("llama2", {"has_qformer": True, "num_query_token": 8}, f"{BRIDGE}.queries", 8),
    ("llama2", {"has_qformer": True}, "model.train", ["bridges.image.proj"]),
    ("llama2", {"has_qformer": True}, "model.feature_norm_weights", "blip2_pretrained_flant5xxl.pth"),
    ("minigpt4", {"llama_model": "/w/vicuna"}, "model.llm.path", "/w/vicuna"),
    ("minigpt4", {"llama_model": ""}, "model.llm.path", "vicuna-7b"),
    ("minigpt4", {"prompt_template": "A: {} B: "}, "model.prompt_template", "A: {} B: "),
    ("minigpt4", {"max_txt_len": 160}, "model.max_txt_len", 160),
    ("minigpt4", {"end_sym": "###"}, "model.end_sym", "###"),
    ("minigpt_v2", {"max_context_len": 2000}, "model.max_context_len", 2000),
    ("minigpt4", {"low_resource": True}, "model.llm.quantize", "8bit"),
    ("minigpt4", {"low_resource": False}, "model.llm.quantize", ""),
    ("minigpt_v2", {"lora_r": 8, "lora_alpha": 32}, "model.lora_alpha", 32),
    ("minigpt_v2", {"chat_template": True}, "model.prompt_template", ""),
    ("minigpt_v2", {"chat_template": False}, "model.prompt_template", "{}"),
    ("minigpt_v2", {"use_grad_checkpoint_llm": True}, "model.gradient_checkpointing", True),
    ("minigpt4", {"ckpt": "/w/c.pth"}, "model.ckpt", "/w/c.pth"),
    ("minigpt4", {"ckpt": ""}, "model.ckpt", ""),
    ("minigpt4", {"ckpt": None}, "model.ckpt", ""),
    ("minigpt4", {"load_finetuned": True, "finetuned": "/w/f.pth"}, "model.ckpt", "/w/f.pth"),
    ("minigpt4", {"load_finetuned": False, "finetuned": "/w/f.pth"}, "model.ckpt", ""),
    ("minigpt4", {"load_finetuned": False, "finetuned": "/f", "pretrained": "/p"}, "model.ckpt", "/p"),
]


@pytest.mark.parametrize(("arch", "keys", "ours", "value"), LANDS, ids=lambda x: str(x)[:60])
def test_a_model_key_lands_where_it_should(load: Load, arch: str, keys: Any, ours: str, value: Any) -> None:
    assert at(load(keys, arch=arch), ours) == value


TOLD: list[tuple[str, dict[str, Any], str]] = [  # arch, model keys -> words of the report
    ("minigpt4", {"vit_precision": "fp16"}, "model.precision"),
    ("minigpt4", {"device_8bit": 0}, "run.device"),
    ("minigpt4", {"prompt": ""}, "does not use it either"),
    ("minigpt4", {"use_grad_checkpoint": True}, "the encoder is frozen"),
    ("llama2", {"num_query_token": 32}, "no Q-Former"),
    ("llama2", {"freeze_qformer": True}, "no Q-Former"),
    ("llama2", {"q_former_model": "x.pth"}, "no Q-Former"),
    ("minigpt_v2", {"chat_template": False, "prompt_template": "{}!"}, "stands beside it"),
    ("minigpt4", {"load_pretrained": True}, "model.ckpt"),
    ("minigpt4", {"load_finetuned": False, "finetuned": "/f"}, "load_finetuned is false"),
    ("minigpt4", {"finetuned": "/f", "pretrained": "/p"}, "another file"),
]


@pytest.mark.parametrize(("arch", "keys", "words"), TOLD, ids=lambda x: str(x)[:60])
def test_a_model_key_without_effect_is_told(load: Load, arch: str, keys: Any, words: str) -> None:
    notes = load(keys, arch=arch).notes
    assert len(notes) == 1
    assert words in notes[0]


def test_a_learned_encoder_keeps_what_the_file_itself_lets_learn(load: Load) -> None:
    settings = load({"train": ["bridges"], "freeze_vit": False, "freeze_qformer": False})
    assert settings.model["train"] == ["bridges", "encoders.image", "norms.image"]


RUN_LANDS: list[tuple[dict[str, Any], str, Any]] = [
    ({"resume_ckpt_path": None}, "run.resume_ckpt_path", ""),
    ({"resume_ckpt_path": "/r/checkpoint_1.pth"}, "run.resume_ckpt_path", "/r/checkpoint_1.pth"),
    ({"amp": True}, "run.amp", True),
    ({"device": "cuda"}, "run.device", "cuda"),
    ({"wandb_log": True}, "run.wandb_log", True),
    ({"grad_norm_clip": 5}, "run.grad_clip", 5.0),
    ({"runner": "runner_iter", "max_iters": 2e4}, "run.max_steps", 20000),
    ({"runner": "runner_iter", "iters_per_inner_epoch": 2000}, "run.iters_per_epoch", 2000),
    ({"train_dataset_ratios": {"coco_caption": 3}}, "datasets.coco_caption.sample_ratio", 3),
    ({"task": "captioning", "max_len": 30, "min_len": 8, "num_beams": 5}, "run.task.max_new_tokens", 30),
    ({"task": "captioning", "num_beams": 5}, "run.task.num_beams", 5),
    ({"evaluate": True, "test_splits": ["val"]}, "run.split", "val"),
    ({"evaluate": True, "task": "vqa", "max_len": 10}, "datasets.coco_caption.task.max_new_tokens", 10),
    ({"evaluate": True, "task": "vqa", "max_new_tokens": 9}, "datasets.coco_caption.task.max_new_tokens", 9),
    ({"evaluate": True, "task": "vqa"}, "datasets.coco_caption.task.name", "vqa"),
    ({"evaluate": True, "name": "e"}, "run.job_name", "e"),
    ({"evaluate": True, "save_path": "results"}, "run.output_dir", "results"),
]


@pytest.mark.parametrize(("keys", "ours", "value"), RUN_LANDS, ids=lambda x: str(x)[:60])
def test_a_run_key_lands_where_it_should(load: Load, keys: Any, ours: str, value: Any) -> None:
    settings = load(run=keys)
    assert at(settings, ours) == value
    assert settings.run.name == ("evaluate" if keys.get("evaluate") else "runner_base")
    assert not settings.notes


RUN_TOLD: list[dict[str, Any]] = [
    {"world_size": 4},
    {"dist_url": "env://"},
    {"distributed": True},
    {"dist_backend": "nccl"},
    {"use_dist_eval_sampler": True},
    {"find_unused_parameters": True},
    {"lr_layer_decay": 0.9},
    {"lr_layer_decay": None},
    {"val_freq": 1},
    {"save_last": True},
    {"test_splits": ["test"]},
    {"name": "x"},
    {"save_path": "x"},
    {"max_len": 10},
    {"inference_method": "rank"},
    {"num_ans_candidates": 128},
    {"prompt": "Question: {}"},
    {"train_dataset_ratios": {"nothing": 3}},
]


@pytest.mark.parametrize("keys", RUN_TOLD, ids=str)
def test_a_run_key_without_effect_is_told(load: Load, keys: dict[str, Any]) -> None:
    notes = load(run=keys).notes
    assert len(notes) == 1
    assert f"run.{next(iter(keys))} " in notes[0]


def test_an_evaluation_tells_the_keys_of_training(load: Load) -> None:
    settings = load(run={"evaluate": True, "init_lr": 1e-5, "amp": True, "batch_size_eval": 7, "num_workers": 2})
    assert (settings.run["batch_size_eval"], settings.run["num_workers"]) == (7, 2)
    assert len(settings.notes) == 2
    assert all("is for training" in note for note in settings.notes)


def test_where_files_lie_is_taken_from_build_info(load: Load) -> None:
    train = {"url": ["http://x/a.json"], "md5": "x", "storage": ["/a/a.json", "/b/b.json"]}
    sets = {
        "coco_vqa": {"build_info": {"annotations": {"train": train}, "images": {"storage": "/coco"}}},
        "laion": {"build_info": {"storage": "/l/{00000..00010}.tar"}},
        "cc_sbu_align": {"build_info": {"storage": "/align/"}},
        "llava_detail": {"build_info": {"image_path": "/coco/train", "ann_path": "/llava/detail_23k.json"}},
        "refcocop": {"build_info": {"image_path": "/coco/train", "ann_path": "/ann", "splitBy": "google"}},
        "invrefcocog": {"build_info": {"ann_path": "/ann/", "dataset": "invrefcocog", "splitBy": "umd"}},
        "refvg": {"build_info": {"data_dir": "/vg"}},
    }
    settings = load(sets=sets)
    vqa, align = settings.datasets["coco_vqa"].builder, settings.datasets["cc_sbu_align"].builder
    assert (vqa["annotations"]["train"], vqa["media_root"]) == ("{/a/a.json,/b/b.json}", "/coco")
    assert settings.datasets["laion"].builder["annotations"]["train"] == "/l/{00000..00010}.tar"
    assert (align["annotations"]["train"], align["media_root"]) == ("/align/filter_cap.json", "/align/image")
    detail = settings.datasets["llava_detail"].builder
    assert (detail["annotations"]["train"], detail["media_root"]) == ("/llava/detail_23k.json", "/coco/train")
    plus = settings.datasets["refcocop"].builder
    assert (plus["annotations"]["testB"], plus["media_root"]) == ("/ann/refcoco+/refs(google).p", "/coco/train")
    assert set(settings.datasets["invrefcocog"].builder["annotations"].values()) == {"/ann/refcocog/refs(umd).p"}
    assert settings.datasets["refvg"].builder["annotations"]["train"] == "/vg/region_descriptions.json"
    assert settings.datasets["refvg"].builder["media_root"] == "/vg"
    assert not settings.notes


def test_data_keys_without_effect_are_told_once_for_all_data_sets(load: Load) -> None:
    scales = {"vis_processor": {"train": {"name": "blip2_image_train", "min_scale": 0.5, "max_scale": 1.0}}}
    one = {"data_type": "images", "type": "eval", "dataset_card": "x", "data_dir": "y", **scales}
    notes = load(sets={"coco_caption": one, "gqa": one}).notes
    assert len(notes) == 6
    assert all(note.endswith("(2 times)") and "datasets.*." in note for note in notes)
    assert not load(sets={"gqa": {"type": "default"}}).notes


def test_a_configuration_that_a_run_of_ours_wrote_out_is_not_taken_for_one_of_theirs(load: Load) -> None:
    from minigpt4o.common.registry import registry

    name = "blip2_image_train"
    written = {field.name: field.default for field in registry.entry("processor", name).fields}
    assert "min_scale" in written
    assert not load(sets={"gqa": {"vis_processor": {"train": {"name": name, **written}}}}).notes


def test_every_key_of_the_tables_is_tried_here() -> None:
    model = {key for row in LANDS for key in row[1]} | {key for row in TOLD for key in row[1]}
    run = {key for row in RUN_LANDS for key in row[0]} | {key for row in RUN_TOLD for key in row}
    assert set(MODEL_WORDS) - model == {"prompt_path"}  # tried with the whole files
    assert set(RUN_WORDS) - run == {"length_penalty", "repetition_penalty"}  # as num_beams
    words = [*MODEL_WORDS.values(), *RUN_WORDS.values(), *DATA_WORDS.values()]
    assert all(word.doc("x") for word in words)  # the documentation says what becomes of each
    assert set(DATA_WORDS) == {"data_type", "type", "dataset_card", "data_dir", "build_info"}
