"""Lay tensors of a checkpoint over a built model, and report what matched, what was missing and what had no place."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import CheckpointError
from minigpt4o.common.weight_files import locate, not_here
from minigpt4o.models import official
from minigpt4o.models.base import LORA, part_of

log = logging.getLogger(__name__)

TRAINED_FILE = "trained.safetensors"
TORCH_FILES = (".pth", ".pt", ".bin")
_SHOWN = 10  # names listed in an error
_FORBIDDEN = re.compile(r"(?i:unsupported (?:global|operand|class))\b[^\n]*?(?= was not| whose|\n|$)")


@dataclass
class LoadReport:
    """What became of the tensors of a checkpoint."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # parameters of the model that the checkpoint does not hold
    unexpected: list[str] = field(default_factory=list)  # tensors of the checkpoint that the model has no place for

    def __str__(self) -> str:
        return f"{len(self.matched)} matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected"

    def table(self) -> str:
        """Counts by part, one part a line."""
        counts: dict[str, list[int]] = {}
        for column, names in enumerate((self.matched, self.missing, self.unexpected)):
            for name in names:
                counts.setdefault(part_of(name), [0, 0, 0])[column] += 1
        width = max([len(part) for part in counts] + [4])
        lines = [f"{'part':<{width}}  matched  missing  unexpected"]
        lines += [f"{part:<{width}}  {a:>7}  {b:>7}  {c:>10}" for part, (a, b, c) in counts.items()]
        return "\n".join(lines)


