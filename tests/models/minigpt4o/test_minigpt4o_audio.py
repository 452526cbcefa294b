"""The sound tower: Gemma 3n's encodings and gradients under the same weights, for every length, mask and setting."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_minigpt4o import scatter_weights
from transformers import Gemma3nAudioConfig
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nAudioEncoder

from minigpt4o.models.minigpt4o.configuration_minigpt4o import Minigpt4oAudioConfig
from minigpt4o.models.minigpt4o.feature_extraction_minigpt4o import Minigpt4oAudioFeatureExtractor
from minigpt4o.models.minigpt4o.modeling_audio import Minigpt4oAudioConformerBlock, Minigpt4oAudioEncoder

MELS = 16
TINY: dict[str, Any] = {
    "input_feat_size": MELS,
    "hidden_size": 32,
    "conf_num_attention_heads": 4,
    "conf_num_hidden_layers": 2,
    "conf_attention_chunk_size": 4,
    "conf_attention_context_left": 5,
    "sscp_conv_channel_size": (8, 4),
}
# Chunks of 4 steps of 4 frames: on, before and behind the borders of steps and of chunks.
LENGTHS = [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 64, 65, 97]
NEAR = {"rtol": 0, "atol": 1e-4}


def towers(**settings: Any) -> tuple[Gemma3nAudioEncoder, Minigpt4oAudioEncoder]:
    """The oracle's tower and ours with the same random weights."""
    oracle = Gemma3nAudioEncoder(Gemma3nAudioConfig(**{**TINY, **settings})).eval()
    scatter_weights(oracle)
    ours = Minigpt4oAudioEncoder(Minigpt4oAudioConfig(**{**TINY, **settings})).eval()
    ours.load_state_dict(oracle.state_dict(), strict=True)
    return oracle, ours


