"""DeepSpeed as the engine, not the archive: ZeRO 0 to 3 with our own AdamW, our own loss, our own checkpoint."""

# Facts behind the choices (DeepSpeed 0.19): stage 0 with bfloat16 steps Adam once with zero gradients at start and is
# 13 % off after a few steps; a "type: AdamW" in its config and the shared-memory collectives compile C++ at start;
# its own checkpoints hold pickles and fit one number of ranks only.

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt4o.common.distributed import World
from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.conversation.batch import Batch, Decoding
from minigpt4o.runners.engine import MOMENTS, Learned, Learner, Recipe, mean_for_backward, trained_buffers
from minigpt4o.runners.optim import build_adamw, named_groups, set_lr

MAX_BUCKET = 50_000_000  # elements reduced at once; DeepSpeed's default of 5e8 holds 2 GB for a 3 M bridge


@registry.register("engine", "deepspeed")
class DeepSpeedEngine:
    """ZeRO: optimizer (1), gradients (2) and all weights, frozen ones too (3), spread over the ranks."""

    @dataclass
    class Config:
        zero_stage: int = 1  # 0 to 3; 3 only if the frozen language model does not fit on one GPU

    name = "deepspeed"

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
        check(config.zero_stage, recipe.bf16, recipe.optimizer)
        self.stage, self.world, self.recipe, self.model = config.zero_stage, world, recipe, model
        self.sharded = self.stage == 3
        self.trained: dict[str, nn.Parameter] = model.trained_parameters()
        self.buffers = trained_buffers(model, self.trained)
        model.to(world.device)
        masters = self._load_weights(restored)
        self.learner = Learner(model, task, touch=not self.sharded)
        self.engine = self._initialize()
        if restored is not None:
            refuse_uneven(restored)
            self._restore(restored, masters)

    @torch.no_grad()
    def _load_weights(self, found: Learned | None) -> dict[str, Tensor]:
        """Weights go in before DeepSpeed splits them. Returns the float32 masters to set afterwards."""
        for parameter in self.trained.values():
            parameter.data = parameter.data.float()
        if found is not None:
            for name, tensor in {**self.trained, **self.buffers}.items():
                tensor.copy_(found.weights[name])
        return {} if found is None else {n: found.weights[n].float() for n in self.trained}

    def _initialize(self) -> Any:
        deepspeed = import_deepspeed(self.world)
        recipe = self.recipe
        groups = named_groups(self.model, self.trained, recipe.weight_decay, recipe.lr_multipliers, recipe.profile)
        groups = [{key: value for key, value in group.items() if key != "names"} for group in groups]
        bucket = min(MAX_BUCKET, sum(p.numel() for p in self.trained.values()))
        zero = {"stage": self.stage, "overlap_comm": False, "reduce_bucket_size": bucket}
        if self.stage == 3:
            zero |= {"stage3_param_persistence_threshold": 0}
        settings = {
            "train_micro_batch_size_per_gpu": recipe.batch_size,
            "gradient_accumulation_steps": recipe.accum,
            "gradient_clipping": max(recipe.grad_clip, 0.0),
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "bf16": {"enabled": recipe.bf16},
            "steps_per_print": 10**9,
        }
        exact = {name: b.clone() for name, b in self.model.named_buffers() if b.is_floating_point()}
        engine, *_ = deepspeed.initialize(
            model=self.learner,
            optimizer=build_adamw(groups, recipe.lr, recipe.beta2),
            config=settings,
            dist_init_required=False,
        )
        for name, buffer in self.model.named_buffers():
            if name in exact:  # rotary frequencies and the like lose their digits in bfloat16
                buffer.data = exact[name]
        return engine

    def accumulate(self, batch: Batch, learned: int, last: bool) -> tuple[Tensor, Tensor]:
        self.engine.set_gradient_accumulation_boundary(last)  # windows differ in length under compat
        total, count = self.engine(batch)
        self.engine.backward(mean_for_backward(total, learned, self.world.size), scale_wrt_gas=False)
        if not last:
            self.engine.step()  # only counts the micro-batch
        return total.detach(), count

    def step(self, lr: float) -> tuple[float, bool]:
        set_lr(self.engine.optimizer, lr)
        if self.stage == 0:
            return self._plain_step()
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return float(norm), bool(self.engine._step_applied)

    def _plain_step(self) -> tuple[float, bool]:
        """Stage 0 checks nothing by itself: look at the reduced gradients first and zero the step if they are bad."""
        norm = float(nn.utils.get_total_norm([p.grad for p in self.trained.values() if p.grad is not None]))
        applied = norm != float("inf") and norm == norm
        if not applied:
            held = self._raw_step_state()
            for parameter in self.trained.values():
                parameter.grad = None
        self.engine.step()
        if not applied:
            assert held == self._raw_step_state(), "a step without gradients moved the optimizer"
        return norm, applied

    def _raw_step_state(self) -> list[float]:
        return [float(s["step"]) for s in self.engine.optimizer.state.values() if "step" in s]

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.engine.module(batch)
        return found

    @torch.no_grad()
    def generate(self, batch: Batch, decoding: Decoding, stop: Sequence[str]) -> list[str]:
        found: list[str] = self.engine.module(batch, decoding, stop)
        return found

    def learned(self) -> Learned:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        updates = self._updates()
        if updates:
            self._link_moments()
        weights, moments = {}, {}
        for name, p in self.trained.items():
            full = p.detach() if self.stage == 0 else safe_get_full_fp32_param(p)
            weights[name] = full.cpu().clone()
            for key in MOMENTS:
                if not updates:
                    moments[f"{key}.{name}"] = torch.zeros(weights[name].shape)
                    continue
                state = (
                    self.engine.optimizer.state[p][key] if self.stage == 0 else safe_get_full_optimizer_state(p, key)
                )
                moments[f"{key}.{name}"] = state.detach().float().cpu().clone().view(weights[name].shape)
        weights |= {n: b.detach().cpu() for n, b in self.buffers.items()}
        return Learned(weights, moments, updates)

    def _link_moments(self) -> None:
        """Let parameters of ZeRO 1 and 2 find their moments.

        DeepSpeed does it once, after the first group's first step, when the other groups have none yet.
        """
        if self.stage in (1, 2):
            self.engine.optimizer._hp_optimizer_states_linked = False
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _inner(self) -> Any:
        """The torch AdamW inside DeepSpeed's wrapper."""
        return self.engine.optimizer if self.stage == 0 else self.engine.optimizer.optimizer

    def _updates(self) -> int:
        return max((int(state["step"]) for state in self._inner().state.values() if "step" in state), default=0)

    @torch.no_grad()
    def _restore(self, found: Learned, masters: dict[str, Tensor]) -> None:
        if self.stage == 0:
            flats = list(self.trained.values())
        else:
            flats = [p for group in self._inner().param_groups for p in group["params"]]
            if self.stage == 3:
                flats = list(self.engine.optimizer.fp32_partitioned_groups_flat)
        for flat in flats if found.updates else ():
            zeros = {key: torch.zeros_like(flat) for key in MOMENTS}
            self._inner().state[flat] = {"step": torch.tensor(float(found.updates)), **zeros}
        if self.stage == 0:
            for name, p in self.trained.items() if found.updates else ():
                for key in MOMENTS:
                    self._inner().state[p][key].copy_(found.moments[f"{key}.{name}"])
            return
        self._set_partitions(found, masters)

    def _set_partitions(self, found: Learned, masters: dict[str, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        if found.updates:
            self._link_moments()
        for name, p in self.trained.items():
            safe_set_full_fp32_param(p, masters[name].to(self.world.device))
            for key in MOMENTS if found.updates else ():
                safe_set_full_optimizer_state(p, found.moments[f"{key}.{name}"].to(self.world.device), key)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        if not self.sharded:
            yield
            return
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self.model.parameters())):
            yield


