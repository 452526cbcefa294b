"""What users of transformers take for granted of any model, where it once was missing here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny_minigpt4o import ROWS, TEXT, VISION, scatter_weights, tiny_values
from transformers import AutoTokenizer

from minigpt4o import (
    Minigpt4oAudioFeatureExtractor,
    Minigpt4oConfig,
    Minigpt4oForCausalLM,
    Minigpt4oForConditionalGeneration,
    Minigpt4oModel,
    Minigpt4oProcessor,
    Minigpt4oTextConfig,
    Minigpt4oTextModel,
)
from minigpt4o.models.minigpt4o.image_processing_minigpt4o import Minigpt4oImageProcessor

QUIET = {"do_sample": False, "max_new_tokens": 5, "eos_token_id": None, "pad_token_id": 0}
EVERY_PART = ("", "text_config", "vision_config", "audio_config")


def whole_config() -> Minigpt4oConfig:
    """With a picture tower whose norms keep running means."""
    vision = {"architecture": "test_efficientnet", "hidden_size": 256, "vocab_size": ROWS, "vocab_offset": VISION}
    return Minigpt4oConfig(**{**tiny_values(activation_sparsity_pattern=None), "vision_config": vision})


def words() -> torch.Tensor:
    return torch.randint(8, VISION, (2, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("build", [Minigpt4oTextModel, Minigpt4oModel])
def test_a_new_model_reads_embeddings_as_it_reads_ids(build: Any) -> None:
    model = build(Minigpt4oTextConfig(**TEXT) if build is Minigpt4oTextModel else whole_config()).eval()
    with torch.no_grad():
        from_ids = model(input_ids=words()).last_hidden_state
        from_embeddings = model(inputs_embeds=model.get_input_embeddings()(words())).last_hidden_state
    torch.testing.assert_close(from_embeddings, from_ids)


def test_a_new_model_generates_from_embeddings_as_from_ids() -> None:
    model = Minigpt4oForCausalLM(Minigpt4oTextConfig(**TEXT)).eval()
    by_ids = model.generate(words(), **QUIET)[:, words().shape[1] :]
    assert torch.equal(by_ids, model.generate(inputs_embeds=model.get_input_embeddings()(words()), **QUIET))


def test_the_per_layer_inputs_wake_at_the_first_step() -> None:
    """They have no say in a new model; one step gives them a say, so the next one teaches their table."""
    torch.manual_seed(0)
    model = Minigpt4oForCausalLM(Minigpt4oTextConfig(**{**TEXT, "activation_sparsity_pattern": None}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    table, sizes = model.model.embed_tokens_per_layer.weight, []
    for _ in range(2):
        optimizer.zero_grad()
        model(words(), labels=words()).loss.backward()
        sizes.append(float(table.grad.abs().sum()))
        optimizer.step()
    assert sizes[0] == 0 < sizes[1]
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


@pytest.mark.parametrize("build", [Minigpt4oTextModel, Minigpt4oForCausalLM])
def test_text_models_open_a_folder_of_the_whole_model(tmp_path, build: Any) -> None:
    whole = Minigpt4oForConditionalGeneration(whole_config()).eval()
    scatter_weights(whole)
    whole.save_pretrained(tmp_path / "whole")
    text, found = build.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not found["missing_keys"] and not found["mismatched_keys"]
    with torch.no_grad():
        wanted = whole(words()).logits if build is Minigpt4oForCausalLM else whole.model(words()).last_hidden_state
        torch.testing.assert_close(text(words())[0], wanted)

    text.save_pretrained(tmp_path / "text")
    again, found = build.from_pretrained(tmp_path / "text", output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(again(words())[0], text(words())[0])


def test_a_new_text_model_is_saved_under_plain_names(tmp_path) -> None:
    model = Minigpt4oForCausalLM(Minigpt4oTextConfig(**TEXT))
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict()) - {"lm_head.weight"}


def test_weights_that_no_file_holds_are_drawn_and_counted_anew() -> None:
    config = whole_config()
    torch.manual_seed(0)
    model = Minigpt4oForConditionalGeneration.from_pretrained(None, config=config, state_dict={})
    fresh = Minigpt4oForConditionalGeneration(config)
    for (name, got), wanted in zip(model.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert not got.is_meta, name
        if wanted.float().std(correction=0) == 0:  # a constant: norms, scales, running means
            assert torch.equal(got, wanted), name
        elif got.numel() > 1000:
            assert got.std() == pytest.approx(wanted.std().item(), rel=0.2), name
    assert any(name.endswith("running_var") for name in model.state_dict())


@pytest.mark.parametrize("build", [Minigpt4oForCausalLM, Minigpt4oForConditionalGeneration])
def test_a_tied_head_has_its_place_in_the_tensor_parallel_plan(build: Any) -> None:
    model = build(Minigpt4oTextConfig(**TEXT) if build is Minigpt4oForCausalLM else whole_config())
    assert model.tp_plan["lm_head"] == "colwise_gather_output"


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_every_part_follows_a_change_of_the_attention(name: str) -> None:
    model = Minigpt4oForConditionalGeneration(whole_config())
    model.set_attn_implementation(name)
    parts = [getattr(model.config, part) if part else model.config for part in EVERY_PART]
    assert {part._attn_implementation for part in parts} == {name}
    assert {model.model.audio_tower.config._attn_implementation} == {name}


def test_text_and_media_that_disagree_are_told_in_the_usual_words() -> None:
    processor = Minigpt4oProcessor(
        Minigpt4oAudioFeatureExtractor(),
        Minigpt4oImageProcessor(size={"height": 8, "width": 8}),
        AutoTokenizer.from_pretrained(Path(__file__).parent / "tokenizer"),
    )
    told = " tokens in the prompts should be the same as the number of "
    with pytest.raises(ValueError, match=told):
        processor(text="a <image_soft_token>", images=torch.zeros(2, 3, 8, 8).unbind())
    with pytest.raises(ValueError, match=told):
        processor(text="no sound", audio=[torch.zeros(800).numpy()])


def test_a_model_for_training_starts_with_its_per_layer_inputs_awake() -> None:
    from minigpt4o.models.native_open import draw_native

    model = draw_native("tiny", {}, None, 0, "eager")
    for layer in model.model.language_model.layers:
        assert torch.equal(layer.altup.correct_output_scale, torch.ones_like(layer.altup.correct_output_scale))
