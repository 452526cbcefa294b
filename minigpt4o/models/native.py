"""Minigpt4o in our runner: towers, embedders and language model of one model, any part of which may learn."""

# B rows, T tokens, N pictures or sounds, S side, P features of one, D width of the text, L layers, W per-layer width

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.conversation.batch import Batch
from minigpt4o.conversation.sample import Sample
from minigpt4o.models.base import LORA, LossSum, PartsModel, freeze, freeze_table, is_lora
from minigpt4o.models.encoders.pictures import check_side, empty_picture
from minigpt4o.models.learned import learned_hidden
from minigpt4o.models.loss import summed_loss
from minigpt4o.models.native_llm import NativeLLM
from minigpt4o.models.native_sound import absent_frames
from minigpt4o.models.precision import autocast, dtype_of
from minigpt4o.models.splice import splice

log = logging.getLogger(__name__)

PARTS = ("vision_tower", "audio_tower", "embed_vision", "embed_audio", "language_model")
TOWERS = {"image": ("vision_tower", "embed_vision"), "audio": ("audio_tower", "embed_audio")}


@registry.register("model", "minigpt4o")
class NativeModel(PartsModel):
    """Minigpt4o: from a folder, a run or a hub name, or drawn at random from a preset."""

    whole: Any  # Minigpt4oForConditionalGeneration

    @dataclass
    class Config:
        path: str = ""  # exported folder (or its name in a weight folder), run that trained it, or hub name (org/name)
        preset: str = "tiny"  # size drawn at random if `path` is empty: tiny, e2b, e4b
        options: dict[str, Any] = field(default_factory=dict)  # over the preset: text_config, vision_config, ...
        seed: int = 0  # of the random weights
        tokenizer: str = ""  # folder of the tokenizer; empty: the one beside the weights
        image_size: int = 768  # side of a picture in pixels
        template: str = "minigpt4o"  # how a conversation becomes text: conversation/templates/<name>.yaml or a path
        max_txt_len: int = 512  # tokens of text kept per sample; media do not count
        train: list[str] = field(  # what learns: dotted names (vision_tower, embed_audio, language_model.norm), lora
            default_factory=lambda: ["embed_vision.embedding_projection", "embed_audio.embedding_projection"]
        )
        weights: dict[str, str] = field(default_factory=dict)  # part (vision_tower, ...) -> file or run that trained it
        ckpt: str = ""  # checkpoint, run or job folder whose tensors are laid over the built model
        lora_r: int = 0  # rank of low-rank adapters in the language model; 0 = none
        lora_alpha: int = 16  # their scale is lora_alpha / lora_r
        lora_dropout: float = 0.05  # dropout before the adapters, in training
        lora_target_modules: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])  # maps that get one
        gradient_checkpointing: bool = False  # less memory, more time: compute layers of the language model twice
        loss_chunk: int = 256  # learned positions whose logits exist at one time
        attn_implementation: str = "sdpa"  # attention code of transformers: sdpa, eager, flash_attention_2, ...
        precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on a GPU that has it, otherwise fp32

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        if LORA in config.train and not config.lora_r:
            raise ConfigError("model.train names lora but model.lora_r is 0; set a rank, for example 8")
        whole, self.tokenizer = self._open()
        # The parts stand here under their own names, so that `train`, tables and checkpoints need no longer ones.
        # `whole` holds the same modules; it is kept out of the module tree.
        object.__setattr__(self, "whole", whole)
        self.vision_tower, self.audio_tower = whole.model.vision_tower, whole.model.audio_tower
        self.embed_vision, self.embed_audio = whole.model.embed_vision, whole.model.embed_audio
        self.language_model = whole.model.language_model
        if not whole.config.get_text_config().tie_word_embeddings:
            self.lm_head = whole.lm_head
        self.llm: Any = NativeLLM(whole, self.tokenizer)
        self._adapt()
        self._finish()

    def _open(self) -> tuple[Any, Any]:
        from minigpt4o.models.native_open import draw_native, load_native, native_source, native_tokenizer

        config = self.config
        if config.path:
            source = native_source(config.path)
            whole = load_native(source, config.attn_implementation)
            tokenizer = native_tokenizer(config.tokenizer or source)
            rows = whole.config.get_text_config().vocab_size
            if rows < len(tokenizer):
                raise ConfigError(f"model.tokenizer: it has {len(tokenizer)} words but the model only {rows} rows")
            return whole, tokenizer
        tokenizer = native_tokenizer(config.tokenizer)
        whole = draw_native(config.preset, config.options, tokenizer, config.seed, config.attn_implementation)
        return whole, tokenizer

    def _adapt(self) -> None:
        """Weights of single parts, adapters, memory, and what learns."""
        config = self.config
        if config.weights:
            from minigpt4o.models.native_open import load_parts

            load_parts({name: getattr(self, name) for name in PARTS}, config.weights)
        if config.lora_r:
            from minigpt4o.models.lora import add_lora

            add_lora(
                self.language_model,
                r=config.lora_r,
                alpha=config.lora_alpha,
                dropout=config.lora_dropout,
                target_modules=config.lora_target_modules,
            )
        if config.gradient_checkpointing:
            self.language_model.activation_checkpointing_enable({"use_reentrant": False})
        log.info("model parts\n%s", freeze_table(freeze(self, config.train)))

    def _finish(self) -> None:
        """Weights of a checkpoint, a warning about what is frozen at random, and the number format."""
        loaded = {*self.config.weights, *(PARTS if self.config.path else ())}
        if self.config.ckpt:
            from minigpt4o.common.weight_files import locate
            from minigpt4o.models.weights import lay_over, read_tensors

            where = locate(self.config.ckpt) or self.config.ckpt
            report = lay_over(self, read_tensors(where), str(where))
            loaded |= {name.split(".")[0] for name in report.matched}
        for part in PARTS:
            if part not in loaded and not self._learns(part):
                log.warning("%s is frozen with random weights: give model.path or model.weights.%s", part, part)
        self.compute_dtype = dtype_of(self.config.precision)
        for parameter in self.parameters():  # what learns stays in fp32
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else self.compute_dtype)

    def _learns(self, part: str) -> bool:
        return any(p.requires_grad and not is_lora(n) for n, p in getattr(self, part).named_parameters())

    # ---- what the runner, evaluation and serving ask ----

    @property
    def slots(self) -> dict[str, int]:
        """Media kind -> soft tokens that one picture or sound fills in the text."""
        config = self.whole.config
        return {"image": config.vision_soft_tokens_per_image, "audio": config.audio_soft_tokens_per_image}

    @property
    def encoders(self) -> dict[str, Any]:
        """Media kind -> something that shows the shape of its input."""
        return {kind: SimpleNamespace(example=lambda kind=kind: self._example(kind)) for kind in TOWERS}

    def _example(self, kind: str) -> Tensor:
        """One empty picture (1, 3, S, S), or a silent sound (1, frames, bins) of one soft token."""
        if kind == "image":
            return empty_picture(self.config.image_size)
        audio = self.whole.config.audio_config
        return torch.zeros(1, self.audio_tower.frames_per_step * audio.conf_reduction_factor, audio.input_feat_size)

    def export(self, folder: Path) -> None:
        """Write the whole model with processor and tokenizer as a Hugging Face folder `minigpt4o/`, adapters merged."""
        from minigpt4o.models.native_export import export

        export(self, Path(folder))

    # ---- the computation ----

    def train(self, mode: bool = True) -> Self:
        """Training mode for what learns, checkpointed layers included."""
        super().train(mode)
        if mode and self.config.gradient_checkpointing:
            from transformers.modeling_layers import GradientCheckpointingLayer

            for module in self.language_model.modules():
                if isinstance(module, GradientCheckpointingLayer):  # it checkpoints in training mode only
                    module.training = True
        return self

    def forward(self, batch: Batch) -> LossSum:
        """Sum of the losses at learned positions, and their number."""
        batch = batch.to(self.device)
        with self.autocast():
            states, targets = learned_hidden(self.llm.hidden, self.embed(batch), batch, self._spread)
            return summed_loss(states, targets, self.llm.head, self.config.loss_chunk)

    def embed(self, batch: Batch) -> Tensor:
        """(B, T, D + L * W): text with the media's soft tokens in their slots, and what each layer is told."""
        media = {"image": batch.images, "audio": batch.audios}
        features: dict[str, Tensor] = {}
        unused: list[Tensor] = []
        for kind, given in media.items():
            if given is not None:
                features[kind] = self.soft_tokens(kind, given)
            elif torch.is_grad_enabled() and self._must_run(kind):
                # Under DDP every trained parameter must receive a gradient on every rank at every step, and under
                # ZeRO-3 every rank must gather the same weights: an empty item runs, with weight zero.
                unused.append(self.soft_tokens(kind, self._example(kind).to(self.device)).sum() * 0.0)
        embeddings = splice(batch.input_ids, self.llm.words, features, batch.samples)
        if unused:
            embeddings = embeddings + torch.stack(unused).sum().to(embeddings.dtype)
        return self.llm.told(batch.input_ids, embeddings)

    def spliced(self, input_ids: Tensor, features: Mapping[str, Tensor], samples: Sequence[Sample] = ()) -> Tensor:
        """(B, T) ids and each kind's soft tokens (N, P, D) in row order -> (B, T, D + L * W)."""
        return self.llm.told(input_ids, splice(input_ids, self.llm.words, features, samples))

    def soft_tokens(self, kind: str, media: Tensor) -> Tensor:
        """Pictures (N, 3, S, S), or sounds (N, frames, bins) with NaN where none is -> (N, P, D)."""
        core = self.whole.model
        if kind == "image":
            check_side(media, self.config.image_size)
            return core.get_image_features(media, return_dict=True).pooler_output
        sounds, absent = absent_frames(media)
        return core._sound_tokens(sounds, ~absent)

    def _must_run(self, kind: str) -> bool:
        parts: list[nn.Module] = [getattr(self, name) for name in TOWERS[kind]]
        return any(p.requires_grad or hasattr(p, "ds_id") for module in parts for p in module.parameters())

    @property
    def _spread(self) -> bool:
        """Whether weights are spread over ranks (ZeRO-3), which then must make the same calls."""
        return any(hasattr(p, "ds_id") for p in self.language_model.parameters())

    def autocast(self) -> Any:
        """The number format of the forward pass; nothing for fp32."""
        return autocast(self.device, self.compute_dtype)
