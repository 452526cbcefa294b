"""Files as MiniGPT-4, BLIP-2 and rinna publish them go into our models, or are refused as a whole."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_reference import EVA, QFORMER, VALUES, golden_batch, tiny

from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.common.registry import Part, registry
from minigpt4o.common.weight_files import find_weights
from minigpt4o.models.official import to_official
from minigpt4o.models.positions import resize_positions
from minigpt4o.models.weights import read_tensors, read_torch_file

LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}


def official_state(model: Any, trained_only: bool = False) -> dict[str, torch.Tensor]:
    own = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad or not trained_only}
    names = to_official(own)
    return {names[n]: tensor for n, tensor in own.items()}


def runner_file(path: Path, model: Any) -> Path:
    """A checkpoint as the reference's runner writes it: trained tensors and stray buffers."""
    state = official_state(model, trained_only=True)
    state["llama_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    state["Qformer.bert.embeddings.position_ids"] = torch.arange(512).view(1, 512)
    config = {"run": {"seed": 42, "init_lr": 1e-4}, "model": {"arch": "minigpt4"}}
    torch.save({"model": state, "optimizer": {}, "config": config, "scaler": None, "epoch": 1}, path)
    return path


@pytest.mark.parametrize("kind", ["v2", "v1_llama2_noqformer", "v1_qformer"])
def test_a_checkpoint_of_the_reference_is_laid_over_bit_for_bit(tokenizer_folder, tmp_path, kind, caplog):
    trained = tiny(kind, str(tokenizer_folder))
    file = runner_file(tmp_path / "checkpoint_1.pth", trained)
    with caplog.at_level(logging.INFO, "minigpt4o"):
        model = tiny(kind, str(tokenizer_folder), filled=False, ckpt=str(file))
    mine, theirs = model.trained_parameters(), trained.trained_parameters()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[n], theirs[n]) for n in mine)
    assert "part" in caplog.text and f"{len(mine)} matched" in caplog.text and " 0 unexpected" in caplog.text


def test_a_whole_official_state_gives_the_measured_loss(tokenizer_folder, tmp_path):
    torch.save({"model": official_state(tiny("v2", str(tokenizer_folder)))}, tmp_path / "all.pth")
    model = tiny("v2", str(tokenizer_folder), filled=False, ckpt=str(tmp_path / "all.pth"))
    golden = VALUES["v2_refer_batch"]
    with torch.no_grad():
        found = model(golden_batch(golden))
    assert found.loss_sum.item() / found.count.item() == pytest.approx(golden["loss"], abs=1e-4)


def test_a_state_without_adapters_fits_a_model_that_has_them(tokenizer_folder, tmp_path):
    plain = tiny("v1_llama2_noqformer", str(tokenizer_folder))
    torch.save(official_state(plain), tmp_path / "plain.pth")
    model = tiny("v2", str(tokenizer_folder), filled=False, ckpt=str(tmp_path / "plain.pth"), fresh=["lora"])
    theirs = dict(plain.named_parameters())["llm.model.model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(model.llm.model.model.layers[0].self_attn.q_proj.base_layer.weight, theirs)


def test_lora_of_the_reference_acts_on_the_answers(tokenizer_folder):
    model = tiny("v2", str(tokenizer_folder))
    golden = VALUES["v2_text_only"]
    with torch.no_grad():
        before = model(golden_batch(golden)).loss_sum.item()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
        assert model(golden_batch(golden)).loss_sum.item() != before


def test_the_eva_file_goes_in_without_its_last_block_norm_and_head_and_with_its_grid_fitted(tmp_path):
    whole = registry.build(Part("encoder", "eva_vit", {**EVA, "image_size": 112, "depth": 3}))
    state = {n.removeprefix("vit."): p.detach() for n, p in whole.named_parameters()}
    state |= {"norm.weight": torch.ones(32), "head.weight": torch.ones(4, 32)}
    torch.save(state, tmp_path / "eva_vit_g.pth")
    encoder = registry.build(Part("encoder", "eva_vit", {**EVA, "weights": str(tmp_path / "eva_vit_g.pth")}))
    mine = dict(encoder.named_parameters())
    for name, tensor in state.items():
        if f"vit.{name}" in mine and name != "pos_embed":
            assert torch.equal(mine[f"vit.{name}"], tensor)
    assert torch.equal(mine["vit.pos_embed"], resize_positions(state["pos_embed"], 4, extra=1))


@pytest.mark.parametrize(("old", "new"), [(16, 32), (4, 7), (8, 4), (5, 5)])
def test_positions_are_fitted_as_the_reference_does(old, new):
    positions = torch.randn(1, 1 + old * old, 6, generator=torch.Generator().manual_seed(old))
    found = resize_positions(positions, new, extra=1)
    grid = positions[:, 1:].reshape(1, old, old, 6).permute(0, 3, 1, 2)
    wanted = F.interpolate(grid, (new, new), mode="bicubic", align_corners=False).permute(0, 2, 3, 1).reshape(1, -1, 6)
    assert torch.equal(found[:, :1], positions[:, :1])
    assert torch.allclose(found[:, 1:], wanted, atol=1e-6)


def test_positions_that_are_no_square_are_refused_with_both_sizes(tmp_path):
    state = {n: p.detach() for n, p in registry.build(Part("encoder", "eva_vit", EVA)).named_parameters()}
    state["vit.pos_embed"] = torch.zeros(1, 15, 32)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"vit.pos_embed: model \(1, 17, 32\), checkpoint \(1, 15, 32\)"):
        registry.build(Part("encoder", "eva_vit", {**EVA, "weights": str(tmp_path / "odd.pth")}))


