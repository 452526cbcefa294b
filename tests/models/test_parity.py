"""The tiny models give the numbers that MiniGPT-4's own code gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_reference import KINDS, VALUES, golden_batch, picture, tiny

from minigpt4o.common.registry import Part
from minigpt4o.models.official import is_ignored, to_official, to_own

CASES = {
    "v2_refer_batch": "v2",
    "v2_text_only": "v2",
    "v2_conv": "v2",
    "v2_truncate": "v2",
    "v1_stage1": "v1_qformer",
    "v1_stage2_vicuna": "v1_qformer",
    "v1_stage2_llama2": "v1_llama2_noqformer",
}


@pytest.fixture(scope="module")
def models(tokenizer_folder: Path) -> dict[str, Any]:
    return {kind: tiny(kind, str(tokenizer_folder)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_its_official_name_and_shape_and_learns_or_not_as_there(models, kind):
    own = dict(models[kind].named_parameters())
    names = to_official(own)
    mine = {official: [list(own[name].shape), own[name].requires_grad] for name, official in names.items()}
    assert set(names) == set(own)
    assert mine == {name: [shape, learns] for name, shape, learns in VALUES["parameters"][kind]}
    assert to_own(names.values()) == {official: name for name, official in names.items()}


@pytest.mark.parametrize(("case", "kind"), [("v2_encode_img", "v2"), ("v1_encode_img", "v1_qformer")])
def test_a_picture_becomes_the_features_of_the_reference(models, case, kind):
    model, golden = models[kind], VALUES[case]
    with torch.no_grad():
        found = model.bridges["image"](model.encode("image", picture()))
    assert list(found.shape) == golden["shape"]
    assert found.double().sum().item() == pytest.approx(golden["sum"], abs=1e-4)
    assert found.flatten()[:4].tolist() == pytest.approx(golden["first4"], abs=1e-5)
    if "last4" in golden:
        assert found.flatten()[-4:].tolist() == pytest.approx(golden["last4"], abs=1e-5)


@pytest.mark.parametrize(("case", "kind"), CASES.items())
def test_a_batch_has_the_loss_of_the_reference(models, case, kind):
    golden = VALUES[case]
    with torch.no_grad():
        found = models[kind](golden_batch(golden))
    assert found.loss_sum.item() / found.count.item() == pytest.approx(golden["loss"], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_the_loss_stays_near(tokenizer_folder, kind):
    case = next(case for case, of in CASES.items() if of == kind)
    model = tiny(kind, str(tokenizer_folder), precision="bf16")
    found = model(golden_batch(VALUES[case]))
    found.loss_sum.backward()
    assert found.loss_sum.item() / found.count.item() == pytest.approx(VALUES[case]["loss"], abs=0.02)
    assert {p.dtype for p in model.trained_parameters().values()} == {torch.float32}
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.trained_parameters().values())


def test_the_norms_have_the_epsilons_of_the_reference(models):
    eps = {
        name: module.eps for name, module in models["v1_qformer"].named_modules() if type(module) is torch.nn.LayerNorm
    }
    assert {e for n, e in eps.items() if n.startswith("encoders.")} == {1e-6}
    assert {e for n, e in eps.items() if n.startswith("bridges.")} == {1e-12}
    assert eps["norms.image"] == 1e-5


def test_ln_vision_of_a_model_without_qformer_is_a_plain_normalisation(tokenizer_folder):
    model = tiny("v2", str(tokenizer_folder), filled=False)
    norm = model.norms["image"]
    assert not norm.weight.requires_grad and bool((norm.weight == 1).all()) and bool((norm.bias == 0).all())


def test_a_gpt_neox_model_has_the_names_of_rinnas_variant_both_ways(tokenizer_folder):
    options = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    llm = {
        "model_type": "gpt_neox",
        "tokenizer": str(tokenizer_folder),
        "options": {**options, "num_attention_heads": 2},
    }
    model = tiny("v1_qformer", str(tokenizer_folder), filled=False, llm=Part("llm", "causal_lm", llm))
    own = [name for name, _ in model.named_parameters()]
    names = to_official(own)
    assert "gpt_neox_model.embed_out.weight" in names.values()
    assert "gpt_neox_model.gpt_neox.layers.0.attention.query_key_value.weight" in names.values()
    assert to_own(names.values()) == {official: name for name, official in names.items()}
    assert set(names) == set(own)


def test_names_of_later_peft_of_wrapped_heads_and_of_gpt_neox_are_known():
    peft = "llama_model.base_model.model.model.layers.3.self_attn"
    names = [
        f"{peft}.q_proj.lora_A.weight",
        f"{peft}.v_proj.lora_B.default.weight",
        f"{peft}.q_proj.weight",
        f"{peft}.v_proj.base_layer.weight",
        f"{peft}.k_proj.weight",
        "llama_model.base_model.model.lm_head.0.weight",
        "gpt_neox_model.gpt_neox.layers.0.attention.dense.bias",
        "gpt_neox_model.embed_out.weight",
        "llama_proj.bias",
    ]
    own = "llm.model.model.layers.3.self_attn"
    assert list(to_own(names).values()) == [
        f"{own}.q_proj.lora_A.default.weight",
        f"{own}.v_proj.lora_B.default.weight",
        f"{own}.q_proj.base_layer.weight",
        f"{own}.v_proj.base_layer.weight",
        f"{own}.k_proj.weight",
        "llm.model.lm_head.weight",
        "llm.model.gpt_neox.layers.0.attention.dense.bias",
        "llm.model.lm_head.weight",
        "bridges.image.proj.bias",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "llama_model.model.layers.7.self_attn.rotary_emb.inv_freq",
        "Qformer.bert.embeddings.position_ids",
        "Qformer.bert.embeddings.word_embeddings.weight",
        "Qformer.bert.encoder.layer.3.output.dense.weight",
        "Qformer.cls.predictions.bias",
        "gpt_neox_model.gpt_neox.layers.0.attention.masked_bias",
        "gpt_neox_model.gpt_neox.layers.0.attention.bias",
        "t5_model.shared.weight",
    ],
)
def test_buffers_and_parts_of_blip2_that_no_model_has_are_ignored(name):
    assert is_ignored(name) and not to_own([name])
