"""Claims about encoders of transformers: any model's folder plugs in, and its features are that model's own states."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Media

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
SECONDS = 0.5


def build(kind: str, name: str, **values: Any) -> Any:
    return registry.build(Part(kind, name, values))


def clip() -> Any:
    import transformers as t

    vision = t.CLIPVisionConfig(**SMALL, image_size=32, patch_size=8).to_dict()
    text = t.CLIPTextConfig(**SMALL, vocab_size=20, max_position_embeddings=8, eos_token_id=1).to_dict()
    return t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))


def siglip() -> Any:
    import transformers as t

    vision = t.SiglipVisionConfig(**SMALL, image_size=32, patch_size=8).to_dict()
    text = t.SiglipTextConfig(**SMALL, vocab_size=20, max_position_embeddings=8).to_dict()
    return t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=vision))


def dinov2() -> Any:
    import transformers as t

    return t.Dinov2Model(t.Dinov2Config(**SMALL, image_size=32, patch_size=8))


def whisper() -> tuple[Any, Any]:
    import transformers as t

    layers = {"encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = t.WhisperConfig(
        vocab_size=20, num_mel_bins=8, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, max_source_positions=25,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, **layers,
    )  # fmt: skip
    return t.WhisperModel(config), t.WhisperFeatureExtractor(feature_size=8, chunk_length=SECONDS)


def ast() -> tuple[Any, Any]:
    import transformers as t

    model = t.ASTModel(t.ASTConfig(**SMALL, max_length=48, num_mel_bins=16, patch_size=8))
    return model, t.ASTFeatureExtractor(num_mel_bins=16, max_length=48)


def wav2vec2() -> tuple[Any, Any]:
    import transformers as t

    convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (20, 16)}
    config = t.Wav2Vec2Config(**SMALL, **convolutions, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
    return t.Wav2Vec2Model(config), t.Wav2Vec2FeatureExtractor(return_attention_mask=False)


def hubert() -> tuple[Any, Any]:
    import transformers as t

    convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (20, 16)}
    config = t.HubertConfig(**SMALL, **convolutions, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
    return t.HubertModel(config), t.Wav2Vec2FeatureExtractor(return_attention_mask=False)


@pytest.mark.parametrize(("make", "skip"), [(clip, 1), (siglip, 0), (dinov2, 1)])
@pytest.mark.parametrize("layer", [-1, -2])
def test_features_of_pictures_are_the_models_own_states(tmp_path: Path, make: Callable[[], Any], skip: int, layer: int):
    model = make().eval()
    model.save_pretrained(tmp_path)
    encoder = build("encoder", "transformers_vision", path=str(tmp_path), image_size=32, skip=skip, layer=layer).eval()
    assert (encoder.tokens, encoder.width) == (16, 16)
    pictures = torch.randn(2, 3, 32, 32)
    core = getattr(model, "vision_model", model)
    with torch.no_grad():
        out = core(pictures, output_hidden_states=True)
        wanted = out.last_hidden_state if layer == -1 else out.hidden_states[layer]
        torch.testing.assert_close(encoder(pictures), wanted[:, skip:])


@pytest.mark.parametrize(
    ("make", "skip", "tokens"), [(whisper, 0, 25), (ast, 2, None), (wav2vec2, 0, None), (hubert, 0, None)]
)
def test_features_of_sounds_are_the_models_own_states(
    tmp_path: Path, make: Callable[[], Any], skip: int, tokens: int | None
):
    model, extractor = make()
    model.eval().save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    processor = build("processor", "transformers_audio", path=str(tmp_path), seconds=SECONDS)
    encoder = build("encoder", "transformers_audio", path=str(tmp_path), seconds=SECONDS, skip=skip).eval()
    wave = np.sin(np.arange(6000) / 9).astype(np.float32) * 0.3  # shorter than SECONDS: silence follows
    out = io.BytesIO()
    soundfile.write(out, wave, 16000, format="WAV", subtype="FLOAT")
    sound = processor(Media(data=out.getvalue()))
    padded = np.pad(wave, (0, 8000 - len(wave)))
    given = extractor(padded, sampling_rate=16000, return_tensors="pt")[extractor.model_input_names[0]]
    core = model.get_encoder() if model.config.is_encoder_decoder else model
    with torch.no_grad():
        wanted = core(given).last_hidden_state[:, skip:]
        found = encoder(sound.unsqueeze(0))
    torch.testing.assert_close(found, wanted)
    assert tuple(found.shape[1:]) == (encoder.tokens, encoder.width)
    assert tokens is None or encoder.tokens == tokens
    assert encoder.example().shape[1:] == sound.shape


def test_layers_behind_the_features_get_a_gradient_of_zero(tmp_path: Path):
    clip().save_pretrained(tmp_path)
    encoder = build("encoder", "transformers_vision", path=str(tmp_path), image_size=32, layer=-2)
    encoder(torch.randn(1, 3, 32, 32)).pow(2).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    grads = {name: bool(p.grad.any()) for name, p in encoder.named_parameters()}
    assert not grads["core.encoder.layers.1.mlp.fc1.weight"]
    assert grads["core.encoder.layers.0.mlp.fc1.weight"]


def test_a_missing_folder_and_a_wrong_length_are_told(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"model\.encoders\.image\.path is missing"):
        build("encoder", "transformers_vision")
    with pytest.raises(ConfigError, match=r"transformers_audio\.path"):
        build("processor", "transformers_audio")
    model, extractor = wav2vec2()
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    encoder = build("encoder", "transformers_audio", path=str(tmp_path), seconds=SECONDS)
    with pytest.raises(DataError, match="path and seconds"):
        encoder(torch.zeros(1, 100, 1))
