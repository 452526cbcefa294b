"""A Gemma-3n folder becomes a Minigpt4o folder: same logits with the same vocabulary, else rows follow tokens."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gemma3n_folder import IMAGE_SIZE, SENTENCES, gemma3n_folder, own_ids, own_tokenizer, piece_tokenizer
from tiny_minigpt4o import AUDIO_TOKENS, IMAGE_TOKENS, MELS
from transformers import AutoConfig, AutoProcessor, AutoTokenizer

from minigpt4o import Minigpt4oForConditionalGeneration
from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.common.files import verify
from minigpt4o.models.minigpt4o.configuration_minigpt4o import token_layout
from minigpt4o.models.minigpt4o_convert import convert_gemma3n
from minigpt4o.models.minigpt4o_rows import media_rows, read_vocabulary

VOCAB, ROWS = 330, 4  # of the tokenizer that both have
NEW, NEW_ROWS = 420, 5


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A Gemma-3n folder in shards with a vocabulary of ours, that tokenizer, and the model."""
    home = tmp_path_factory.mktemp("same")
    tokenizer = own_tokenizer(home / "tokenizer", VOCAB, media_rows=ROWS)
    model = gemma3n_folder(home / "gemma", VOCAB, ROWS, own_ids(VOCAB, ROWS), shard="300KB")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, home / "gemma" / file)
    assert len(list((home / "gemma").glob("*.safetensors"))) > 1
    return home / "gemma", tokenizer, model


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any, dict[str, int]]:
    """A Gemma-3n folder with a vocabulary in the manner of Gemma's, another tokenizer, the model, the old ids."""
    home = tmp_path_factory.mktemp("other")
    ids = piece_tokenizer(home / "gemma")
    named = {
        "boi": "<start_of_image>",
        "eoi": "<end_of_image>",
        "image": "<image_soft_token>",
        "boa": "<start_of_audio>",
        "eoa": "<end_of_audio>",
        "audio": "<audio_soft_token>",
    }
    vocab = ids["<end_of_audio>"] + 6
    model = gemma3n_folder(home / "gemma", vocab, 6, {f"{name}_token_id": ids[token] for name, token in named.items()})
    return home / "gemma", own_tokenizer(home / "tokenizer", NEW, media_rows=NEW_ROWS), model, ids


def ours(folder: Path) -> Any:
    return Minigpt4oForConditionalGeneration.from_pretrained(folder).eval()


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("given", [True, False], ids=["same tokenizer", "no tokenizer"])
def test_the_same_vocabulary_gives_the_same_logits(same: tuple[Path, Path, Any], tmp_path: Path, given: bool) -> None:
    source, tokenizer, oracle = same
    report = convert_gemma3n(source, tmp_path / "out", tokenizer if given else None)
    assert report.found == {"kept": VOCAB}
    assert not report.left
    layout = token_layout(VOCAB, ROWS)
    words = AutoTokenizer.from_pretrained(tokenizer)("the cat", return_tensors="pt").input_ids[0]
    image = [6, *[layout.image_token_id] * IMAGE_TOKENS, layout.eoi_token_id]
    audio = [7, *[layout.audio_token_id] * AUDIO_TOKENS, layout.eoa_token_id]
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "input_ids": torch.cat([words, torch.tensor(image), words, torch.tensor(audio), words])[None],
        "pixel_values": torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator),
        "input_features": torch.randn(1, 40, MELS, generator=generator),
        "input_features_mask": torch.ones(1, 40, dtype=torch.bool),
    }
    with torch.no_grad():
        torch.testing.assert_close(ours(tmp_path / "out")(**inputs).logits, oracle(**inputs).logits, atol=2e-4, rtol=0)


def test_tensors_are_copied_to_the_bit_and_the_folder_is_whole(same: tuple[Path, Path, Any], tmp_path: Path) -> None:
    source, tokenizer, oracle = same
    report = convert_gemma3n(source, tmp_path / "out", tokenizer, shard_bytes=200_000)
    assert verify(tmp_path / "out") == []
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    state, wanted = ours(tmp_path / "out").state_dict(), oracle.state_dict()
    assert set(state) == set(wanted)
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert report.copied + len(report.tables) == len(wanted) - 1  # the tied head is written once


