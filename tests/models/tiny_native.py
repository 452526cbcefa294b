"""Tiny Minigpt4o models, their tokenizer and batches, for the tests of training and generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import AUDIO_SLOT, IGNORE, IMAGE_SLOT, Batch
from minigpt4o.conversation.sample import Media, Sample, Turn

SIDE, FRAMES, BINS, VOCAB, ROWS = 32, 24, 16, 300, 4
WORDS = VOCAB - 2 * ROWS  # ids below it are text
SLOT = {"i": IMAGE_SLOT, "a": AUDIO_SLOT}
BLOCKS = [
    ["er_r1_k3_s2_e2_c8"],
    ["uir_r1_a3_k5_s2_e2_c16"],
    ["uir_r1_a3_k3_s2_e2_c16", "mqa_r1_k3_h2_s1_d8_c16", "uir_r1_a0_k0_s1_e2_c16"],
]
VISION = {"model_args": {"block_args": BLOCKS, "stem_size": 8, "msfa_output_resolution": 2}}
AUDIO = {
    "input_feat_size": BINS,
    "hidden_size": 16,
    "conf_attention_chunk_size": 4,
    "conf_attention_context_left": 5,
    "conf_num_attention_heads": 2,
    "conf_num_hidden_layers": 1,
    "conf_reduction_factor": 2,
    "sscp_conv_channel_size": [4, 2],
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "num_kv_shared_layers": 1,
    "hidden_size_per_layer_input": 6,
    "altup_num_inputs": 2,
    "laurel_rank": 4,
    "activation_sparsity_pattern": [0.5, 0.0, 0.0],
    "initializer_range": 0.2,
}
OPTIONS = {
    "vision_soft_tokens_per_image": 4,
    "audio_soft_tokens_per_image": 4,  # a sound gives 3: one is filled up
    "text_config": TEXT,
    "vision_config": VISION,
    "audio_config": AUDIO,
}


def make_tokenizer(folder: Path) -> Path:
    from minigpt4o.models.minigpt4o.tokenizer_training import train_tokenizer

    text = folder / "text.txt"
    text.write_text(
        "user model a small red circle is at the top\n小さな赤い丸が左上にあります。\n" * 9, encoding="utf-8"
    )
    return train_tokenizer([text], folder / "tokenizer", VOCAB, ROWS)


def make_native(tokenizer: Path, *, text: dict[str, Any] | None = None, **values: Any) -> Any:
    """A tiny model drawn at random; `text` changes its text model, the rest goes to its Config."""
    options = {**OPTIONS, "text_config": {**TEXT, **(text or {})}}
    chosen = {"tokenizer": str(tokenizer), "options": options, "image_size": SIDE, "precision": "fp32", **values}
    if "path" in values:
        del chosen["options"], chosen["tokenizer"]
    return registry.build(Part("model", "minigpt4o", chosen))


def make_batch(model: Any, rows: list[str], side: str = "right") -> Batch:
    """Rows like `"t3 i t2 l5"` (3 words, a picture, 2 words, 5 learned ones; `a` is a sound) -> a padded batch."""
    draw = torch.Generator().manual_seed(0)
    made: list[tuple[list[int], list[int]]] = []
    for row in rows:
        ids: list[int] = []
        labels: list[int] = []
        for word in row.split():
            if word in SLOT:
                places = model.slots["image" if word == "i" else "audio"]
                ids += [SLOT[word]] * places
                labels += [IGNORE] * places
            else:
                tokens = torch.randint(8, WORDS, (int(word[1:]),), generator=draw).tolist()
                ids += tokens
                labels += tokens if word[0] == "l" else [IGNORE] * len(tokens)
        made.append((ids, labels))
    longest = max(len(ids) for ids, _ in made)

    def padded(values: list[int], fill: int) -> list[int]:
        more = [fill] * (longest - len(values))
        return values + more if side == "right" else more + values

    pictures, sounds = (sum(row.split().count(word) for row in rows) for word in "ia")
    return Batch(
        input_ids=torch.tensor([padded(ids, 0) for ids, _ in made]),
        attention_mask=torch.tensor([padded([1] * len(ids), 0) for ids, _ in made]),
        labels=torch.tensor([padded(labels, IGNORE) for _, labels in made]),
        images=torch.rand(pictures, 3, SIDE, SIDE, generator=draw) if pictures else None,
        audios=_sounds(sounds, draw) if sounds else None,
        samples=[_sample(i, row) for i, row in enumerate(rows)],
    )


def _sounds(number: int, draw: torch.Generator) -> torch.Tensor:
    """Every second one is half as long: the rest of its frames is NaN."""
    sounds = torch.randn(number, FRAMES, BINS, generator=draw)
    sounds[1::2, FRAMES // 2 :] = torch.nan
    return sounds


def _sample(index: int, row: str) -> Sample:
    words = row.split()
    return Sample(
        id=f"train/{index}",
        turns=[Turn("user", "")],
        images=[Media(path="x.png")] * words.count("i"),
        audios=[Media(path="x.wav")] * words.count("a"),
    )
