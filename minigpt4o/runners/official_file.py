"""Files of MiniGPT-4's runner, `checkpoint_{epoch}.pth`: {"model", "optimizer", "config", "scaler", "epoch"}."""

# The optimizer counts its parameters through two groups, [decay, no decay], each in the order of the model's own
# named_parameters(), which is the order of the names in "model": the reference's rule, nothing in the file says so.
# What only we know (the place in the data, the seed, fingerprints) rides in config["minigpt4o"]; the reference reads
# neither that nor the rest of "config".

from __future__ import annotations

import io
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt4o.common.errors import CheckpointError
from minigpt4o.models import official
from minigpt4o.models.weights import LoadReport, read_checkpoint_file, read_torch_file
from minigpt4o.runners.checkpoint import Identity, Progress
from minigpt4o.runners.engine import MOMENTS, Learned
from minigpt4o.runners.optim import BETA1, EPS, is_plain

log = logging.getLogger(__name__)

OURS = "minigpt4o"  # our key inside the file's "config"
# The reference registers its parts in this order; parameters of the model itself (query_tokens) come first.
SECTIONS = ("llama_model.", "gpt_neox_model.", "visual_encoder.", "ln_vision.", "Qformer.", "llama_proj.")
_OWN = ("encoders.", "norms.", "bridges.", "llm.")  # our names without an official one (audio) are kept as they are


def read(path: Path) -> tuple[Learned, Progress, Identity]:
    """A file of the reference's runner as our state. Only tensors and plain containers are read.

    If the file was not made from a checkpoint of ours, `Identity.foreign` is set and `Progress` is that of a start:
    what remains is the epoch (`epoch_of`).
    """
    whole = read_checkpoint_file(path)
    tensors = _tensors(path, whole)
    names = own_names(path, tensors)
    weights = {names[name]: tensor.clone() for name, tensor in tensors.items()}
    progress, identity = _about(path, whole, weights)
    trained = {name: tensor for name, tensor in tensors.items() if names[name] in identity.trained}
    moments, steps = _moments(path, whole.get("optimizer"), trained, names)
    updates = max(steps.values(), default=0)
    behind = {name: count for name, count in steps.items() if count != updates}
    return Learned(weights, moments, updates, behind), progress, identity


def epoch_of(identity: Identity) -> int:
    """The epoch a foreign file was written after; -1 if it does not say."""
    return int(identity.about["reference"]["epoch"])


def report_of(path: Path) -> LoadReport:
    """Which names of the file are known (as ours), and which are not (as they stand there)."""
    tensors = _tensors(path, read_checkpoint_file(path))
    known = {**official.to_own(tensors), **{name: name for name in tensors if name.startswith(_OWN)}}
    return LoadReport(list(known.values()), [], [name for name in tensors if name not in known])


