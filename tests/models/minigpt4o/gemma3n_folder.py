"""Writes a tiny Gemma-3n folder with random weights, and tiny tokenizers for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_minigpt4o import AUDIO_CONFIG, AUDIO_TOKENS, IMAGE_TOKENS, TEXT, scatter_weights
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration, PreTrainedTokenizerFast

from minigpt4o.models.minigpt4o.configuration_minigpt4o import token_layout
from minigpt4o.models.minigpt4o.tokenizer_training import SPECIAL_TOKENS, train_tokenizer

SENTENCES = "the cat sat on the mat.\na dog and a cat play with the ball.\n猫がマットの上にいる。\n犬と猫が遊ぶ。\n"
IMAGE_SIZE = 64  # of the small network of timm below: 2 x 2 features


def own_tokenizer(folder: Path, size: int, text: str = SENTENCES, media_rows: int = 4) -> Path:
    """A byte-level tokenizer made by the command that users have."""
    words = folder.parent / f"{folder.name}.txt"
    words.write_text(text * 4, encoding="utf-8")
    return train_tokenizer([words], folder, size, media_rows)


def piece_tokenizer(folder: Path, media_rows: int = 6) -> dict[str, int]:
    """A tokenizer in the manner of Gemma's: blanks as signs, byte fallback; returns ids by name of the token."""
    vocab = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4}
    words = ["the", "▁the", "▁cat", "▁mat", "▁dog", "猫", "犬", "いる", "。", "▁", "."]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + [chr(c) for c in range(ord("a"), ord("z") + 1)] + words
    vocab |= {piece: len(vocab) + n for n, piece in enumerate(pieces)}
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "c"), ("a", "t"), ("▁c", "at"), ("い", "る")]
    for joined in ("th", "▁c", "at", "い", "る"):
        vocab.setdefault(joined, len(vocab))
    turns = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<start_of_audio>"]
    vocab |= {token: len(vocab) + n for n, token in enumerate(turns)}
    first = len(vocab)
    vocab |= {"<end_of_image>": first, "<image_soft_token>": first + 1}
    vocab |= {"<end_of_audio>": first + media_rows, "<audio_soft_token>": first + media_rows + 1}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = [*list(vocab)[:5], *turns, *list(vocab)[-4:]]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    names = {role: token for role, token in SPECIAL_TOKENS.items() if role in ("pad_token", "bos_token", "eos_token")}
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **names).save_pretrained(folder)
    return vocab


def gemma3n_values(vocab: int, rows: int, ids: dict[str, int]) -> dict[str, Any]:
    vision, audio = vocab - 2 * rows, vocab - rows
    return {
        "text_config": {**TEXT, "vocab_size": vocab, "vocab_size_per_layer_input": vision},
        "vision_config": {
            "architecture": "test_efficientnet",
            "hidden_size": 256,
            "vocab_size": rows,
            "vocab_offset": vision,
        },
        "audio_config": {**AUDIO_CONFIG, "vocab_size": rows, "vocab_offset": audio},
        "audio_soft_tokens_per_image": AUDIO_TOKENS,
        "vision_soft_tokens_per_image": IMAGE_TOKENS,
        **ids,
    }


def gemma3n_folder(folder: Path, vocab: int, rows: int, ids: dict[str, int], shard: str = "5GB") -> Any:
    """Writes config and weights; returns the model."""
    model = Gemma3nForConditionalGeneration(Gemma3nConfig(**gemma3n_values(vocab, rows, ids))).eval()
    scatter_weights(model)
    model.save_pretrained(folder, max_shard_size=shard)
    return model


def own_ids(vocab: int, rows: int) -> dict[str, int]:
    layout = token_layout(vocab, rows)._asdict()
    return {f"{name}_token_id": layout[f"{name}_token_id"] for name in ("boi", "eoi", "image", "boa", "eoa", "audio")}
