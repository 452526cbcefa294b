"""Read and write sharded safetensors folders piece by piece, so that no more than one piece is in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt4o.common.errors import CheckpointError
from minigpt4o.common.files import dump_json

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
SHARD_BYTES = 4 << 30
PIECE_BYTES = 32 << 20
DTYPES = {  # as the format names them
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Shards:
    """The tensors of a folder by name; files are mapped into memory, so what is not looked at is not read."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from safetensors import SafetensorError, safe_open

        self.files: dict[str, Any] = {}
        for path, listed in _files(folder).items():
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} cannot be read ({error}); fetch it again") from error
            held = set(file.keys())
            lost = sorted(set(listed) - held) if listed is not None else []
            if lost:
                raise CheckpointError(f"{path} lacks {len(lost)} tensor(s) that {INDEX} promises: {lost[0]}, ...")
            self.files.update(dict.fromkeys(held, file))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The format's name of it."""
        dtype = self.files[name].get_slice(name).get_dtype()
        if dtype not in DTYPES:
            raise CheckpointError(f"{name} is of type {dtype}; known: {', '.join(DTYPES)}")
        return dtype

    def tensor(self, name: str) -> Tensor:
        return self.files[name].get_tensor(name)


def _files(folder: Path) -> dict[Path, list[str] | None]:
    """Each file of weights and the tensors that the index promises there (None: there is no index)."""
    index = folder / INDEX
    if not index.is_file():
        if (folder / SINGLE).is_file():
            return {folder / SINGLE: None}
        torch_files = sorted(path.name for path in folder.glob("*.bin"))
        why = f"; {torch_files[0]} is a torch file: save it as safetensors first" if torch_files else ""
        raise CheckpointError(f"{folder} holds neither {SINGLE} nor {INDEX}{why}")
    try:
        places: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        files: dict[Path, list[str] | None] = {folder / name: [] for name in sorted(set(places.values()))}
        for tensor, name in places.items():
            files.setdefault(folder / name, []).append(tensor)  # type: ignore[union-attr]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is damaged ({type(error).__name__}: {error}); fetch it again") from error
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise CheckpointError(f"{folder}: {len(missing)} of {len(files)} shard(s) are missing: {', '.join(missing)}")
    return files


@dataclass
class Planned:
    """A tensor to write: what it will be, and where its pieces come from once it is its turn."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Iterable[Tensor]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def whole(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor as pieces of at most PIECE_BYTES, in memory order."""
    yield from tensor.contiguous().flatten().split(max(1, PIECE_BYTES // tensor.element_size()))


def written(tensors: Sequence[Planned], shard_bytes: int = SHARD_BYTES) -> dict[str, bytes | Iterable[bytes]]:
    """File name -> its bytes, made while they are written; one file, or shards and their index."""
    shards: list[list[Planned]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(t.size for t in shards[-1]) + tensor.size > shard_bytes:
            shards.append([])
        shards[-1].append(tensor)
    if len(shards) == 1:
        return {SINGLE: _file(shards[0])}
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    places = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    index = {"metadata": {"total_size": sum(t.size for t in tensors)}, "weight_map": places}
    files: dict[str, bytes | Iterable[bytes]] = {n: _file(shard) for n, shard in zip(names, shards, strict=True)}
    return {**files, INDEX: dump_json(index)}


def _file(tensors: Sequence[Planned]) -> Iterator[bytes]:
    """The safetensors format: length of the header, header, data. Wide types first, so that all are aligned."""
    tensors = sorted(tensors, key=lambda t: -DTYPES[t.dtype].itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.size
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for tensor in tensors:
        size = 0
        for piece in tensor.pieces:
            data = piece.contiguous().flatten().view(torch.uint8).numpy().tobytes()
            size += len(data)
            yield data
        assert size == tensor.size, f"{tensor.name}: {size} bytes made, {tensor.size} planned"
