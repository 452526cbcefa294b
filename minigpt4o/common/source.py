"""Read registered classes and their `Config` fields from source text, so that checking a YAML imports no torch."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import io
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import ConfigError

REQUIRED: Any = dataclasses.MISSING


@dataclass(frozen=True)
class FieldSpec:
    """One value a user may set."""

    name: str
    type: str  # the annotation as written, e.g. "int | None"
    default: Any  # the value, or REQUIRED
    doc: str
    line: int
    part_kind: str = ""  # registry kind if the value is itself a part
    many: bool = False  # a mapping of free names to parts

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


@dataclass(frozen=True)
class Entry:
    """A registered class as its source tells it."""

    kind: str
    names: tuple[str, ...]
    module: str
    class_name: str
    file: str
    line: int
    doc: str  # first line of the docstring
    fields: tuple[FieldSpec, ...]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def nearest(word: str, known: Iterable[str], n: int = 2) -> list[str]:
    """Up to `n` known words close to `word`, best first."""
    return difflib.get_close_matches(word, sorted(known), n=n, cutoff=0.6)


def read_entries(file: Path, module: str) -> list[Entry]:
    """All registered classes and functions of one source file."""
    stat = file.stat()
    return _read_entries(str(file), module, stat.st_mtime_ns, stat.st_size)


def fields_of_class(file: Path, class_name: str) -> tuple[FieldSpec, ...]:
    """The fields of one plain dataclass of a source file."""
    text = file.read_text(encoding="utf-8")
    node = next(n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == class_name)
    return tuple(_fields_of_body(node, _comments(text)))


@lru_cache(maxsize=4096)
def _read_entries(file: str, module: str, mtime: int, size: int) -> list[Entry]:
    text = Path(file).read_text(encoding="utf-8")
    if "registry.register" not in text:
        return []
    try:
        tree = ast.parse(text, filename=file)
    except SyntaxError as error:
        raise ConfigError(f"{file}:{error.lineno}: not valid Python: {error.msg}") from None
    comments = _comments(text)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = []
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            named = _registered_as(decorator)
            if named is not None:
                doc = (ast.get_docstring(node) or "").strip().split("\n")[0]
                try:
                    fields = _config_fields(node, classes, comments) if isinstance(node, ast.ClassDef) else ()
                except ConfigError as error:
                    raise ConfigError(f"{file}:{error}") from None
                found.append(Entry(named[0], named[1], module, node.name, file, node.lineno, doc, fields))
    return found


def _registered_as(decorator: ast.expr) -> tuple[str, tuple[str, ...]] | None:
    if not (isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute)):
        return None
    owner = decorator.func.value
    if not (isinstance(owner, ast.Name) and owner.id == "registry"):
        return None
    words = [a.value for a in decorator.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    method = decorator.func.attr
    if method == "register" and len(words) >= 2:
        return words[0], tuple(words[1:])
    if method.startswith("register_") and words:
        return method.removeprefix("register_"), tuple(words)
    return None


def _config_fields(
    node: ast.ClassDef, classes: dict[str, ast.ClassDef], comments: dict[int, str]
) -> tuple[FieldSpec, ...]:
    """Fields of the nested `Config`; its bases in the same file (`Base.Config` or a plain class) come first."""
    config = next((n for n in node.body if isinstance(n, ast.ClassDef) and n.name == "Config"), None)
    if config is None:
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in classes:
                return _config_fields(classes[base.id], classes, comments)
        return ()
    fields: dict[str, FieldSpec] = {}
    for base in config.bases:
        inherited: tuple[FieldSpec, ...] = ()
        if isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name) and base.value.id in classes:
            inherited = _config_fields(classes[base.value.id], classes, comments)
        elif isinstance(base, ast.Name) and base.id in classes:
            inherited = tuple(_fields_of_body(classes[base.id], comments))
        fields.update({f.name: f for f in inherited})
    fields.update({f.name: f for f in _fields_of_body(config, comments)})
    return tuple(fields.values())


def _fields_of_body(config: ast.ClassDef, comments: dict[int, str]) -> list[FieldSpec]:
    found = []
    for node in config.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        last = node.end_lineno or node.lineno
        doc = next((comments[line] for line in range(node.lineno, last + 1) if line in comments), "")
        try:
            default, kind, many, part_doc = _default_of(node.value)
        except ValueError:
            what = f"the default of {node.target.id!r} is not a literal: {ast.unparse(node)}"
            raise ConfigError(f"{node.lineno}: {what}") from None
        found.append(
            FieldSpec(node.target.id, ast.unparse(node.annotation), default, part_doc or doc, node.lineno, kind, many)
        )
    return found


def _default_of(value: ast.expr | None) -> tuple[Any, str, bool, str]:
    """(default, part kind, many, doc). A default must be a literal, `field(default_factory=...)` or `part(...)`."""
    if value is None:
        return REQUIRED, "", False, ""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        keywords = {k.arg: k.value for k in value.keywords if k.arg}
        if value.func.id == "part":
            kind = ast.literal_eval(value.args[0] if value.args else keywords["kind"])
            many = bool(ast.literal_eval(keywords["many"])) if "many" in keywords else False
            doc = ast.literal_eval(keywords["doc"]) if "doc" in keywords else ""
            given = value.args[1] if len(value.args) > 1 else keywords.get("default")
            default = {} if many else REQUIRED if given is None else ast.literal_eval(given)
            return default, kind, many, doc
        if value.func.id == "field":
            factory = keywords.get("default_factory")
            if isinstance(factory, ast.Name) and factory.id in ("list", "dict", "tuple"):
                return {"list": [], "dict": {}, "tuple": ()}[factory.id], "", False, ""
            if isinstance(factory, ast.Lambda):
                return ast.literal_eval(factory.body), "", False, ""
            return (ast.literal_eval(keywords["default"]) if "default" in keywords else REQUIRED), "", False, ""
    return ast.literal_eval(value), "", False, ""


def _comments(text: str) -> dict[int, str]:
    """Line number -> the comment that ends the line."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}


def entry_of_class(kind: str, name: str, cls: Any) -> Entry:
    """The same facts of a class that is already imported (defined in a notebook or a test)."""
    try:
        file = inspect.getsourcefile(cls) or ""
        for entry in read_entries(Path(file), cls.__module__):
            if entry.kind == kind and name in entry.names and entry.class_name == cls.__name__:
                return entry
    except (TypeError, OSError):
        file = ""
    config = getattr(cls, "Config", None)
    specs = []
    for f in dataclasses.fields(config) if config is not None else ():
        kind_of, many = f.metadata.get("kind", ""), f.metadata.get("many", False)
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if kind_of and default is not REQUIRED and default is not None and not many:
            default = default.name
        type_name = f.type if isinstance(f.type, str) else getattr(f.type, "__name__", str(f.type))
        specs.append(FieldSpec(f.name, type_name, default, f.metadata.get("doc", ""), 0, kind_of, many))
    doc = (inspect.getdoc(cls) or "").split("\n")[0]
    return Entry(kind, (name,), cls.__module__, cls.__name__, file, 0, doc, tuple(specs))