def test_the_blip2_file_fills_queries_qformer_and_ln_vision_and_its_rest_is_ignored(tokenizer_folder, tmp_path):
    filled = tiny("v1_qformer", str(tokenizer_folder))
    state = {n: t for n, t in official_state(filled).items() if n.startswith(("query", "Qformer", "ln_vision"))}
    state |= {
        "Qformer.bert.encoder.layer.0.intermediate.dense.weight": torch.ones(96, 48),
        "Qformer.bert.encoder.layer.0.output.dense.weight": torch.ones(48, 96),
        "Qformer.bert.embeddings.word_embeddings.weight": torch.ones(10, 48),
        "t5_proj.weight": torch.ones(4, 48),
    }
    torch.save({"model": state}, tmp_path / "blip2.pth")
    bridge = Part("bridge", "qformer", {**QFORMER, "weights": str(tmp_path / "blip2.pth")})
    model = tiny(
        "v1_qformer",
        str(tokenizer_folder),
        filled=False,
        bridges={"image": bridge},
        feature_norm_weights=str(tmp_path / "blip2.pth"),
    )
    mine, wanted = dict(model.named_parameters()), dict(filled.named_parameters())
    for name in mine:
        if name.startswith(("bridges.image.q", "norms.")):
            assert torch.equal(mine[name], wanted[name]), name


class Code:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def test_a_file_with_code_a_cut_file_and_a_foreign_file_are_refused_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"llama_proj.weight": torch.zeros(2, 2)}, "optimizer": Code()}, "code.pth")
    torch.save({"model": {"llama_proj.weight": torch.zeros(200, 200)}}, "whole.pth")
    Path("cut.pth").write_bytes(Path("whole.pth").read_bytes()[:50_000])
    Path("text.pth").write_text("not a checkpoint")
    Path("empty.pth").touch()
    for name in ("code.pth", "cut.pth", "text.pth", "empty.pth"):
        with pytest.raises(CheckpointError, match=f"{name} .*code, which is never run"):
            read_tensors(name)
    torch.save({"epoch": 3}, "none.pth")
    with pytest.raises(CheckpointError, match=r"none.pth holds no tensors; its keys are epoch"):
        read_tensors("none.pth")
    assert not Path("pwned").exists()


def test_a_projector_for_another_language_model_names_both_widths_and_changes_nothing(tokenizer_folder, tmp_path):
    torch.save(
        {"model": {"llama_proj.weight": torch.ones(80, 128), "llama_proj.bias": torch.ones(80)}}, tmp_path / "a.pth"
    )
    with pytest.raises(CheckpointError, match=r"bridges.image.proj.weight: model \(64, 128\), checkpoint \(80, 128\)"):
        tiny("v1_llama2_noqformer", str(tokenizer_folder), filled=False, ckpt=str(tmp_path / "a.pth"))


def test_a_checkpoint_without_its_projector_or_adapters_is_an_error_that_names_them(tokenizer_folder, tmp_path):
    state = official_state(tiny("v2", str(tokenizer_folder)), trained_only=True)
    half = {n: t for n, t in state.items() if n != "llama_proj.bias"}
    torch.save({"model": half}, tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match=r"lacks 1 tensor.*\n.*bridges.image.proj.bias \(64,\)"):
        tiny("v2", str(tokenizer_folder), filled=False, ckpt=str(tmp_path / "half.pth"))
    torch.save({"model": {n: t for n, t in state.items() if "layers.1" not in n}}, tmp_path / "few.pth")
    with pytest.raises(CheckpointError, match=r"lacks 4 tensor.*\n.*layers.1.self_attn.q_proj.lora_A"):
        tiny("v2", str(tokenizer_folder), filled=False, ckpt=str(tmp_path / "few.pth"))


def test_a_file_of_the_reference_without_any_adapter_is_refused_unless_they_are_declared_fresh(
    tokenizer_folder, tmp_path
):
    state = official_state(tiny("v2", str(tokenizer_folder)), trained_only=True)
    torch.save({"model": {n: t for n, t in state.items() if "lora" not in n}}, tmp_path / "map.pth")
    values = {"filled": False, "ckpt": str(tmp_path / "map.pth")}
    with pytest.raises(CheckpointError, match=r"lacks 8 tensor.*\n.*lora_A[^$]*new part in model.fresh"):
        tiny("v2", str(tokenizer_folder), **values)
    model = tiny("v2", str(tokenizer_folder), fresh=["lora"], **values)
    assert torch.equal(model.bridges["image"].proj.bias, state["llama_proj.bias"])


