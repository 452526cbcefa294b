"""A file written for MiniGPT-4 loads unchanged: what its keys mean here, what has no effect, what is refused."""

from __future__ import annotations

import copy
import logging
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from reference_files import FILES, SETS_OF_V2

from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.settings import Settings

LAUNCH = {"run.world_size", "run.dist_url", "run.distributed"}
IGNORED = {  # file -> the keys that are told of
    "train_configs/minigpt4_stage1_pretrain.yaml": LAUNCH,
    "train_configs/minigpt4_stage2_finetune.yaml": LAUNCH,
    "train_configs/minigpt4_llama2_stage1_pretrain.yaml": LAUNCH,
    "train_configs/minigpt4_llama2_stage2_finetune.yaml": LAUNCH,
    "train_configs/minigptv2_finetune.yaml": LAUNCH | {"model.use_grad_checkpoint", "datasets.*.batch_size"},
    "eval_configs/minigpt4_eval.yaml": set(),
    "eval_configs/minigpt4_llama2_eval.yaml": set(),
    "eval_configs/minigptv2_eval.yaml": set(),
    "eval_configs/minigptv2_benchmark_evaluation.yaml": {
        "datasets.cc_sbu_align",
        "evaluation_datasets.vsr.eval_file_path",
    },
}
Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load one of the files, changed: dotted key -> value, None takes the key away."""
    monkeypatch.chdir(tmp_path)

    def load_file(file: str = "train_configs/minigpt4_stage2_finetune.yaml", *options: str, **changes: Any) -> Settings:
        tree = copy.deepcopy(FILES[file])
        for key, value in changes.items():
            *above, last = key.split("__")
            node = tree
            for word in above:
                node = node.setdefault(word, {})
            node[last] = value
        path = tmp_path / Path(file).name
        path.write_text(yaml.safe_dump(tree, sort_keys=False).replace("'1e-", "1e-").replace("'", '"'))
        return load_settings(path, options)

    return load_file


def told(settings: Settings) -> dict[str, str]:
    """Key -> what the report says of it."""
    rows = [line.replace("--options", "line").split(None, 3) for line in settings.notes]
    return {row[2] if row[1].isdigit() else row[1]: row[-1] for row in rows}


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_the_reference_loads_unchanged_and_every_dead_key_is_told_once(file: str, load: Load) -> None:
    settings = load(file)
    assert set(told(settings)) == IGNORED[file]
    assert len(settings.notes) == len(IGNORED[file])


def test_the_report_is_one_warning_with_aligned_lines(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "minigpt4o"):
        load("train_configs/minigptv2_finetune.yaml")
    assert len(caplog.records) == 1
    head, *lines = caplog.records[0].getMessage().split("\n")
    assert "minigptv2_finetune.yaml" in head
    assert len(lines) == 5
    assert len({line.index(line.split()[3], 12) for line in lines}) == 1  # the words begin in one column
    assert "(22 times)" in lines[1]
    caplog.clear()
    load("eval_configs/minigpt4_eval.yaml")
    assert not caplog.records


def test_stage_1_is_the_preset_with_the_run_of_the_file(load: Load) -> None:
    settings = load("train_configs/minigpt4_stage1_pretrain.yaml")
    model, run = settings.model, settings.run
    assert (model.name, model["template"], model["max_txt_len"]) == ("minigpt4", "caption", 32)
    assert model["train"] == ["bridges.image.proj"]
    assert model["llm"]["path"] == "vicuna-7b"
    assert {name: spec.sample_ratio for name, spec in settings.datasets.items()} == {"laion": 115.0, "cc_sbu": 14.0}
    assert settings.datasets["laion"].vis_processor["eval"]["image_size"] == 224
    assert (run.name, run["init_lr"], run["min_lr"], run["warmup_lr"]) == ("runner_base", 1e-4, 8e-5, 1e-6)
    assert (run["iters_per_epoch"], run["max_epoch"], run["warmup_steps"]) == (5000, 4, 5000)
    assert (run["train_splits"], run["valid_splits"]) == (["train"], [])
    assert (run["resume_ckpt_path"], run["device"], run["job_name"]) == ("", "cuda", "minigpt4_stage1_pretrain")


def test_stage_2_takes_its_prompts_template_and_weights(load: Load, tmp_path: Path) -> None:
    settings = load()
    model = settings.model
    assert (model["prompt_template"], model["end_sym"]) == ("###Human: {} ###Assistant: ", "###")
    assert (model["ckpt"], model["max_txt_len"]) == ("/weights/stage1/checkpoint_3.pth", 160)
    assert settings.datasets["cc_sbu_align"].builder["prompts"] == "minigpt4_stage2"
    assert settings.sources["datasets.cc_sbu_align.prompts"].endswith("minigpt4_stage2_finetune.yaml:6")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/alignment.txt").write_text("<Img><ImageHere></Img> Look.\n")
    assert load().datasets["cc_sbu_align"].builder["prompts"] == "prompts/alignment.txt"
    assert load(datasets__cc_sbu_align__prompts=["x"]).datasets["cc_sbu_align"].builder["prompts"] == ["x"]
    nowhere = load("train_configs/minigptv2_finetune.yaml", model__prompt_path="prompts/alignment.txt")
    assert "none of cc_sbu_align" in told(nowhere)["model.prompt_path"]


def test_batches_of_unlike_sizes_mix_in_the_same_shares(load: Load) -> None:
    settings = load("train_configs/minigptv2_finetune.yaml")
    assert settings.run["batch_size_train"] == 4
    for name, (size, ratio) in SETS_OF_V2.items():
        assert settings.datasets[name].sample_ratio == size * ratio
    own = load("train_configs/minigptv2_finetune.yaml", "run.batch_size_train=2")
    assert own.datasets["gqa"].sample_ratio == 50
    assert load("train_configs/minigpt4_stage1_pretrain.yaml").run["batch_size_train"] is None


def test_a_chat_file_gives_its_picture_processor_for_asking_too(load: Load) -> None:
    settings = load("eval_configs/minigptv2_eval.yaml")
    processors = settings.datasets["cc_sbu_align"].vis_processor
    assert (processors["eval"].name, processors["eval"]["image_size"]) == ("blip2_image_eval", 448)
    assert settings.model["llm"]["path"] == "Llama-2-7b-chat-hf"  # llama_model: "" means: as the preset says
    assert settings.model["llm"]["quantize"] == ""
    assert load("eval_configs/minigpt4_eval.yaml").model["llm"]["quantize"] == "8bit"


def test_benchmarks_become_data_sets_of_the_evaluating_runner(load: Load) -> None:
    settings = load("eval_configs/minigptv2_benchmark_evaluation.yaml")
    run, sets = settings.run, settings.datasets
    assert (run.name, run["job_name"], run["output_dir"]) == ("evaluate", "minigptv2_evaluation", "results/v2")
    assert run["batch_size_eval"] == 10
    assert sorted(sets) == sorted(
        f"benchmark_{name}"
        for name in [
            *(f"{ds}_{split}" for ds in ("refcoco", "refcocop") for split in ("val", "testA", "testB")),
            *("refcocog_val", "refcocog_test", "gqa", "okvqa", "vizwiz", "iconvqa", "vsr", "hm"),
        ]
    )
    plus = sets["benchmark_refcocop_testA"]
    assert plus.builder["annotations"]["test"] == "/data/refcoco+/refcoco+/refcoco+_testA.json"
    assert plus.builder["media_root"] == "/data/refcoco+/images"
    assert plus.task is not None
    assert plus.task["max_new_tokens"] == 20
    assert plus.vis_processor["eval"]["image_size"] == 448
    ok = sets["benchmark_okvqa"].builder
    assert ok["annotations"]["test"] == "/data/okvqa/okvqa_test_split.json"
    assert ok["answers"]["test"] == "/data/okvqa/mscoco_val2014_annotations_clean.json"


def test_the_command_line_speaks_the_reference_s_words_too(load: Load) -> None:
    for options in (
        ["model.llama_model=/x", "run.init_lr=5e-5", "model.low_resource=True"],
        ["model.llama_model", "/x", "run.init_lr", "5e-5", "model.low_resource", "True"],
    ):
        settings = load("train_configs/minigpt4_stage2_finetune.yaml", *options)
        assert settings.model["llm"]["path"] == "/x"
        assert settings.run["init_lr"] == 5e-5
        assert settings.model["llm"]["quantize"] == "8bit"
    over = load("eval_configs/minigpt4_eval.yaml", "model.llm.path=/mine")
    assert over.model["llm"]["path"] == "/mine"


def test_model_type_of_the_command_line_chooses_its_preset(load: Load) -> None:
    settings = load("train_configs/minigpt4_stage1_pretrain.yaml", "model.model_type=pretrain_llama2")
    assert settings.model["bridges"]["image"].name == "grouped"
    assert settings.model["train"] == ["bridges.image"]
    settings = load("eval_configs/minigpt4_eval.yaml", "model.arch=minigpt_v2", "model.model_type=pretrain")
    assert settings.model["encoders"]["image"]["image_size"] == 448
    assert settings.model["lora_r"] == 64


def test_layers_lie_in_the_reference_s_order(load: Load) -> None:
    """Preset < the file's model < the data set's preset < the file's data set < the command line."""
    file = "train_configs/minigpt4_stage1_pretrain.yaml"
    assert load(file).model["max_txt_len"] == 32
    assert load(file, model__max_txt_len=64).model["max_txt_len"] == 64
    assert load(file, "model.max_txt_len=96", model__max_txt_len=64).model["max_txt_len"] == 96
    assert load(file, "datasets.laion.sample_ratio=3").datasets["laion"].sample_ratio == 3
    assert load(file, datasets__laion__text_processor={"train": {"name": "blip_caption", "max_words": 9}}).datasets[
        "laion"
    ].text_processor["train"].values == {"prompt": "", "max_words": 9}


