"""Cross entropy at learned positions only, in chunks, as a sum: the (B, T, vocabulary) tensor never exists."""

# n learned positions of the batch, D width of the LLM, V vocabulary

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from minigpt4o.conversation.batch import IGNORE
from minigpt4o.models.base import LossSum


@dataclass
class Head:
    """The language model's last linear map and what some families do to its output."""

    weight: Tensor  # (V, D)
    bias: Tensor | None = None  # (V,)
    scale: float = 1.0  # logits are multiplied by it (Cohere, Granite)
    softcap: float = 0.0  # logits become cap * tanh(logits / cap) if not 0 (Gemma 2 and later)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) float32."""
        return self.finish(F.linear(hidden, self.weight, self.bias))

    def finish(self, logits: Tensor) -> Tensor:
        """Scale and cap the linear map's output, in float32."""
        logits = logits.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return torch.tanh(logits / self.softcap) * self.softcap if self.softcap else logits

    @property
    def trained(self) -> bool:
        return self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)


def learned_states(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(n, D) hidden states and the (n,) ids each of them has to predict.

    `hidden` is (B, T - 1, D) or longer: the state before each of `labels` (B, T), of which the first has none.
    """
    following = labels[:, 1:]
    learned = following != IGNORE
    return hidden[:, : following.shape[1]][learned], following[learned]


def summed_loss(states: Tensor, targets: Tensor, head: Head, chunk: int) -> LossSum:
    """Sum of the cross entropies of `targets` (n,) under `states` (n, D), and their count."""
    count = torch.tensor(targets.numel(), dtype=torch.int64, device=targets.device)
    if not targets.numel():
        return LossSum(states.float().sum() * 0.0, count)  # keeps the graph: every rank runs the same backward
    if not head.trained:
        return LossSum(_FrozenHeadLoss.apply(states, targets, head, chunk), count)
    return LossSum(_trained_head_loss(states, targets, head, chunk), count)


def _trained_head_loss(states: Tensor, targets: Tensor, head: Head, chunk: int) -> Tensor:
    """Autograd through the head; with several chunks, each chunk's logits are made again in the backward pass."""

    def one(part: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(head.logits(part), target, reduction="sum")

    if targets.numel() <= chunk:
        return one(states, targets)
    pieces = zip(states.split(chunk), targets.split(chunk), strict=True)
    return torch.stack([checkpoint(one, part, target, use_reentrant=False) for part, target in pieces]).sum()


class _FrozenHeadLoss(torch.autograd.Function):
    """Loss under a frozen head: the gradient to the hidden states is made at once, so no logits wait for backward."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, targets: Tensor, head: Head, chunk: int) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(states) if wanted else None
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        for start in range(0, targets.numel(), chunk):
            logits = head.logits(states[start : start + chunk])  # (c, V)
            target = targets[start : start + chunk].unsqueeze(1)
            log_sum = logits.logsumexp(dim=1, keepdim=True)
            total += (log_sum - logits.gather(1, target)).sum()
            if gradient is not None:
                gradient[start : start + chunk] = _to_states(logits, log_sum, target, head)
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[Tensor | None, None, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient * outer[0].to(gradient.dtype), None, None, None


def _to_states(logits: Tensor, log_sum: Tensor, target: Tensor, head: Head) -> Tensor:
    """d loss / d hidden (c, D): (softmax - one hot) through soft cap, scale and weight."""
    slope = 1 - (logits / head.softcap) ** 2 if head.softcap else None  # of cap * tanh(x / cap), from its value
    delta = logits.sub_(log_sum).exp_()
    delta.scatter_add_(1, target, torch.full_like(target, -1.0, dtype=delta.dtype))
    if slope is not None:
        delta *= slope
    if head.scale != 1.0:
        delta *= head.scale
    return delta.to(head.weight.dtype) @ head.weight
