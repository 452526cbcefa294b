"""Read a pickle that holds nothing but plain values (RefCOCO's refs), without ever running what a pickle may run.

The opcodes are read as data. Those that import, call or build objects are refused, whatever they name.
"""

from __future__ import annotations

import hashlib
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError

_VALUES = """
INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
"""
_PUSHED = frozenset(_VALUES.split())  # opcodes whose argument is the value itself
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = frozenset({"PROTO", "FRAME"})
_MARK = object()


def read_plain_pickle(path: Path) -> tuple[Any, str]:
    """(value, SHA-256 of the file). Lists, dicts, tuples, numbers, texts; anything else is a DataError."""
    raw = path.read_bytes()
    machine = _Machine()
    place = 0
    try:
        for opcode, argument, position in pickletools.genops(raw):
            place = position or 0
            if opcode.name == "STOP":
                return machine.result(), hashlib.sha256(raw).hexdigest()
            machine.step(opcode.name, argument)
    except _Refused as refused:
        raise DataError(
            f"{path}: byte {place}: this pickle wants to {refused}; only plain lists, dicts, numbers and texts are "
            "read, and nothing of it was run. Fetch the file again from its source"
        ) from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError, RecursionError) as error:
        raise DataError(f"{path}: byte {place}: damaged pickle: {error}") from error
    raise DataError(f"{path}: the pickle has no end; fetch the file again")


class _Refused(Exception):
    """What the pickle wanted to do."""


class _Machine:
    """The stack and the memo of pickle's little language, as far as plain values need them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        (value,) = self.stack
        return value

    def step(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            count = _TUPLES[name]
            self.stack[-count:] = [tuple(self._top(count))]
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("POP", "DUP"):
            self.stack[len(self.stack) - 1 :] = [] if name == "POP" else [self.stack[-1]] * 2
        elif name not in _NOTHING:
            self._gather(name)

    def _gather(self, name: str) -> None:
        """Opcodes that put values into containers."""
        if name in ("LIST", "TUPLE"):
            items = self._marked()
            self.stack.append(items if name == "LIST" else tuple(items))
        elif name == "DICT":
            self.stack.append(_pairs(self._marked()))
        elif name in ("APPEND", "APPENDS"):
            items = self._marked() if name == "APPENDS" else [self.stack.pop()]
            self._holder(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._marked() if name == "SETITEMS" else [self.stack.pop() for _ in range(2)][::-1]
            self._holder(dict).update(_pairs(items))
        else:
            raise _Refused(
                {"GLOBAL": "import code", "STACK_GLOBAL": "import code"}.get(name, f"build an object ({name})")
            )

    def _top(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("the stack is empty")
        return self.stack[-count:]

    def _marked(self) -> list[Any]:
        """What was pushed since the last mark, taken off with it."""
        start = next((i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK), -1)
        if start < 0:
            raise ValueError("a mark is missing")
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def _holder(self, kind: type) -> Any:
        holder = self.stack[-1]
        if type(holder) is not kind:
            raise ValueError(f"a {kind.__name__} is wanted, not a {type(holder).__name__}")
        return holder


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("a key without a value")
    return dict(zip(items[::2], items[1::2], strict=True))