def test_the_same_input_gives_the_same_bytes(other: tuple[Path, Path, Any, dict[str, int]], tmp_path: Path) -> None:
    source, tokenizer, *_ = other
    for name in ("one", "two"):
        convert_gemma3n(source, tmp_path / name, tokenizer)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_tokens_that_both_have_take_their_old_rows(
    other: tuple[Path, Path, Any, dict[str, int]], tmp_path: Path
) -> None:
    source, tokenizer, oracle, old = other
    report = convert_gemma3n(source, tmp_path / "out", tokenizer)
    model = ours(tmp_path / "out")
    text, was = model.model.language_model, oracle.model.language_model
    new = AutoTokenizer.from_pretrained(tokenizer)
    pairs = {" the": "▁the", " cat": "▁cat", "a": "a", "z": "z", ".": ".", " ": "▁", "猫": "猫"}
    for written, piece in pairs.items():
        found = new.encode(written, add_special_tokens=False)
        assert len(found) == 1, f"{written!r} is not one token; the test's text must be longer"
        for table in ("embed_tokens", "embed_tokens_per_layer"):
            mine, theirs = getattr(text, table).weight[found[0]], getattr(was, table).weight[old[piece]]
            assert torch.equal(mine, theirs), (written, table)
    lone = read_vocabulary(new, "").ids[b"\xe7"]  # the first byte of a Japanese letter
    assert torch.equal(text.embed_tokens.weight[lone], was.embed_tokens.weight[old["<0xE7>"]])
    found = report.found
    assert found["string"] > 256 and found["pieces"] > 10 and sum(found.values()) == NEW


def test_special_and_media_tokens_go_by_role(other: tuple[Path, Path, Any, dict[str, int]], tmp_path: Path) -> None:
    source, tokenizer, oracle, old = other
    convert_gemma3n(source, tmp_path / "out", tokenizer)
    model, layout = ours(tmp_path / "out"), token_layout(NEW, NEW_ROWS)
    config, text = model.config, model.config.text_config
    assert (text.vocab_size, text.vocab_size_per_layer_input) == (NEW, NEW - 2 * NEW_ROWS)
    assert (config.image_token_id, config.audio_token_id) == (layout.image_token_id, layout.audio_token_id)
    rows, was = model.get_input_embeddings().weight, oracle.get_input_embeddings().weight
    named = {"<start_of_image>": "boi", "<end_of_image>": "eoi", "<image_soft_token>": "image", "<bos>": "bos"}
    named |= {"<end_of_audio>": "eoa", "<audio_soft_token>": "audio", "<end_of_turn>": "end_of_turn", "<pad>": "pad"}
    for token, role in named.items():
        assert torch.equal(rows[getattr(layout, f"{role}_token_id")], was[old[token]]), token
    for kind in ("vision", "audio"):
        mine = getattr(model.model, f"embed_{kind}").embedding.weight
        theirs = getattr(oracle.model, f"embed_{kind}").embedding.weight
        assert len(mine) == NEW_ROWS
        assert torch.equal(mine[:2], theirs[:2])
        assert torch.equal(mine[-1], theirs[-1]), "the row that fills short sounds"
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [1, 5]


def test_a_new_word_starts_from_its_pieces_and_an_unused_row_from_the_mean(
    other: tuple[Path, Path, Any, dict[str, int]], tmp_path: Path
) -> None:
    source, _, oracle, old = other
    tokenizer = own_tokenizer(tmp_path / "tokenizer", 420, "zebra zebra zebra\n", media_rows=NEW_ROWS)
    report = convert_gemma3n(source, tmp_path / "out", tokenizer)
    new, rows = AutoTokenizer.from_pretrained(tokenizer), ours(tmp_path / "out").get_input_embeddings().weight
    (word,) = new.encode(" zebra", add_special_tokens=False)
    was = oracle.get_input_embeddings().weight
    pieces = was[[old[piece] for piece in ("▁", "z", "e", "b", "r", "a")]]
    torch.testing.assert_close(rows[word], pieces.mean(0))
    unused = rows[new.convert_tokens_to_ids("<unused0>")]
    assert report.found["mean"] >= 10
    far = (unused - was.mean(0)).norm() / was.shape[1] ** 0.5 / was.std()
    assert 0.005 < far < 0.02, "noise of one percent"


