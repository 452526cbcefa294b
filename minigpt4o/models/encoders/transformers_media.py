"""Encoders of transformers from a folder: CLIP, SigLIP, DINOv2, ...; Whisper, AST, wav2vec 2.0, HuBERT, CLAP, ..."""

# N pictures or sounds, S side in pixels, P features of one, D their width

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.registry import registry
from minigpt4o.common.weight_files import find_weights
from minigpt4o.models.encoders.pictures import check_side, empty_picture

# Where the part that sees or hears stands in a model of several parts.
PARTS = {"image": ("vision_model", "vision_tower"), "audio": ("audio_model", "audio_tower")}


class TransformersEncoder(nn.Module):
    """What both kinds share: the part of a model that sees or hears, and which of its states are the features."""

    def __init__(self, config: Any, kind: str, empty: Tensor) -> None:
        """`config`: of one of the kinds below."""
        super().__init__()
        key = f"model.encoders.{kind}.path"
        if not config.path and not config.config:
            raise ConfigError(f"{key} is missing: the folder of a model of transformers (config.json, weights)")
        self.kind, self.layer, self.skip = kind, config.layer, config.skip
        whole = _whole(str(find_weights(config.path, key)), key) if config.path else _unfilled(config.config, key)
        self.core = _part(whole, kind)
        self.from_scratch = False
        self._empty = empty
        with torch.no_grad():
            _, self.tokens, self.width = self._features(self.core, self._empty).shape
        self._behind: list[Tensor] | None = None  # parameters that the features do not depend on, once it is known

    def features(self, media: Tensor) -> Tensor:
        """(N, P, D).

        Layers behind these states learn nothing. Where they are to be trained they still get a gradient of zero, or
        ranks would wait for it.
        """
        found = self._features(self.core, media)
        if torch.is_grad_enabled() and found.requires_grad:
            if self._behind is None:
                learn = [p for p in self.core.parameters() if p.requires_grad]
                used = torch.autograd.grad(found.sum(), learn, retain_graph=True, allow_unused=True)
                self._behind = [p for p, gradient in zip(learn, used, strict=True) if gradient is None]
            if self._behind:
                found = found + torch.stack([p.sum() for p in self._behind]).sum().to(found.dtype) * 0.0
        return found

    def _features(self, core: Any, media: Tensor) -> Tensor:
        """(N, P, D)."""
        last = self.layer == -1
        out = core(**{core.main_input_name: media}, output_hidden_states=not last, return_dict=True)
        states: Tensor = out.last_hidden_state if last else out.hidden_states[self.layer]
        if states.dim() == 4:  # (N, D, rows, columns), as CLAP's
            states = states.flatten(2).transpose(1, 2)
        return states[:, self.skip :]

    def without_folder(self) -> dict[str, Any]:
        """Values of the configuration that build the same model where its folder is not, without its weights."""
        kept = {
            k: v for k, v in self.core.config.to_dict().items() if k not in ("_name_or_path", "torch_dtype", "dtype")
        }
        return {"path": "", "config": kept}

    def example(self) -> Tensor:
        """An empty item, for steps in which every rank must run the encoder."""
        return self._empty.clone()


