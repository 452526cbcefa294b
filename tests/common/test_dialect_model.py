"""A YAML in the reference's words, with tiny sizes, becomes a working model of the reference's kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minigpt4o.common.config import load_settings
from minigpt4o.common.registry import registry

DATA = Path(os.environ.get("MINIGPT4O_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
LLAMA = DATA / "tokenizers" / "llama"
TEXT = """\
model:
  arch: minigpt4
  model_type: pretrain_vicuna0
  image_size: 28
  num_query_token: 4
  freeze_qformer: False
  q_former_model: ""
  llama_model: ""
  low_resource: False
  end_sym: "###"
  prompt_template: '###Human: {} ###Assistant: '
  feature_norm_weights: ""
  precision: fp32
  encoders: {image: {width: 32, depth: 1, heads: 2, weights: ""}}
  bridges: {image: {width: 16, depth: 2, heads: 2, ffn: 32, weights: ""}}
  llm:
    path: ""
    tokenizer: LLAMA
    options: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
datasets: {cc_sbu_align: {vis_processor: {train: {name: blip2_image_train, image_size: 28}}}}
run: {task: image_text_pretrain}
"""


@pytest.mark.skipif(not LLAMA.is_dir(), reason="the Llama tokenizer is not here")
def test_a_tiny_model_is_built_from_the_words_of_the_reference(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TEXT.replace("LLAMA", str(LLAMA)), encoding="utf-8")
    model = registry.build(load_settings(file).model)
    assert model.slots == {"image": 4}
    assert {name.rsplit(".", 1)[0] for name in model.trained_parameters()} > {"bridges.image.proj", "bridges.image"}
    assert all(name.startswith("bridges.image.") for name in model.trained_parameters())
    assert model.tokenizer.pad_token_id == 3997
    assert model.conversation.name == "vicuna_v0"
