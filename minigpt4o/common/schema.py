"""Read the annotation of a `Config` field and fit a YAML value to it, strictly but humanely."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from minigpt4o.common.source import nearest
from minigpt4o.common.yaml_places import Node, kind_of

_NAMES = {"Sequence": "list", "Mapping": "dict", "Dict": "dict", "List": "list", "Tuple": "tuple", "None": "None"}
_PLURAL = {"str": "texts", "int": "ints", "float": "floats", "bool": "bools"}


@dataclass(frozen=True)
class Type:
    """A parsed annotation: `list[str]` is Type("list", (Type("str"),)); a Literal keeps its values in `args`."""

    name: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        if self.name == "literal":
            return "one of " + ", ".join(str(a) for a in self.args)
        if self.name == "union":
            return " or ".join(str(a) for a in self.args)
        if self.name == "list":
            return f"a list of {_PLURAL.get(self.args[0].name, self.args[0])}" if self.args else "a list"
        if self.name == "tuple":
            return f"a list of {len(self.args)} values" if self.args and self.args[-1].name != "..." else "a list"
        words = {"None": "null", "dict": "a mapping", "Any": "anything", "str": "text", "Part": "a name or a mapping"}
        return words.get(self.name, self.name)


@lru_cache(maxsize=1024)
def parse_type(annotation: str) -> Type:
    """The annotation as written in the source."""
    return _type(ast.parse(annotation, mode="eval").body)


def _type(node: ast.expr) -> Type:
    if isinstance(node, ast.Constant) and node.value is None:
        return Type("None")
    if isinstance(node, ast.Constant) and node.value is ...:
        return Type("...")
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return parse_type(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([_type(node.left), _type(node.right)])
    if isinstance(node, ast.Subscript):
        return _subscript(node)
    name = node.attr if isinstance(node, ast.Attribute) else ast.unparse(node)
    return Type(_NAMES.get(name, name))


def _subscript(node: ast.Subscript) -> Type:
    name = _type(node.value).name
    items = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Literal":
        return Type("literal", tuple(ast.literal_eval(item) for item in items))
    if name == "Optional":
        return _union([_type(items[0]), Type("None")])
    if name == "Union":
        return _union([_type(item) for item in items])
    return Type(name, tuple(_type(item) for item in items))


def _union(members: list[Type]) -> Type:
    flat: list[Type] = []
    for member in members:
        flat += list(member.args) if member.name == "union" else [member]
    return Type("union", tuple(flat))


class Misfit(Exception):
    """A value does not fit its type. `found` holds (node, keys below the field, what is wrong)."""

    def __init__(self, found: list[tuple[Node, tuple[str, ...], str]]) -> None:
        super().__init__(found[0][2])
        self.found = found


def fit(node: Node, kind: Type, exact: bool = False) -> Any:
    """The Python value of `node` as `kind`; raises Misfit. With `exact`, no int for a float, no number for a text."""
    rule = _RULES.get(kind.name)
    if rule is None:
        raise Misfit([(node, (), f"its class declares the unknown type {kind.name!r}")])
    return rule(node, kind, exact)


def _bad(node: Node, what: str) -> Misfit:
    return Misfit([(node, (), what)])


def _wanted(node: Node, kind: Type, mend: str = "") -> Misfit:
    if node.is_map or node.is_list or node.value is not None:
        got = kind_of(node)
    else:
        got = "null"
        mend = mend or "null is allowed only where the type says so; leave the key out to get the default"
    return _bad(node, f"{kind} is wanted here, not {got}" + (f"; {mend}" if mend else ""))


def _bool(node: Node, kind: Type, exact: bool) -> bool:
    if isinstance(node.value, bool):
        return node.value
    text = node.text.lower() if not (node.is_map or node.is_list) else ""
    mend = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}.get(text)
    if text in ("true", "false"):
        mend = f"{text} without quotes"
    raise _wanted(node, kind, f"write {mend}" if mend else "write true or false")


def _int(node: Node, kind: Type, exact: bool) -> int:
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return node.value
    if node.trap == "octal":
        raise _wanted(node, kind, f"some YAML readers take it as octal; write {node.text.lstrip('0') or '0'}")
    if node.trap == "sexagesimal":
        raise _wanted(node, kind, "some YAML readers take it as a base-60 number; write a plain number")
    if isinstance(node.value, float) and math.isfinite(node.value) and node.value == int(node.value):
        raise _wanted(node, kind, f"write {int(node.value)}")
    if isinstance(node.value, str) and node.value.strip().lstrip("-").isdigit():
        raise _wanted(node, kind, "take the quotes away")
    raise _wanted(node, kind)


def _float(node: Node, kind: Type, exact: bool) -> float:
    value = node.value
    if isinstance(value, float) and not math.isnan(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and not exact:
        return float(value)
    if node.trap in ("octal", "sexagesimal"):
        raise _wanted(node, kind, "YAML readers disagree about this spelling; write a plain number")
    if isinstance(value, str) and not node.trap and not exact:
        try:
            number = float(value)
        except ValueError:
            raise _wanted(node, kind) from None
        if math.isfinite(number):
            return number
    raise _wanted(node, kind)


def _str(node: Node, kind: Type, exact: bool) -> str:
    if node.trap == "bool" or isinstance(node.value, bool):
        raise _wanted(node, kind, f'YAML readers take it for a bool; if the word is meant, write "{node.text}"')
    if isinstance(node.value, str):
        return node.value
    if isinstance(node.value, int | float) and not exact:
        return node.text  # a name such as 2024 is meant as it was written
    raise _wanted(node, kind, 'write "" for an empty text' if node.value is None else "")


def _none(node: Node, kind: Type, exact: bool) -> None:
    if node.value is not None:
        raise _wanted(node, kind)


def _any(node: Node, kind: Type, exact: bool) -> Any:
    if node.is_map:
        return {key: _any(child, kind, exact) for key, child in node.value.items()}
    if node.is_list:
        return [_any(child, kind, exact) for child in node.value]
    if node.trap:
        raise _bad(node, f'YAML readers disagree about {node.text}; write "{node.text}" in quotes, or another number')
    return node.value


def _literal(node: Node, kind: Type, exact: bool) -> Any:
    for choice in kind.args:
        if type(choice) is type(node.value) and choice == node.value and not (node.trap and not node.quoted):
            return choice
        if isinstance(choice, str) and node.text == choice and not (node.is_map or node.is_list):
            return choice
    close = nearest(node.text, [str(a) for a in kind.args], n=1) if node.text else []
    raise _wanted(node, kind, f"did you mean {close[0]!r}?" if close else "")


def _list(node: Node, kind: Type, exact: bool) -> list[Any]:
    if not node.is_list:
        mend = f"write [{node.text}]" if node.text and not node.is_map else ""
        raise _wanted(node, kind, mend)
    inner = kind.args[0] if kind.args else Type("Any")
    return _each([(str(i), child, inner) for i, child in enumerate(node.value)], exact)


def _tuple(node: Node, kind: Type, exact: bool) -> tuple[Any, ...]:
    if not node.is_list:
        raise _wanted(node, kind)
    kinds = list(kind.args) or [Type("Any"), Type("...")]
    if kinds[-1].name == "...":
        kinds = [kinds[0]] * len(node.value)
    if len(kinds) != len(node.value):
        raise _bad(node, f"{len(kinds)} values are wanted here, not {len(node.value)}")
    return tuple(_each([(str(i), c, k) for i, (c, k) in enumerate(zip(node.value, kinds, strict=True))], exact))


def _dict(node: Node, kind: Type, exact: bool) -> dict[Any, Any]:
    if not node.is_map:
        raise _wanted(node, kind)
    key_kind, inner = kind.args if kind.args else (Type("str"), Type("Any"))
    values = _each([(key, child, inner) for key, child in node.value.items()], exact)
    keys = [_key(child, key, key_kind) for key, child in node.value.items()]
    return dict(zip(keys, values, strict=True))


def _key(child: Node, key: str, kind: Type) -> Any:
    if kind.name == "int":
        if not key.lstrip("-").isdigit():
            raise Misfit([(child, (key,), f"the key {key!r} must be an int")])
        return int(key)
    if kind.name == "literal" and key not in kind.args:
        close = nearest(key, [str(a) for a in kind.args], n=1)
        mend = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(map(str, kind.args))}"
        raise Misfit([(child, (key,), f"unknown key {key!r}; {mend}")])
    return key


def _each(items: list[tuple[str, Node, Type]], exact: bool) -> list[Any]:
    values: list[Any] = []
    found: list[tuple[Node, tuple[str, ...], str]] = []
    for key, child, kind in items:
        try:
            values.append(fit(child, kind, exact))
        except Misfit as misfit:
            found += [(node, (key, *keys), what) for node, keys, what in misfit.found]
    if found:
        raise Misfit(found)
    return values


def _fit_union(node: Node, kind: Type, exact: bool) -> Any:
    for strictly in (True, False) if not exact else (True,):
        for member in kind.args:
            try:
                return fit(node, member, strictly)
            except Misfit:
                continue
    if node.value is None and not any(m.name == "None" for m in kind.args):
        raise _wanted(node, kind)
    containers = {"list": node.is_list, "tuple": node.is_list, "dict": node.is_map}
    alike = [m for m in kind.args if containers.get(m.name)]
    real = [m for m in kind.args if m.name != "None"]
    if len(alike) == 1 or (len(real) == 1 and real[0].name in ("bool", "int", "float")):
        try:
            return fit(node, (alike or real)[0], exact)
        except Misfit as misfit:
            if alike:
                raise
            raise _bad(node, misfit.found[0][2].replace(str(real[0]), str(kind), 1)) from None
    raise _wanted(node, kind)


_RULES: dict[str, Callable[[Node, Type, bool], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": _str,
    "None": _none,
    "Any": _any,
    "literal": _literal,
    "list": _list,
    "tuple": _tuple,
    "dict": _dict,
    "union": _fit_union,
}