def check(stage: int, bf16: bool, optimizer: str = "adamw") -> None:
    """Refuse what DeepSpeed would get wrong in silence."""
    if optimizer != "adamw":
        raise ConfigError(
            f"run.optimizer: engine deepspeed takes adamw, not {optimizer}, whose steps need whole matrices where ZeRO "
            "has pieces; set run.optimizer: adamw, or run.engine: torch"
        )
    if stage not in (0, 1, 2, 3):
        raise ConfigError(f"run.engine.zero_stage: {stage}; it is 0, 1, 2 or 3")
    if stage == 0 and bf16:
        raise ConfigError(
            "run.engine.zero_stage: 0 with bfloat16 takes a false first Adam step in DeepSpeed (13 % off after five "
            "steps); set zero_stage: 1, or precision: fp32"
        )


def refuse_uneven(found: Learned) -> None:
    """ZeRO keeps one count of steps for a whole group of parameters."""
    if found.steps:
        name, count = next(iter(found.steps.items()))
        raise CheckpointError(
            f"engine deepspeed keeps one count of optimizer steps, but the checkpoint has {found.updates} in general "
            f"and {count} for {name}; continue it with run.engine: torch"
        )


def import_deepspeed(world: World) -> Any:
    """DeepSpeed, told not to compile C++ at start."""
    if world.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))  # it insists, even for one process
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed
    import deepspeed.ops

    if world.device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not deepspeed.comm.is_initialized():
        deepspeed.init_distributed("gloo" if world.device.type == "cpu" else "nccl", verbose=False)
    return deepspeed