def batch(frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three clips as loud as log-mel features: whole, half, and all padding."""
    generator = torch.Generator().manual_seed(seed)
    mel = torch.randn(3, frames, MELS, generator=generator) * 3 - 5
    mask = torch.zeros(3, frames, dtype=torch.bool)
    mask[1, frames // 2 :] = True
    mask[2] = True
    return mel, mask


def assert_same(oracle: Any, ours: Any, frames: int) -> None:
    with torch.no_grad():
        wanted, got = (tower(*batch(frames)) for tower in (oracle, ours))
    assert torch.equal(got.audio_mel_mask, wanted.audio_mel_mask)
    torch.testing.assert_close(got.last_hidden_state, wanted.last_hidden_state, **NEAR)


@pytest.fixture(scope="module")
def pair() -> tuple[Gemma3nAudioEncoder, Minigpt4oAudioEncoder]:
    return towers()


@pytest.mark.parametrize("frames", LENGTHS)
def test_encodings_are_the_oracles_around_every_border(pair: tuple[Any, Any], frames: int) -> None:
    assert_same(*pair, frames)


@pytest.mark.parametrize("hole", [slice(0, 20), slice(20, 40)], ids=["left", "middle"])
def test_padding_before_the_sound_is_treated_as_the_oracles(pair: tuple[Any, Any], hole: slice) -> None:
    mel, mask = batch(64)
    mask[:] = False
    mask[1:, hole] = True
    with torch.no_grad():
        wanted, got = (tower(mel, mask).last_hidden_state for tower in pair)
    torch.testing.assert_close(got, wanted, **NEAR)


@pytest.mark.parametrize(
    "settings",
    [
        {"conf_attention_context_right": 2},
        {"conf_attention_context_left": 0},
        {"conf_attention_context_left": 1},
        {"conf_attention_chunk_size": 3, "conf_attention_context_left": 9},
        {"conf_attention_logit_cap": 0.5},
        {"conf_conv_kernel_size": 1},
        {"conf_reduction_factor": 1},
        {"conf_reduction_factor": 3},
        {"conf_residual_weight": 0.25},
        {"gradient_clipping": 0.7},
        {"rms_norm_eps": 0.1},
        {"sscp_conv_group_norm_eps": 1.0},
        {"sscp_conv_channel_size": [3, 5]},
        {"sscp_conv_kernel_size": ((5, 3), (3, 5)), "sscp_conv_stride_size": ((3, 2), (2, 1))},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_every_setting_changes_both_alike(pair: tuple[Any, Any], settings: dict[str, Any]) -> None:
    oracle, ours = towers(**settings)
    assert_same(oracle, ours, 53)
    with torch.no_grad():
        changed, plain = (tower(*batch(53)).last_hidden_state for tower in (ours, pair[1]))
    assert changed.shape != plain.shape or not torch.allclose(changed, plain, atol=1e-3)


def test_the_full_width_of_a_block_agrees() -> None:
    wide = {"input_feat_size": 128, "hidden_size": 192, "sscp_conv_channel_size": (32, 8)}
    defaults = {"conf_attention_chunk_size": 12, "conf_attention_context_left": 13}
    oracle, ours = towers(**wide, **defaults)
    mel = torch.randn(1, 203, 128) * 3 - 5
    mask = torch.zeros(1, 203, dtype=torch.bool)
    with torch.no_grad():
        wanted, got = (tower(mel, mask).last_hidden_state for tower in (oracle, ours))
    torch.testing.assert_close(got, wanted, **NEAR)


def test_gradients_are_the_oracles() -> None:
    gradients = []
    for tower in towers():
        mel, mask = batch(53)
        mel.requires_grad_()
        tower.train()(mel, mask).last_hidden_state.square().sum().backward()
        gradients.append({"mel": mel.grad, **{name: weight.grad for name, weight in tower.named_parameters()}})
    wanted, got = gradients
    for name, gradient in wanted.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()), msg=name)


def test_a_limit_stops_gradients_as_the_oracles() -> None:
    norms = []
    for tower in towers(gradient_clipping=0.01):
        tower(*batch(31)).last_hidden_state.sum().backward()
        norms.append(float(torch.stack([w.grad.norm() for w in tower.parameters() if w.grad is not None]).norm()))
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


@pytest.mark.parametrize(
    ("seconds", "frames", "tokens"), [(0.1, 8, 1), (1.0, 97, 7), (5.0, 497, 32), (31.0, 2_997, 188)]
)
def test_seconds_become_soft_tokens(pair: tuple[Any, Any], seconds: float, frames: int, tokens: int) -> None:
    extractor = Minigpt4oAudioFeatureExtractor(feature_size=MELS)
    sound = extractor(np.zeros(round(seconds * 16_000)), return_tensors="pt")
    with torch.no_grad():
        out = pair[1](sound.input_features, ~sound.input_features_mask)
    assert sound.input_features.shape[1] == frames and out.last_hidden_state.shape == (1, tokens, 32)
    assert out.audio_mel_mask.shape == (1, tokens) and not out.audio_mel_mask.any()


def test_the_mask_is_true_at_padding_and_padding_comes_out_as_zero(pair: tuple[Any, Any]) -> None:
    mel, mask = batch(64)
    with torch.no_grad():
        out = pair[1](mel, mask)
    assert out.audio_mel_mask.tolist() == [[False] * 4, [False, False, True, True], [True] * 4]
    assert not out.last_hidden_state[out.audio_mel_mask].any()
    assert out.last_hidden_state[~out.audio_mel_mask].all(-1).all()


def test_what_lies_in_the_padding_does_not_reach_the_clip(pair: tuple[Any, Any]) -> None:
    mel, mask = batch(64)
    other = mel.clone()
    other[1, 36:] += 7.0  # behind what the convolutions look ahead
    with torch.no_grad():
        one, two = (pair[1](sound, mask).last_hidden_state[1, :2] for sound in (mel, other))
    torch.testing.assert_close(one, two)


def test_output_comes_as_asked(pair: tuple[Any, Any]) -> None:
    mel, mask = batch(32)
    with torch.no_grad():
        out = pair[1](audio_mel=mel, audio_mel_mask=mask.long(), output_hidden_states=True, output_attentions=True)
        encodings, padding = pair[1](mel, mask, return_dict=False)
    torch.testing.assert_close(out.last_hidden_state, encodings)
    assert torch.equal(out.audio_mel_mask, padding)
    assert len(out.attentions) == 2 and out.attentions[0].shape == (4, 3, 2, 4, 8)
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones(4, 3, 2, 4))
    assert len(out.hidden_states) == 3


def test_half_precision_stays_near_the_oracle() -> None:
    oracle, ours = towers()
    exact = ours(*batch(53)).last_hidden_state.detach()
    oracle, ours = oracle.bfloat16(), ours.bfloat16()
    with torch.no_grad():
        wanted, got = (tower(*batch(53)).last_hidden_state for tower in (oracle, ours))
    assert got.dtype == torch.bfloat16
    error, theirs = ((x.float() - exact).norm() / exact.norm() for x in (got, wanted))
    assert error < 0.05 and error < 1.5 * theirs


def test_checkpointing_gives_the_same_gradients() -> None:
    plain = towers()[1].train()
    saving = copy.deepcopy(plain)
    saving.gradient_checkpointing_enable()
    assert all(
        block.gradient_checkpointing for block in saving.modules() if isinstance(block, Minigpt4oAudioConformerBlock)
    )
    for tower in (plain, saving):
        tower(*batch(33)).last_hidden_state.square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)


def test_it_compiles_in_one_graph() -> None:
    ours = towers()[1]
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*batch(33)).last_hidden_state, ours(*batch(33)).last_hidden_state)


def test_a_fresh_tower_starts_as_the_oracles_and_survives_saving(tmp_path: Path) -> None:
    fresh = Minigpt4oAudioEncoder(Minigpt4oAudioConfig(**TINY)).eval()
    oracle = Gemma3nAudioEncoder(Gemma3nAudioConfig(**TINY))
    for name, weight in oracle.named_parameters():
        if weight.ndim == 1:
            assert torch.equal(fresh.get_parameter(name), weight), name
        else:
            assert float(fresh.get_parameter(name).detach().std()) == pytest.approx(
                float(weight.detach().std()), rel=0.3
            ), name
    fresh.save_pretrained(tmp_path)
    loaded = Minigpt4oAudioEncoder.from_pretrained(tmp_path)
    assert loaded.config.to_dict()["conf_attention_chunk_size"] == 4
    with torch.no_grad():
        torch.testing.assert_close(loaded(*batch(33)).last_hidden_state, fresh(*batch(33)).last_hidden_state)


@pytest.mark.parametrize(
    ("mel", "mask", "said"),
    [
        (torch.zeros(1, 8, 5), torch.zeros(1, 8), r"\(1, 8, 5\).*\(clips, frames, 16\)"),
        (torch.zeros(1, 0, MELS), torch.zeros(1, 0), "at least one frame"),
        (torch.zeros(8, MELS), torch.zeros(8), r"\(8, 16\)"),
        (torch.zeros(1, 8, MELS), torch.zeros(1, 9), r"\(1, 9\).*True at padding"),
    ],
)
def test_bad_features_are_refused_with_the_mend(pair: tuple[Any, Any], mel: Any, mask: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pair[1](mel, mask)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="conf_num_attention_heads 3"):
        Minigpt4oAudioEncoder(Minigpt4oAudioConfig(**{**TINY, "conf_num_attention_heads": 3}))
