"""What a checkpoint holds, and when one is refused: trained tensors, the moments, the place in the data."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt4o.common.errors import CheckpointError
from minigpt4o.common.files import STEP_PREFIX, dump_json, pieces, publish, step_folders
from minigpt4o.runners.engine import Learned, trained_buffers

log = logging.getLogger(__name__)

FORMAT = 1
WEIGHTS, OPTIMIZER, STATE = "trained.safetensors", "optimizer.safetensors", "state.json"
BUFFER = "buffer."  # prefix in the optimizer file of buffers that training changes
PIECE = 1 << 24  # bytes of a tensor written at once
_SHOWN = 10  # names listed in a refusal
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass
class Progress:
    """Where a run stands. With the tensors of `Learned` this is all of its state."""

    step: int = 0  # optimizer steps done, skipped ones included
    loader: dict[str, Any] = field(default_factory=dict)  # the place in the data order, and rank 0's bad samples
    log_offset: int = 0  # bytes of metrics.jsonl that belong to these steps
    bad_steps: int = 0  # steps skipped because a number was not finite
    bad_in_row: int = 0
    skipped_samples: int = 0
    best: float | None = None  # lowest mean validation loss so far
    best_step: int = 0
    taken_up: int = -1  # step at which a file of MiniGPT-4's runner was continued; -1 = none


@dataclass
class Identity:
    """What must be equal for a checkpoint to be continued, and what is worth knowing about who wrote it."""

    trained: dict[str, list[int]]  # name -> shape
    data: dict[str, str]  # data set -> fingerprint
    frozen: dict[str, str] = field(default_factory=dict)  # part -> fingerprint of its weights
    seed: int = 0
    about: dict[str, Any] = field(default_factory=dict)  # versions, world size, engine: told; optimizer: compared
    order: list[str] = field(default_factory=list)  # the trained names in the model's order
    foreign: bool = False  # written by MiniGPT-4's runner: data, frozen parts, seed and step are not known


def tensor_file(tensors: Mapping[str, Tensor]) -> Iterator[bytes]:
    """The bytes of a safetensors file, piece by piece, so that nothing is held twice."""
    header: dict[str, Any] = {}
    start = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        place = [start, start + size]
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in sorted(tensors):
        flat = tensors[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        for at in range(0, len(flat), PIECE):
            yield flat[at : at + PIECE].tobytes()


def step_name(step: int) -> str:
    return f"{STEP_PREFIX}{step:06d}"


def save(folder: Path, learned: Learned, progress: Progress, identity: Identity, exported: Path | None = None) -> None:
    """Publish a step folder. Refuses to write numbers that are not finite.

    `exported` is a folder whose files are taken in as well: what was trained in its own format (`llm/`).
    """
    bad = [name for name, tensor in learned.weights.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise CheckpointError(f"{folder} is not written: {bad[0]} and {len(bad) - 1} more hold NaN or infinity")
    weights = {n: t for n, t in learned.weights.items() if n in identity.trained}
    buffers = {BUFFER + n: t for n, t in learned.weights.items() if n not in identity.trained}
    state = {"format": FORMAT, "updates": learned.updates, "steps": learned.steps}
    state |= {**asdict(progress), "identity": asdict(identity)}
    files = [f for f in sorted(exported.rglob("*")) if f.is_file()] if exported is not None else []
    publish(
        folder,
        {
            WEIGHTS: tensor_file(weights),
            OPTIMIZER: tensor_file({**learned.moments, **buffers}),
            STATE: dump_json(state),
            **{str(f.relative_to(exported)): pieces(f) for f in files if exported is not None},
        },
    )


def load(folder: Path) -> tuple[Learned, Progress, Identity]:
    """A verified step folder. Only safetensors and JSON are read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        written = state.pop("format")
        if written != FORMAT:
            raise CheckpointError(f"{folder} has format {written}, this version reads {FORMAT}; update minigpt4o")
        weights, moments = load_file(folder / WEIGHTS), load_file(folder / OPTIMIZER)
        identity, updates = Identity(**state.pop("identity")), int(state.pop("updates"))
        steps = {str(name): int(count) for name, count in state.pop("steps", {}).items()}
        progress = Progress(**state)
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{folder} cannot be read ({type(error).__name__}: {error}); give another step"
        ) from error
    weights |= {n.removeprefix(BUFFER): moments.pop(n) for n in list(moments) if n.startswith(BUFFER)}
    return Learned(weights, moments, updates, steps), progress, identity