@registry.register("encoder", "transformers_vision")
class TransformersVision(TransformersEncoder):
    """Pictures (N, 3, S, S) -> features (N, P, D) of a vision model of transformers."""

    @dataclass
    class Config:
        path: str = ""  # folder of the model (CLIP, SigLIP, DINOv2, ViT, ...), or its name in MINIGPT4O_WEIGHTS
        image_size: int = 224  # side of the picture in pixels
        layer: int = (
            -1
        )  # whose states are the features; -1 = the last, -2 = the one before (LLaVA), 0 = the first's input
        skip: int = 1  # leading features to leave out: CLIP, ViT and DINOv2 have a class token, SigLIP has none
        config: dict[str, Any] = field(
            default_factory=dict
        )  # in place of `path`: what stands in its config.json, for weights that come later (an exported folder)

    def __init__(self, config: Config) -> None:
        super().__init__(config, "image", empty_picture(config.image_size))
        self.image_size = config.image_size

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, tokens, width)."""
        check_side(pictures, self.image_size)
        return self.features(pictures)


@registry.register("encoder", "transformers_audio")
class TransformersAudio(TransformersEncoder):
    """Sounds as the processor `transformers_audio` makes them -> features (N, P, D) of a model of transformers."""

    @dataclass
    class Config:
        path: str = ""  # folder of the model (Whisper, AST, wav2vec 2.0, HuBERT, CLAP, ...) with its preprocessor
        seconds: float = 30.0  # length of a sound, as the processor's
        layer: int = -1  # whose states are the features; -1 = the last, 0 = what goes into the first layer
        skip: int = 0  # leading features to leave out: AST has 2, the others none
        config: dict[str, Any] = field(
            default_factory=dict
        )  # in place of `path`: what stands in its config.json, for weights that come later (an exported folder)
        extractor: dict[str, Any] = field(
            default_factory=dict
        )  # in place of `path`: what stands in its preprocessor_config.json

    def __init__(self, config: Config) -> None:
        from minigpt4o.processors.transformers_audio import TransformersAudioProcessor

        make = TransformersAudioProcessor.Config
        with torch.device("cpu"):  # a front end computes with numbers, also where the rest is only shapes
            opener = TransformersAudioProcessor(make(config.path, config.seconds, extractor=config.extractor))
            silence = opener.silence()
        self._extractor = opener.without_folder()["extractor"]
        empty = self._as_input(silence.unsqueeze(0)).to(torch.get_default_device())
        super().__init__(config, "audio", empty)
        self.shape = tuple(silence.shape)

    def forward(self, sounds: Tensor) -> Tensor:
        """(N, F, K) -> (N, tokens, width)."""
        if tuple(sounds.shape[1:]) != self.shape:
            raise DataError(
                f"a sound of shape {tuple(sounds.shape[1:])} came to an encoder of {self.shape}; give the audio "
                "processor `transformers_audio` the path and seconds of model.encoders.audio"
            )
        return self.features(self._as_input(sounds))

    def without_folder(self) -> dict[str, Any]:
        """The same, with how sounds are opened."""
        return {**super().without_folder(), "extractor": self._extractor}

    def _as_input(self, sounds: Tensor) -> Tensor:
        """The tensor that the model takes: waves lose their last dimension, see the processor."""
        return sounds.squeeze(-1) if sounds.shape[-1] == 1 else sounds

    def _features(self, core: Any, media: Tensor) -> Tensor:
        fused = core.config.model_type == "clap_audio_model"  # it wants a dimension of channels
        return super()._features(core, media.unsqueeze(1) if fused else media)

    def example(self) -> Tensor:
        """An empty sound (1, F, K)."""
        return torch.zeros(1, *self.shape)


def _whole(path: str, key: str) -> Any:
    from transformers import AutoConfig, AutoModel

    try:
        if torch.get_default_device().type == "meta":  # only shapes are wanted (models/outline.py)
            return AutoModel.from_config(AutoConfig.from_pretrained(path, local_files_only=True))
        return AutoModel.from_pretrained(path, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{key} {path!r}: transformers cannot open a model there: {error}") from error


def _unfilled(values: dict[str, Any], key: str) -> Any:
    from transformers import AutoConfig, AutoModel

    kind = values.get("model_type", "")
    try:
        return AutoModel.from_config(
            AutoConfig.for_model(kind, **{k: v for k, v in values.items() if k != "model_type"})
        )
    except (ValueError, KeyError) as error:
        key = f"{key.removesuffix('path')}config"
        raise ConfigError(f"{key}: transformers makes no model of model_type {kind!r}: {error}") from error


def _part(whole: Any, kind: str) -> Any:
    """The encoder of a model that has more: a text side, a decoder."""
    for name in PARTS[kind]:
        if hasattr(whole, name):
            return getattr(whole, name)
    return whole.get_encoder() if whole.config.is_encoder_decoder else whole
