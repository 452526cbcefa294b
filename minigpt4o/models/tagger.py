"""Stage 0 of an encoder: learn to see by naming the tokens of the text that belongs to a picture or a sound."""

# B rows, N pictures or sounds of one kind in a batch, P features of one, D encoder width, V tokens of the tokenizer

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, part, registry
from minigpt4o.conversation.batch import IGNORE, SLOTS, Batch, Decoding
from minigpt4o.models.base import LossSum, PartsModel, freeze, freeze_table
from minigpt4o.models.precision import autocast, dtype_of

log = logging.getLogger(__name__)

RARE = -2.0  # log-odds of a token before anything is learned: most tokens are absent from most texts
NONE = -30.0  # log-odds of every token where nothing is shown


@registry.register("model", "tagger")
class Tagger(PartsModel):
    """Encoders with one linear map from each feature to the tokens it is evidence for.

    The text is taken as a bag of tokens (as in SuperClass, arXiv 2411.03313). Each feature votes by itself and the
    votes of a picture are joined by log-sum-exp, so that a token is learned where its object stands: what is said
    together of one object comes to lie in the same features, which is what a bridge needs later.
    """

    @dataclass
    class Config:
        encoders: dict[str, Part] = part("encoder", many=True, doc="media kind (image, audio) -> the encoder to train")
        tokenizer: str = ""  # folder of the tokenizer whose tokens are named
        template: str = "plain"  # how a conversation becomes text: conversation/templates/<name>.yaml or a path
        max_txt_len: int = 160  # tokens of text kept per sample
        train: list[str] = field(default_factory=lambda: ["encoders", "heads"])  # what learns
        ckpt: str = ""  # checkpoint, run or job folder whose tensors are laid over the built model
        precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on a GPU that has it, otherwise fp32

    def __init__(self, config: Config) -> None:
        super().__init__()
        from minigpt4o.models.llms.causal_lm import load_tokenizer

        if not config.encoders or not set(config.encoders) <= set(SLOTS):
            raise ConfigError(f"model.encoders: a tagger needs encoders for some of {', '.join(SLOTS)}")
        if not config.tokenizer:
            raise ConfigError("model.tokenizer: a tagger needs the folder of a tokenizer")
        self.config = config
        self.tokenizer = load_tokenizer(config.tokenizer)
        self.encoders, self.heads = nn.ModuleDict(), nn.ModuleDict()
        for kind, chosen in config.encoders.items():
            encoder = registry.build(chosen)
            self.encoders[kind] = encoder
            head = nn.Linear(encoder.width, len(self.tokenizer))
            nn.init.constant_(head.bias, RARE - math.log(encoder.tokens))
            self.heads[kind] = head
        rows = freeze(self, config.train)
        log.info("model parts\n%s", freeze_table(rows))
        if config.ckpt:
            from minigpt4o.models.weights import lay_over, read_tensors

            lay_over(self, read_tensors(config.ckpt), config.ckpt)
        self.compute_dtype = dtype_of(config.precision)

    @property
    def slots(self) -> dict[str, int]:
        """One place per picture or sound: no features enter the text here, but the row must say where they belong."""
        return dict.fromkeys(self.encoders, 1)

    def export(self, folder: Path) -> None:
        """Nothing: an encoder is read from the checkpoint itself (`weights:`)."""

    def forward(self, batch: Batch) -> LossSum:
        """Binary cross entropy summed over all tokens of the vocabulary and rows; counted per learned token."""
        batch = batch.to(self.device)
        with autocast(batch.input_ids.device, self.compute_dtype):
            evidence = self._evidence(batch)
        if batch.fillers:
            evidence = evidence[: -batch.fillers]
        wanted = torch.zeros_like(evidence)
        rows, places = (batch.labels != IGNORE).nonzero(as_tuple=True)
        wanted[rows, batch.labels[rows, places]] = 1.0
        loss = nn.functional.binary_cross_entropy_with_logits(evidence, wanted, reduction="sum")
        return LossSum(loss, (batch.labels != IGNORE).sum())

    @torch.no_grad()
    def generate(
        self,
        batch: Batch,
        decoding: Decoding,
        on_text: Callable[[int, str], None] | None = None,
        stop: Sequence[str] = (),
    ) -> list[str]:
        """The tokens more likely there than not, strongest first; of a decoding only max_new_tokens matters."""
        was_training = self.training
        self.eval()
        evidence = self._evidence(batch.to(self.device))
        self.train(was_training)
        answers = []
        for row, votes in enumerate(evidence):
            order = votes.argsort(descending=True)[: decoding.max_new_tokens]
            words = self.tokenizer.convert_ids_to_tokens([int(i) for i in order if votes[i] > 0])
            answers.append(" ".join(self.tokenizer.convert_tokens_to_string([word]).strip() for word in words))
            if on_text is not None:
                on_text(row, answers[-1])
        return answers

    def _evidence(self, batch: Batch) -> Tensor:
        """(B, V) float32 log-odds of each token, from all media of a row together."""
        found = torch.full((len(batch), len(self.tokenizer)), NONE, device=batch.input_ids.device)
        for kind, media in (("image", batch.images), ("audio", batch.audios)):
            if kind not in self.encoders:
                continue
            counts = [len(s.images if kind == "image" else s.audios) for s in batch.samples]
            if media is None:
                media = self.encoders[kind].example().to(found.device)  # type: ignore[operator]
                votes = self.heads[kind](self._features(kind, media))
                found = found + votes.sum() * 0.0  # every trained parameter takes part on every rank
                continue
            votes = torch.logsumexp(self.heads[kind](self._features(kind, media)).float(), dim=1)
            for nth in range(max(counts)):  # a row's first picture, its second, ...
                rows = [row for row, count in enumerate(counts) if count > nth]
                items = [sum(counts[:row]) + nth for row in rows]
                found = found.index_put(
                    (torch.tensor(rows, device=found.device),), torch.logaddexp(found[rows], votes[items])
                )
        return found

    def _features(self, kind: str, media: Tensor) -> Tensor:
        learns = any(p.requires_grad for p in self.encoders[kind].parameters())
        with contextlib.nullcontext() if learns else torch.no_grad():
            return self.encoders[kind](media)