def resolve_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder a user means by a checkpoint, run or job folder: the newest one that verifies."""
    if not Path(path).exists():
        raise CheckpointError(f"{path} does not exist; give a checkpoint, run or job folder")
    from minigpt4o.common.files import find_checkpoint

    return find_checkpoint(path)


def read_tensors(path: str | Path, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a file or of our own checkpoint under our names, those below `prefix` with the prefix taken off.

    A `.safetensors` file, a torch file (`.pth`, `.pt`, `.bin`) of MiniGPT-4, BLIP-2 or rinna (models/official.py maps
    the names), or a checkpoint, run or job folder of ours. Names nobody knows are kept as they are; buffers and parts
    of official files that no model of ours has are left out.
    """
    file = Path(path)
    if file.suffix in TORCH_FILES and file.is_file():
        tensors = read_torch_file(file)
    else:
        tensors = _read_safetensors(file if file.suffix == ".safetensors" else resolve_checkpoint(file) / TRAINED_FILE)
    own = official.to_own(tensors)
    named = {own.get(name, name): tensor for name, tensor in tensors.items() if not official.is_ignored(name)}
    return {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error


def read_checkpoint_file(path: str | Path) -> dict[str, Any]:
    """Everything a torch file holds, read as plain data: no code of the file is ever run. Tensors stay on the CPU.

    Raises CheckpointError if it is truncated, no torch file, or holds anything but tensors and plain containers.
    """
    file = Path(path)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except Exception as error:  # whatever a broken or hostile file makes torch raise
        size = f"{file.stat().st_size:,} bytes" if file.exists() else "not there"
        code = _FORBIDDEN.search(str(error))  # the rest of torch's words tells how to run the code
        words = code[0] if code else str(error).split("\n")[0].split(". In PyTorch")[0][:300]
        raise CheckpointError(
            f"{file} ({size}) cannot be read as a checkpoint of tensors: {type(error).__name__}: {words}; it is "
            "truncated, no torch file, or holds code, which is never run"
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} holds a {type(found).__name__}, not a mapping of names to tensors")
    return found


def read_torch_file(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a torch file, under its own names: the file itself or its `model`, `state_dict` or `module`."""
    found = read_checkpoint_file(path)
    inner = next((found[key] for key in ("model", "state_dict", "module") if isinstance(found.get(key), dict)), found)
    tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors; its keys are {', '.join(map(str, list(found)[:_SHOWN]))}")
    return tensors


def tensor_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a file, under our names where they are known. Reads no weights."""
    from safetensors import SafetensorError, safe_open

    if Path(path).suffix in TORCH_FILES:
        return {name: tuple(tensor.shape) for name, tensor in read_tensors(path).items()}
    try:
        with safe_open(path, framework="pt") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    own = official.to_own(shapes)
    return {own.get(name, name): shape for name, shape in shapes.items()}


def _is_zip(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(2) == b"PK"  # torch's format since 1.6; only it can be read in place


def lay_over(model: nn.Module, tensors: Mapping[str, Tensor], where: str, fresh: Iterable[str] = ()) -> LoadReport:
    """Copy `tensors` into the parameters (and persistent buffers) of the same names.

    Refused with CheckpointError: another shape; numbers that are not finite; a part that is there only in pieces; a
    bridge or norm that is missing although it does not stand below a prefix of `fresh`; adapters that a torch file
    lacks, unless `fresh` names lora; adapters or pieces of a part that the model has no place for. Whole parts of other
    media are only reported.
    """
    own: dict[str, Tensor] = dict(model.named_parameters())
    tensors = _fitted(model, tensors, own)
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
    spoilt = [
        n for n in report.matched if tensors[n].is_floating_point() and not bool(torch.isfinite(tensors[n]).all())
    ]
    if spoilt:
        raise CheckpointError(f"{where} holds NaN or infinity in {len(spoilt)} tensor(s):\n{_list(spoilt)}")
    with torch.no_grad():
        for name in report.matched:
            own[name].copy_(tensors[name])
    told = str(report)
    if len({part_of(n) for n in own}) > 1 or report.missing or report.unexpected:
        told += f"\n{report.table()}"
    if report.missing and not any(own[n].requires_grad for n in report.missing):
        told += "\nwhat is missing is frozen and keeps the weights it was built with"
    log.info("%s: %s", where, told)
    return report


def _fitted(model: nn.Module, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the model's own names and, where a module knows how (positions of a grid), in its sizes."""
    names = official.fitted(tensors, own)
    found = {}
    for name, tensor in tensors.items():
        target = names[name]
        if target in own and own[target].shape != tensor.shape:
            owner, inner = _fitter(model, target)
            tensor = owner.fit_tensor(inner, tensor) if owner is not None else tensor
        found[target] = tensor
    return found


def _fitter(model: nn.Module, name: str) -> tuple[Any, str]:
    """The module that can fit this tensor, and the tensor's name inside it."""
    words = name.split(".")
    for end in range(len(words)):
        owner = model.get_submodule(".".join(words[:end]))
        if hasattr(owner, "fit_tensor"):
            return owner, ".".join(words[end:])
    return None, ""


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
    needed = [n for n in report.missing if part_of(n) in partial and (own[n].requires_grad or part_of(n) == LORA)]
    needed += [n for n in report.missing if part_of(n) in required]
    new_adapters = LORA in absent and LORA not in fresh
    if new_adapters and Path(where).suffix in TORCH_FILES:  # a whole model of the reference, not our stage before
        needed += [n for n in report.missing if part_of(n) == LORA]
    if needed:
        raise CheckpointError(
            f"{where} lacks {len(needed)} tensor(s) of the model:\n"
            f"{_list(f'{n} {tuple(own[n].shape)}' for n in needed)}\n"
            "give the checkpoint of a run with this model, or name the new part in model.fresh"
        )
    if new_adapters:
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


def load_part(part: nn.Module, path: str, prefix: str, key: str, bare: str = "") -> None:
    """Fill every parameter of one part from a file that holds only it, or from a checkpoint of a whole model.

    `bare` is put before the names of a file that holds the part alone (`eva_vit_g.pth`: `blocks.0...`).
    """
    file = locate(path)
    if file is None:
        raise CheckpointError(not_here(path, key))
    tensors = read_tensors(file, prefix)
    own = dict(part.named_parameters())
    if not any(name in own for name in tensors):
        plain = read_tensors(file)
        tensors = plain if any(name in own for name in plain) else {bare + n: t for n, t in plain.items()}
    missing = [f"{n} {tuple(p.shape)}" for n, p in own.items() if n not in tensors]
    if missing:
        raise CheckpointError(
            f"{key}: {file} lacks {len(missing)} of {len(own)} tensors (looked for below {prefix!r} and at the top):\n"
            f"{_list(missing)}"
        )
    held = part.state_dict(keep_vars=True)  # with lasting buffers, as the running means of a convolutional network
    lay_over(part, {name: tensor for name, tensor in tensors.items() if name in held}, f"{key}: {file}")
