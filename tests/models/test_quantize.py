"""Claims about language models in 8 and 4 bit: close to the original, their bytes stay, gradients pass through them."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, registry
from minigpt4o.models.base import frozen_fingerprints

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs the package bitsandbytes"
)
CLOSE = {"8bit": 0.03, "4bit": 0.3}  # relative difference of the logits of a random model


@pytest.fixture(scope="module", params=["llama", "gpt_neox"])
def folder(request, tokenizer_folder, tmp_path_factory):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    values = {"model_type": request.param, "tokenizer": str(tokenizer_folder), "options": sizes}
    llm = registry.build(Part("llm", "causal_lm", values))
    folder = tmp_path_factory.mktemp(request.param)
    llm.export(folder)
    return folder


def load(folder, **values):
    return registry.build(Part("llm", "causal_lm", {"path": str(folder), **values})).eval().requires_grad_(False)


@needs_bitsandbytes
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_quantised_model_is_close_to_the_original_and_its_bytes_stay(folder, bits):
    plain, small = load(folder), load(folder, quantize=bits)
    kinds = {type(module).__name__ for module in small.model.modules()}
    assert ("Linear8bitLt" if bits == "8bit" else "Linear4bit") in kinds
    assert small.head.weight.is_floating_point()  # the loss reads it directly
    before = frozen_fingerprints(small)
    ids = torch.randint(4, 300, (2, 9))
    with torch.no_grad():
        wanted, found = (m.logits(m.hidden(m.embed(ids), None)) for m in (plain, small))
    assert (wanted - found).norm() < CLOSE[bits] * wanted.norm()
    assert not torch.equal(wanted, found)
    assert frozen_fingerprints(small) == before != frozen_fingerprints(plain)


@needs_bitsandbytes
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_gradients_come_through_a_quantised_model_also_after_it_has_answered(folder, bits):
    gradients = []
    for llm in (load(folder), load(folder, quantize=bits)):
        torch.manual_seed(0)
        features = (llm.embed(torch.randint(4, 300, (2, 9))) + 0.01).requires_grad_()
        with torch.no_grad():
            llm.hidden(features, None)
        llm.logits(llm.hidden(features, None)).log_softmax(-1)[..., 7].sum().backward()
        gradients.append(features.grad.flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > 1 - CLOSE[bits]


@needs_bitsandbytes
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_bridge_and_adapters_learn_before_a_quantised_model(make_model, make_batch, folder, bits):
    targets = ["q_proj"] if "llama" in folder.name else ["query_key_value"]
    llm = Part("llm", "causal_lm", {"path": str(folder), "quantize": bits})
    model = make_model(
        media=("image",), llm=llm, train=["bridges", "lora"], lora_r=2, lora_dropout=0.0, lora_target_modules=targets
    )
    batch = make_batch(model, ["t3 i t2 l5", "t2 l3"])
    frozen = model.frozen_fingerprints()
    optimizer = torch.optim.SGD(model.trained_parameters().values(), lr=0.05)
    losses = []
    for _ in range(3):
        loss = model(batch)
        optimizer.zero_grad()
        (loss.loss_sum / loss.count).backward()
        assert all(p.grad is not None for p in model.trained_parameters().values())
        optimizer.step()
        losses.append(loss.loss_sum.item())
    assert losses[-1] < losses[0]
    assert model.frozen_fingerprints() == frozen


@needs_bitsandbytes
def test_a_quantised_model_with_adapters_can_be_written_and_opened(make_model, folder, tmp_path):
    targets = ["q_proj"] if "llama" in folder.name else ["query_key_value"]
    llm = Part("llm", "causal_lm", {"path": str(folder), "quantize": "8bit"})
    model = make_model(media=(), llm=llm, train=["lora"], lora_r=2, lora_target_modules=targets).eval()
    model.llm.export(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    again = load(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again.model(ids).logits, model.llm.model(ids).logits, atol=1e-3, rtol=1e-3)


def test_without_bitsandbytes_or_weights_one_is_told_so(folder, tokenizer_folder, monkeypatch):
    drawn = {"tokenizer": str(tokenizer_folder), "quantize": "8bit"}
    with pytest.raises(ConfigError, match="quantize: 8bit is for a pretrained model"):
        registry.build(Part("llm", "causal_lm", drawn))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"4bit needs the package bitsandbytes: pip install 'minigpt4o\[quantize\]'"):
        load(folder, quantize="4bit")


@needs_bitsandbytes
def test_a_quantised_model_cannot_itself_learn(make_model, folder):
    llm = Part("llm", "causal_lm", {"path": str(folder), "quantize": "8bit"})
    with pytest.raises(
        ConfigError, match=r"model.train: llm.* is held as torch.int8 and cannot learn; leave model.llm"
    ):
        make_model(media=("image",), llm=llm, train=["llm"])
