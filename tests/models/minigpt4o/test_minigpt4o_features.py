"""The sound front end: Gemma 3n's values, every way of giving sound, and errors that say what to mend."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma3nAudioFeatureExtractor

from minigpt4o.models.minigpt4o.feature_extraction_minigpt4o import Minigpt4oAudioFeatureExtractor

RATE = 16_000
NEAR = {"rtol": 0, "atol": 1e-4}


def sounds(samples: int = 8_000) -> dict[str, np.ndarray]:
    time = np.arange(samples) / RATE
    noise = np.random.default_rng(0).standard_normal(samples)
    return {
        "sine": 0.5 * np.sin(2 * np.pi * 440 * time),
        "loud sine": np.sin(2 * np.pi * 1_000 * time),
        "chirp": 0.8 * np.sin(2 * np.pi * (100 + 6_000 * time) * time),
        "noise": 0.1 * noise,
        "quiet noise": 1e-5 * noise,
        "silence": np.zeros(samples),
        "click": np.eye(1, samples, 700)[0],
    }


def both(sound: Any, settings: dict[str, Any] | None = None, **options: Any) -> tuple[Any, Any]:
    """What the oracle makes of it and what we make of it, with the same seed for dither."""
    results = []
    for kind in (Gemma3nAudioFeatureExtractor, Minigpt4oAudioFeatureExtractor):
        np.random.seed(0)
        results.append(kind(**(settings or {}))(sound, **options))
    return results[0], results[1]


def assert_same(sound: Any, settings: dict[str, Any] | None = None, **options: Any) -> None:
    theirs, ours = both(sound, settings, return_tensors="np", **options)
    assert ours.input_features.dtype == np.float32 and ours.input_features_mask.dtype == bool
    np.testing.assert_allclose(ours.input_features, theirs.input_features, **NEAR)
    np.testing.assert_array_equal(ours.input_features_mask, theirs.input_features_mask)


@pytest.mark.parametrize("name", list(sounds(1)))
def test_a_clip_has_the_oracles_values(name: str) -> None:
    assert_same(sounds()[name].astype(np.float32))
    assert_same(sounds()[name].tolist())


@pytest.mark.parametrize("padding", ["longest", True, "max_length"])
def test_a_padded_batch_has_the_oracles_values_and_masks(padding: str | bool) -> None:
    clips = [sounds(length)["chirp"].astype(np.float32) for length in (5_000, 1_000, 8_123, 640)]
    assert_same(clips, padding=padding, max_length=9_000)


@pytest.mark.parametrize(
    "settings",
    [
        {"preemphasis": 0.0},
        {"preemphasis_htk_flavor": False},
        {"fft_overdrive": False},
        {"input_scale_factor": 3.0},
        {"mel_floor": 0.5},
        {"dither": 0.01},
        {"padding_side": "left"},
        {"padding_value": 0.1},
        {"feature_size": 32, "min_frequency": 0.0, "max_frequency": 8_000.0},
        {"frame_length_ms": 25.0, "hop_length_ms": 12.5},
        {"sampling_rate": 8_000, "max_frequency": 3_800.0},
        {"feature_size": 3, "per_bin_mean": [1.0, 2.0, 3.0], "per_bin_stddev": [0.5, 1.0, 2.0]},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_setting_changes_both_alike(settings: dict[str, Any]) -> None:
    clips = [sounds(length)["noise"].astype(np.float32) for length in (3_000, 1_700)]
    assert_same(clips, settings)
    changed, plain = (
        Minigpt4oAudioFeatureExtractor(**kind)(clips, return_tensors="np").input_features for kind in (settings, {})
    )
    assert changed.shape != plain.shape or np.abs(changed - plain).max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"pad_to_multiple_of": None},
        {"pad_to_multiple_of": 1_000},
        {"max_length": 2_000},
        {"max_length": 1_500, "pad_to_multiple_of": 1_000},
    ],
)
def test_lengths_follow_the_oracle(options: dict[str, Any]) -> None:
    assert_same([sounds(length)["noise"] for length in (2_500, 3_001)], **options)


def test_unpadded_clips_of_several_lengths_stay_apart() -> None:
    clips = [sounds(length)["chirp"].astype(np.float32) for length in (5_000, 1_000)]
    theirs, ours = both(clips, padding=False)
    for one, other in zip(ours.input_features, theirs.input_features, strict=True):
        np.testing.assert_allclose(one, other, **NEAR)
    assert [len(mask) for mask in ours.input_features_mask] == [len(mask) for mask in theirs.input_features_mask]


@pytest.mark.parametrize(
    ("seconds", "frames"), [(0.1, 8), (1.0, 97), (5.0, 497), (10.0, 997), (30.0, 2_997), (31.0, 2_997)]
)
def test_seconds_become_frames(seconds: float, frames: int) -> None:
    extractor = Minigpt4oAudioFeatureExtractor(feature_size=4)
    assert extractor(np.zeros(round(seconds * RATE)), return_tensors="np").input_features.shape == (1, frames, 4)


def test_many_frames_are_worked_through_in_parts_that_fit_together() -> None:
    assert_same([sounds(90_000)["chirp"].astype(np.float32), sounds(70_000)["noise"].astype(np.float32)])


def test_one_clip_may_come_in_any_form() -> None:
    extractor = Minigpt4oAudioFeatureExtractor()
    wave = (np.round(sounds(2_000)["sine"] * 2**15) / 2**15).astype(np.float32)
    wanted = extractor(wave, return_tensors="np").input_features
    forms = {
        "list": wave.tolist(),
        "list of lists": [wave.tolist()],
        "float64": wave.astype(np.float64),
        "tensor": torch.from_numpy(wave),
        "double tensor": torch.from_numpy(wave).double(),
        "one row": wave[None],
        "one column": wave[:, None],
        "list with a row": [torch.from_numpy(wave)[None]],
        "int16": (wave * 2**15).astype(np.int16),
        "int16 tensor": torch.from_numpy((wave * 2**15).astype(np.int16)),
        "int32": (wave.astype(np.float64) * 2**31).astype(np.int32),
    }
    for name, form in forms.items():
        np.testing.assert_array_equal(extractor(form, return_tensors="np").input_features, wanted, err_msg=name)
    unsigned = extractor(np.full(2_000, 128, np.uint8), return_tensors="np").input_features
    np.testing.assert_array_equal(unsigned, extractor(np.zeros(2_000), return_tensors="np").input_features)


def test_rows_of_an_array_are_clips() -> None:
    rows = np.stack([sounds(2_000)["sine"], sounds(2_000)["noise"]]).astype(np.float32)
    extractor = Minigpt4oAudioFeatureExtractor()
    wanted = extractor(list(rows), return_tensors="np").input_features
    for form in (rows, torch.from_numpy(rows), rows.tolist()):
        np.testing.assert_array_equal(extractor(form, return_tensors="np").input_features, wanted)


def test_results_come_as_asked() -> None:
    extractor, wave = Minigpt4oAudioFeatureExtractor(), sounds(2_000)["sine"]
    lists = extractor(wave)
    assert isinstance(lists.input_features, list) and lists.input_features[0].shape == (10, 128)  # 2,048 padded samples
    tensors = extractor(wave, return_tensors="pt", sampling_rate=RATE)
    assert tensors.input_features.dtype == torch.float32 and tensors.input_features_mask.dtype == torch.bool
    assert "input_features_mask" not in extractor(wave, return_attention_mask=False)
    silent = Minigpt4oAudioFeatureExtractor(return_attention_mask=False)
    assert "input_features_mask" not in silent(wave, return_attention_mask=None)


def test_a_clip_shorter_than_a_frame_becomes_one() -> None:
    result = Minigpt4oAudioFeatureExtractor()(sounds(100)["noise"], return_tensors="np")
    assert result.input_features.shape == (1, 1, 128) and result.input_features_mask.tolist() == [[True]]


def test_settings_survive_saving(tmp_path: Path) -> None:
    first = Minigpt4oAudioFeatureExtractor(
        feature_size=3, frame_length_ms=25.0, mel_floor=1e-3, per_bin_mean=np.array([1, 2, 3]), per_bin_stddev=[1, 1, 2]
    )
    first.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["feature_extractor_type"] == "Minigpt4oAudioFeatureExtractor"
    second = Minigpt4oAudioFeatureExtractor.from_pretrained(tmp_path)
    assert second.to_dict() == first.to_dict() and second.frame_length == first.frame_length == 400
    wave = sounds(2_000)["noise"]
    np.testing.assert_array_equal(second(wave).input_features, first(wave).input_features)
    assert Minigpt4oAudioFeatureExtractor.from_pretrained(tmp_path, frame_length_ms=32.0).frame_length == 512


def test_settings_of_gemma_3n_are_read(tmp_path: Path) -> None:
    theirs = Gemma3nAudioFeatureExtractor(feature_size=4, per_bin_mean=[1.0, 2.0, 3.0, 4.0])
    theirs.save_pretrained(tmp_path)
    wave = sounds(2_000)["noise"]
    ours = Minigpt4oAudioFeatureExtractor.from_pretrained(tmp_path)
    np.testing.assert_allclose(ours(wave).input_features, theirs(wave).input_features, **NEAR)


def test_a_clip_too_long_is_cut_and_the_loss_is_named(caplog: pytest.LogCaptureFixture) -> None:
    clips = [np.zeros(1_000), np.zeros(RATE * 2)]
    with caplog.at_level(logging.WARNING):
        cut = Minigpt4oAudioFeatureExtractor()(clips, max_length=RATE, return_tensors="np")
    assert cut.input_features.shape[1] == 97
    assert "clip 2 of 2 lasts 2.00 s: its last 1.00 s are cut off" in caplog.text
    caplog.clear()
    whole = Minigpt4oAudioFeatureExtractor()(clips, max_length=RATE, truncation=False, return_tensors="np")
    assert whole.input_features.shape[1] == 197 and not caplog.text


WAVE = np.zeros(1_000, np.float32)


@pytest.mark.parametrize(
    ("sound", "options", "said"),
    [
        (WAVE, {"sampling_rate": 44_100}, "44100 samples per second.*wants 16000.*resample"),
        ([], {}, "no clip"),
        (np.zeros(0), {}, "clip 1 of 1 is empty"),
        ([WAVE, []], {}, "clip 2 of 2 is empty"),
        ([WAVE, np.append(WAVE, np.nan)], {}, "clip 2 of 2: sample 1000 is nan"),
        (np.append(WAVE, np.inf), {}, "sample 1000 is inf"),
        ([np.zeros((2, 1_000))], {}, r"shape \(2, 1000\).*mean\(axis=0\)"),
        (np.zeros((1_000, 2)), {}, r"shape \(1000, 2\).*mean\(axis=1\)"),
        (np.zeros((3, 2, 1_000)), {}, r"shape \(2, 1000\)"),
        ("bell.wav", {}, "bell.wav.*samples are wanted"),
        ([Path("bell.wav")], {}, "samples are wanted"),
        (None, {}, "samples are wanted"),
        (np.zeros(1_000, np.int64), {}, "int64.*int16"),
        ([[0.0, 1.0], [0.0, [1.0]]], {}, "plain row of numbers"),
        (WAVE[:300], {"padding": False}, "300 samples.*513.*padding"),
        (WAVE, {"max_length": None}, "max_length"),
    ],
)
def test_bad_sound_is_refused_with_the_mend(sound: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Minigpt4oAudioFeatureExtractor()(sound, **options)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mel_floor": 0.0}, "above 0"),
        ({"per_bin_mean": [1.0]}, "holds 1 numbers.*128"),
        ({"hop_length_ms": 0.01}, "0 samples"),
        ({"min_frequency": 8_000.0}, "below"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Minigpt4oAudioFeatureExtractor(**settings)
