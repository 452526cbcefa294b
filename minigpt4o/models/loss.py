"""Cross entropy at learned positions only, in chunks, as a sum: the (B, T, vocabulary) tensor never exists."""

# n learned positions of the batch, D width of the LLM, V vocabulary

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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
    return LossSum(_HeadLoss.apply(states, head.weight, head.bias, targets, head, chunk), count)


class _HeadLoss(torch.autograd.Function):
    """Loss under a head, frozen or not: all gradients are made at once, so no logits wait for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: Head, chunk: int
    ) -> Tensor:
        given = (states, weight, bias)
        wanted = [t for t, needed in zip(given, ctx.needs_input_grad, strict=False) if needed and t is not None]
        made = [torch.zeros_like(tensor) for tensor in wanted]  # of what learns, in this order
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        for start in range(0, targets.numel(), chunk):
            part = states[start : start + chunk]
            logits = head.logits(part)  # (c, V)
            target = targets[start : start + chunk].unsqueeze(1)
            log_sum = logits.logsumexp(dim=1, keepdim=True)
            total += (log_sum - logits.gather(1, target)).sum()
            if not wanted:
                continue
            delta = _to_linear(logits, log_sum, target, head)
            for tensor, gradient in zip(wanted, made, strict=True):
                if tensor is states:
                    gradient[start : start + chunk] = delta.to(weight.dtype) @ weight
                elif tensor is weight:
                    _add_product(gradient, delta, part)
                else:
                    gradient += delta.sum(dim=0).to(gradient.dtype)
        ctx.made = made
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[Tensor | None, ...]:
        made, ctx.made = iter(ctx.made), None
        found = [next(made).mul_(outer[0]) if needed else None for needed in ctx.needs_input_grad[:3]]
        return *found, None, None, None


def _to_linear(logits: Tensor, log_sum: Tensor, target: Tensor, head: Head) -> Tensor:
    """d loss / d output of the linear map (c, V), in place of `logits`: softmax - one hot, through cap and scale."""
    slope = 1 - (logits / head.softcap) ** 2 if head.softcap else None  # of cap * tanh(x / cap), from its value
    delta = logits.sub_(log_sum).exp_()
    delta.scatter_add_(1, target, torch.full_like(target, -1.0, dtype=delta.dtype))
    if slope is not None:
        delta *= slope
    if head.scale != 1.0:
        delta *= head.scale
    return delta


def _add_product(gradient: Tensor, delta: Tensor, part: Tensor) -> None:
    """`gradient` (V, D) += delta^T (V, c) @ part (c, D), without a second (V, D) where the number formats agree."""
    if part.dtype == gradient.dtype == delta.dtype:
        gradient.addmm_(delta.t(), part)
    else:
        gradient += (delta.to(part.dtype).t() @ part).to(gradient.dtype)
