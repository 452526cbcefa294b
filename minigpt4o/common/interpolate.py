"""Resolve `${...}` with OmegaConf, and know which values came from the environment so that they are never written."""

from __future__ import annotations

import re
from typing import Any

from minigpt4o.common.yaml_places import Node, from_plain, scalar, to_plain

_REFERENCE = re.compile(r"\$\{([A-Za-z0-9_.]+)\}")


class InterpolationProblem(Exception):
    """Says why a `${...}` cannot be resolved."""


class Resolver:
    """Resolves the interpolations of one tree. OmegaConf is imported at the first one."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self._container: Any = None

    def resolve(self, node: Node, path: tuple[str, ...]) -> Node:
        """The node with its interpolation replaced, its place kept. Raises InterpolationProblem."""
        value = self._select(path)
        if not isinstance(value, str):
            return from_plain(value, node.place)
        return scalar(value, node.place)  # `${oc.env:N}` is text; let "8" be the int 8 where an int is wanted

    def secret(self, node: Node, seen: tuple[str, ...] = ()) -> bool:
        """Whether the value depends on anything but plain keys of this tree (so: perhaps on the environment)."""
        if node.is_map:
            return any(self.secret(child, seen) for child in node.value.values())
        if node.is_list:
            return any(self.secret(child, seen) for child in node.value)
        if not node.interpolated:
            return False
        rest = _REFERENCE.sub("", node.value)
        if "${" in rest:
            return True
        for reference in _REFERENCE.findall(node.value):
            target = self._at(reference)
            if target is None or reference in seen or self.secret(target, (*seen, reference)):
                return True
        return False

    def _at(self, reference: str) -> Node | None:
        if reference.startswith("."):
            return None
        node = self.root
        for key in reference.split("."):
            if node.is_map and key in node.value:
                node = node.value[key]
            elif node.is_list and key.isdigit() and int(key) < len(node.value):
                node = node.value[int(key)]
            else:
                return None
        return node

    def _select(self, path: tuple[str, ...]) -> Any:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            if self._container is None:
                self._container = OmegaConf.create(_guarded(to_plain(self.root)))
            value = self._container
            for key in path:
                value = value[int(key) if OmegaConf.is_list(value) else key]
            return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except OmegaConfBaseException as error:
            raise InterpolationProblem(_first_line(error)) from None
        except RecursionError:
            raise InterpolationProblem("the interpolation refers to itself") from None


def _guarded(value: Any) -> Any:
    """The tree without interpolations that cannot even be parsed (OmegaConf would refuse the whole tree)."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(value, dict):
        return {k: _guarded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_guarded(v) for v in value]
    if isinstance(value, str) and "${" in value:
        try:
            OmegaConf.create({"value": value})
        except OmegaConfBaseException:
            return "${it_cannot_be_parsed}"
    return value


def _first_line(error: Exception) -> str:
    line = str(error).strip().split("\n")[0]
    line = line.split("raised while resolving interpolation: ", 1)[-1].strip('"')
    return "it is not written as ${key} or ${oc.env:NAME}" if "it_cannot_be_parsed" in line else line
