"""What every model shares: the summed loss, freezing with its table, and fingerprints of what is frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.source import nearest
from minigpt4o.conversation.batch import Batch, Decoding
from minigpt4o.conversation.template import Template, load_template

LORA = "lora"  # word in `train` for the low-rank parameters, wherever in the model they sit


class LossSum(NamedTuple):
    """The loss of a batch as a sum, so that it can be divided once by the count over all ranks and micro-batches.

    A named tuple, because DDP and DeepSpeed look for the tensors of an output in tuples.
    """

    loss_sum: Tensor  # () float32: cross entropy summed over the learned positions
    count: Tensor  # type: ignore[assignment]  # () int64: number of learned positions


@dataclass(frozen=True)
class PartRow:
    """One line of the table of what learns and what is frozen."""

    part: str  # "encoders.image", "bridges.audio", "llm", "lora", ...
    parameters: int
    trained: int  # how many of them learn

    @property
    def state(self) -> str:
        return "frozen" if not self.trained else "trained" if self.trained == self.parameters else "partly trained"


def is_lora(name: str) -> bool:
    """Whether a parameter or module name belongs to a low-rank adapter."""
    return ".lora_" in name or name.startswith("lora_")


def part_of(name: str) -> str:
    """The part a parameter belongs to: `bridges.image.proj.weight` -> `bridges.image`, `llm.model.x` -> `llm`."""
    if is_lora(name):
        return LORA
    words = name.split(".")
    return ".".join(words[:2]) if words[0] in ("encoders", "bridges", "norms") else words[0]


def freeze(model: nn.Module, train: Iterable[str]) -> list[PartRow]:
    """Let only the parameters below the dotted prefixes `train` learn; freeze and pin in eval mode all others.

    `lora` stands for every low-rank parameter. A prefix that matches nothing is a ConfigError with the nearest names.
    Frozen modules are switched to eval mode here; the model's own `train()` must call `pin_frozen` to keep them so.
    """
    names = dict(model.named_parameters())
    prefixes = list(train)
    for prefix in prefixes:
        if not any(_below(name, prefix) for name in names):
            known = sorted({part_of(name) for name in names} | {name.split(".")[0] for name in names})
            hint = nearest(prefix, known) or known
            raise ConfigError(f"model.train: no parameter stands below {prefix!r}; nearest: {', '.join(hint)}")
    for name, parameter in names.items():
        learns = any(_below(name, prefix) for prefix in prefixes)
        if learns and not parameter.is_floating_point():
            raise ConfigError(
                f"model.train: {name} is held as {parameter.dtype} and cannot learn; leave model.llm.quantize out, or "
                "train adapters (model.lora_r, model.train: [lora])"
            )
        parameter.requires_grad_(learns)
    pin_frozen(model)
    return part_rows(model)


def _below(name: str, prefix: str) -> bool:
    return is_lora(name) if prefix == LORA else name == prefix or name.startswith(prefix + ".")


def pin_frozen(model: nn.Module) -> None:
    """Eval mode for every module that does not itself learn, whatever `model.train()` said.

    A module learns if a trained parameter lies in it. A module without parameters (dropout) goes with its parent. A
    trained adapter does not wake its frozen host: only modules named `lora_*` are left on.
    """
    awake = {""}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            words = name.split(".")
            first = next((i for i, word in enumerate(words) if word.startswith("lora_")), None)
            ends = range(1, len(words)) if first is None else [first + 1]
            awake.update(".".join(words[:end]) for end in ends)
            if first is not None:  # the adapter's dropout stands beside its matrices
                awake.add(".".join([*words[:first], "lora_dropout"]))
    for name, module in model.named_modules():
        if name and name not in awake and not _goes_with_parent(name, module, awake):
            module.training = False


def _goes_with_parent(name: str, module: nn.Module, awake: set[str]) -> bool:
    has_none = next(module.parameters(), None) is None
    return has_none and name.rpartition(".")[0] in awake


def part_rows(model: nn.Module) -> list[PartRow]:
    """One row per part, in the model's order."""
    totals: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        row = totals.setdefault(part_of(name), [0, 0])
        numel = getattr(parameter, "ds_numel", parameter.numel())  # ZeRO-3 leaves an empty shell in place
        row[0] += numel
        row[1] += numel if parameter.requires_grad else 0
    return [PartRow(part, total, trained) for part, (total, trained) in totals.items()]


def freeze_table(rows: Iterable[PartRow]) -> str:
    """The rows as aligned text: part, trained or frozen, parameters."""
    rows = list(rows)
    total, trained = sum(r.parameters for r in rows), sum(r.trained for r in rows)
    lines = [("part", "state", "parameters", "of them trained")]
    lines += [(r.part, r.state, f"{r.parameters:,}", f"{r.trained:,}") for r in rows]
    lines += [("all", "", f"{total:,}", f"{trained:,}")]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in lines)


def frozen_fingerprints(model: nn.Module) -> dict[str, str]:
    """Part -> `dtype:SHA-256` over the names and bytes of its frozen parameters, in name order.

    Reads every frozen byte, so call it once, not per step. The dtype stands in front because the same weights held in
    another precision have other bytes. Adapters do not change the fingerprint of the model they sit in.
    """
    parts: dict[str, list[tuple[str, Tensor]]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            parts.setdefault(part_of(name), []).append((name.replace(".base_layer.", "."), parameter.detach()))
    return {part: _digest(tensors) for part, tensors in parts.items()}


def _digest(tensors: list[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy().data)
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for _, tensor in tensors})
    return f"{'+'.join(kinds)}:{digest.hexdigest()}"


def conversation_of(config: Any) -> Template:
    """The template that a model's `Config` names, in its profile, with the file's own words."""
    words = {key: getattr(config, key, "") for key in ("prompt_template", "end_sym")}
    return load_template(config.template, getattr(config, "profile", "default"), **words)


class PartsModel(nn.Module):
    """What the runner asks of any model built from parts, some of which learn; `self.config` is set by the model."""

    config: Any

    @property
    def template(self) -> str:
        return str(self.config.template)

    @property
    def conversation(self) -> Template:
        """How this model's conversations become text: its template in its profile, with the file's own words."""
        return conversation_of(self.config)

    @property
    def max_txt_len(self) -> int:
        return int(self.config.max_txt_len)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def generate(
        self,
        batch: Batch,
        decoding: Decoding,
        on_text: Callable[[int, str], None] | None = None,
        stop: Sequence[str] = (),
    ) -> list[str]:
        """Answers to prompts padded on the left. `on_text(row, new_text)` receives each answer as it grows."""
        from minigpt4o.models.generate import answer_batch

        return answer_batch(self, batch, decoding, on_text, stop)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Full dotted name -> parameter, of everything that learns: what optimizers and checkpoints hold."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def frozen_fingerprints(self) -> dict[str, str]:
        """Part -> fingerprint of its frozen weights. Reads all of them."""
        return frozen_fingerprints(self)

    def part_rows(self) -> list[PartRow]:
        """Part, parameters, how many of them learn."""
        return part_rows(self)

    freeze_report = part_rows

    def train(self, mode: bool = True) -> Self:
        """Training mode for what learns; frozen parts stay in eval mode whatever is asked."""
        super().train(mode)
        if mode:
            pin_frozen(self)
        return self
