"""Say when weights of another run are laid over a model whose frozen parts are not those they were trained beside."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import CheckpointError
from minigpt4o.common.files import find_checkpoint
from minigpt4o.models.base import part_of
from minigpt4o.runners.checkpoint import STATE

log = logging.getLogger(__name__)


def frozen_of(ckpt: str | Path) -> dict[str, str]:
    """Part -> fingerprint of the frozen weights a checkpoint was trained beside; empty if it does not say."""
    return dict(_identity(ckpt).get("frozen", {}))


def tell_other_hosts(model: Any, ckpt: str | Path, frozen: Mapping[str, str] | None = None) -> list[str]:
    """One warning that names the frozen parts of `model` that differ from those `ckpt` was trained beside.

    Returns the names. `frozen` are the model's fingerprints if they are known already; otherwise every frozen weight
    is read once. Parts held in another number format, or frozen in other pieces, cannot be compared and are left out.
    """
    saved = _identity(ckpt) if str(ckpt) else {}
    if not saved.get("frozen") or not hasattr(model, "frozen_fingerprints"):
        return []
    mine = model.frozen_fingerprints() if frozen is None else frozen
    before, now = _pieces(saved["trained"]), _pieces(model.trained_parameters())
    other = []
    for part, word in mine.items():
        old = saved["frozen"].get(part, "")
        same_format = old.partition(":")[0] == word.partition(":")[0]
        if same_format and old != word and before.get(part) == now.get(part):
            other.append(part)
    if other:
        learned = " and ".join(sorted(before))
        log.warning(
            "model.ckpt %s: its %s was trained beside other weights of %s than this model has; what it learned fits "
            "those. Give this model the same weights, or train on",
            ckpt, learned, " and ".join(other),
        )  # fmt: skip
    return other


def _pieces(names: Iterable[str]) -> dict[str, set[str]]:
    """Part -> names in it that are trained; adapters count for themselves."""
    found: dict[str, set[str]] = {}
    for name in names:
        found.setdefault(part_of(name), set()).add(name)
    return found


def _identity(ckpt: str | Path) -> dict[str, Any]:
    """The identity in a checkpoint's state.json; empty for a file of tensors."""
    path = Path(ckpt)
    if not path.is_dir():
        return {}
    try:
        state = json.loads((find_checkpoint(path) / STATE).read_text(encoding="utf-8"))
        return dict(state["identity"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its {STATE} cannot be read ({type(error).__name__}: {error})") from error
