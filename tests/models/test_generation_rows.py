"""Rows may join others and leave them between any two steps: each gets the tokens it gets alone."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import tiny_native
import torch

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import Batch, Decoding
from minigpt4o.models import generation_cache as caches
from minigpt4o.models.answer import Answer
from minigpt4o.models.generation_choice import Row
from minigpt4o.models.generation_rows import Rows

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
LLMS: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "gpt_neox": {**SMALL, "max_position_embeddings": 128},
    "qwen2": {**SMALL, "num_key_value_heads": 1},
    "mistral": {**SMALL, "num_key_value_heads": 1, "sliding_window": 8},
    "gemma2": {**SMALL, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8},
}
DECODINGS = [
    Decoding(14),
    Decoding(14, repetition_penalty=1.5, min_new_tokens=5),
    Decoding(14, do_sample=True, temperature=0.9, top_p=0.9, seed=3),
    Decoding(14, do_sample=True, temperature=1.4, top_p=1.0, seed=4, repetition_penalty=1.2),
]


@pytest.fixture(params=[*LLMS, "native"])
def llm(request: pytest.FixtureRequest, tokenizer_folder: Path, tmp_path: Path) -> Any:
    """A language model with random weights behind the doors of generation."""
    if request.param == "native":
        return tiny_native.make_native(tiny_native.make_tokenizer(tmp_path)).eval().llm
    options = {**LLMS[request.param], "initializer_range": 0.2}
    values = {"model_type": request.param, "tokenizer": str(tokenizer_folder), "options": options}
    return registry.build(Part("llm", "causal_lm", values)).eval()


def row_of(llm: Any, number: int, decoding: Decoding) -> Row:
    return Row(Answer(llm.tokenizer, (), frozenset(llm.eos_ids), decoding.min_new_tokens), decoding, 14, str(number))


def begun(llm: Any, prompts: list[list[int]], rows: list[Row]) -> Rows:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return Rows(llm, rows, llm.embed(ids), mask)


def step(rows: Rows) -> None:
    for row, token in zip(rows.rows, rows.step(), strict=True):
        row.take(token)


@torch.no_grad()
def alone(llm: Any, prompt: list[int], number: int, decoding: Decoding) -> list[int]:
    rows = begun(llm, [prompt], [row_of(llm, number, decoding)])
    while not rows.rows[0].done:
        step(rows)
    return rows.rows[0].tokens


@torch.no_grad()
def test_rows_join_and_leave_in_any_order_and_get_what_they_get_alone(llm: Any) -> None:
    draw = random.Random(5)
    prompts = [[draw.randrange(8, 280) for _ in range(draw.randrange(1, 24))] for _ in range(12)]
    wanted = [alone(llm, prompt, i, DECODINGS[i % 4]) for i, prompt in enumerate(prompts)]
    assert len({tuple(tokens) for tokens in wanted}) > 6
    coming = [row_of(llm, i, DECODINGS[i % 4]) for i in range(len(prompts))]
    together, left, widths = None, list(range(len(prompts))), []
    while left or together is not None:
        if left and draw.random() < 0.5:
            new = [left.pop(draw.randrange(len(left))) for _ in range(min(len(left), draw.randrange(1, 4)))]
            more = begun(llm, [prompts[i] for i in new], [coming[i] for i in new])
            assert more.joinable
            step(more)
            if together is None:
                together = more
            else:
                together.join(more)
                assert together.width == together.cache.get_seq_length()
        if together is not None:
            step(together)
            going = [i for i, row in enumerate(together.rows) if not row.done]
            if len(going) == 0:
                together = None
            elif len(going) < len(together):
                together.keep(going)
                together.trim()
                assert together.width == max(together.lengths) == together.cache.get_seq_length()
            widths.append(together.width if together else 0)
    assert [row.tokens for row in coming] == wanted
    assert max(widths) <= max(map(len, prompts)) + 14


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(3, 12), (12, 3), (12, 12), (2, 20, 11)])
def test_rows_begun_apart_go_on_together(llm: Any, lengths: tuple[int, ...]) -> None:
    prompts = [list(range(10 + n, 10 + 2 * n)) for n in lengths]
    groups = [begun(llm, [prompt], [row_of(llm, i, Decoding(14))]) for i, prompt in enumerate(prompts)]
    for group in groups:
        step(group)
    together, *others = groups
    for other in others:
        together.join(other)
        assert together.width == together.cache.get_seq_length() == max(together.lengths)
    for _ in range(13):
        step(together)
    assert [row.tokens for row in together.rows] == [
        alone(llm, prompt, i, Decoding(14)) for i, prompt in enumerate(prompts)
    ]


@torch.no_grad()
def test_a_cache_taken_from_the_batch_goes_on_as_if_nothing_had_been_beside_it(llm: Any) -> None:
    prompts = [list(range(10, 10 + n)) for n in (12, 3, 7)]
    rows = begun(llm, prompts, [row_of(llm, i, Decoding(14)) for i in range(3)])
    for _ in range(4):
        step(rows)
    taken, before = rows.cache_of(1), copy.deepcopy(rows.rows[1].tokens)
    said = [*prompts[1], *before[:-1]]
    assert taken.get_seq_length() == len(said)
    more = [20, 21]
    ids = torch.tensor([[*said, before[-1], *more]])
    fresh = llm.hidden(llm.embed(ids), None, None, llm.new_cache())[:, -1]
    positions = torch.arange(len(said), ids.shape[1])[None]
    reused = llm.hidden(llm.embed(ids[:, len(said) :]), None, positions, taken)[:, -1]
    assert reused.allclose(fresh, atol=1e-5)
    step(rows)  # the batch itself was left as it is
    assert rows.rows[1].tokens == alone(llm, prompts[1], 1, Decoding(14))[:5]


@torch.no_grad()
@pytest.mark.parametrize("length", [2, 5, 11])
def test_a_cache_is_shortened_where_nothing_was_forgotten(llm: Any, length: int) -> None:
    ids = torch.arange(10, 22)[None]
    cache = llm.new_cache()
    llm.hidden(llm.embed(ids), None, None, cache)
    if not caches.can_rewind(cache, length):
        assert any(getattr(layer, "sliding_window", 99) <= 12 for layer in cache.layers)
        cache = llm.new_cache()  # while the window still holds everything it can be shortened
        ids = ids[:, :6]
        llm.hidden(llm.embed(ids), None, None, cache)
        length = min(length, 5)
        assert caches.can_rewind(cache, length)
    assert caches.bytes_of(cache) > 0
    caches.rewind(cache, length)
    positions = torch.arange(length, ids.shape[1])[None]
    again = llm.hidden(llm.embed(ids[:, length:]), None, positions, cache)
    assert again[:, -1].allclose(llm.hidden(llm.embed(ids), None, None, llm.new_cache())[:, -1], atol=1e-5)
    assert caches.can_rewind(cache, cache.get_seq_length())


def test_layers_that_are_no_plain_keys_and_values_are_not_put_side_by_side(make_model: Any) -> None:
    from transformers.cache_utils import LinearAttentionLayer

    cache = make_model(media=()).llm.new_cache()
    assert caches.joinable(cache)
    cache.layers[0] = LinearAttentionLayer()
    assert not caches.joinable(cache)


def test_rows_near_the_end_of_the_models_positions_end_by_themselves(make_model: Any, make_batch: Any) -> None:
    model = make_model("gpt2")  # 128 positions
    batch = make_batch(model, ["t126", "t5", "t120"], side="left")
    together = model.generate(batch, Decoding(40, min_new_tokens=40))
    for i, answer in enumerate(together):
        real = batch.attention_mask[i].bool()
        row = [t[i : i + 1, real] for t in (batch.input_ids, batch.attention_mask, batch.labels)]
        assert model.generate(Batch(*row, None, None, [batch.samples[i]]), Decoding(40, min_new_tokens=40)) == [answer]
    assert len(together[1]) > len(together[0])
