"""Find, load or draw a whole Minigpt4o: folder, its configuration over a preset, its tokenizer, parts of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.common.source import nearest
from minigpt4o.common.weight_files import locate, not_here
from minigpt4o.models.llms.tokenizer_files import HUB_NAME, load_tokenizer

EXPORT = "minigpt4o"  # folder of a checkpoint in which the whole model lies as transformers wants it
SECTIONS = ("text_config", "vision_config", "audio_config")
MAKE_TOKENIZER = "make one: python -m minigpt4o.cli tokenizer --for minigpt4o TEXT... --out DIR"
# Where a part's tensors may stand in a file: in one of a whole model, or of stage 0 by `arch: tagger`.
PREFIXES = {"vision_tower": "encoders.image.tower.", "audio_tower": "encoders.audio.tower."}

T = TypeVar("T")


def native_source(path: str) -> str:
    """What transformers can open for a path: an exported folder, the one in a run of ours, or a hub name."""
    from minigpt4o.models.weights import resolve_checkpoint

    folder = locate(path)
    if folder is None:
        if HUB_NAME.fullmatch(path) and not Path(path.split("/")[0]).exists():
            return path
        raise ConfigError(f"{not_here(path, 'model.path')}; a run folder or a hub name (org/name) will do too")
    for place in (folder, folder / EXPORT):
        if (place / "config.json").is_file():
            return str(_checked(place))
    step = resolve_checkpoint(folder)
    if (step / EXPORT / "config.json").is_file():
        return str(_checked(step / EXPORT))
    raise CheckpointError(
        f"model.path: {step} holds no exported model (no {EXPORT}/config.json); it is written at the last step of a "
        "run whose run.export is not switched off"
    )


def _checked(folder: Path) -> Path:
    """The folder, if the model in it is a Minigpt4o."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"model.path: {folder}/config.json cannot be read: {error}") from error
    if kind != "minigpt4o":
        mend = " (python -m minigpt4o.cli convert makes one of it)" if kind == "gemma3n" else ""
        raise ConfigError(f"model.path: {folder} holds a model of type {kind!r}, not a 'minigpt4o'{mend}")
    return folder


def load_native(source: str, attention: str) -> Any:
    """The model of a folder or hub name, in the precision of its file."""
    from minigpt4o.models.minigpt4o.modeling_minigpt4o import Minigpt4oForConditionalGeneration

    try:
        return Minigpt4oForConditionalGeneration.from_pretrained(
            source, local_files_only=Path(source).exists(), attn_implementation=attention, dtype="auto"
        )
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"model.path: {source} cannot be loaded: {error}") from error


def draw_native(preset: str, options: Mapping[str, Any], tokenizer: Any, seed: int, attention: str) -> Any:
    """The model with random weights and the ids of its tokenizer."""
    from minigpt4o.models.minigpt4o.modeling_minigpt4o import Minigpt4oForConditionalGeneration as Whole

    config = native_config(preset, options, tokenizer)
    model = drawn(lambda: Whole._from_config(config, attn_implementation=attention), seed)
    for name, weight in model.named_parameters():
        if name.endswith("altup.correct_output_scale"):
            torch.nn.init.ones_(weight)  # drawn as 0, which keeps the per-layer inputs out at first
    return model


def drawn(make: Callable[[], T], seed: int) -> T:
    """What `make` draws at random, depending on the seed alone. Raises ConfigError where the sizes do not fit."""
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed)
        try:
            return make()
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(f"model: Minigpt4o of these sizes cannot be built: {error}") from error


def native_config(preset: str, options: Mapping[str, Any], tokenizer: Any = None) -> Any:
    """A `Minigpt4oConfig`: the preset with `options` (nested like the configuration itself) laid over it."""
    from minigpt4o.models.minigpt4o.configuration_minigpt4o import MEDIA_ROWS, VOCAB_SIZE, Minigpt4oConfig
    from minigpt4o.models.minigpt4o.presets import PRESETS

    size, rows = (VOCAB_SIZE, MEDIA_ROWS) if tokenizer is None else vocabulary(tokenizer)
    if preset not in PRESETS:
        raise ConfigError(f"model.preset: no preset {preset!r}; known: {', '.join(PRESETS)}")
    base = Minigpt4oConfig.preset(preset, size, rows)
    _refuse_unknown(base, options)
    values = {key: value for key, value in options.items() if key not in SECTIONS}
    for key in SECTIONS:
        section = getattr(base, key)
        ids = {name for name in section.to_dict() if name.startswith("vocab") or name.endswith("token_id")}
        kept = {name: getattr(section, name) for name in sorted(ids)}
        values[key] = {**PRESETS[preset][key], **kept, **(options.get(key) or {})}
    for name in ("boi", "eoi", "image", "boa", "eoa", "audio"):
        values.setdefault(f"{name}_token_id", getattr(base, f"{name}_token_id"))
    try:
        return Minigpt4oConfig(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"model.options over preset {preset}: {error}") from error


def _refuse_unknown(top: Any, options: Mapping[str, Any]) -> None:
    """A configuration of transformers takes any word for a value, so a typing error would go by unseen."""
    for path, section, given in [
        ("", top, options),
        *((f".{key}", getattr(top, key), options.get(key) or {}) for key in SECTIONS),
    ]:
        known = set(section.to_dict())
        for key in given:
            if key not in known:
                hint = nearest(key, known)
                mend = f"; did you mean {' or '.join(hint)}?" if hint else f" of {type(section).__name__}"
                raise ConfigError(f"model.options{path}: unknown key {key!r}{mend}")


def vocabulary(tokenizer: Any) -> tuple[int, int]:
    """(tokens, rows kept for each medium) of a tokenizer. Raises ConfigError if it keeps none."""
    from minigpt4o.models.minigpt4o.configuration_minigpt4o import token_layout

    size, words = len(tokenizer), ("<end_of_image>", "<image_soft_token>", "<end_of_audio>", "<audio_soft_token>")
    vision, image, sound, audio = (tokenizer.get_vocab().get(word, -1) for word in words)
    layout = token_layout(size, (size - vision) // 2) if 0 <= vision <= size - 4 and size >= 12 else None
    if layout is None or (vision, image, sound, audio) != (
        layout.eoi_token_id,
        layout.image_token_id,
        layout.eoa_token_id,
        layout.audio_token_id,
    ):
        raise ConfigError(
            "model.tokenizer: its vocabulary does not end with the rows that Minigpt4o keeps for pictures and sounds "
            f"({', '.join(words)}); {MAKE_TOKENIZER}"
        )
    return layout.vocab_size, layout.media_rows


def native_tokenizer(source: str) -> Any:
    """The tokenizer of a folder."""
    if not source:
        raise ConfigError(f"model.tokenizer: a random Minigpt4o needs the folder of its tokenizer; {MAKE_TOKENIZER}")
    return load_tokenizer(source, "transformers")


def load_parts(parts: Mapping[str, nn.Module], weights: Mapping[str, str]) -> None:
    """Fill whole parts from files, runs or checkpoints that trained them (`model.weights`: part -> path)."""
    from minigpt4o.models.weights import load_part, read_tensors

    for name, path in weights.items():
        if name not in parts:
            raise ConfigError(f"model.weights: no part {name!r}; parts: {', '.join(parts)}")
        found = locate(path)
        own = f"{name}."
        whole = found is not None and any(key.startswith(own) for key in read_tensors(found))
        load_part(parts[name], path, own if whole else PREFIXES.get(name, own), f"model.weights.{name}")
