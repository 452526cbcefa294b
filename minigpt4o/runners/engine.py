"""What a training engine promises, and the module every engine wraps."""

# An engine owns devices, precision, gradients over ranks and the optimizer. It does not own the loop or the files.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from minigpt4o.conversation.batch import Batch, Decoding

MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's two running means, as torch and DeepSpeed call them


@dataclass(frozen=True)
class Recipe:
    """The values of the run node that an engine needs."""

    lr: float
    weight_decay: float = 0.05
    beta2: float = 0.999
    optimizer: str = "adamw"  # or "muon"
    lr_multipliers: Mapping[str, float] = field(default_factory=dict)
    grad_clip: float = 1.0  # 0: do not clip
    accum: int = 1
    batch_size: int = 1
    bf16: bool = False
    profile: str = "default"  # or "compat": groups by the reference's rule


@dataclass
class Learned:
    """Everything training has changed, whole tensors by parameter name: fits any engine and any number of ranks."""

    weights: dict[str, Tensor]  # trained parameters, float32 or as trained, and buffers of trained modules
    moments: dict[str, Tensor]  # "exp_avg.<name>" and "exp_avg_sq.<name>", float32
    updates: int = 0  # how often the optimizer has stepped
    steps: dict[str, int] = field(default_factory=dict)  # the same for parameters that have stepped less often

    def updates_of(self, name: str) -> int:
        """How often the parameter of this name has stepped."""
        return self.steps.get(name, self.updates)


class Engine(Protocol):
    """How the loop talks to torch or DeepSpeed."""

    name: str
    sharded: bool  # weights are spread over ranks, so every rank must walk every forward

    def accumulate(self, batch: Batch, learned: int, last: bool) -> tuple[Tensor, Tensor]:
        """Forward and backward of one micro-batch. `learned` is the number of learned tokens of the whole step; the
        gradient is that of the summed loss of all ranks divided by it.

        Returns this rank's sum of token losses and its number of tokens, detached.
        """

    def step(self, lr: float) -> tuple[float, bool]:
        """Clip and update; returns the gradient norm over all ranks and whether the step was applied.

        A norm that is not finite leaves weights and moments untouched on every rank.
        """

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of token losses and count, no gradients."""

    def generate(self, batch: Batch, decoding: Decoding, stop: Sequence[str]) -> list[str]:
        """One answer per row."""

    def learned(self) -> Learned:
        """Collective: whole tensors on the CPU."""

    def gathered(self) -> AbstractContextManager[None]:
        """Collective: inside, the module holds its whole weights."""


class Touch(torch.autograd.Function):
    """Zero that depends on every trained parameter.

    A parameter no sample of this rank needed (the audio bridge in a batch of pictures) then has a zero gradient
    in place of none, so all ranks reduce the same tensors and the update is the same on any number of ranks.
    """

    @staticmethod
    def forward(ctx: Any, total: Tensor, *parameters: Tensor) -> Tensor:
        ctx.like = [(p.shape, p.dtype, p.device) for p in parameters]
        return total.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        zeros = (torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in ctx.like)
        return (grad, *zeros)


class Learner(nn.Module):
    """Model and task as one module: a forward pass is a training loss or, with `decoding`, answers."""

    def __init__(self, model: Any, task: Any, *, touch: bool) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.touch = touch

    def forward(self, batch: Batch, decoding: Decoding | None = None, stop: Sequence[str] = ()) -> Any:
        if decoding is not None:
            return self.model.generate(batch, decoding, stop=stop)
        found = self.task.train_step(self.model, batch)
        total = found.loss_sum.float()
        if self.touch and torch.is_grad_enabled():
            total = Touch.apply(total, *(p for p in self.model.parameters() if p.requires_grad))
        return total, found.count


def mean_for_backward(total: Tensor, learned: int, world_size: int) -> Tensor:
    """This rank's share of the mean over all learned tokens, times the ranks that the engine will average over.

    A loss that is not finite becomes a factor, so that it spoils the gradient norm of every rank.
    """
    factor = world_size / max(learned, 1)
    poison = torch.where(torch.isfinite(total.detach()), 1.0, torch.nan)
    return total * (poison * factor)


def computes_bf16(model: nn.Module) -> bool:
    """Whether the model's own number format is bfloat16; its trained parameters have float32 masters all the same."""
    return getattr(model, "compute_dtype", torch.float32) is torch.bfloat16


def trained_buffers(model: nn.Module, trained: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Persistent buffers beside trained parameters (running means of a batch norm): they change as well."""
    owners = {name.rpartition(".")[0] for name in trained}
    kept = set(model.state_dict(keep_vars=True))
    return {n: b for n, b in model.named_buffers() if n.rpartition(".")[0] in owners and n in kept}
