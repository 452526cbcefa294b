"""Configuration, processor and generation settings of a Minigpt4o folder that is made of a Gemma-3n folder."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.models.minigpt4o_rows import Vocabulary

FROM, TO = "gemma3n", "minigpt4o"
MEDIA = ("vision", "audio")
MEDIA_IDS = ("boi_token_id", "eoi_token_id", "image_token_id", "boa_token_id", "eoa_token_id", "audio_token_id")
TEXT_IDS = ("pad_token_id", "eos_token_id", "bos_token_id")
TOKEN_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "sequence_bias")
NESTED, FLAT = "processor_config.json", "preprocessor_config.json"
SAMPLES = ("frame_length", "hop_length")  # lengths in samples, as older folders write them
PICTURE = ("size", "resample", "image_mean", "image_std", "do_resize", "do_rescale", "do_normalize", "rescale_factor")


def read_config(source: Path) -> Any:
    """The configuration of a Gemma-3n folder, defaults filled in."""
    from transformers import AutoConfig

    file = source / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{source}: no config.json there; give the folder of a Gemma-3n model")
    try:
        found = json.loads(file.read_bytes()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); fetch it again") from error
    if found != FROM:
        alone = "; that is the text model alone, the whole model is needed" if found == f"{FROM}_text" else ""
        raise ConfigError(f"{file}: model_type is {found!r}, only {FROM!r} can become {TO!r}{alone}")
    try:
        return AutoConfig.from_pretrained(source, local_files_only=True)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{file}: not a configuration of {FROM} ({error})") from error


def new_config(old: Any, new: Vocabulary | None, name: str) -> Any:
    """The configuration of the same model; with a new vocabulary its ids are those of that vocabulary's layout."""
    from minigpt4o.models.minigpt4o import configuration_minigpt4o as ours

    parts = {
        "text_config": _fields(old.text_config, ours.Minigpt4oTextConfig),
        "vision_config": _fields(old.vision_config, ours.Minigpt4oVisionConfig),
        "audio_config": _fields(old.audio_config, ours.Minigpt4oAudioConfig),
    }
    top = {k: v for k, v in _fields(old, ours.Minigpt4oConfig).items() if k not in parts}
    if new is not None:
        layout = _layout(new, name)
        text = ("vocab_size", "vocab_size_per_layer_input", *TEXT_IDS)
        parts["text_config"] |= {key: getattr(layout, key) for key in text}
        parts["text_config"]["eos_token_id"] = [layout.eos_token_id, layout.end_of_turn_token_id]
        for kind in MEDIA:
            offset = getattr(layout, f"{kind}_vocab_offset")
            parts[f"{kind}_config"] |= {"vocab_size": layout.media_rows, "vocab_offset": offset}
        top |= {key: getattr(layout, key) for key in MEDIA_IDS}
    config = ours.Minigpt4oConfig(**parts, **top)
    config.architectures = ["Minigpt4oForConditionalGeneration"]
    return config


def _fields(config: Any, ours: type) -> dict[str, Any]:
    """What a configuration says about the fields that ours declares itself, and its dtype."""
    names = [name for name in ours.__annotations__ if name in config.to_dict()]
    return {**{name: getattr(config, name) for name in names}, "dtype": config.dtype}


def _layout(new: Vocabulary, name: str) -> Any:
    """The layout of a tokenizer made for Minigpt4o; an error names the token that stands elsewhere."""
    from minigpt4o.models.minigpt4o.configuration_minigpt4o import token_layout
    from minigpt4o.models.minigpt4o.tokenizer_training import special_ids

    mend = "make one with `python -m minigpt4o.cli tokenizer --for minigpt4o`"
    size, first = new.size, new.special.get("<end_of_audio>")
    if first is None:
        raise ConfigError(f"{name}: the tokenizer has no <end_of_audio>, it was not made for Minigpt4o; {mend}")
    try:
        layout = token_layout(size, size - first)
    except ValueError as error:
        raise ConfigError(f"{name}: not a vocabulary of Minigpt4o ({error}); {mend}") from error
    for token, i in special_ids(layout).items():
        if new.special.get(token) != i:
            found = new.special.get(token, "absent")
            raise ConfigError(f"{name}: {token} is {found}, in a vocabulary of {size} tokens it must be {i}; {mend}")
    return layout


def processor_of(source: Path, config: Any, tokenizer: Any, notes: list[str]) -> Any:
    """A Minigpt4oProcessor; adds to `notes` where its settings came from."""
    from minigpt4o.models.minigpt4o.feature_extraction_minigpt4o import Minigpt4oAudioFeatureExtractor
    from minigpt4o.models.minigpt4o.image_processing_minigpt4o import Minigpt4oImageProcessor
    from minigpt4o.models.minigpt4o.processing_minigpt4o import Minigpt4oProcessor

    sounds, pictures, where = _settings(source)
    notes.append(f"processor: settings of pictures and sounds from {where}")
    known = [*inspect.signature(Minigpt4oAudioFeatureExtractor.__init__).parameters, *SAMPLES]
    heard = {key: sounds[key] for key in known if sounds.get(key) is not None}
    heard.setdefault("feature_size", config.audio_config.input_feat_size)
    seen = {key: pictures[key] for key in PICTURE if pictures.get(key) is not None}
    return Minigpt4oProcessor(
        Minigpt4oAudioFeatureExtractor(**heard),
        Minigpt4oImageProcessor(**seen),
        tokenizer,
        audio_seq_length=config.audio_soft_tokens_per_image,
        image_seq_length=config.vision_soft_tokens_per_image,
    )


def _settings(source: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Settings of sounds, of pictures, and their file: apart in new folders, in one heap in older ones."""
    for name in (NESTED, FLAT):
        file = source / name
        if not file.is_file():
            continue
        try:
            values = json.loads(file.read_bytes())
            sounds, pictures = values.get("feature_extractor"), values.get("image_processor")
        except (ValueError, AttributeError) as error:
            raise CheckpointError(f"{file} is damaged ({error}); fetch it again") from error
        if sounds is not None and pictures is not None:
            return sounds, pictures, name
        if name == FLAT:
            return values, values, name
    return {}, {}, "the defaults, the folder says nothing of them"


def generation_settings(source: Path, config: Any, kept: bool, notes: list[str]) -> dict[str, Any]:
    """The old generation settings with the new ids; lists of other tokens cannot be carried over."""
    file = source / "generation_config.json"
    values = json.loads(file.read_bytes()) if file.is_file() else {}
    text = config.text_config
    stops = values.get("eos_token_id")
    stops = stops if kept and stops is not None else text.eos_token_id
    dropped = [key for key in TOKEN_LISTS if values.pop(key, None) is not None]
    if dropped:
        notes.append(f"generation_config.json: left out {', '.join(dropped)}, which hold old ids")
    ids = {"pad_token_id": text.pad_token_id, "bos_token_id": text.bos_token_id, "eos_token_id": stops}
    return {**values, **ids}
