"""Claims about language models: any family works, a trained one is found in its run, wrong paths are explained."""

from __future__ import annotations

import pytest
import torch

from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.common.registry import Part, registry


@pytest.fixture
def folder(make_llm, tmp_path):
    registry.build(make_llm()).export(tmp_path / "llm")
    return tmp_path / "llm"


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen2"])
def test_every_family_gives_hidden_states_its_own_head_turns_into_its_own_logits(make_llm, family):
    llm = registry.build(make_llm(family)).eval()
    ids = torch.randint(4, 300, (2, 7))
    hidden = llm.hidden(llm.embed(ids), None)
    assert hidden.shape == (2, 7, llm.width)
    torch.testing.assert_close(llm.logits(hidden), llm.model(input_ids=ids).logits.float())
    torch.testing.assert_close(llm.head.logits(hidden), llm.logits(hidden))


def test_a_cache_continues_where_it_stopped(make_llm):
    llm = registry.build(make_llm()).eval()
    embeddings = llm.embed(torch.randint(4, 300, (2, 7)))
    cache = llm.new_cache()
    first = llm.hidden(embeddings[:, :4], None, cache=cache)
    second = llm.hidden(embeddings[:, 4:], None, cache=cache)
    torch.testing.assert_close(torch.cat([first, second], 1), llm.hidden(embeddings, None), atol=1e-5, rtol=1e-4)


def test_the_same_seed_draws_the_same_weights_and_leaves_the_global_state(make_llm):
    state = torch.get_rng_state()
    one, same, other = (registry.build(make_llm(seed=s)).embed(torch.tensor([[5]])) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_an_exported_model_is_loaded_from_its_folder_with_its_tokenizer(make_llm, folder):
    llm = registry.build(make_llm()).eval()
    again = registry.build(Part("llm", "causal_lm", {"path": str(folder)})).eval()
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(again.model(ids).logits, llm.model(ids).logits)
    assert again.tokenizer.encode("小さな red") == llm.tokenizer.encode("小さな red")
    assert registry.build(Part("llm", "causal_lm", {"path": str(folder.parent)})).width == 32  # a checkpoint folder


def test_a_model_that_was_trained_exports_its_language_model_and_one_that_was_not_does_not(make_model, tmp_path):
    make_model().export(tmp_path / "frozen")
    assert not (tmp_path / "frozen" / "llm").exists()
    model = make_model(media=(), train=["llm"])
    model.export(tmp_path / "trained")
    again = registry.build(Part("llm", "causal_lm", {"path": str(tmp_path / "trained" / "llm")}))
    for ours, theirs in zip(model.llm.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_export_has_the_adapters_merged_in(make_model, tmp_path):
    model = make_model(media=(), train=["llm", "lora"], lora_r=2).eval()
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data.normal_()
    model.export(tmp_path)
    again = registry.build(Part("llm", "causal_lm", {"path": str(tmp_path)})).eval()
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(again.model(ids).logits, model.llm.model(ids).logits, atol=1e-4, rtol=1e-4)
    assert any("lora_" in name for name, _ in model.named_parameters())  # the model itself is left as it was


@pytest.mark.parametrize("bias", ["tokenizer", "path"])
def test_wrong_paths_are_explained(make_llm, tmp_path, bias):
    if bias == "tokenizer":
        with pytest.raises(ConfigError, match="needs `tokenizer`"):
            registry.build(Part("llm", "causal_lm", {}))
        with pytest.raises(ConfigError, match="no/such/folder does not exist"):
            registry.build(Part("llm", "causal_lm", {"tokenizer": "no/such/folder"}))
    else:
        with pytest.raises(ConfigError, match="output/toy/none does not exist"):
            registry.build(Part("llm", "causal_lm", {"path": "output/toy/none"}))
        with pytest.raises(CheckpointError, match=str(tmp_path)):
            registry.build(Part("llm", "causal_lm", {"path": str(tmp_path)}))


def test_an_unknown_family_and_a_tokenizer_too_large_are_refused(make_llm):
    with pytest.raises(ConfigError, match="lama"):
        registry.build(Part("llm", "causal_lm", {**make_llm().values, "model_type": "lama"}))
    with pytest.raises(ConfigError, match="300 words but the language model only 100 rows"):
        registry.build(make_llm(vocab_size=100))


def test_a_bare_name_is_found_in_the_weight_folders(folder, monkeypatch):
    monkeypatch.setenv("MINIGPT4O_WEIGHTS", str(folder.parent))
    assert registry.build(Part("llm", "causal_lm", {"path": folder.name})).width == 32
    with pytest.raises(ConfigError, match=rf"lmm does not exist; looked for .*{folder.parent}.* or a hub name"):
        registry.build(Part("llm", "causal_lm", {"path": "lmm"}))


def test_the_pad_token_is_a_word_of_the_vocabulary_of_any_tokenizer(make_llm):
    part = make_llm()
    part.values["pad_token"] = "a"
    llm = registry.build(part)
    assert llm.pad_id == llm.tokenizer.convert_tokens_to_ids("a")
    assert len(llm.tokenizer) == 300
    part.values["pad_token"] = "<padd>"
    with pytest.raises(ConfigError, match="pad_token: '<padd>' is no word of the tokenizer; nearest: <pad>"):
        registry.build(part)


def test_a_tokenizer_with_more_words_than_the_model_has_rows_is_refused(make_llm):
    with pytest.raises(ConfigError, match="the tokenizer has 300 words but the language model only 200 rows"):
        registry.build(make_llm(vocab_size=200))