@pytest.mark.parametrize(("more", "told"), [(Path("x"), "pathlib"), (Code(), "posix.system")], ids=["path", "system"])
def test_a_file_with_code_is_refused_in_words_that_do_not_ask_to_run_it(tmp_path, more, told):
    torch.save({"model": {"llama_proj.bias": torch.ones(2)}, "more": more}, tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match=r"code\.pth \([\d,]+ bytes\).*holds code, which is never run") as error:
        read_torch_file(tmp_path / "code.pth")
    assert told in str(error.value)
    assert "weights_only" not in str(error.value) and "likely succeed" not in str(error.value)


def test_half_of_the_adapters_is_refused_where_they_are_frozen_too(tokenizer_folder, tmp_path):
    state = official_state(tiny("v2", str(tokenizer_folder)), trained_only=True)
    torch.save({"model": {n: t for n, t in state.items() if "layers.1" not in n}}, tmp_path / "few.pth")
    with pytest.raises(CheckpointError, match=r"lacks 4 tensor.*\n.*layers.1.self_attn.q_proj.lora_A"):
        tiny("v2", str(tokenizer_folder), filled=False, ckpt=str(tmp_path / "few.pth"), train=["bridges"])


def test_numbers_that_are_not_finite_are_refused(tokenizer_folder, tmp_path):
    state = official_state(tiny("v1_llama2_noqformer", str(tokenizer_folder)), trained_only=True)
    state["llama_proj.bias"][3] = float("nan")
    torch.save({"model": state}, tmp_path / "nan.pth")
    with pytest.raises(CheckpointError, match=r"NaN or infinity in 1 tensor\(s\):\n  bridges.image.proj.bias"):
        tiny("v1_llama2_noqformer", str(tokenizer_folder), filled=False, ckpt=str(tmp_path / "nan.pth"))


def test_adapters_of_a_checkpoint_are_not_dropped_by_a_model_without_them(tokenizer_folder, tmp_path):
    torch.save({"model": official_state(tiny("v2", str(tokenizer_folder)), trained_only=True)}, tmp_path / "v2.pth")
    with pytest.raises(CheckpointError, match=r"holds 8 tensor\(s\) the model has no place for; set model.lora_r: 4"):
        tiny("v1_llama2_noqformer", str(tokenizer_folder), filled=False, ckpt=str(tmp_path / "v2.pth"))


def test_bare_names_are_found_in_the_weights_folder_and_urls_by_their_last_part(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT4O_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "eva_vit_g.pth").touch()
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "q.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert find_weights("eva_vit_g.pth", "key") == tmp_path / "eva_vit_g.pth"
    assert find_weights("https://host/some/q.pth", "key") == cached
    with pytest.raises(
        ConfigError, match=r"model.x: vicuna-7b does not exist.*MINIGPT4O_WEIGHTS.*source: the Vicuna v0"
    ):
        find_weights("vicuna-7b", "model.x")
    with pytest.raises(ConfigError, match="does not exist"):
        find_weights("some/eva_vit_g.pth", "model.x")  # a path is meant as it is written


BIG_EVA = {"image_size": 224}
COUNTS = {
    "vicuna-7b": (LLAMA_7B, "qformer", {}, BIG_EVA, 3_149_824),
    "vicuna-13b": (LLAMA_13B, "qformer", {}, BIG_EVA, 3_937_280),
    "llama-2-7b": (LLAMA_7B, "grouped", {}, BIG_EVA, 23_072_768),
    "minigpt-v2": (LLAMA_7B, "grouped", {"lora_r": 64}, {"image_size": 448}, 56_627_200),
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_full_size_models_train_exactly_the_known_number_of_parameters(tokenizer_folder, name):
    llama, bridge, more, eva, trained = COUNTS[name]
    options = {**llama, "vocab_size": 32000, "tie_word_embeddings": False}
    values = {
        "llm": Part("llm", "causal_lm", {"tokenizer": str(tokenizer_folder), "options": options}),
        "encoders": {"image": Part("encoder", "eva_vit", eva)},
        "bridges": {"image": Part("bridge", bridge, {"drop_cls": True} if bridge == "grouped" else {})},
        "feature_norm": True,
        "train": [*(["lora"] if more else []), "bridges.image.proj"],
        **more,
    }
    with torch.device("meta"):
        model = registry.build(Part("model", "minigpt4", values))
    rows = {row.part: row for row in model.part_rows()}
    assert sum(row.trained for row in rows.values()) == trained
    assert rows["encoders.image"].parameters == {224: 985_894_528, 448: 986_975_872}[eva["image_size"]]
    assert model.slots == {"image": {"qformer": 32, "grouped": 64}[bridge] if eva["image_size"] == 224 else 256}
    if bridge == "qformer":
        inner = sum(p.numel() for n, p in model.bridges["image"].named_parameters() if n.startswith("qformer"))
        assert inner == 105_137_664
