"""Lay tensors of a checkpoint over a built model, and report what matched, what was missing and what had no place."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import CheckpointError
from minigpt4o.models.base import LORA, part_of

log = logging.getLogger(__name__)

TRAINED_FILE = "trained.safetensors"
_SHOWN = 10  # names listed in an error


@dataclass
class LoadReport:
    """What became of the tensors of a checkpoint."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # parameters of the model that the checkpoint does not hold
    unexpected: list[str] = field(default_factory=list)  # tensors of the checkpoint that the model has no place for

    def __str__(self) -> str:
        return f"{len(self.matched)} matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected"


def resolve_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder a user means by a checkpoint, run or job folder: the newest one that verifies."""
    if not Path(path).exists():
        raise CheckpointError(f"{path} does not exist; give a checkpoint, run or job folder")
    from minigpt4o.common.files import find_checkpoint

    return find_checkpoint(path)


def read_tensors(path: str | Path, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a safetensors file or of our own checkpoint, those below `prefix` with the prefix taken off."""
    from safetensors import SafetensorError, safe_open

    file = Path(path)
    if file.suffix != ".safetensors":
        file = resolve_checkpoint(file) / TRAINED_FILE
    try:
        with safe_open(file, framework="pt") as tensors:
            names = [name for name in tensors.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a dict
            return {name.removeprefix(prefix): tensors.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error


def lay_over(model: nn.Module, tensors: Mapping[str, Tensor], where: str, fresh: Iterable[str] = ()) -> LoadReport:
    """Copy `tensors` into the parameters (and persistent buffers) of the same names.

    Refused with CheckpointError: another shape; a part that is there only in pieces; a bridge or norm that is missing
    although it does not stand below a prefix of `fresh`; adapters or pieces of a part that the model has no place for.
    Whole parts of other media are only reported.
    """
    own: dict[str, Tensor] = dict(model.named_parameters())
    buffers = {n: t for n, t in model.state_dict(keep_vars=True).items() if n not in own and n in tensors}
    own.update(buffers)  # running means and the like: taken if the checkpoint holds them
    report = LoadReport(
        matched=[name for name in own if name in tensors],
        missing=[name for name in own if name not in tensors],
        unexpected=[name for name in tensors if name not in own],
    )
    wrong = [n for n in report.matched if own[n].shape != tensors[n].shape]
    if wrong:
        lines = [f"{n}: model {tuple(own[n].shape)}, checkpoint {tuple(tensors[n].shape)}" for n in wrong]
        raise CheckpointError(f"{where} was made by a model of other sizes:\n{_list(lines)}")
    _refuse_missing(report, own, where, list(fresh))
    _refuse_unexpected(report, own, tensors, where)
    with torch.no_grad():
        for name in report.matched:
            own[name].copy_(tensors[name])
    log.info("%s: %s", where, report)
    return report


def _refuse_missing(report: LoadReport, own: Mapping[str, Tensor], where: str, fresh: list[str]) -> None:
    held = {part_of(name) for name in report.matched}
    partial = sorted({part_of(n) for n in report.missing if part_of(n) in held})
    absent = sorted({part_of(n) for n in report.missing if part_of(n) not in held})
    required = [p for p in absent if p.split(".")[0] == "bridges" and not any(_below(p, prefix) for prefix in fresh)]
    bad = [f"{n} {tuple(own[n].shape)}" for n in report.missing if part_of(n) in {*partial, *required}]
    if not report.matched:
        raise CheckpointError(f"{where} holds no tensor of this model; it needs among others\n{_list(bad or own)}")
    # A part trained by prefix (model.train: [bridges.image.proj]) is saved in pieces by design; its frozen rest came
    # from elsewhere, so only what is trained now has to be there.
    needed = [n for n in report.missing if part_of(n) in partial and own[n].requires_grad]
    needed += [n for n in report.missing if part_of(n) in required]
    if needed:
        raise CheckpointError(
            f"{where} lacks {len(needed)} tensor(s) of the model:\n"
            f"{_list(f'{n} {tuple(own[n].shape)}' for n in needed)}\n"
            "give the checkpoint of a run with this model, or name the new part in model.fresh"
        )
    if LORA in absent:
        log.warning("%s holds no LoRA tensors: the adapters start fresh", where)


def _refuse_unexpected(
    report: LoadReport, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str
) -> None:
    parts = {part_of(name) for name in own}
    wrong = [n for n in report.unexpected if part_of(n) in parts or part_of(n) == LORA]
    if wrong:
        ranks = {tensors[n].shape[0] for n in wrong if ".lora_A." in n}
        mend = f"; set model.lora_r: {ranks.pop()}" if ranks else ""
        lines = [f"{n} {tuple(tensors[n].shape)}" for n in wrong]
        raise CheckpointError(f"{where} holds {len(wrong)} tensor(s) the model has no place for{mend}:\n{_list(lines)}")
    left = sorted({part_of(name) for name in report.unexpected})
    if left:
        log.warning("%s: %s not used, the model has no such part", where, ", ".join(left))


def _below(part: str, prefix: str) -> bool:
    return part == prefix or part.startswith(prefix + ".")


def _list(lines: Iterable[str]) -> str:
    lines = list(lines)
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join([f"  {line}" for line in lines[:_SHOWN]] + more)


def load_part(part: nn.Module, path: str, prefix: str, key: str) -> None:
    """Fill every parameter of one part from a file that holds only it, or from a checkpoint of a whole model."""
    if not Path(path).exists():
        raise CheckpointError(f"{key}: {path} does not exist")
    tensors = read_tensors(path, prefix) or read_tensors(path)
    own = dict(part.named_parameters())
    missing = [f"{n} {tuple(p.shape)}" for n, p in own.items() if n not in tensors]
    if missing:
        raise CheckpointError(
            f"{key}: {path} lacks {len(missing)} of {len(own)} tensors (looked for below {prefix!r} and at the top):\n"
            f"{_list(missing)}"
        )
    lay_over(part, {name: tensor for name, tensor in tensors.items() if name in own}, f"{key}: {path}")