def identity_of(model: Any, data: Mapping[str, str], seed: int, about: Mapping[str, Any]) -> Identity:
    """What this run is, read from its parts. Reads every frozen weight once."""
    trained = {name: list(p.shape) for name, p in model.trained_parameters().items()}
    frozen = model.frozen_fingerprints() if hasattr(model, "frozen_fingerprints") else {}
    return Identity(trained, dict(data), frozen, seed, dict(about), list(trained))


def refuse_other(folder: Path, saved: Identity, mine: Identity, model: Any, learned: Learned) -> None:
    """Raises CheckpointError that names every way in which the checkpoint is of another run."""
    lines = _differences("trained tensor", saved.trained, mine.trained, lambda shape: str(tuple(shape)))
    if not saved.foreign:
        lines += _differences("data set", saved.data, mine.data, lambda word: word[:12])
        lines += _frozen_differences(saved, mine)
    if saved.seed != mine.seed and not saved.foreign:
        lines.append(f"run.seed: {saved.seed} in the checkpoint, {mine.seed} now")
    before, now = (identity.about.get("optimizer", "") for identity in (saved, mine))
    if before and now and before != now:  # Muon keeps one moment of a matrix where Adam needs two
        lines.append(f"run.optimizer: {before} in the checkpoint, {now} now")
    wanted = {*mine.trained, *trained_buffers(model, model.trained_parameters())}
    if not lines and wanted - set(learned.weights):
        lines.append(f"tensors missing in its files: {', '.join(sorted(wanted - set(learned.weights))[:_SHOWN])}")
    if lines:
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        listed = "\n  ".join([*lines[:_SHOWN], *more])
        raise CheckpointError(
            f"{folder} belongs to another run:\n  {listed}\n"
            "to start anew leave run.resume_ckpt_path empty; to begin from its weights give the folder as model.ckpt"
        )


def _differences(what: str, saved: Mapping[str, Any], mine: Mapping[str, Any], show: Any) -> list[str]:
    found = []
    for name in sorted({*saved, *mine}):
        if name not in mine:
            found.append(f"{what} {name}: only in the checkpoint")
        elif name not in saved:
            found.append(f"{what} {name}: only in this run")
        elif saved[name] != mine[name]:
            found.append(f"{what} {name}: {show(saved[name])} in the checkpoint, {show(mine[name])} now")
    return found


def _frozen_differences(saved: Identity, mine: Identity) -> list[str]:
    """Frozen weights of one number format must be the same; another format has other bytes and is only told."""
    lines = []
    for part in sorted({*saved.frozen, *mine.frozen}):
        old, new = saved.frozen.get(part, "none:"), mine.frozen.get(part, "none:")
        if old == new:
            continue
        if old.partition(":")[0] == new.partition(":")[0] or "none:" in (old, new):
            lines.append(f"frozen part {part}: {old[:24]} in the checkpoint, {new[:24]} now")
        else:
            log.warning("frozen part %s was %s, is now %s", part, old.partition(":")[0], new.partition(":")[0])
    return lines


def prune(run: Path, keep: int, spare: int) -> None:
    """Remove all step folders but the newest `keep` and step `spare` (the best)."""
    import shutil

    for folder in step_folders(run)[max(keep, 1) :]:
        if folder.name != step_name(spare):
            shutil.rmtree(folder, ignore_errors=True)
