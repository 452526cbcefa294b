"""A YAML and options become settings: layers, defaults, interpolation, origins."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt4o.common.config import Option, load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, registry


def test_settings_hold_parts_with_every_default_filled_in(write):
    settings = load_settings(write())
    assert settings.model == Part("model", "joined", settings.model.values, "a.yaml:2:1")
    eye = settings.model["encoders"]["image"]
    assert (eye.kind, eye.name, dict(eye.values)) == ("encoder", "small_eye", {"image_size": 32, "patch": 8})
    assert settings.model["bridge"].name == "plank"
    assert settings.model["size"] == (8, 8)
    pictures = settings.datasets["pictures"]
    assert (pictures.sample_ratio, pictures.batch_size, pictures.task, pictures.max_samples) == (1.0, None, None, None)
    assert dict(pictures.builder.values) == {"annotations": {"train": "a.txt"}, "media_root": ""}
    assert pictures.vis_processor["train"].values == {"image_size": 64}
    assert settings.run["init_lr"] == 3e-4  # YAML 1.1 would call this a text
    assert settings.run["max_steps"] is None
    assert settings.tree["model"]["encoders"]["image"] == {"name": "small_eye", "image_size": 32, "patch": 8}
    assert settings.tree["model"]["size"] == [8, 8]


def test_the_class_is_built_with_its_values(write):
    settings = load_settings(write(), ["model.max_txt_len=7"])
    assert registry.build(settings.model).config.max_txt_len == 7
    assert registry.build(settings.run, settings=settings).settings is settings


def test_the_dump_is_itself_a_valid_configuration_of_the_same_meaning(write, world):
    first = load_settings(write(), ["run.options={a: [1, {b: no_bool}]}", "datasets.pictures.task=learn"])
    (world / "again.yaml").write_text(json.dumps(first.tree))
    again = load_settings("again.yaml")
    assert again.tree == first.tree


@pytest.mark.parametrize(
    "options",
    [
        ["run.max_epoch=3", "run.amp=true", "model.ckpt=null"],
        ["run.max_epoch", "3", "run.amp", "true", "model.ckpt", "null"],
        [Option("run.max_epoch", "3", "--max 3"), "run.amp=true"],
    ],
)
def test_options_lie_over_the_file_in_both_spellings(write, options):
    settings = load_settings(write(), options)
    assert (settings.run["max_epoch"], settings.run["amp"], settings.model["ckpt"]) == (3, True, None)


def test_a_star_in_an_option_means_every_data_set_of_the_file(write):
    text = Path(write()).read_text().replace("run:\n", "  more: {builder: lines, annotations: {}}\nrun:\n")
    settings = load_settings(write(text), ["datasets.*.max_samples=5"])
    assert [spec.max_samples for spec in settings.datasets.values()] == [5, 5]


def test_an_option_can_reach_into_a_list_and_replace_one(write):
    assert load_settings(write(), ["model.train=[a, b]"]).model["train"] == ["a", "b"]
    text = Path(write()).read_text().replace("path: weights", "path: weights\n  train: [a, b]")
    assert load_settings(write(text), ["model.train.1=c"]).model["train"] == ["a", "c"]
    with pytest.raises(ConfigError, match="none at 2"):
        load_settings(write(text), ["model.train.2=c"])


def test_an_empty_option_is_the_empty_text_and_yaml_signs_stay_text(write):
    settings = load_settings(write(), ["run.output_dir=", "model.path=a: b"])
    assert (settings.run["output_dir"], settings.model["path"]) == ("", "a: b")


def test_another_part_name_starts_afresh_and_the_same_name_keeps_its_values(write):
    eye = load_settings(write(), ["model.encoders.image=other_eye"]).model["encoders"]["image"]
    assert dict(eye.values) == {"width": 32}
    eye = load_settings(write(), ["model.encoders.image.width=9", "model.encoders.image.name=other_eye"])
    assert dict(eye.model["encoders"]["image"].values) == {"width": 9}
    eye = load_settings(write(), ["model.encoders.image=small_eye"]).model["encoders"]["image"]
    assert eye["image_size"] == 32
    assert load_settings(write(), ["model.bridge.bias=false"]).model["bridge"]["bias"] is False


PRESETS = {
    "models/joined_small.yaml": "model: {arch: joined, path: from_preset, max_txt_len: 11}",
    "models/joined_large.yaml": "model: {max_txt_len: 99, path: from_large}",
    "datasets/known.yaml": "datasets: {known: {builder: lines, annotations: {train: k.txt}, sample_ratio: 3}}",
}
SHORT = """\
plugins: [small_plugin]
model: {arch: joined, model_type: small}
datasets:
  known:
