"""The aligned model: frozen encoders -> small bridges -> features spliced into the text -> a causal language model."""

# B rows, T tokens of the longest row, N pictures or sounds of a batch, P features of one, D width of the LLM

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, part, registry
from minigpt4o.common.weight_files import locate
from minigpt4o.conversation.batch import SLOTS, Batch
from minigpt4o.conversation.sample import Sample
from minigpt4o.models.base import LORA, LossSum, PartsModel, freeze, freeze_table, is_lora
from minigpt4o.models.learned import learned_hidden
from minigpt4o.models.loss import summed_loss
from minigpt4o.models.precision import autocast, dtype_of
from minigpt4o.models.splice import splice

log = logging.getLogger(__name__)


@registry.register("model", "aligned", "minigpt4", "minigpt_v2")
class AlignedModel(PartsModel):
    """Encoders of any kind, each with its bridge, before a causal language model; text alone is fine too."""

    @dataclass
    class Config:
        llm: Part = part("llm", doc="the language model")
        encoders: dict[str, Part] = part("encoder", many=True, doc="media kind (image, audio) -> its encoder")
        bridges: dict[str, Part] = part("bridge", many=True, doc="media kind -> the bridge behind its encoder")
        template: str = "plain"  # how a conversation becomes text: conversation/templates/<name>.yaml or a path
        profile: Literal["default", "compat"] = "default"  # compat: prompts and cuts of the reference, id for id
        prompt_template: str = ""  # around a user's words, {} stands for them; empty: as the template says
        end_sym: str = ""  # after an assistant's words; empty: as the template says
        max_txt_len: int = 160  # tokens of text kept per sample; features do not count
        max_context_len: int = 3800  # compat: places kept of everything before an answer
        train: list[str] = field(default_factory=lambda: ["bridges"])  # what learns: bridges, encoders.image, llm, lora
        ckpt: str = ""  # checkpoint, run or job folder whose tensors are laid over the built model
        fresh: list[str] = field(default_factory=list)  # bridges that may be missing in ckpt because they are new
        feature_norm: bool = False  # LayerNorm between encoder and bridge (the ln_vision of BLIP-2 and MiniGPT-4)
        feature_norm_weights: str = ""  # file that holds it (BLIP-2's); empty: plain normalisation, as in MiniGPT-v2
        lora_r: int = 0  # rank of low-rank adapters in the language model; 0 = none
        lora_alpha: int = 16  # their scale is lora_alpha / lora_r
        lora_dropout: float = 0.05  # dropout before the adapters, in training
        lora_target_modules: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])  # maps that get one
        gradient_checkpointing: bool = False  # less memory, more time: compute layers twice
        loss_chunk: int = 1024  # learned positions whose logits exist at one time
        precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on a GPU that has it, otherwise fp32

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        _check(config)
        self.llm: Any = registry.build(config.llm)
        self.encoders, self.norms, self.bridges = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for kind, chosen in config.encoders.items():
            encoder = registry.build(chosen)
            self.encoders[kind] = encoder
            if config.feature_norm:
                self.norms[kind] = nn.LayerNorm(encoder.width)
            self.bridges[kind] = registry.build(
                config.bridges[kind], from_dim=encoder.width, from_tokens=encoder.tokens, to_dim=self.llm.width
            )
        if config.feature_norm_weights:
            self._load_norms(config.feature_norm_weights)
        self._adapt()
        self._finish()

    def _load_norms(self, weights: str) -> None:
        from minigpt4o.models.weights import load_part

        for kind, norm in self.norms.items():
            load_part(norm, weights, f"norms.{kind}.", "model.feature_norm_weights")

    def _adapt(self) -> None:
        """Adapters, memory, and what learns."""
        config = self.config
        if config.lora_r:
            from minigpt4o.models.lora import add_lora

            add_lora(
                self.llm.model,
                r=config.lora_r,
                alpha=config.lora_alpha,
                dropout=config.lora_dropout,
                target_modules=config.lora_target_modules,
            )
        if config.gradient_checkpointing:
            self.llm.checkpoint_layers()
        rows = freeze(self, config.train)
        log.info("model parts\n%s", freeze_table(rows))

    def _finish(self) -> None:
        """Weights of a checkpoint, a warning about what is frozen at random, and the number format."""
        loaded: set[str] = set()
        if self.config.ckpt:
            from minigpt4o.models.weights import lay_over, read_tensors

            where = locate(self.config.ckpt) or self.config.ckpt
            report = lay_over(self, read_tensors(where), str(where), self.config.fresh)
            loaded = {".".join(name.split(".")[:2]) for name in report.matched} | {
                name.split(".")[0] for name in report.matched
            }
        for name, module in [("llm", self.llm), *((f"encoders.{k}", m) for k, m in self.encoders.items())]:
            learns = any(p.requires_grad and not is_lora(n) for n, p in module.named_parameters())
            if getattr(module, "from_scratch", False) and not learns and name not in loaded:
                log.warning("%s is frozen with random weights: give it weights, or name it in model.train", name)
        self.compute_dtype = dtype_of(self.config.precision)
        for name, parameter in self.named_parameters():  # what learns, norms and bridges stay in fp32
            full = parameter.requires_grad or name.startswith(("norms.", "bridges."))
            if parameter.is_floating_point():  # quantised weights are whole numbers
                parameter.data = parameter.data.to(torch.float32 if full else self.compute_dtype)

    # ---- what the other rooms ask ----

    @property
    def tokenizer(self) -> Any:
        return self.llm.tokenizer

    @property
    def slots(self) -> dict[str, int]:
        """Media kind -> number of places one picture or sound fills in the text."""
        bridges: dict[str, Any] = dict(self.bridges.items())
        return {kind: bridge.tokens for kind, bridge in bridges.items()}

    def export(self, folder: Path) -> None:
        """Write `llm/` (a Hugging Face folder) below `folder` if the language model itself was trained."""
        if any(n.startswith("llm.") and not is_lora(n) for n in self.trained_parameters()):
            self.llm.export(Path(folder) / "llm")

    # ---- the computation ----

    def train(self, mode: bool = True) -> Self:
        """Training mode for what learns, checkpointed layers included."""
        super().train(mode)
        if mode and self.config.gradient_checkpointing:
            self.llm.wake_checkpointed_layers()
        return self

    def forward(self, batch: Batch) -> LossSum:
        """Sum of the losses at learned positions, and their number."""
        batch = batch.to(self.device)
        with self.autocast():
            states, targets = self._states(self.embed(batch), batch)
            return summed_loss(states, targets, self.llm.head, self.config.loss_chunk)

    def _states(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Hidden states (n, D) before the learned positions, and the ids (n,) to predict there."""
        spread = any(hasattr(p, "ds_id") for p in self.llm.parameters())  # ZeRO-3: ranks must make the same calls
        return learned_hidden(self.llm.hidden, embeddings, batch, spread)

    def embed(self, batch: Batch) -> Tensor:
        """(B, T, D): text embeddings with the media's features in their slots."""
        media = {"image": batch.images, "audio": batch.audios}
        features: dict[str, Tensor] = {}
        unused: list[Tensor] = []
        for kind in self.bridges:
            given = media[kind]
            if given is not None:
                features[kind] = self.soft_tokens(kind, given)
            elif torch.is_grad_enabled() and self._must_run(kind):
                unused.append(self.bridges[kind](self._absent(kind)).sum() * 0.0)
        embeddings = self.spliced(batch.input_ids, features, batch.samples)
        return embeddings + torch.stack(unused).sum().to(embeddings.dtype) if unused else embeddings

    def soft_tokens(self, kind: str, media: Tensor) -> Tensor:
        """Pictures (N, 3, S, S) or sounds (N, F, K) -> (N, P, D): what stands in their places in the text."""
        return self.bridges[kind](self.encode(kind, media))

    def spliced(self, input_ids: Tensor, features: Mapping[str, Tensor], samples: Sequence[Sample] = ()) -> Tensor:
        """(B, T) ids and each kind's soft tokens (N, P, D) in row order -> (B, T, D)."""
        return splice(input_ids, self.llm.embed, features, samples)

    def encode(self, kind: str, media: Tensor) -> Tensor:
        """Encoder features (N, P, width), before the bridge."""
        encoder = self.encoders[kind]
        learns = any(p.requires_grad for p in encoder.parameters())
        with contextlib.nullcontext() if learns else torch.no_grad():
            features = encoder(media if self.autocast_on else media.to(self.compute_dtype))
        if kind in self.norms:
            norm: Any = self.norms[kind]
            features = norm(features.to(norm.weight.dtype))  # float32, unless an engine has cast everything
        return features

    # A batch may hold no picture (or no sound). Its bridge then still runs, on one empty item and with weight zero:
    # under DDP every trained parameter must receive a gradient on every rank at every step, or the ranks wait for each
    # other for ever, and under ZeRO-3 every rank must gather the same weights in the same order. One process does the
    # same, so that the optimizer's moments do not depend on the number of processes.

    def _must_run(self, kind: str) -> bool:
        parts = [self.encoders[kind], self.bridges[kind]]
        return any(p.requires_grad or hasattr(p, "ds_id") for module in parts for p in module.parameters())

    def _absent(self, kind: str) -> Tensor:
        """Features of one empty item; the encoder runs only if it learns or its weights are spread over ranks."""
        encoder: Any = self.encoders[kind]
        if any(p.requires_grad or hasattr(p, "ds_id") for p in encoder.parameters()):
            return self.encode(kind, encoder.example().to(self.device))
        return torch.zeros(1, encoder.tokens, encoder.width, device=self.device)

    @property
    def autocast_on(self) -> bool:
        return self.compute_dtype != torch.float32

    def autocast(self) -> Any:
        """The number format of the forward pass; nothing for fp32."""
        return autocast(self.device, self.compute_dtype)


def _check(config: AlignedModel.Config) -> None:
    for kind in sorted({*config.encoders, *config.bridges}):
        if kind not in SLOTS:
            raise ConfigError(f"model.encoders: unknown medium {kind!r}; known: {', '.join(SLOTS)}")
        for have, lack in (("encoders", "bridges"), ("bridges", "encoders")):
            if kind in getattr(config, have) and kind not in getattr(config, lack):
                raise ConfigError(f"model.{have}.{kind} has no model.{lack}.{kind}; an encoder needs its bridge")
    if LORA in config.train and not config.lora_r:
        raise ConfigError("model.train names lora but model.lora_r is 0; set a rank, for example 8")
