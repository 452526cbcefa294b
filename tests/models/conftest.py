"""Tiny real parts for the tests of models: a trained tokenizer, random language models, whole aligned models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for tiny_reference.py

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import AUDIO_SLOT, IGNORE, IMAGE_SLOT, Batch
from minigpt4o.conversation.sample import Media, Sample, Turn

TEXT = """a small red circle is at the top left of the picture
two big blue squares and one green star
小さな赤い丸が左上にあります。大きな青い四角が二つ。
what is there? {<12><34><56><100>} ### 0123456789
"""

LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "gpt_neox": {**LLAMA, "max_position_embeddings": 128},
    "qwen2": {**LLAMA, "num_key_value_heads": 1},
}
VIT = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 1, "heads": 2}
EAR = {"frames": 12, "mels": 8, "patch_frames": 4, "width": 16, "depth": 1, "heads": 2}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from minigpt4o.models.llms.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "text.txt").write_text(TEXT * 20, encoding="utf-8")
    return train_tokenizer([folder / "text.txt"], folder / "out", vocab_size=300)


@pytest.fixture
def make_llm(tokenizer_folder: Path) -> Callable[..., Part]:
    def make(family: str = "llama", seed: int = 0, **options: Any) -> Part:
        values = {
            "model_type": family,
            "seed": seed,
            "tokenizer": str(tokenizer_folder),
            "options": {**FAMILIES[family], "initializer_range": 0.2, **options},
        }
        return Part("llm", "causal_lm", values)

    return make


@pytest.fixture
def make_model(make_llm: Callable[..., Part]) -> Callable[..., Any]:
    """A tiny aligned model; `family` chooses the language model, `media` the encoders, the rest goes to its Config."""

    def make(family: str = "llama", media: tuple[str, ...] = ("image", "audio"), **values: Any) -> Any:
        torch.manual_seed(0)
        encoders = {"image": Part("encoder", "timm_vit", VIT), "audio": Part("encoder", "spectrogram_transformer", EAR)}
        bridges = {"image": Part("bridge", "grouped", {"group": 4}), "audio": Part("bridge", "linear", {})}
        values = {
            "llm": make_llm(family),
            "encoders": {k: encoders[k] for k in media},
            "bridges": {k: bridges[k] for k in media},
            "precision": "fp32",
            "train": ["bridges"] if media else ["llm"],
            **values,
        }
        return registry.build(Part("model", "aligned", values))

    return make


def make_rows(model: Any, rows: list[str], seed: int = 0) -> list[tuple[list[int], list[int], str]]:
    """`"i t12 l5"` -> ids, labels: a picture, 12 plain tokens, 5 learned ones; `a` is a sound."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for row in rows:
        ids: list[int] = []
        labels: list[int] = []
        for word in row.split():
            if word in ("i", "a"):
                kind, slot = ("image", IMAGE_SLOT) if word == "i" else ("audio", AUDIO_SLOT)
                ids += [slot] * model.slots[kind]
                labels += [IGNORE] * model.slots[kind]
            else:
                tokens = torch.randint(4, 300, (int(word[1:]),), generator=draw).tolist()
                ids += tokens
                labels += tokens if word[0] == "l" else [IGNORE] * len(tokens)
        made.append((ids, labels, row))
    return made


def pad_rows(rows: list[tuple[list[int], list[int], str]], side: str = "right", seed: int = 1) -> Batch:
    """Rows of `make_rows` as a batch with its media."""
    longest = max(len(ids) for ids, _, _ in rows)

    def padded(values: list[int], fill: int) -> list[int]:
        more = [fill] * (longest - len(values))
        return values + more if side == "right" else more + values

    draw = torch.Generator().manual_seed(seed)
    pictures = torch.randn(sum(t.split().count("i") for *_, t in rows), 3, 16, 16, generator=draw)
    sounds = torch.randn(sum(t.split().count("a") for *_, t in rows), 12, 8, generator=draw)
    return Batch(
        input_ids=torch.tensor([padded(ids, 0) for ids, _, _ in rows]),
        attention_mask=torch.tensor([padded([1] * len(ids), 0) for ids, _, _ in rows]),
        labels=torch.tensor([padded(labels, IGNORE) for _, labels, _ in rows]),
        images=pictures if len(pictures) else None,
        audios=sounds if len(sounds) else None,
        samples=[make_sample(i, text) for i, (_, _, text) in enumerate(rows)],
    )


def make_sample(index: int, text: str) -> Sample:
    words = text.split()
    return Sample(
        id=f"train/{index}",
        turns=[Turn("user", "")],
        images=[Media(path="x.png")] * words.count("i"),
        audios=[Media(path="x.wav")] * words.count("a"),
    )


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Rows like `"t3 i t2 l5"` -> a padded batch for a model."""

    def make(model: Any, rows: list[str], side: str = "right") -> Batch:
        return pad_rows(make_rows(model, rows), side)

    return make