run: {runner: jog}
"""


@pytest.fixture
def presets(world, monkeypatch):
    for name, text in PRESETS.items():
        file = world / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setenv("MINIGPT4O_CONFIG_PATH", str(world / "mine"))


@pytest.mark.usefixtures("presets")
def test_presets_lie_under_the_file_and_the_command_line_chooses_them(write):
    settings = load_settings(write(SHORT))
    assert (settings.model["path"], settings.model["max_txt_len"]) == ("from_preset", 11)
    assert settings.datasets["known"].sample_ratio == 3
    large = load_settings(write(SHORT), ["model.model_type=large", "datasets.known.sample_ratio=1"])
    assert (large.model["path"], large.model["max_txt_len"]) == ("from_large", 99)
    assert large.datasets["known"].sample_ratio == 1
    alias = load_settings(write(SHORT), ["model.arch=joined_again"])
    assert alias.model["max_txt_len"] == 11


@pytest.mark.usefixtures("presets")
def test_sources_tell_where_each_value_came_from(write):
    sources = load_settings(write(SHORT), ["run.seed=5"]).sources
    assert sources["model.arch"] == "a.yaml:2"
    assert sources["model.max_txt_len"] == "preset mine/models/joined_small.yaml:1"
    assert sources["run.seed"] == "--options"
    assert sources["run.amp"] == "default"


@pytest.mark.usefixtures("presets")
def test_a_mistake_in_a_preset_is_told_with_the_preset_s_line(write, world):
    (world / "mine/datasets/known.yaml").write_text("datasets:\n  known:\n    builder: lines\n    anotations: {}\n")
    with pytest.raises(ConfigError, match=r"known\.yaml:4:5: datasets\.known\.anotations: .*'annotations'"):
        load_settings(write(SHORT))


def test_presets_may_lie_beside_a_plugin(write, world):
    (world / "configs/datasets").mkdir(parents=True)
    (world / "configs/datasets/known.yaml").write_text(PRESETS["datasets/known.yaml"])
    settings = load_settings(write(SHORT.replace(", model_type: small", ", path: x")))
    assert settings.datasets["known"].sample_ratio == 3


def test_interpolation_sees_defaults_other_keys_and_the_environment(write, monkeypatch):
    monkeypatch.setenv("EPOCHS", "8")
    settings = load_settings(write(), ["run.seed=${run.max_epoch}", "run.max_epoch=${oc.env:EPOCHS}"])
    assert (settings.run["seed"], settings.run["max_epoch"]) == (8, 8)
    settings = load_settings(write(), ["model.path=${run.output_dir}/x", "model.train=[a, '${run.device}']"])
    assert (settings.model["path"], settings.model["train"]) == ("output/x", ["a", "cpu"])


def test_a_whole_node_can_be_repeated(write):
    same = ["datasets.pictures.vis_processor.eval=${datasets.pictures.vis_processor.train}"]
    settings = load_settings(write(), same)
    assert settings.datasets["pictures"].vis_processor["eval"].values == {"image_size": 64}


def test_no_value_of_the_environment_reaches_the_dump_or_a_message(write, monkeypatch):
    monkeypatch.setenv("TOKEN", "canary")
    options = [
        "run.output_dir=${oc.env:TOKEN}",
        "run.device=x/${run.output_dir}",
        "model.train=[a, '${run.output_dir}']",
        "run.options.deep={key: ['${oc.env:TOKEN}']}",
        "datasets.pictures.annotations.train=${oc.decode:${oc.env:TOKEN}}",
    ]
    settings = load_settings(write(), options)
    assert settings.run["output_dir"] == "canary"
    assert settings.datasets["pictures"].builder["annotations"]["train"] == "canary"
    assert settings.model["train"] == ["a", "canary"]
    assert "canary" not in repr(settings.tree) + repr(settings.sources)
    assert settings.tree["run"]["output_dir"] == "${oc.env:TOKEN}"
    with pytest.raises(ConfigError) as error:
        load_settings(write(), ["run.max_epoch=${oc.env:TOKEN}", "run.amp=${run.output_dir}", *options])
    assert "canary" not in str(error.value)
    assert str(error.value).count("does not fit") == 2


def test_unread_data_sets_can_be_left_out(write):
    text = Path(write()).read_text().replace("run:\n", "  more: {builder: lines, annotations: {}}\nrun:\n")
    kept = load_settings(write(text)).keep(["more"])
    assert list(kept.datasets) == list(kept.tree["datasets"]) == ["more"]
    assert not [key for key in kept.sources if key.startswith("datasets.pictures")]
    with pytest.raises(ConfigError, match=r"no data set 'mor'; did you mean 'more'\?"):
        load_settings(write(text)).keep(["mor"])


def test_anchors_and_merge_keys_of_yaml_work(write):
    text = (
        Path(write()).read_text().replace("init_lr: 3e-4", "options: &o {a: 1, b: 2}\n  lr_multipliers: {<<: *o, b: 5}")
    )
    assert load_settings(write(text)).run["lr_multipliers"] == {"a": 1.0, "b": 5.0}


def test_a_text_that_only_sounds_like_a_placeholder_is_a_value(write):
    texts = ["Please set the table, what is on it???", "a path/tools", "what???"]
    settings = load_settings(write(), [f"run.options.{i}={text}" for i, text in enumerate(texts)])
    assert list(settings.run["options"].values()) == texts


def test_numbers_are_text_where_text_is_wanted_but_truth_words_are_not(write):
    settings = load_settings(write(), ["run.output_dir=2024", "model.path=010", "run.device='no'", "run.seed=-3"])
    assert (settings.run["output_dir"], settings.model["path"], settings.run["device"]) == ("2024", "010", "no")
    for word in ("no", "true", "on"):
        with pytest.raises(ConfigError, match="if the word is meant"):
            load_settings(write(), [f"run.device={word}"])


SLIPS = """\
model:
  arch: aligned
  model_type: toyy
  max_text_len: 100
  llm: {name: causal_lm, path: somewhere}
  init_lr: 1.0e-3