def test_the_folder_answers_through_the_auto_classes(
    other: tuple[Path, Path, Any, dict[str, int]], tmp_path: Path
) -> None:
    source, tokenizer, *_ = other
    convert_gemma3n(source, tmp_path / "out", tokenizer)
    assert AutoConfig.from_pretrained(tmp_path / "out").model_type == "minigpt4o"
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.image_seq_length == IMAGE_TOKENS
    content = [{"type": "image", "image": np.zeros((9, 9, 3), np.uint8)}, {"type": "text", "text": "what?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt", processor_kwargs={"images_kwargs": {"size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE}}},
    )  # fmt: skip
    answer = ours(tmp_path / "out").generate(**inputs, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] > inputs["input_ids"].shape[1]


def test_sizes_of_pictures_and_sounds_are_kept(same: tuple[Path, Path, Any], tmp_path: Path) -> None:
    source = shutil.copytree(same[0], tmp_path / "gemma")
    heap = {"frame_length": 320, "feature_size": MELS, "size": {"height": 64, "width": 64}, "do_normalize": False}
    (source / "preprocessor_config.json").write_text(json.dumps(heap))
    convert_gemma3n(source, tmp_path / "out", same[1])
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.feature_extractor.frame_length == 320
    assert processor.feature_extractor.feature_size == MELS
    assert dict(processor.image_processor.size) == {"height": 64, "width": 64}


def test_keys_of_layers_that_share_are_left_out_and_told(same: tuple[Path, Path, Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = shutil.copytree(same[0], tmp_path / "gemma")
    index = json.loads((source / "model.safetensors.index.json").read_text())
    name = "model.language_model.layers.5.self_attn.k_proj.weight"
    assert name not in index["weight_map"]
    file = source / sorted(set(index["weight_map"].values()))[0]
    save_file({**load_file(file), name: torch.zeros(16, 32)}, file)
    report = convert_gemma3n(source, tmp_path / "out", same[1])
    assert report.left == [name]
    assert name in "\n".join(report.lines())


def test_media_rows_of_other_counts_keep_the_marks_and_the_filler() -> None:
    assert media_rows((100, 4), (50, 6)) == {100: 50, 101: 51, 102: 52, 103: 55}
    assert media_rows((100, 6), (50, 4)) == {100: 50, 101: 51, 102: 52, 105: 53}


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama"}')


def break_shard(folder: Path) -> None:
    next(folder.glob("model-*.safetensors")).unlink()


def cut_shard(folder: Path) -> None:
    file = next(folder.glob("model-*.safetensors"))
    file.write_bytes(file.read_bytes()[:100])


def widen(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["laurel_rank"] = 9
    (folder / "config.json").write_text(json.dumps(config))


def lose_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (break_config, ConfigError, "model_type is 'llama'"),
        (break_shard, CheckpointError, "shard"),
        (cut_shard, CheckpointError, "cannot be read"),
        (widen, CheckpointError, "laurel"),
        (lose_tokenizer, ConfigError, "no tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), CheckpointError, "config.json"),
    ],
)
def test_a_wrong_folder_is_refused_and_nothing_is_left(
    same: tuple[Path, Path, Any], tmp_path: Path, spoil: Any, kind: type[Exception], words: str
) -> None:
    source = shutil.copytree(same[0], tmp_path / "gemma")
    spoil(source)
    with pytest.raises(kind, match=words):
        convert_gemma3n(source, tmp_path / "out", same[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gemma"]


def test_a_tokenizer_made_for_something_else_is_refused(
    same: tuple[Path, Path, Any], other: tuple[Path, Path, Any, dict[str, int]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="Minigpt4o"):
        convert_gemma3n(same[0], tmp_path / "out", other[0])


def test_an_existing_folder_is_not_written_over(same: tuple[Path, Path, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists"):
        convert_gemma3n(same[0], tmp_path, same[1])


def test_a_token_that_ends_inside_a_letter_is_cut_into_bytes(
    other: tuple[Path, Path, Any, dict[str, int]],
) -> None:
    source, _, _, old = other
    vocabulary = read_vocabulary(AutoTokenizer.from_pretrained(source), "old")
    assert vocabulary.cut("猫".encode() + b"\xe7\x8a") == (old["猫"], old["<0xE7>"], old["<0x8A>"])
    assert SENTENCES.encode()[:3] == b"the" and vocabulary.cut(b"the") == (old["the"],)
