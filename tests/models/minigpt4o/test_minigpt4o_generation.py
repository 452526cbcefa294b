"""Minigpt4o's text model generates what Gemma3n's does, by every way of generating, with every cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_minigpt4o import TEXT
from tiny_text import TOKENS, ours, padding, prompt, twins
from transformers import DynamicCache, StaticCache

NEW = 14  # with the prompt far beyond the sliding window of 8
CLOSE = 2e-4


def generate(model: Any, seed: int = 0, **options: Any) -> torch.Tensor:
    torch.manual_seed(seed)
    options = {"do_sample": False, "max_new_tokens": NEW, "attention_mask": padding("left"), **options}
    return model.generate(prompt(), **options)


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "greedy without padding": {"attention_mask": None},
    "without cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "beams": {"num_beams": 3},
    "beams, several answers": {"num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "temperature": 1.3, "top_k": 20},
    "nucleus": {"do_sample": True, "top_p": 0.9},
    "sampled beams": {"do_sample": True, "num_beams": 2},
    "repetition penalty": {"repetition_penalty": 1.4},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_tokens_are_the_oracles(attention: str, way: str) -> None:
    oracle, model = twins(attn_implementation=attention)
    assert torch.equal(generate(oracle, **WAYS[way]), generate(model, **WAYS[way]))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_kv_shared_layers": 0},
        {"num_kv_shared_layers": 3},
        {"layer_types": ["full_attention"] * 6},
        {"layer_types": ["sliding_attention"] * 6},
        {"sliding_window": 2},
        {"altup_num_inputs": 1},
        {"altup_active_idx": 1},
        {"activation_sparsity_pattern": [0.0] * 6},
    ],
    ids=str,
)
def test_every_shape_of_the_model_generates_the_same_with_and_without_caches(changes: dict[str, Any]) -> None:
    oracle, model = twins(**changes)
    wanted = generate(oracle)
    for options in ({}, {"use_cache": False}, {"cache_implementation": "static"}):
        assert torch.equal(wanted, generate(model, **options)), options


def steps(model: Any, cache: Any, sizes: list[int], ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The logits of a text that is read piece by piece."""
    found, at = [], 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        for size in sizes:
            piece = slice(at, at + size)
            out = model(
                ids[:, piece],
                attention_mask=mask[:, : at + size],
                position_ids=positions[:, piece],
                past_key_values=cache,
                use_cache=True,
            )
            found.append(out.logits)
            at += size
    return torch.cat(found, 1)


@pytest.mark.parametrize("sizes", [[TOKENS], [12, 8], [3] + [1] * 17, [5, 1, 1, 13]], ids=str)
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_read_in_pieces_the_text_says_the_same(kind: str, sizes: list[int]) -> None:
    model, ids, mask = ours(), prompt(), padding("left")
    cache: Any = DynamicCache(config=model.config)
    if kind == "static":
        cache = StaticCache(config=model.config, max_cache_len=40)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        whole = model(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    real = mask.bool()
    assert (steps(model, cache, sizes, ids, mask) - whole)[real].abs().max() < CLOSE


def test_left_padding_changes_nothing() -> None:
    model, ids = ours(), prompt(1)
    padded = torch.cat([torch.zeros(1, 7, dtype=torch.long), ids], 1)
    mask = (torch.arange(TOKENS + 7) >= 7).long().unsqueeze(0)
    plain = model.generate(ids, max_new_tokens=NEW, do_sample=False)[:, TOKENS:]
    assert torch.equal(plain, model.generate(padded, attention_mask=mask, max_new_tokens=NEW)[:, TOKENS + 7 :])


def test_an_assistant_changes_speed_only() -> None:
    model, helper = ours(), ours(num_hidden_layers=3, layer_types=TEXT["layer_types"][:3], num_kv_shared_layers=0,
                                 activation_sparsity_pattern=[0.0] * 3)  # fmt: skip
    one = {"attention_mask": None, "do_sample": False, "max_new_tokens": NEW}
    wanted = model.generate(prompt(1), **one)
    assert torch.equal(wanted, model.generate(prompt(1), assistant_model=helper, **one))
    assert torch.equal(wanted, model.generate(prompt(1), assistant_model=ours(), **one))
    assert torch.equal(wanted, model.generate(prompt(1), prompt_lookup_num_tokens=3, **one))


def test_embeddings_with_their_ids_generate_what_the_ids_do() -> None:
    model = ours()
    embeds = model.get_input_embeddings()(prompt()).detach()
    told = model.model.get_per_layer_inputs(prompt()).detach()
    options = {"attention_mask": padding("left"), "max_new_tokens": NEW, "do_sample": False}
    wanted = model.generate(prompt(), **options)
    assert torch.equal(wanted, model.generate(prompt(), inputs_embeds=embeds, **options))
    assert torch.equal(wanted[:, TOKENS:], model.generate(inputs_embeds=embeds, per_layer_inputs=told, **options))
    beams = {**options, "num_beams": 3}
    by_ids = model.generate(prompt(), **beams)[:, TOKENS:]
    assert torch.equal(by_ids, model.generate(inputs_embeds=embeds, per_layer_inputs=told, **beams))


def test_embeddings_alone_generate_what_the_oracles_do() -> None:
    oracle, model = twins()
    embeds = model.get_input_embeddings()(prompt()).detach()
    options = {"inputs_embeds": embeds, "attention_mask": padding("left"), "max_new_tokens": NEW, "do_sample": False}
    assert torch.equal(oracle.generate(**options), model.generate(**options))


@pytest.mark.parametrize("side", ["none", "left"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_prompt_costs_the_reading_layers_one_token_only(attention: str, side: str) -> None:
    model, seen = ours(attn_implementation=attention), []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda _layer, _args, out: seen.append(out.shape[2]))
    ask = {"attention_mask": padding(side), "logits_to_keep": 1}
    with torch.no_grad():
        last = model(prompt(), **ask).logits
        assert seen == [TOKENS] * 4 + [1] * 2  # the last two layers read keys and values of others
        seen.clear()
        whole = model(prompt(), attention_mask=padding(side)).logits
        assert seen == [TOKENS] * 6
        recorded = model(prompt(), output_hidden_states=True, **ask)
    assert (last - whole[:, -1:]).abs().max() < CLOSE and last.shape[1] == 1
    assert all(state.shape[2] == TOKENS for state in recorded.hidden_states)


@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])
def test_generated_states_are_recorded_step_by_step(cache: dict[str, str]) -> None:
    wanted = {"return_dict_in_generate": True, "output_hidden_states": True, "output_scores": True, **cache}
    out = generate(ours(), **wanted)
    assert len(out.hidden_states) == len(out.scores) == NEW
    assert out.hidden_states[0][0].shape == (3, 3, TOKENS, TEXT["hidden_size"])
    assert out.hidden_states[1][-1].shape == (3, 3, 1, TEXT["hidden_size"])


def test_a_conversation_goes_on_from_its_cache() -> None:
    model = ours()
    plain = {"do_sample": False, "max_new_tokens": NEW, "return_dict_in_generate": True}
    first = model.generate(prompt(1), **plain)
    longer = torch.cat([first.sequences, prompt(1, 6, seed=3)], 1)
    fresh = model.generate(longer, **plain).sequences
    assert torch.equal(fresh, model.generate(longer, past_key_values=first.past_key_values, **plain).sequences)