datasets:
  toy_captoin_en:
    sample_ratio: 2
run:
  runner: runner_base
  task: image_text_pretrain
  intial_lr: 1e-4
  weight_decay: heavy
"""


def test_seven_slips_are_told_in_one_run_without_torch(tmp_path):
    (tmp_path / "slips.yaml").write_text(SLIPS)
    code = """
import sys, time
from minigpt4o.common.config import load_settings
try:
    load_settings(sys.argv[1], ["run.max_epohc=1"])
except ValueError as error:
    sys.stdout.write(f"{error}\\ntorch {'torch' in sys.modules}\\n{time.process_time()}")
"""
    where = str(tmp_path / "slips.yaml")
    done = subprocess.run(
        [sys.executable, "-c", code, where], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    *problems, torch, seconds = done.stdout.splitlines()
    wanted = [
        f"{where}:3:3: model.model_type: unknown model_type 'toyy'",
        f"{where}:4:3: model.max_text_len: unknown key 'max_text_len'; did you mean 'max_txt_len'",
        f"{where}:6:3: model.init_lr: wrong nesting: 'init_lr' belongs under `run`",
        f"{where}:8:3: datasets.toy_captoin_en: unknown data set 'toy_captoin_en'",
        f"{where}:13:3: run.intial_lr: unknown key 'intial_lr'; did you mean 'init_lr'",
        f"{where}:14:3: run.weight_decay: float is wanted here, not the text 'heavy'",
        "--options run.max_epohc=1: run.max_epohc: unknown key 'max_epohc'; did you mean 'max_epoch'",
    ]
    assert len(problems) == len(wanted), done.stdout
    for problem, start in zip(problems, wanted, strict=True):
        assert problem.startswith(start), (problem, start)
    assert torch == "torch False"
    assert float(seconds) < 3
