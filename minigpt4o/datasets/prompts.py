"""Instruction pools: lists of prompts with `{places}`, one of which is drawn for each sample."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError
from minigpt4o.common.source import nearest
from minigpt4o.datasets.base import PLACE

POOLS = Path(__file__).resolve().parent.parent / "conversation" / "prompts"
FOREIGN_MARK = "<Img><ImageHere></Img> "  # how MiniGPT-4's prompt files say `<image>`


def pool_names() -> list[str]:
    """Names of the pools that come with the package."""
    return sorted(path.stem for path in POOLS.glob("*.yaml"))


def load_prompts(prompts: str | Sequence[str], name: str) -> list[str]:
    """A list of prompts as it is, or the pool of that name, or a file (.yaml with `prompts:`, .txt with one a line)."""
    if not isinstance(prompts, str):
        wrong = [p for p in prompts if not isinstance(p, str)]
        if wrong:
            raise DataError(f"datasets.{name}.prompts: {wrong[0]!r} is not text; put it in quotes")
        return list(prompts)
    path = Path(prompts) if Path(prompts).suffix in (".yaml", ".yml", ".txt") else POOLS / f"{prompts}.yaml"
    if not path.is_file():
        hint = nearest(prompts, pool_names())
        mend = f"did you mean {hint[0]!r}?" if hint else f"known: {', '.join(pool_names())}"
        raise DataError(f"datasets.{name}.prompts: no pool {prompts!r}; {mend} (one prompt? write [{prompts!r}])")
    text = path.read_text(encoding="utf-8")
    found = [line for line in text.split("\n") if line.strip()] if path.suffix == ".txt" else _of_yaml(text, path)
    return [prompt.replace(FOREIGN_MARK, "<image>") for prompt in found]


def _of_yaml(text: str, path: Path) -> list[str]:
    import yaml

    tree: Any = yaml.safe_load(text)
    found = tree.get("prompts") if isinstance(tree, dict) else tree
    if not isinstance(found, list) or not all(isinstance(p, str) for p in found):
        raise DataError(f"{path}: a pool is a list of texts under `prompts:`")
    return found


class Prompts:
    """The prompts of one data set; none at all means that nothing is asked."""

    def __init__(self, prompts: str | Sequence[str], name: str, places: Sequence[str] | None = None) -> None:
        """`places`: the `{words}` that will be filled in; None = any, the rows decide."""
        self.prompts = load_prompts(prompts, name)
        for prompt in self.prompts if places is not None else ():
            unknown = [p for p in PLACE.findall(prompt) if p not in (places or ())]
            if unknown:
                known = ", ".join(f"{{{p}}}" for p in places or ()) or "none"
                raise DataError(f"datasets.{name}.prompts: {prompt!r} has a place {{{unknown[0]}}}; known: {known}")

    def draw(self, rng: random.Random) -> str:
        """One of the prompts as it is written; "" if there are none."""
        return rng.choice(self.prompts) if self.prompts else ""
