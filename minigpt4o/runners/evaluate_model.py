"""The model of one variant: built as configured, with the variant's checkpoint laid over it, and its fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt4o.common.files import MANIFEST, find_checkpoint, sha256_of
from minigpt4o.common.registry import Part, registry
from minigpt4o.common.weight_files import locate
from minigpt4o.models.weights import TRAINED_FILE, tensor_shapes
from minigpt4o.runners.hosts import tell_other_hosts

log = logging.getLogger(__name__)

# What a checkpoint's own run decides about adapters; an evaluation takes it over with the weights.
ADAPTER_KEYS = ("lora_alpha", "lora_target_modules", "lora_dropout")


@dataclass
class Variant:
    """A model ready to answer."""

    label: str
    model: Any
    checkpoint: str  # the folder that was laid over it; "" = none
    weights_sha256: str

    def told(self) -> dict[str, str]:
        """What results say of it: `checkpoint_sha256` is that of the folder's manifest, or of the file."""
        path = Path(self.checkpoint)
        marked = path if path.is_file() else path / MANIFEST
        mark = sha256_of(marked) if self.checkpoint and marked.is_file() else ""
        return {"checkpoint": self.checkpoint, "checkpoint_sha256": mark, "weights_sha256": self.weights_sha256}


def variant_part(model: Part, checkpoint: str) -> tuple[Part, str]:
    """The model's node for a variant, and the checkpoint folder meant by a step, run or job folder.

    Nothing learns in an evaluation. Adapters are switched on exactly if the checkpoint holds them, with its rank.
    """
    known = {f.name for f in dataclasses.fields(registry.get("model", model.name).Config)}
    values = dict(model.values)
    wanted = checkpoint or values.get("ckpt", "")
    folder = _file_or_checkpoint(str(wanted))
    if "train" in known:
        values["train"] = []
    if "ckpt" in known:
        values["ckpt"] = folder
    if folder and "lora_r" in known:
        rank = adapter_rank(Path(folder))
        values["lora_r"] = rank
        if rank:
            values.update(
                {k: v for k, v in _saved_model_values(Path(folder)).items() if k in ADAPTER_KEYS and k in known}
            )
    return dataclasses.replace(model, values=values), folder


def _file_or_checkpoint(wanted: str) -> str:
    """A file of weights as it is (a bare name is looked up), or the checkpoint folder meant; "" for none."""
    if not wanted:
        return ""
    found = locate(wanted)
    return str(found) if found is not None and found.is_file() else str(find_checkpoint(wanted))


def checkpoint_marks(paths: Iterable[str]) -> list[str]:
    """What tells checkpoints apart without reading them: SHA-256 of their manifests; "" for none or a plain file."""
    marks = []
    for path in paths:
        folder = Path(_file_or_checkpoint(path))
        marks.append(sha256_of(folder / MANIFEST) if path and not folder.is_file() else "")
    return marks


def adapter_rank(path: Path) -> int:
    """Rank of the low-rank adapters that a file or a checkpoint folder holds; 0 if it holds none."""
    shapes = tensor_shapes(path if path.is_file() else path / TRAINED_FILE)
    return next((shape[0] for name, shape in shapes.items() if ".lora_A." in name), 0)


def _saved_model_values(folder: Path) -> dict[str, Any]:
    """The `model` node of the run that saved the checkpoint, if its config.yaml lies where runs keep it."""
    config = folder.parent.parent / "config.yaml"
    if not config.is_file():
        return {}
    from omegaconf import OmegaConf

    tree: Any = OmegaConf.to_container(OmegaConf.load(config))
    return dict(tree.get("model") or {})


def build_variant(settings: Any, label: str, checkpoint: str, device: torch.device, seed: int = 0) -> Variant:
    """Build the model anew with the checkpoint over it, in eval mode on the device. `seed` draws what no file gives."""
    from minigpt4o.runners.build import build_model

    chosen, folder = variant_part(settings.model, checkpoint)
    torch.manual_seed(seed)
    model = build_model(dataclasses.replace(settings, model=chosen))
    model.eval()
    tell_other_hosts(model, folder)
    weights = weights_sha256(model)
    model.to(device)
    log.info("variant %s: %s, weights %s", label, folder or "as configured", weights[:12])
    return Variant(label, model, folder, weights)


def weights_sha256(model: torch.nn.Module) -> str:
    """SHA-256 over names, formats and bytes of all parameters and buffers, in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            flat = tensor.detach().contiguous().view(-1)
            if flat.numel():
                digest.update(flat.view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()
