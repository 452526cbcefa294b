"""What a run would do and need, said before it starts: the answer of `--dry-run`."""

# Memory of one rank = weights (all parameters, in the format they are held in)
#   + gradients (4 bytes per trained parameter) + Adam (8 bytes per trained parameter)
#   + with DeepSpeed in bfloat16: 4 bytes of float32 master per trained parameter;
#   ZeRO 1 divides Adam and masters by the ranks, ZeRO 2 gradients too, ZeRO 3 weights too;
#   + activations, roughly 34 bytes * tokens of a micro-batch * width * layers in bfloat16, twice that in float32
#     (Korthikanti et al. 2022, equation 1 without its attention term). The measured peak stands beside it.

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import torch

from minigpt4o.models.base import freeze_table
from minigpt4o.runners.engine import computes_bf16
from minigpt4o.runners.pace import COMPAT

if TYPE_CHECKING:
    from minigpt4o.runners.base import Runner

ACTIVATION_BYTES = 34  # per token, unit of width and layer, at two bytes a number


def plan_text(runner: Runner) -> str:
    """Parts, data, length and memory; takes one step to prove that it can be taken."""
    config = runner.config
    lines = [
        "parts",
        freeze_table(runner.model.part_rows()) if hasattr(runner.model, "part_rows") else "(no table)",
        "",
    ]
    lines += ["data"]
    for name, builder in runner.builders.items():
        ratio = runner.settings.datasets[name].sample_ratio
        lines.append(f"  {name}: {len(builder):,} samples, ratio {ratio:g}")
    lines += [
        "",
        f"steps: {runner.total_steps:,} of {runner.global_batch:,} samples ({runner.batch_size} rows x "
        f"{config.accum_grad_iters} micro-batches x {runner.world.size} ranks), {runner.epoch_steps:,} to an epoch",
        *_compat(runner),
        f"learning rate: {runner.schedule.lr(0):.3g} at first, {config.init_lr:.3g} at most, "
        f"{runner.schedule.lr(runner.total_steps - 1):.3g} at last",
    ]
    estimate = memory(runner)  # before the step: sharded engines empty the module
    row = runner.train_step()
    lines += ["", "memory of one rank, estimated", *(f"  {name}: {mib(size)}" for name, size in estimate.items())]
    lines += [f"  together: {mib(sum(estimate.values()))}", f"measured peak of this process: {mib(peak(runner))}"]
    lines += ["", f"one step was taken: loss {row['loss']}, gradient norm {row['grad_norm']}, nothing was written"]
    return "\n".join(lines)


def _compat(runner: Runner) -> list[str]:
    """What profile compat changes in the count of steps."""
    if runner.config.profile != COMPAT:
        return []
    left = runner.pace.epoch_ticks % runner.config.accum_grad_iters
    carried = f"; {left} micro-batches of each go into the first step of the next" if left else ""
    return [f"profile compat: an epoch is {runner.pace.epoch_ticks:,} micro-batches{carried}; each has the weight one"]


def memory(runner: Runner) -> dict[str, float]:
    """Bytes by purpose, by the formula at the top of this file."""
    stage = getattr(runner.engine, "stage", 0)
    ranks = runner.world.size
    numel = {n: getattr(p, "ds_numel", p.numel()) for n, p in runner.model.named_parameters()}
    size = {n: numel[n] * p.element_size() for n, p in runner.model.named_parameters()}
    trained = sum(numel[n] for n, p in runner.model.named_parameters() if p.requires_grad)
    masters = 4 * trained if stage and computes_bf16(runner.model) else 0
    return {
        "weights": sum(size.values()) / (ranks if stage >= 3 else 1),
        "gradients": 4 * trained / (ranks if stage >= 2 else 1),
        "Adam": (8 * trained + masters) / (ranks if stage >= 1 else 1),
        "activations (rough)": activations(runner),
    }


def activations(runner: Runner) -> float:
    """Bytes kept for the backward pass of one micro-batch, by the longest text allowed and the media of one row."""
    inner = getattr(getattr(runner.model, "llm", None), "model", None)
    shape: Any = getattr(inner, "config", None)
    shape = getattr(shape, "text_config", shape)
    if shape is None or not hasattr(shape, "num_hidden_layers"):
        return 0.0
    tokens = runner.batch_size * (runner.model.max_txt_len + sum(runner.model.slots.values()))
    wide = 1 if computes_bf16(runner.model) else 2
    return float(ACTIVATION_BYTES * wide * tokens * shape.hidden_size * shape.num_hidden_layers)


def peak(runner: Runner) -> float:
    """Bytes: the GPU's peak, or the largest resident size of the process."""
    if runner.world.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(runner.world.device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"
