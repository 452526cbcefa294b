"""A model that was really trained, in half a minute: 18 pictures with one object, four sounds, and it must be right.

The toy world's own generator, builders and runner, but with few looks and places, and every part trained at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

LOOKS = [(shape, colour, "big") for shape in ("circle", "square", "star") for colour in ("red", "green", "blue")]
SOUNDS = [(kind, pitch, 1) for kind in ("beep", "buzz") for pitch in ("low", "high")]
PLACES = ("left", "right")  # others are left out of the annotations
COUNTS = ((2400, 200, 200), (300, 20, 20), (600, 20, 0))  # pictures, sounds, rows of text: train, val, test
SETS = {"caption": 1, "vqa": 2, "refer": 4, "identify": 2, "dialogue": 2, "audio_qa": 3}  # name -> sample_ratio
STEPS = 350
WORDS = ["--vocab-size", "500", "--special", "<user>", "<assistant>", "--word", "<Img>", "</Img>", "<Aud>", "</Aud>"]


def made(folder: Path) -> Path:
    """World, tokenizer and training in `folder`; the YAML of a chat with the result. Made once, also for others."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    demo = folder / "demo.yaml"
    with FileLock(f"{folder}.lock"):
        if not demo.is_file():
            _draw(folder / "data/toy")
            _run(folder, "tokenizer", "data/toy/tokenizer_text.txt", "--out", "tokenizer", *WORDS)
            (folder / "train.yaml").write_text(yaml.safe_dump(_training(), sort_keys=False))
            _run(folder, "train", "--cfg-path", "train.yaml")
            demo.write_text(yaml.safe_dump(_chat(folder), sort_keys=False))
    return demo


def pictures(folder: Path) -> list[dict[str, Any]]:
    """What is on each picture of the test split, and its `file`."""
    rows = json.loads((folder / "data/toy/objects/test.json").read_text())
    shown = [{**row["objects"][0], "file": folder / "data/toy" / row["image"]} for row in rows]
    return [row for row in shown if row["place"] in PLACES]


def sounds(folder: Path) -> list[dict[str, Any]]:
    """What is heard in each sound of the test split, and its `file`."""
    rows = json.loads((folder / "data/toy/objects/test_sounds.json").read_text())
    return [{**row, "file": folder / "data/toy" / row["audio"]} for row in rows]


def _draw(out: Path) -> None:
    from minigpt4o.datasets.toy_world import world, write

    both = {True: LOOKS, False: LOOKS}
    with (
        patch.dict(world._LOOKS, both),
        patch.dict(world._SOUNDS, {True: SOUNDS, False: SOUNDS}),
        patch.dict(write.SIZES, {"few": write.Size(*COUNTS)}),
        patch.object(world, "JITTER", 0),
    ):
        write.write_toy_world(out, "few", level="single")
    for split in ("train", "val", "test"):
        truth = json.loads((out / f"objects/{split}.json").read_text())
        kept = {row["image"] for row in truth if row["objects"][0]["place"] in PLACES}
        for file in out.glob(f"*/en_{split}.json"):
            rows = json.loads(file.read_text(encoding="utf-8"))
            file.write_text(json.dumps([row for row in rows if row["image"] in kept]), encoding="utf-8")


def _run(folder: Path, *command: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "minigpt4o.cli", *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def _model() -> dict[str, Any]:
    small = {"width": 64, "heads": 2, "mlp_ratio": 2.0}
    llama = {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {
        "arch": "aligned",
        "template": "toy",
        "max_txt_len": 120,
        "encoders": {
            "image": {"name": "timm_vit", "image_size": 64, "patch_size": 8, "depth": 2, **small},
            "audio": {"name": "spectrogram_transformer", "frames": 120, "mels": 64, "patch_frames": 6, **small},
        },
        "bridges": {
            "image": {"name": "grouped", "group": 4, "square": True, "hidden": 128},
            "audio": {"name": "grouped", "group": 2},
        },
        "llm": {
            "name": "causal_lm",
            "model_type": "llama",
            "tokenizer": "tokenizer",
            "options": {**llama, "max_position_embeddings": 512, "tie_word_embeddings": True},
        },
    }


def _training() -> dict[str, Any]:
    pace = {"init_lr": 6.0e-3, "min_lr": 2.0e-4, "warmup_lr": 1.0e-4, "warmup_steps": 20, "beta2": 0.98}
    return {
        "model": {**_model(), "train": ["encoders", "bridges", "llm"]},
        "datasets": {f"toy_{name}_en": {"sample_ratio": ratio} for name, ratio in SETS.items()},
        "run": {
            **pace,
            "task": "conversation_finetune",
            "output_dir": "output",
            "job_name": "all",
            "optimizer": "muon",
            "batch_size_train": 32,
            "max_steps": STEPS,
            "save_freq": STEPS,
            "valid_batches": 1,
            "probe_size": 4,
            "num_workers": 0,
        },
    }


def _chat(folder: Path) -> dict[str, Any]:
    node = _model()
    node["llm"]["tokenizer"] = str(folder / "tokenizer")
    return {
        "model": {**node, "ckpt": str(folder / "output/all")},
        "run": {
            "runner": "chat",
            "vis_processor": {"name": "blip2_image_eval", "image_size": 64},
            "audio_processor": {"name": "log_mel", "seconds": 1.2},
            "max_new_tokens": 48,
            "server_port": 0,
            "device": "cpu",
        },
    }
