"""Plain torch: CPU or one GPU per process, gradients averaged over ranks by DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt4o.common.distributed import World
from minigpt4o.common.registry import registry
from minigpt4o.conversation.batch import Batch, Decoding
from minigpt4o.models.base import part_of
from minigpt4o.runners.engine import MOMENTS, Learned, Learner, Recipe, mean_for_backward, trained_buffers
from minigpt4o.runners.optim import build_optimizer, named_groups, set_lr
from minigpt4o.runners.pace import COMPAT

MEDIA_PARTS = ("encoders.", "norms.", "bridges.")


@registry.register("engine", "torch")
class TorchEngine:
    """CPU, a single GPU, or DDP over the trained parameters when torchrun starts several processes."""

    @dataclass
    class Config:
        bucket_mb: int = 25  # size of the buckets in which DDP reduces gradients, in MiB

    name = "torch"
    sharded = False

    def __init__(
        self,
        config: Config,
        *,
        model: Any,
        task: Any,
        world: World,
        recipe: Recipe,
        restored: Learned | None = None,
    ) -> None:
        self.world, self.recipe, self.model = world, recipe, model.to(world.device)
        self.trained = model.trained_parameters()
        for parameter in self.trained.values():
            parameter.data = parameter.data.float()  # AdamW needs float32 masters; autocast computes in bfloat16
        groups = named_groups(model, self.trained, recipe.weight_decay, recipe.lr_multipliers, recipe.profile)
        self.optimizer = build_optimizer(recipe.optimizer, groups, model, recipe.lr, recipe.beta2)
        if restored is not None:
            self._restore(restored)
        self.learner = Learner(model, task, touch=True)
        self.wrapped: nn.Module = self.learner
        if world.size > 1:
            self.wrapped = self._ddp(config)

    def _ddp(self, config: Config) -> nn.Module:
        on_cuda = self.world.device.type == "cuda"
        return nn.parallel.DistributedDataParallel(
            self.learner,
            device_ids=[self.world.device.index] if on_cuda else None,
            bucket_cap_mb=config.bucket_mb,
            broadcast_buffers=False,  # frozen parts have none that change; trained ones start equal
            init_sync=False,  # every rank built or loaded the same weights
            gradient_as_bucket_view=True,
        )

    def accumulate(self, batch: Batch, learned: int, last: bool) -> tuple[Tensor, Tensor]:
        ddp = isinstance(self.wrapped, nn.parallel.DistributedDataParallel)
        with self.wrapped.no_sync() if ddp and not last else nullcontext():  # type: ignore[operator]
            total, count = self.wrapped(batch)
            mean_for_backward(total, learned, self.world.size).backward()
        return total.detach(), count

    def step(self, lr: float) -> tuple[float, bool]:
        set_lr(self.optimizer, lr)
        if self.recipe.profile == COMPAT:
            self._forget_absent_media()
        limit = self.recipe.grad_clip if self.recipe.grad_clip > 0 else float("inf")
        norm = float(nn.utils.clip_grad_norm_(self.trained.values(), limit))
        applied = norm != float("inf") and norm == norm
        if applied:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm, applied

    def _forget_absent_media(self) -> None:
        """Gradients of a bridge (encoder, norm) that no sample of the step needed become none in place of zero.

        As in the reference, AdamW then passes over it: no decay, no momentum, no count. Gradients are reduced already,
        so all ranks find the same.
        """
        parts: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.trained.items():
            if name.startswith(MEDIA_PARTS) and parameter.grad is not None:
                parts.setdefault(part_of(name), []).append(parameter)
        for parameters in parts.values():
            if not any(bool(p.grad.any()) for p in parameters if p.grad is not None):
                for parameter in parameters:
                    parameter.grad = None

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.learner(batch)
        return found

    @torch.no_grad()
    def generate(self, batch: Batch, decoding: Decoding, stop: Sequence[str]) -> list[str]:
        found: list[str] = self.learner(batch, decoding, stop)
        return found

    def learned(self) -> Learned:
        """Whole tensors by name; parameters that never stepped have zero moments."""
        weights = {n: p.detach().cpu() for n, p in self.trained.items()}
        weights |= {n: b.detach().cpu() for n, b in trained_buffers(self.model, self.trained).items()}
        moments, steps = {}, {}
        for name, parameter in self.trained.items():
            state = self.optimizer.state.get(parameter, {})
            steps[name] = int(state.get("step", 0))
            for key in MOMENTS:
                moments[f"{key}.{name}"] = state[key].detach().cpu() if key in state else torch.zeros(parameter.shape)
        updates = max(steps.values())
        return Learned(weights, moments, updates, {n: count for n, count in steps.items() if count != updates})

    @torch.no_grad()
    def _restore(self, found: Learned) -> None:
        for name, tensor in {**self.trained, **trained_buffers(self.model, self.trained)}.items():
            tensor.copy_(found.weights[name])
        for name, parameter in self.trained.items() if found.updates else ():
            step = torch.tensor(float(found.updates_of(name)), device=parameter.device if parameter.is_cuda else None)
            moments = {key: found.moments[f"{key}.{name}"].to(parameter.device, copy=True) for key in MOMENTS}
            self.optimizer.state[parameter] = {"step": step, **moments}

    @contextmanager
    def gathered(self) -> Iterator[None]:
        yield