def own_names(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Official name -> ours; a name nobody knows stays. Raises CheckpointError if two become one."""
    known = official.to_own(tensors)
    names = {name: known.get(name, name) for name in tensors}
    if len(set(names.values())) < len(names):
        first: dict[str, str] = {}
        twice = next((first[own], name) for name, own in names.items() if first.setdefault(own, name) != name)
        raise CheckpointError(f"{path}: {twice[0]} and {twice[1]} are names of one tensor; it is held twice")
    return names


def _tensors(path: Path, whole: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the file calls "model", in its order: in a foreign file without buffers, in ours with those we put there."""
    tensors = read_torch_file(path)
    if not isinstance(whole.get("model"), dict):
        log.warning("%s holds no `model`: taken as bare weights without optimizer and epoch", path)
    ours = bool(_ours(whole))
    found = {n: t for n, t in tensors.items() if ours or (not official.is_ignored(n) and t.is_floating_point())}
    if not found:
        raise CheckpointError(f"{path} holds no weights, only {', '.join(list(tensors)[:5])}")
    return found


def _ours(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The state.json that rides in a file made from a checkpoint of ours."""
    config = whole.get("config")
    state = config.get(OURS) if isinstance(config, dict) else None
    return dict(state) if isinstance(state, dict) else {}


def _moments(
    path: Path, optimizer: Any, tensors: Mapping[str, Tensor], names: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Adam's moments and counts of steps by our names; zeros if the file has no optimizer that has stepped."""
    if not isinstance(optimizer, dict) or not optimizer.get("state"):
        log.warning("%s holds no optimizer state: Adam starts without moments", path)
        return {f"{key}.{names[n]}": torch.zeros(t.shape) for n, t in tensors.items() for key in MOMENTS}, {}
    moments, steps = {}, {}
    for index, name in indices(path, optimizer, {n: t.ndim for n, t in tensors.items()}).items():
        state = optimizer["state"].get(index, {})
        steps[names[name]] = int(state.get("step", 0))
        for key in MOMENTS:
            tensor = state.get(key)
            if state and (not isinstance(tensor, Tensor) or tensor.shape != tensors[name].shape):
                what = tuple(tensor.shape) if isinstance(tensor, Tensor) else "nothing"
                raise CheckpointError(
                    f"{path}: optimizer state {index} should be that of {name} {tuple(tensors[name].shape)}, but its "
                    f"{key} is {what}; the file's optimizer is not AdamW over the tensors of its `model`"
                )
            moment = torch.zeros(tensors[name].shape) if tensor is None else tensor
            moments[f"{key}.{names[name]}"] = moment.clone()
    return moments, steps


def indices(path: Path, optimizer: Mapping[str, Any], ndims: Mapping[str, int]) -> dict[int, str]:
    """Number of a parameter in the optimizer -> its official name."""
    groups = [list(group["params"]) for group in optimizer.get("param_groups", [])]
    split = split_names(ndims)
    wanted = [[*split[0], *split[1]]] if len(groups) == 1 else list(split)
    if [len(group) for group in groups] != [len(names) for names in wanted]:
        raise CheckpointError(
            f"{path}: its optimizer has groups of {[len(group) for group in groups]} parameters, but its `model` holds "
            f"{len(split[0])} that decay and {len(split[1])} that do not; they do not belong together"
        )
    return {int(i): n for group, some in zip(groups, wanted, strict=True) for i, n in zip(group, some, strict=True)}


def split_names(ndims: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Official names that decay and that do not, each in the order given."""
    plain = [name for name, ndim in ndims.items() if is_plain(name, ndim)]
    return [name for name in ndims if name not in set(plain)], plain


def _about(path: Path, whole: Mapping[str, Any], weights: Mapping[str, Tensor]) -> tuple[Progress, Identity]:
    """Progress and identity: those that rode in the file's config, or the little a foreign file tells."""
    shapes = {name: list(tensor.shape) for name, tensor in weights.items()}
    state = _ours(whole)
    if state:
        try:
            identity = Identity(**state.pop("identity"))
            progress = Progress(**state)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: config.{OURS} cannot be read ({error}); it was changed") from error
        wrong = [name for name, shape in identity.trained.items() if shapes.get(name) != shape]
        if wrong:
            raise CheckpointError(f"{path}: config.{OURS} names {wrong[0]}; `model` lacks it or has another shape")
        return progress, identity
    epoch = whole.get("epoch")
    about = {"reference": {"epoch": epoch if isinstance(epoch, int) else -1, **_kept(whole)}}
    return Progress(), Identity(shapes, {}, about=about, order=list(shapes), foreign=True)


def _kept(whole: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a foreign file that our format has no place for; they are written again on the way back."""
    optimizer = whole.get("optimizer")
    groups = optimizer.get("param_groups", []) if isinstance(optimizer, dict) else []
    held = {
        "config": whole.get("config"),
        "scaler": whole.get("scaler"),
        "groups": [{key: value for key, value in group.items() if key != "params"} for group in groups],
    }
    return {key: _plain(value) for key, value in held.items()}


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else value.tolist()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def contents(learned: Learned, progress: Progress, identity: Identity) -> dict[str, Any]:
    """What the reference's runner would have saved: official names, its order, its two groups."""
    ordered = [name for name, _ in _in_order(identity)]
    ordered += [name for name in learned.weights if name not in identity.trained]  # running means and the like
    names = official.to_official(ordered)
    model = {names.get(name, name): learned.weights[name].clone() for name in ordered}
    reference = identity.about.get("reference", {})
    config = dict(reference.get("config") or {})
    if not identity.foreign:
        kept = {**asdict(replace(progress, log_offset=0)), "identity": _plain(asdict(identity))}
        config[OURS] = kept
    return {
        "model": model,
        "optimizer": _optimizer(learned, identity, names),
        "config": config,
        "scaler": reference.get("scaler"),
        "epoch": epoch_written(progress, identity),
    }


def epoch_written(progress: Progress, identity: Identity) -> int:
    """The last whole epoch; -1 before the first has ended."""
    if identity.foreign:
        return epoch_of(identity)
    return progress.step // int(identity.about.get("epoch_steps") or max(progress.step, 1)) - 1


def _in_order(identity: Identity) -> list[tuple[str, str]]:
    """(our name, official name) of the trained tensors in the order of the reference's named_parameters()."""
    held = identity.order or sorted(identity.trained, key=_natural)
    names = official.to_official(held)
    pairs = [(name, names.get(name, name)) for name in held]
    return sorted(pairs, key=lambda pair: _section(pair[1]))


def _section(name: str) -> int:
    if "." not in name:
        return -1
    return next((i for i, prefix in enumerate(SECTIONS) if name.startswith(prefix)), len(SECTIONS))


def _natural(name: str) -> list[tuple[int, str]]:
    """layers.2 before layers.10."""
    return [(int(word), "") if word.isdigit() else (0, word) for word in re.split(r"(\d+)", name)]


def _optimizer(learned: Learned, identity: Identity, names: Mapping[str, str]) -> dict[str, Any]:
    """torch's AdamW state dict over the groups [decay, no decay]."""
    ndims = {official_name: len(identity.trained[own]) for own, official_name in _in_order(identity)}
    split = split_names(ndims)
    about = identity.about
    hyper = {"lr": about.get("init_lr", 1e-4), "betas": (BETA1, about.get("beta2", 0.999)), "eps": EPS}
    decays = (about.get("weight_decay", 0.05), 0.0)
    like = [{"params": [torch.empty(0)] * bool(some), "weight_decay": w} for some, w in zip(split, decays, strict=True)]
    groups = torch.optim.AdamW(like, **hyper).state_dict()["param_groups"]
    for group, kept in zip(groups, about.get("reference", {}).get("groups", []), strict=False):
        group.update({key: tuple(value) if key == "betas" else value for key, value in kept.items()})
    own = {names.get(name, name): name for name in identity.trained}
    state: dict[int, dict[str, Tensor]] = {}
    number = 0
    for group, some in zip(groups, split, strict=True):
        group["params"] = list(range(number, number + len(some)))
        number += len(some)
        if about.get("optimizer", "adamw") != "adamw":
            continue  # Muon's momentum is not Adam's
        for index, name in zip(group["params"], some, strict=True):
            count = learned.updates_of(own[name])
            if count:
                moments = {key: learned.moments[f"{key}.{own[name]}"].clone() for key in MOMENTS}
                state[index] = {"step": torch.tensor(float(count)), **moments}
    return {"state": state, "param_groups": groups}


def file_bytes(found: Mapping[str, Any]) -> bytes:
    """The file as torch.save writes it: plain containers and tensors only."""
    buffer = io.BytesIO()
    torch.save(dict(found), buffer)
    return buffer.getvalue()
