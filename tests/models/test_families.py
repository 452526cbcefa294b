"""Claims about families of language models: each learns from pictures, takes adapters, and answers alike in a batch."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import IGNORE, Decoding

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
PLACES = {**SIZES, "max_position_embeddings": 128}
GROUPED = {**PLACES, "num_key_value_heads": 1, "head_dim": 16}
# family -> (its sizes, linear maps that get adapters, whether the output map is the embedding itself)
FAMILIES = {
    "llama": (GROUPED, ["q_proj", "v_proj"], False),
    "mistral": ({**GROUPED, "sliding_window": 6}, ["q_proj", "v_proj"], False),
    "qwen2": ({**PLACES, "num_key_value_heads": 1}, ["q_proj", "k_proj"], False),
    "qwen3": (GROUPED, ["o_proj"], False),
    "gemma": (GROUPED, ["q_proj", "v_proj"], True),
    "gemma2": ({**GROUPED, "sliding_window": 6, "query_pre_attn_scalar": 16}, ["gate_proj", "down_proj"], True),
    "gemma3_text": (
        {
            **GROUPED,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": False,
        },
        ["q_proj", "up_proj"],
        False,
    ),
    "gpt2": ({"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}, ["c_attn", "c_proj"], True),
    "gpt_neox": (PLACES, ["query_key_value"], False),
    "gptj": ({"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "rotary_dim": 8}, ["q_proj"], False),
    "phi": (PLACES, ["q_proj", "dense"], False),
    "opt": ({**PLACES, "ffn_dim": 48, "word_embed_proj_dim": 16}, ["q_proj", "v_proj"], True),
    "falcon": ({**PLACES, "alibi": False}, ["query_key_value"], True),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 2}, ["query_key_value"], True),
    "granite": ({**GROUPED, "embedding_multiplier": 3.0, "logits_scaling": 2.0}, ["q_proj"], False),
    "cohere": ({**GROUPED, "logit_scale": 0.25}, ["q_proj"], True),
}
GEMMA_3N = {**GROUPED, "intermediate_size": [48, 48], "num_kv_shared_layers": 0, "vocab_size_per_layer_input": 300}
every_family = pytest.mark.parametrize("family", list(FAMILIES))


@pytest.fixture
def make_llm_of(tokenizer_folder):
    def make(family: str, **values) -> Part:
        options = {**FAMILIES[family][0], "initializer_range": 0.2}
        return Part(
            "llm", "causal_lm", {"model_type": family, "tokenizer": str(tokenizer_folder), "options": options, **values}
        )

    return make


@pytest.fixture
def make_seeing(make_model, make_llm_of):
    """A model of a family with a picture encoder before it."""
    return lambda family, **values: make_model(media=("image",), llm=make_llm_of(family), **values)


@every_family
def test_the_loss_of_text_is_the_one_of_the_familys_own_forward_pass(make_seeing, make_batch, family):
    model = make_seeing(family).eval()
    batch = make_batch(model, ["t3 l6", "t1 l9"])
    ours = model(batch)
    own = model.llm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.float()
    expected = torch.nn.functional.cross_entropy(
        own[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), reduction="sum"
    )
    assert int(ours.count) == int((batch.labels != IGNORE).sum()) == 15
    torch.testing.assert_close(ours.loss_sum, expected, atol=1e-4, rtol=1e-5)


@every_family
def test_pictures_reach_the_loss_and_the_bridge_learns_from_it(make_seeing, make_batch, family):
    model = make_seeing(family)
    batch = make_batch(model, ["t3 i t2 l5", "t2 l3", "i t1 i l4"])
    loss = model(batch)
    loss.loss_sum.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.trained_parameters().values())
    batch.images = batch.images.flip(0)
    assert abs((model(batch).loss_sum - loss.loss_sum).item()) > 1e-3


@every_family
def test_a_row_answers_the_same_alone_and_among_others(make_seeing, make_batch, family):
    model = make_seeing(family)
    batch = make_batch(model, ["t3 i t2", "t9", "i t1 i t2"], side="left")
    decoding = Decoding(max_new_tokens=8)
    together = model.generate(batch, decoding)
    pictures = [batch.images[:1], None, batch.images[1:]]
    alone = []
    for i, images in enumerate(pictures):
        real = batch.attention_mask[i].bool()
        row = [t[i : i + 1, real] for t in (batch.input_ids, batch.attention_mask, batch.labels)]
        alone += model.generate(type(batch)(*row, images, None, [batch.samples[i]]), decoding)
    assert together == alone
    assert len(set(together)) > 1


@every_family
def test_adapters_go_into_the_familys_own_maps(make_seeing, make_batch, family):
    targets = FAMILIES[family][1]
    model = make_seeing(family, train=["bridges", "lora"], lora_r=2, lora_dropout=0.0, lora_target_modules=targets)
    batch = make_batch(model, ["t3 i t2 l5"])
    before = model(batch)
    before.loss_sum.backward()
    learned = {name: p for name, p in model.trained_parameters().items() if ".lora_B." in name}
    assert {name.split(".lora_B.")[0].rpartition(".")[2] for name in learned} == set(targets)
    assert all(p.grad.abs().sum() > 0 for p in learned.values())
    with torch.no_grad():
        for p in learned.values():
            p -= 0.01 * p.grad / p.grad.norm()
    assert float(model(batch).loss_sum) < float(before.loss_sum)


@every_family
def test_the_head_is_read_where_the_family_keeps_it(make_llm_of, family):
    llm = registry.build(make_llm_of(family))
    tied = llm.head.weight is llm.model.get_input_embeddings().weight
    assert tied is FAMILIES[family][2]
    if family in ("phi", "gptj"):  # the two with a bias
        assert llm.head.bias is not None


def test_a_gpt_neox_file_of_today_and_of_old_gives_the_same_head(make_llm_of, tmp_path):
    llm = registry.build(make_llm_of("gpt_neox"))
    llm.export(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "embed_out.weight" in tensors  # the name in files, whatever transformers calls it inside
    old = {"attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool), "attention.masked_bias": torch.tensor(-1e9)}
    tensors.update({f"gpt_neox.layers.0.{name}": buffer for name, buffer in old.items()})
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    again = registry.build(Part("llm", "causal_lm", {"path": str(tmp_path)}))
    assert torch.equal(again.head.weight, llm.head.weight)


@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("gemma3n_text", GEMMA_3N, "ids of words"),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}, "keeps a state"),
    ],
)
def test_a_family_that_cannot_work_behind_embeddings_is_refused(make_llm_of, family, options, said):
    part = make_llm_of("llama")
    part.values.update(model_type=family, options=options)
    with pytest.raises(ConfigError, match=said):
        registry.build(part)


def test_a_family_without_sdpa_attention_gets_its_own_and_says_so(make_llm_of, caplog):
    with caplog.at_level("WARNING"):
        llm = registry.build(make_llm_of("gptj"))
    assert llm.model.config._attn_implementation == "eager"
    assert "no SDPA attention" in caplog.text
    with pytest.raises(ConfigError, match="model_type 'lama'"):
        registry.build(Part("llm", "causal_lm", {**make_llm_of("llama").values, "model_type": "lama"}))
