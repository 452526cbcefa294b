"""What a model says of itself without its weights is what it says with them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, registry
from minigpt4o.models.outline import outline
from minigpt4o.runners.build import positions_of

SMALL = {"width": 16, "depth": 1, "heads": 2}
MARKS = ["<pad>", "<s>", "</s>", "<unk>"]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    from minigpt4o.models.llms.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("words")
    (folder / "text.txt").write_text("what is there? a red circle. " * 20, encoding="utf-8")
    return str(train_tokenizer([folder / "text.txt"], folder / "tokenizer", 300, special_tokens=MARKS))


def settings_of(tmp_path, node: dict[str, Any]) -> Part:
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump({"model": node}), encoding="utf-8")
    return load_settings(file, [], needs=["model"]).model


def joined(words: str, image: dict[str, Any], bridge: Any) -> dict[str, Any]:
    options = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    llm = {"name": "causal_lm", "tokenizer": words, "options": {**options, "max_position_embeddings": 77}}
    sound = {"name": "spectrogram_transformer", "frames": 12, "mels": 8, **SMALL}
    parts = {"encoders": {"image": image, "audio": sound}, "bridges": {"image": bridge, "audio": "linear"}}
    return {"arch": "aligned", "llm": llm, **parts, "template": "llama2", "profile": "compat", "max_txt_len": 50}


PICTURES = {
    "a transformer": ({"name": "timm_vit", "image_size": 32, "patch_size": 8, **SMALL}, "linear"),
    "one of timm": (
        {"name": "timm", "model_name": "test_resnet", "image_size": 64},
        {"name": "grouped", "group": 4},
    ),
    "EVA": ({"name": "eva_vit", "image_size": 28, **SMALL}, {"name": "qformer", "queries": 5, "depth": 1}),
    "Minigpt4o's tower": ({"name": "minigpt4o_vision", "image_size": 64}, {"name": "grouped", "group": 2}),
}


@pytest.mark.parametrize("image", PICTURES)
def test_a_joined_model_is_outlined_as_it_is_built(tmp_path, words, image):
    chosen = settings_of(tmp_path, joined(words, *PICTURES[image]))
    said, model = outline(chosen), registry.build(chosen)
    assert said.slots == model.slots
    assert positions_of(said) == positions_of(model) == 77
    assert (said.max_txt_len, said.conversation) == (model.max_txt_len, model.conversation)
    assert said.tokenizer("a red circle?")["input_ids"] == model.tokenizer("a red circle?")["input_ids"]


def test_encoders_of_transformers_are_outlined_from_their_settings_alone(tmp_path, words):
    import transformers as t

    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    t.WhisperConfig(
        vocab_size=20, num_mel_bins=8, d_model=16, max_source_positions=25, pad_token_id=0, **layers
    ).save_pretrained(tmp_path / "whisper")
    t.WhisperFeatureExtractor(feature_size=8, chunk_length=0.5).save_pretrained(tmp_path / "whisper")
    node = joined(words, *PICTURES["a transformer"])
    node["encoders"]["audio"] = {"name": "transformers_audio", "path": str(tmp_path / "whisper"), "seconds": 0.5}
    node["bridges"]["audio"] = {"name": "grouped", "group": 5}
    assert outline(settings_of(tmp_path, node)).slots["audio"] == 5  # 25 places of the model by 5; no weights are here


def test_minigpt4o_is_outlined_as_it_is_built(tmp_path):
    from minigpt4o.models.minigpt4o.tokenizer_training import train_tokenizer

    text = tmp_path / "text.txt"
    text.write_text("what is there? a red circle. 赤い丸。 " * 40, encoding="utf-8")
    train_tokenizer([text], tmp_path / "tokenizer", vocab_size=700, media_rows=128)
    node = {"arch": "minigpt4o", "tokenizer": str(tmp_path / "tokenizer"), "image_size": 64}
    chosen = settings_of(tmp_path, node)
    said, model = outline(chosen), registry.build(chosen)
    assert (said.slots, positions_of(said)) == (model.slots, positions_of(model))
    assert said.conversation == model.conversation
    model.whole.save_pretrained(tmp_path / "whole")
    model.tokenizer.save_pretrained(tmp_path / "whole")
    again = outline(settings_of(tmp_path, {"arch": "minigpt4o", "path": str(tmp_path / "whole"), "image_size": 64}))
    assert (again.slots, positions_of(again)) == (said.slots, positions_of(said))


def test_a_tagger_is_outlined_as_it_is_built(tmp_path, words):
    encoders = {"image": PICTURES["a transformer"][0]}
    chosen = settings_of(tmp_path, {"arch": "tagger", "encoders": encoders, "tokenizer": words})
    assert outline(chosen).slots == registry.build(chosen).slots == {"image": 1}


def test_no_weight_is_read_however_large_the_model_is(tmp_path, words):
    image = {"name": "eva_vit", "image_size": 224, "weights": str(tmp_path / "not_here.pth")}
    chosen = settings_of(tmp_path, joined(words, image, {"name": "grouped", "group": 4, "drop_cls": True}))
    assert outline(chosen).slots["image"] == 64


def test_what_is_missing_is_named(tmp_path):
    node = joined("nowhere", *PICTURES["a transformer"])
    with pytest.raises(ConfigError, match="nowhere"):
        outline(settings_of(tmp_path, node))
    with pytest.raises(ConfigError, match="tagger"):
        outline(Part("model", "tagger", {"encoders": {}}))
