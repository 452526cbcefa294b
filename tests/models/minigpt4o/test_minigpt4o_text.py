"""Minigpt4o's text model computes what Gemma3n's does, feature by feature, and behaves as a model of transformers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_minigpt4o import TEXT
from tiny_text import TOKENS, ours, padding, prompt, text_values, twins
from transformers import AutoModelForCausalLM
from transformers.models.gemma3n import Gemma3nForCausalLM, Gemma3nTextConfig

from minigpt4o.models.loss import Head, learned_states, summed_loss
from minigpt4o.models.minigpt4o import modeling_text
from minigpt4o.models.minigpt4o.configuration_minigpt4o import Minigpt4oTextConfig
from minigpt4o.models.minigpt4o.modeling_text import Minigpt4oForCausalLM, Minigpt4oTextModel

LAYERS, WIDTH, VOCAB = TEXT["num_hidden_layers"], TEXT["hidden_size"], TEXT["vocab_size"]
CLOSE = 2e-4


def logits(model: Any, side: str = "none", **inputs: Any) -> torch.Tensor:
    """(real tokens, V): padding positions say nothing."""
    mask = padding(side)
    with torch.no_grad():
        result = model(prompt(), attention_mask=mask, **inputs).logits
    return result[mask.bool()] if mask is not None else result.flatten(0, 1)


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.float() - b.float()).abs().max().item()


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_are_the_oracles(attention: str, side: str) -> None:
    oracle, model = twins(attn_implementation=attention)
    assert gap(logits(oracle, side), logits(model, side)) < CLOSE


ROPES = {
    "full_attention": {"rope_type": "default", "rope_theta": 50.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
}
SCALED = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 50.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
}
# What is switched off or turned to another value; the second entry says whether the weights still fit the base model.
FEATURES: dict[str, tuple[dict[str, Any], bool]] = {
    "no sparsity": ({"activation_sparsity_pattern": [0.0] * LAYERS}, True),
    "more sparsity": ({"activation_sparsity_pattern": [0.99] * LAYERS}, True),
    "window wider than the text": ({"sliding_window": 64}, True),
    "window of 3": ({"sliding_window": 3}, True),
    "all layers global": ({"layer_types": ["full_attention"] * LAYERS}, True),
    "all layers local": ({"layer_types": ["sliding_attention"] * LAYERS}, True),
    "tight soft cap": ({"final_logit_softcapping": 1.5}, True),
    "no sharing": ({"num_kv_shared_layers": 0}, False),
    "more sharing": ({"num_kv_shared_layers": 3}, False),
    "one stream": ({"altup_num_inputs": 1}, False),
    "four streams": ({"altup_num_inputs": 4}, False),
    "second stream active": ({"altup_active_idx": 1}, True),
    "last stream active": ({"altup_active_idx": 2}, True),
    "no scale on the corrected stream": ({"altup_correct_scale": False}, True),
    "laurel of rank 1": ({"laurel_rank": 1}, False),
    "narrow per-layer inputs": ({"hidden_size_per_layer_input": 3}, False),
    "small per-layer table": ({"vocab_size_per_layer_input": 16}, False),
    "other rope bases": ({"rope_parameters": ROPES}, True),
    "scaled rope": ({"rope_parameters": SCALED}, True),
    "other widths by layer": ({"intermediate_size": [16, 24, 32, 40, 48, 56]}, False),
    "biases": ({"attention_bias": True}, False),
    "one head for all": ({"num_key_value_heads": 1}, False),
    "as many key heads": ({"num_key_value_heads": 4}, False),
    "another activation": ({"hidden_activation": "silu"}, True),
    "large epsilon": ({"rms_norm_eps": 0.1}, True),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_a_changed_feature_changes_the_oracle_and_ours_alike(feature: str) -> None:
    changes, fits = FEATURES[feature]
    oracle, model = twins(**changes)
    assert gap(logits(oracle, "left"), logits(model, "left")) < CLOSE
    if fits:
        base = ours()
        base.load_state_dict(model.state_dict())
        assert gap(logits(base, "left"), logits(model, "left")) > 1e-3, "the feature does nothing"


def test_without_soft_cap_logits_are_the_oracles() -> None:
    oracle, model = twins()
    oracle.config.__dict__["final_logit_softcapping"] = None  # its configuration would refuse
    model.config.final_logit_softcapping = None
    assert gap(logits(oracle), logits(model)) < CLOSE


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_without_per_layer_inputs_it_is_the_oracle_with_silent_ones() -> None:
    oracle, model = twins(hidden_size_per_layer_input=1)
    with torch.no_grad():
        for layer in oracle.model.layers:
            layer.post_per_layer_input_norm.weight.zero_()
    bare = Minigpt4oForCausalLM(Minigpt4oTextConfig(**text_values(hidden_size_per_layer_input=0))).eval()
    shared = {k: v for k, v in model.state_dict().items() if v.shape == bare.state_dict()[k].shape}
    bare.load_state_dict(shared, strict=False)
    assert gap(logits(oracle), logits(bare)) < CLOSE


@pytest.mark.parametrize("clip", [120.0, 0.05, None])
def test_loss_and_gradients_are_the_oracles(clip: float | None) -> None:
    oracle, model = twins(altup_coef_clip=clip) if clip else twins()
    if clip is None:
        oracle.config.__dict__["altup_coef_clip"] = None
        for layer in model.model.layers:
            layer.altup.prediction_coefs.clip = layer.altup.correction_coefs.clip = None
    labels = prompt().masked_fill(padding("left") == 0, -100)
    losses = []
    for each in (oracle, model):
        loss = each.train()(prompt(), attention_mask=padding("left"), labels=labels).loss
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    found = dict(model.named_parameters())
    for name, weight in oracle.named_parameters():
        assert weight.grad is not None and found[name].grad is not None, name
        assert gap(weight.grad, found[name].grad) < 2e-4 * max(weight.grad.abs().max().item(), 1e-2), name
        assert gap(weight, found[name]) == 0.0, f"{name}: clipped differently"


def test_recorded_states_and_attentions_are_the_oracles() -> None:
    oracle, model = twins(attn_implementation="eager")
    wanted = {"output_hidden_states": True, "output_attentions": True, "attention_mask": padding("left")}
    with torch.no_grad():
        theirs, own = oracle(prompt(), **wanted), model(prompt(), **wanted)
    assert len(own.hidden_states) == len(theirs.hidden_states) == LAYERS + 1
    assert len(own.attentions) == len(theirs.attentions) == LAYERS
    real = padding("left").bool()
    for a, b in zip(theirs.hidden_states, own.hidden_states, strict=True):
        assert a.shape == b.shape == (TEXT["altup_num_inputs"], 3, TOKENS, WIDTH)
        assert gap(a[:, real], b[:, real]) < CLOSE
    for a, b in zip(theirs.attentions, own.attentions, strict=True):
        assert a.shape == b.shape
        assert gap(a.transpose(1, 2)[real], b.transpose(1, 2)[real]) < CLOSE


def test_in_bfloat16_it_is_as_near_to_the_truth_as_the_oracle() -> None:
    oracle, model = twins()
    truth = logits(oracle)
    rough, own = logits(oracle.bfloat16()), logits(model.bfloat16())
    assert own.dtype == torch.bfloat16
    assert (own.float() - truth).square().mean() < 1.5 * (rough.float() - truth).square().mean()


def test_positions_may_be_given() -> None:
    oracle, model = twins()
    positions = (torch.arange(TOKENS) * 3 + 5).unsqueeze(0)
    alone = logits(model)
    assert gap(logits(oracle, position_ids=positions), logits(model, position_ids=positions)) < CLOSE
    shifted = logits(model, position_ids=torch.arange(TOKENS).unsqueeze(0) + 40)
    assert gap(alone, shifted) < CLOSE  # rotary positions are relative


def test_embeddings_serve_instead_of_ids_or_together_with_them() -> None:
    oracle, model = twins()
    with torch.no_grad():
        embeds, told = model.model.embed_tokens(prompt()), model.model.get_per_layer_inputs(prompt())
        from_ids = model(prompt()).logits
        assert gap(from_ids, model(prompt(), inputs_embeds=embeds).logits) < 1e-6
        assert gap(from_ids, model(inputs_embeds=embeds, per_layer_inputs=told).logits) < 1e-6
        nameless = model(inputs_embeds=embeds).logits
        assert gap(oracle(inputs_embeds=embeds).logits, nameless) < CLOSE
        assert gap(from_ids, nameless) > 1e-3
        assert gap(oracle.model.get_per_layer_inputs(prompt()), told) == 0.0
    with pytest.raises(ValueError, match="give input_ids or inputs_embeds"):
        model()


def test_ids_beyond_the_per_layer_table_read_its_first_row() -> None:
    model = ours().model
    table = TEXT["vocab_size_per_layer_input"]
    rows = model.get_per_layer_inputs(torch.tensor([[-1, 0, table, VOCAB - 1, table - 1]]))
    assert rows.shape == (1, 5, LAYERS, TEXT["hidden_size_per_layer_input"])
    assert all(torch.equal(rows[0, i], rows[0, 1]) for i in (0, 2, 3)) and not torch.equal(rows[0, 4], rows[0, 1])


def test_wanted_logits_are_those_of_the_whole() -> None:
    model = ours()
    with torch.no_grad():
        whole = model(prompt()).logits
        mask = torch.zeros(3, TOKENS, dtype=torch.bool)
        mask[0, 3] = mask[2, 7] = True
        assert torch.equal(model(prompt(), logits_to_keep=4).logits, whole[:, -4:])
        assert torch.equal(model(prompt(), logits_to_keep=torch.tensor([2, 9])).logits, whole[:, [2, 9]])
        assert gap(model(prompt(), logits_to_keep=mask).logits, whole[mask]) < 1e-5


def test_the_loss_in_chunks_is_the_loss_and_makes_no_logits() -> None:
    model = ours()
    labels = prompt().masked_fill(torch.rand(3, TOKENS, generator=torch.Generator().manual_seed(1)) < 0.6, -100)
    plain = model(prompt(), labels=labels)
    chunked = model(prompt(), labels=labels, loss_chunk=5)
    assert plain.logits is not None and chunked.logits is None
    grads = [torch.autograd.grad(o.loss, list(model.parameters())) for o in (plain, chunked)]
    assert chunked.loss.item() == pytest.approx(plain.loss.item(), rel=1e-6)
    assert all(gap(a, b) < 1e-5 for a, b in zip(*grads, strict=True))
    counted = {"labels": labels, "num_items_in_batch": 7}
    assert model(prompt(), loss_chunk=5, **counted).loss.item() == pytest.approx(model(prompt(), **counted).loss.item())
    model.config.loss_chunk = 5  # the same for good
    assert model(prompt(), labels=labels).logits is None and model(prompt()).logits is not None
    nothing = model(prompt(), labels=torch.full_like(labels, -100)).loss
    assert nothing.item() == 0.0 and nothing.requires_grad


def test_the_runners_loss_path_gives_the_same_loss() -> None:
    model, labels = ours(), prompt()
    hidden = model.base_model(prompt()).last_hidden_state
    head = Head(model.get_output_embeddings().weight, softcap=model.config.final_logit_softcapping)
    found = summed_loss(*learned_states(hidden, labels), head, chunk=16)
    wanted = model(prompt(), labels=labels).loss
    assert found.loss_sum.item() / found.count.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_a_fresh_model_sends_gradients_into_every_weight() -> None:
    torch.manual_seed(0)
    model = Minigpt4oForCausalLM(Minigpt4oTextConfig(**text_values())).train()
    for layer in model.model.layers:  # drawn as 0, which holds back the per-layer inputs
        torch.nn.init.ones_(layer.altup.correct_output_scale)
    model(prompt(), labels=prompt()).loss.backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_fresh_model_starts_sensibly() -> None:
    torch.manual_seed(0)
    model = Minigpt4oForCausalLM(Minigpt4oTextConfig(**text_values()))
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert (weight == (0 if name.endswith("correct_output_scale") else 1)).all(), name
        else:
            assert 0.01 < weight.std() < 0.03, name
    assert (model.model.embed_tokens.weight[0] == 0).all(), "the padding row"
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_gradient_checkpointing_changes_no_gradient() -> None:
    plain, saving = ours().train(), ours().train()
    saving.gradient_checkpointing_enable()
    for model in (plain, saving):
        model(prompt(), attention_mask=padding("left"), labels=prompt()).loss.backward()
    assert all(gap(a.grad, b.grad) < 1e-6 for a, b in zip(plain.parameters(), saving.parameters(), strict=True))


def test_checkpointing_that_loses_gradients_is_told() -> None:
    model = ours().train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_text.logger, "warning_once", said.append)
        model(prompt(), labels=prompt())
        assert "use_reentrant" in said.pop()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model(prompt(), labels=prompt())
        assert not said


def test_it_comes_back_from_disk_in_shards_with_its_tied_head(tmp_path: Path) -> None:
    model = ours()
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    back, report = Minigpt4oForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert back.lm_head.weight is back.model.embed_tokens.weight
    assert torch.equal(logits(model), logits(back))
    half = Minigpt4oForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and logits(half).isfinite().all()


def test_the_oracles_files_load_even_with_maps_of_layers_that_share(tmp_path: Path) -> None:
    oracle, model = twins()
    extra = {f"model.layers.{LAYERS - 1}.self_attn.k_proj.weight": torch.zeros(16, WIDTH)}
    model.save_pretrained(tmp_path, state_dict={**oracle.state_dict(), **extra})
    back, report = Minigpt4oForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["unexpected_keys"] and gap(logits(oracle), logits(back)) < CLOSE


def test_the_base_model_reads_the_files_of_the_whole(tmp_path: Path) -> None:
    model = ours()
    model.save_pretrained(tmp_path)
    base = Minigpt4oTextModel.from_pretrained(tmp_path)
    assert all(torch.equal(w, model.model.state_dict()[n]) for n, w in base.state_dict().items())


def test_a_model_built_on_no_device_counts_and_fills() -> None:
    config = Minigpt4oTextConfig(**text_values())
    with torch.device("meta"):
        ghost = Minigpt4oForCausalLM(config)
    assert ghost.num_parameters() == ours().num_parameters()
    ghost = ghost.to_empty(device="cpu").eval()
    ghost.init_weights()
    ghost.load_state_dict(ours().state_dict())
    assert gap(logits(ghost), logits(ours())) < 1e-6, "buffers are filled again"


@pytest.mark.parametrize("size", [VOCAB + 5, VOCAB - 10])
def test_resizing_keeps_what_was_said_of_old_tokens(size: int) -> None:
    model = ours()
    ids = prompt().clamp(max=min(size, VOCAB) - 1)
    with torch.no_grad():
        before = model(ids).logits
        model.resize_token_embeddings(size)
        after = model(ids).logits
    n = min(size, VOCAB)
    assert after.shape[-1] == size == model.config.vocab_size == model.config.vocab_size_per_layer_input
    assert gap(before[..., :n], after[..., :n]) < 1e-5
    table = model.get_per_layer_input_embeddings()
    assert table.weight.shape[0] == table.num_embeddings == size
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model(torch.full((1, 2), size - 1), labels=torch.full((1, 2), size - 1)).loss.backward()
    assert table.weight.grad[size - 1].abs().sum() > 0, "a new token learns a row of its own"


def test_forward_compiles_as_one_graph() -> None:
    layers = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"], "num_kv_shared_layers": 0}
    model = ours(**layers, activation_sparsity_pattern=[0.9, 0.0])
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert gap(logits(compiled, use_cache=False), logits(model, use_cache=False)) < 1e-5


def test_lora_reaches_every_map_and_merges() -> None:
    peft = pytest.importorskip("peft")
    model = ours()
    plain = logits(model)
    torch.manual_seed(0)
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    tuned.train()(prompt(), labels=prompt()).loss.backward()
    adapters = {n: p for n, p in tuned.named_parameters() if p.requires_grad}
    assert adapters and all("lora_" in n for n in adapters)
    assert not [n for n, p in adapters.items() if p.grad is None or not p.grad.abs().sum() > 0]
    told = logits(tuned.eval())
    assert gap(plain, told) > 1e-3
    assert gap(told, logits(tuned.merge_and_unload())) < CLOSE


@pytest.mark.filterwarnings("error:Mismatch dtype")
def test_under_autocast_it_is_as_near_to_the_truth_as_the_oracle() -> None:
    oracle, model = twins()
    truth = logits(oracle)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, own = logits(oracle), logits(model)
        model.train()(prompt(), labels=prompt()).loss.backward()
    assert (own.float() - truth).square().mean() < 1.5 * (rough.float() - truth).square().mean()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_what_cannot_be_built_is_refused_with_the_number() -> None:
    with pytest.raises(ValueError, match="altup_active_idx 3 is none of the 3"):
        ours(altup_active_idx=3)
    with pytest.raises(ValueError, match=r"activation_sparsity_pattern\[0\] is 1.0"):
        ours(activation_sparsity_pattern=[1.0] * LAYERS)


def test_a_copy_is_independent() -> None:
    model = ours()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.model.norm.weight.mul_(2)
    assert gap(logits(model), logits(twin)) > 1e-3


def test_the_oracle_is_not_ours() -> None:
    assert Gemma3nForCausalLM.__module__.startswith("transformers.models.gemma3n")
    assert Minigpt4oForCausalLM.__module__.startswith("minigpt4o.")
    assert Minigpt4oForCausalLM.config_class is Minigpt4oTextConfig is Minigpt4oTextModel.config_class
    assert Gemma3nTextConfig is not Minigpt4oTextConfig and AutoModelForCausalLM is not None
