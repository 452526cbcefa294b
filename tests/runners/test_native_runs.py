"""Minigpt4o through the runner: both stages one after the other, exact resume, evaluation, chat, and transformers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_world import bytes_of, lines, stopped_at, train

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
from tiny_native import AUDIO, BINS, OPTIONS, SIDE

from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import CheckpointError
from minigpt4o.common.files import find_checkpoint
from minigpt4o.common.registry import registry
from minigpt4o.models.weights import read_tensors

SECONDS, FRAMES = 0.3, 27
PIXELS = {"image_size": SIDE, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
WAVES = {"name": "minigpt4o_audio", "seconds": SECONDS, "feature_size": BINS}
PROJECTIONS = ["embed_vision.embedding_projection", "embed_audio.embedding_projection"]


def data(folder: Path) -> dict[str, Any]:
    """Questions about pictures, captions of sounds, and text alone."""

    def files(name: str) -> dict[str, str]:
        return {split: str(folder / f"data/{name}".replace("SPLIT", split)) for split in ("train", "val", "test")}

    shared = {"media_root": str(folder / "data"), "language": "en"}
    vis = {mode: {"name": f"blip2_image_{mode}", **PIXELS} for mode in ("train", "eval")}
    return {
        "questions": {
            "builder": "questions",
            "annotations": files("vqa/en_SPLIT.json"),
            "task": {"name": "vqa", "max_new_tokens": 3},
            "vis_processor": vis,
            **shared,
        },
        "sounds": {
            "builder": "pairs",
            "annotations": files("audiocaps/en_SPLIT.csv"),
            "fields": {"id": "audiocap_id", "audio": "file_name", "text": "caption"},
            "prompts": ["what sound is it?"],
            "task": {"name": "captioning", "max_new_tokens": 3},
            "audio_processor": {"train": WAVES, "eval": WAVES},
            **shared,
        },
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from minigpt4o.datasets.toy_world.write import write_toy_world
    from minigpt4o.models.minigpt4o.tokenizer_training import train_tokenizer

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("native_world")
    write_toy_world(folder / "data", "tiny")
    train_tokenizer([folder / "data/tokenizer_text.txt"], folder / "tokenizer", 300, 4)
    return folder


@pytest.fixture
def settings(world: Path, tmp_path: Path) -> Callable[..., Any]:
    """Settings of a run; `model` and `run` change its nodes."""

    def make(model: dict[str, Any] | None = None, datasets: Any = None, **run: Any) -> Any:
        tree = {
            "model": {
                "arch": "minigpt4o",
                "tokenizer": str(world / "tokenizer"),
                "image_size": SIDE,
                "options": OPTIONS,
                "precision": "fp32",
                **(model or {}),
            },
            "datasets": data(world) if datasets is None else datasets,
            "run": {
                "task": "conversation_finetune",
                "output_dir": str(tmp_path),
                "job_name": "job",
                "device": "cpu",
                "threads": 1,
                "max_steps": 4,
                "batch_size_train": 4,
                "save_freq": 2,
                "valid_batches": 1,
                "probe_size": 2,
                "probe_tokens": 3,
                "init_lr": 0.01,
                "trackers": ["jsonl"],
                **run,
            },
        }
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(tree))
        return load_settings(file, [])

    return make


def test_both_stages_learn_what_they_name_and_the_second_goes_on_from_the_first(settings: Any) -> None:
    base = train(settings({"train": ["language_model"]}, job_name="stage0", max_steps=2))
    first = train(settings({"path": str(base)}, job_name="stage1"))
    learned = read_tensors(first)
    assert sorted(learned) == sorted(f"{name}.weight" for name in PROJECTIONS)
    second = settings(
        {"path": str(base), "ckpt": str(first), "lora_r": 2, "train": [*PROJECTIONS, "lora"]}, job_name="stage2"
    )
    run = train(second)
    assert {name.split(".")[0] for name in read_tensors(run)} == {"embed_vision", "embed_audio", "language_model"}
    assert all(".lora_" in name for name in read_tensors(run) if name.startswith("language_model"))
    assert [row["step"] for row in lines(run)] == [1, 2, 3, 4]
    whole = registry.build(settings({"path": str(run), "train": []}).model)  # the exported folder holds all of it
    for name in PROJECTIONS:
        assert torch.equal(whole.get_parameter(f"{name}.weight"), read_tensors(run)[f"{name}.weight"])
    with pytest.raises(CheckpointError, match="holds no exported model"):
        registry.build(settings({"path": str(find_checkpoint(_not_exported(settings, base)))}).model)


def _not_exported(settings: Any, base: Path) -> Path:
    return train(settings({"path": str(base)}, job_name="bare", export=False, max_steps=1))


def test_a_rank_that_is_done_leaves_the_export_of_the_first_rank_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext
    from types import SimpleNamespace as Some

    from minigpt4o.common import distributed
    from minigpt4o.runners.setup import TMP_PREFIX, exported

    monkeypatch.setattr(distributed, "is_main", lambda: False)
    being_written = tmp_path / f"{TMP_PREFIX}export" / "minigpt4o"
    being_written.mkdir(parents=True)
    engine, model = Some(gathered=nullcontext), Some(export=None)
    runner = Some(
        config=Some(export=True), progress=Some(step=4), total_steps=4, model=model, path=tmp_path, engine=engine
    )
    with exported(runner):  # type: ignore[arg-type]
        pass
    assert being_written.is_dir()


def test_stopped_in_the_middle_and_resumed_equals_never_stopped(settings: Any) -> None:
    model = {"lora_r": 2, "train": [*PROJECTIONS, "lora"]}
    peace = train(settings(model, job_name="peace", max_steps=5, optimizer="muon"))
    other = settings(model, job_name="stopped", max_steps=5, optimizer="muon", resume_ckpt_path="auto")
    stopped_at(other, 3)
    assert bytes_of(train(other)) == bytes_of(peace)


def test_towers_learn_in_a_tagger_and_go_into_the_model(settings: Any, world: Path) -> None:
    sounds = {"sounds": data(world)["sounds"]}
    encoder = {"name": "minigpt4o_audio", "options": AUDIO, "frames": FRAMES}
    tagger = {"arch": "tagger", "encoders": {"audio": encoder}, "tokenizer": str(world / "tokenizer")}
    node = settings(datasets=sounds, job_name="tower", max_steps=2, task="encoder_pretrain")
    tree = {**yaml.safe_load(Path(node.tree["run"]["output_dir"], "run.yaml").read_text())}
    tree["model"] = {**tagger, "template": "minigpt4o"}
    file = Path(node.tree["run"]["output_dir"]) / "tower.yaml"
    file.write_text(yaml.safe_dump(tree))
    run = train(load_settings(file, []))
    model = registry.build(settings({"weights": {"audio_tower": str(run)}}).model)
    kept = read_tensors(run, "encoders.audio.tower.")
    assert all(torch.equal(p, kept[name]) for name, p in model.audio_tower.named_parameters())


def test_an_evaluation_asks_a_variant_with_its_adapters_against_blind_and_shuffled(settings: Any) -> None:
    trained = train(settings({"lora_r": 2, "train": [*PROJECTIONS, "lora"]}, max_steps=2))
    tree = yaml.safe_load((trained.parent.parent / "run.yaml").read_text())
    tree["run"] = {
        "runner": "evaluate",
        "output_dir": str(trained.parent.parent),
        "job_name": "eval",
        "run_id": "r",
        "device": "cpu",
        "threads": 1,
        "batch_size_eval": 4,
        "bootstrap": 20,
        "report": False,
        "limit": 4,
        "variants": {"stage2": str(trained)},
    }
    file = trained.parent.parent / "eval.yaml"
    file.write_text(yaml.safe_dump(tree))
    node = load_settings(file, [])
    registry.build(node.run, settings=node).run()
    names = {path.name for path in (trained.parent.parent / "eval/r/predictions").iterdir()}
    for name in ("questions", "sounds"):
        assert sum(name in found for found in names) >= 3, names  # as it is, blind, shuffled


def test_a_chat_sees_a_picture_and_hears_a_sound(
    settings: Any, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minigpt4o.conversation.sample import Media
    from minigpt4o.serve.inference import load_chat

    settings()
    tree = yaml.safe_load((tmp_path / "run.yaml").read_text())
    pixels = {"name": "blip2_image_eval", **PIXELS}
    tree["run"] = {"runner": "chat", "device": "cpu", "max_new_tokens": 5, "min_new_tokens": 5}
    tree["run"] |= {"vis_processor": pixels, "audio_processor": WAVES}
    del tree["datasets"]
    file = tmp_path / "chat.yaml"
    file.write_text(yaml.safe_dump(tree))
    session = load_chat(load_settings(file, []))
    assert session.context == 256  # as many places as the text model has
    given: dict[str, Any] = {}
    soft_tokens = session.model.soft_tokens
    monkeypatch.setattr(
        session.model, "soft_tokens", lambda kind, media: given.update({kind: media}) or soft_tokens(kind, media)
    )
    picture = Media(path=str(next((world / "data/pictures/test").iterdir())))
    sound = Media(path=str(next((world / "data/sounds/test").iterdir())))
    assert "".join(session.ask("what is there?", images=[picture], audios=[sound]))
    assert given["image"].shape == (1, 3, SIDE, SIDE)
    assert given["audio"].shape == (1, FRAMES, BINS)
