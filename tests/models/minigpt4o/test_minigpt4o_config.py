"""Configurations: Gemma 3n's fields and defaults but for the vocabulary, clear refusals, exact round trips, sizes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_minigpt4o import tiny_config

from minigpt4o.models.minigpt4o import configuration_minigpt4o as ours
from minigpt4o.models.minigpt4o.configuration_minigpt4o import (
    Minigpt4oConfig,
    Minigpt4oTextConfig,
    Minigpt4oVisionConfig,
    token_layout,
)

VOCABULARY = {"vocab_size", "vocab_size_per_layer_input", "vocab_offset"}


@pytest.mark.parametrize("part", ["Config", "TextConfig", "VisionConfig", "AudioConfig"])
def test_fields_and_defaults_are_gemma_3ns_but_for_the_vocabulary(part: str) -> None:
    import transformers

    def defaults(config_class: Any) -> dict[str, Any]:
        fields = {f.name: f.default for f in dataclasses.fields(config_class)}
        return {name: value for name, value in fields.items() if name not in VOCABULARY and "_token_id" not in name}

    assert defaults(getattr(ours, f"Minigpt4o{part}")) == defaults(getattr(transformers, f"Gemma3n{part}"))
    left = {f.name for f in dataclasses.fields(getattr(ours, f"Minigpt4o{part}"))}
    assert left == {f.name for f in dataclasses.fields(getattr(transformers, f"Gemma3n{part}"))}


def test_what_is_worked_out_from_the_defaults_is_gemma_3ns_too() -> None:
    from transformers import Gemma3nTextConfig

    mine, other = Minigpt4oTextConfig(), Gemma3nTextConfig()
    for name in (
        "layer_types",
        "intermediate_size",
        "activation_sparsity_pattern",
        "rope_parameters",
        "kv_sharing_modes",
    ):
        assert getattr(mine, name) == getattr(other, name), name
    old = {"rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    assert Minigpt4oTextConfig(**old).rope_parameters == Gemma3nTextConfig(**old).rope_parameters


def test_the_default_vocabulary_has_200000_entries_and_the_media_rows_end_it() -> None:
    config, layout = Minigpt4oConfig(), token_layout()
    text, vision, audio = config.text_config, config.vision_config, config.audio_config
    assert (text.vocab_size, text.vocab_size_per_layer_input) == (200_000, 199_744)
    assert (vision.vocab_offset, vision.vocab_size) == (199_744, 128)
    assert (audio.vocab_offset, audio.vocab_size) == (199_872, 128)
    assert audio.vocab_offset + audio.vocab_size == text.vocab_size
    assert (config.boi_token_id, config.boa_token_id) == (6, 7)
    assert (config.eoi_token_id, config.image_token_id) == (199_744, 199_745)
    assert (config.eoa_token_id, config.audio_token_id) == (199_872, 199_873)
    assert layout[2:8] == (0, 1, 2, 3, 4, 5)
    assert layout.audio_token_id == config.audio_token_id


def test_a_vocabulary_too_small_for_its_marks_is_refused() -> None:
    assert token_layout(24, 8).image_token_id == 9
    with pytest.raises(ValueError, match="vocab_size is 23.*need 24"):
        token_layout(23, 8)
    with pytest.raises(ValueError, match="media_rows is 1"):
        token_layout(1000, 1)


@pytest.mark.parametrize("name", ["layer_types", "intermediate_size", "activation_sparsity_pattern"])
def test_a_list_that_does_not_fit_the_layers_is_refused_with_both_numbers(name: str) -> None:
    values: dict[str, list[Any]] = {
        "layer_types": ["full_attention"] * 2,
        "intermediate_size": [8, 8],
        "activation_sparsity_pattern": [0.0, 0.0],
    }
    with pytest.raises(ValueError, match=f"{name} holds 2 values but num_hidden_layers is 3"):
        Minigpt4oTextConfig(num_hidden_layers=3, **{name: values[name]})


def test_one_number_counts_for_every_layer() -> None:
    config = Minigpt4oTextConfig(num_hidden_layers=3, intermediate_size=7, activation_sparsity_pattern=0.5)
    assert config.intermediate_size == [7, 7, 7] and config.activation_sparsity_pattern == [0.5, 0.5, 0.5]


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(StrictDataclassError, match="hidden_size 10 is not a multiple of num_attention_heads 4"):
        Minigpt4oTextConfig(hidden_size=10, num_attention_heads=4)
    with pytest.raises(StrictDataclassError, match="expected int, got str"):
        Minigpt4oTextConfig(hidden_size="wide")
    with pytest.raises(StrictDataclassError, match="round_attention"):
        Minigpt4oTextConfig(num_hidden_layers=1, layer_types=["round_attention"])
    with pytest.raises(ValueError, match=r"num_kv_shared_layers 33 of num_hidden_layers 35 leaves 2.*full_attention"):
        _ = Minigpt4oTextConfig(num_kv_shared_layers=33).kv_sharing_modes
    with pytest.raises(ValueError, match="no preset 'huge'; known: tiny, e2b, e4b"):
        Minigpt4oConfig.preset("huge")


def test_parts_may_be_dicts_objects_or_missing() -> None:
    config = Minigpt4oConfig(
        text_config={"hidden_size": 64, "num_attention_heads": 4}, vision_config=Minigpt4oVisionConfig(hidden_size=5)
    )
    assert config.text_config.hidden_size == 64 and config.get_text_config() is config.text_config
    assert config.vision_config.hidden_size == 5 and config.audio_config.hidden_size == 1536


@pytest.mark.parametrize("config", [Minigpt4oConfig.preset("tiny", 600, 16), tiny_config(), Minigpt4oConfig()])
def test_saving_and_loading_gives_the_same(config: Minigpt4oConfig, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    loaded, wanted = Minigpt4oConfig.from_pretrained(tmp_path).to_dict(), config.to_dict()
    assert {**loaded, "transformers_version": ""} == {**wanted, "transformers_version": ""}
    part = Minigpt4oTextConfig.from_pretrained(tmp_path)
    assert part.vocab_size == config.text_config.vocab_size


def test_a_preset_follows_the_vocabulary_and_stops_at_the_end_of_a_turn() -> None:
    config, layout = Minigpt4oConfig.preset("tiny", 600, 16, use_cache=False), token_layout(600, 16)
    assert (
        config.text_config.vocab_size == 600 and config.vision_config.vocab_offset == layout.vision_vocab_offset == 568
    )
    assert config.audio_token_id == layout.audio_token_id and config.audio_config.vocab_size == 16
    assert config.text_config.eos_token_id == [1, 5] and config.use_cache is False
    again = Minigpt4oConfig.preset("tiny", 500)
    assert again.text_config.vocab_size == 500  # the preset itself was not changed by the first


@pytest.mark.parametrize(("name", "millions"), [("tiny", 40), ("e2b", 4811), ("e4b", 7132)])
def test_presets_have_the_size_that_the_documentation_says(name: str, millions: int) -> None:
    from minigpt4o.models.minigpt4o.modeling_minigpt4o import Minigpt4oForConditionalGeneration

    with torch.device("meta"):
        model = Minigpt4oForConditionalGeneration(Minigpt4oConfig.preset(name))
    assert all(weight.is_meta for weight in model.parameters())
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6) == millions