def test_interpolation_follows_a_moved_key_and_keeps_the_environment_secret(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM", "/secret/llm")
    settings = load(
        "train_configs/minigptv2_finetune.yaml",
        model__llama_model="${oc.env:LLM}",
        model__ckpt="${model.llama_model}/x.pth",
        datasets__gqa__vis_processor={"train": {"name": "blip2_image_train", "image_size": "${model.image_size}"}},
    )
    assert (settings.model["llm"]["path"], settings.model["ckpt"]) == ("/secret/llm", "/secret/llm/x.pth")
    assert settings.datasets["gqa"].vis_processor["train"]["image_size"] == 448
    assert "secret" not in repr(settings.tree)


def test_profile_at_the_top_reaches_every_class_that_has_one(load: Load) -> None:
    file = "train_configs/minigpt4_stage2_finetune.yaml"
    settings = load(file)
    assert (settings.model["profile"], settings.run["profile"]) == ("default", "default")
    for settings in (load(file, profile="compat"), load(file, "profile=compat")):
        assert (settings.model["profile"], settings.run["profile"]) == ("compat", "compat")
        assert settings.tree["model"]["profile"] == "compat"
        again = settings.tree
        assert "profile" not in again
    mine = load(file, profile="compat", model__profile="default")
    assert (mine.model["profile"], mine.run["profile"]) == ("default", "compat")
    with pytest.raises(ConfigError, match=r"profile: one of default, compat is wanted.*did you mean 'compat'"):
        load(file, profile="compatt")


def test_accumulation_is_told_unless_the_profile_counts_as_the_reference(load: Load) -> None:
    settings = load(run__accum_grad_iters=4)
    assert {"run.iters_per_epoch", "run.warmup_steps"} <= set(told(settings))
    assert set(told(load(run__accum_grad_iters=4, profile="compat"))) == LAUNCH
    assert set(told(load(run__accum_grad_iters=1))) == LAUNCH


def test_a_file_of_the_reference_is_checked_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(FILES["eval_configs/minigptv2_benchmark_evaluation.yaml"]))
    code = f"import sys; from minigpt4o.common.config import load_settings; load_settings({str(path)!r}); "
    done = subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"model__num_query_tokens": 32}, r":\d+:3: model\.num_query_tokens: .*did you mean 'num_query_token'"),
        ({"model__lama_model": "x"}, r"did you mean 'llama_model'"),
        ({"model__promt_template": "x"}, r"did you mean 'prompt_template'"),
        ({"run__wrold_size": 1}, r"run\.wrold_size: .*did you mean 'world_size'"),
        ({"run__llama_model": "x"}, r"wrong nesting: 'llama_model' belongs under `model`"),
        ({"datasets__cc_sbu_align__bild_info": {}}, r"did you mean 'build_info'"),
        ({"datasets__cc_sbu_align__build_info": {"storge": "x"}}, r"build_info\.storge: .*did you mean 'storage'"),
        ({"evaluation_dataset": {}}, r"did you mean 'evaluation_datasets'"),
        ({"evaluation_datasets": {"okvq": {}}}, r"evaluation_datasets\.okvq: unknown benchmark.*'okvqa'"),
        (
            {"evaluation_datasets": {"gqa": {"eval_file": "x", "img_path": "y"}}},
            r"gqa\.eval_file: .*did you mean 'eval_file_path'",
        ),
        ({"evaluation_datasets": {"gqa": {"img_path": "y"}}}, r"gqa\.eval_file_path: is required"),
        ({"model__llama_model": "/path/to/llama"}, r":\d+:3: model\.llama_model: .*placeholder"),
        ({"model__llama_model": "please set this value to the path"}, r"model\.llama_model: .*placeholder"),
        ({"model__ckpt": "/path/to/stage1/checkpoint/"}, r":\d+:3: model\.ckpt: .*placeholder"),
        (
            {"evaluation_datasets": {"refcoco": {"eval_file_path": "/path/to/x", "img_path": "/y"}}},
            r"evaluation_datasets\.refcoco\.eval_file_path: '/path/to/x' is a placeholder",
        ),
        ({"model__num_query_token": "many"}, r"model\.num_query_token: int is wanted"),
        ({"model__freeze_vit": "no"}, r"model\.freeze_vit: bool is wanted"),
        ({"model__vit_model": "clip_L"}, r"model\.vit_model: one of eva_clip_g"),
        (
            {"model__llama_model": "/a", "model__llm": {"path": "/b"}},
            r"means the same as model\.llm\.path .*delete one",
        ),
        ({"run__world_size": "two"}, r"run\.world_size: int"),
        ({"datasets__refcoco": {"build_info": {"ann_path": 3}}}, r"refcoco\.build_info\.ann_path: text is wanted"),
        (
            {"datasets__coco_caption": {"build_info": {"annotations": {"train": {"url": "http://x"}}}}},
            r"annotations\.train: .*nothing is downloaded",
        ),
    ],
)
def test_what_is_wrong_is_refused_in_the_words_of_the_file(load: Load, change: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        load(**change)


def test_a_benchmark_is_chosen_by_the_name_it_has_in_the_reference(load: Load) -> None:
    settings = load("eval_configs/minigptv2_benchmark_evaluation.yaml")
    kept = settings.keep(["okvqa", "refcoco+"])
    plus = [f"benchmark_refcocop_{split}" for split in ("val", "testA", "testB")]
    assert list(kept.datasets) == ["benchmark_okvqa", *plus]
    with pytest.raises(ConfigError, match=r"no data set 'okvqaa'; did you mean 'okvqa'"):
        settings.keep(["okvqaa"])


def test_reference_words_are_for_its_own_archs(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"model\.prompt_path: unknown key"):
        load("train_configs/minigpt4_stage2_finetune.yaml", "model.arch=aligned", "model.model_type=toy")


def test_an_old_name_of_the_arch_is_understood(load: Load) -> None:
    settings = load(model__arch="mini_gpt4")
    assert settings.model.name == "minigpt4"
    assert "is called minigpt4" in told(settings)["model.arch"]


@pytest.mark.parametrize("file", FILES)
def test_a_slip_in_a_file_of_the_reference_is_valid_or_refused(file: str, tmp_path: Path) -> None:
    values: list[Any] = [None, True, 3, 1.5, "word", "", [], [1], {}, {"a": 1}, "${x}", {"name": 3}, "${model.arch}"]
    path = tmp_path / "slipped.yaml"
    for number in range(8):
        rng, tree = random.Random(f"{file}/{number}"), copy.deepcopy(FILES[file])
        nodes: list[Any] = [tree]
        for node in nodes:
            nodes += [value for value in node.values() if isinstance(value, dict) and value]
        node = rng.choice(nodes)
        key = rng.choice(list(node))
        value, act = node.pop(key), rng.choice(["delete", "rename", "retype"])
        if act != "delete":
            node[key if act == "retype" else f"{key}s"] = rng.choice(values) if act == "retype" else value
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        try:
            load_settings(path)
        except ConfigError as error:
            assert "slipped.yaml" in str(error)  # noqa: PT017 - both ends are fine
