"""The size and manners of the code: small files, small functions, a first line that says why, nothing dangerous."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "minigpt4o").rglob("*.py"))
SOURCES = {file: file.read_text(encoding="utf-8") for file in FILES}
FULL = {file: text for file, text in SOURCES.items() if text.strip()}
TREES = {file: ast.parse(text) for file, text in FULL.items()}

MAX_FILE, MAX_MODELLING_FILE, MEDIAN_FILE = 300, 700, 120
MAX_FUNCTION, P90_FUNCTION = 70, 35
BANNED_CALLS = {"print", "eval", "exec", "compile", "__import__"}
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


def dotted(node: ast.expr) -> str:
    """`torch.load` of an attribute chain; `.load` of what a call returns."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def literal(call: ast.Call, keyword: str) -> object:
    """The literal given for a keyword of a call, else None."""
    return next((k.value.value for k in call.keywords if k.arg == keyword and isinstance(k.value, ast.Constant)), None)


def faults_of_call(node: ast.Call) -> Iterator[str]:
    name = dotted(node.func)
    if name in BANNED_CALLS:
        yield f"{name}()"
    if name in ("torch.load", "torch.jit.load") and literal(node, "weights_only") is not True:
        yield f"{name} without weights_only=True"
    if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"):
        yield name
    if literal(node, "shell") is True or name in ("os.system", "os.popen"):
        yield "a shell"
    if literal(node, "allow_pickle") is True:
        yield "allow_pickle=True"
    if name.endswith(".extractall") and literal(node, "filter") is None:
        yield "extractall without filter"
    if any(k.arg == "trust_remote_code" and literal(node, "trust_remote_code") is not False for k in node.keywords):
        yield "trust_remote_code"


def faults(tree: ast.AST) -> Iterator[str]:
    """What must not stand in this package, with its line."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Call):
            yield from (f"line {line}: {what}" for what in faults_of_call(node))
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"line {line}: bare except"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            yield from (f"line {line}: import {n}" for n in names if n.split(".")[0] in BANNED_MODULES)
            if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
                yield f"line {line}: star import"
        elif isinstance(node, ast.Attribute) and node.attr == "LOAD_TRUNCATED_IMAGES":
            yield f"line {line}: LOAD_TRUNCATED_IMAGES"


def functions() -> list[tuple[int, str]]:
    found = []
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                found.append((node.end_lineno - node.lineno + 1, f"{named(file)}:{node.lineno} {node.name}"))
    return found


def test_files_are_short() -> None:
    long = []
    for file, text in SOURCES.items():
        limit = MAX_MODELLING_FILE if file.name.startswith(("modeling_", "modular_")) else MAX_FILE
        if len(text.splitlines()) > limit:
            long.append(f"{named(file)}: {len(text.splitlines())} lines, at most {limit}")
    assert not long, "\n".join(long)


def test_the_median_file_is_short() -> None:
    assert statistics.median(len(text.splitlines()) for text in FULL.values()) <= MEDIAN_FILE


def test_functions_are_short() -> None:
    lengths = functions()
    long = [f"{name}: {length} lines" for length, name in lengths if length > MAX_FUNCTION]
    assert not long, "\n".join(long)
    assert statistics.quantiles([length for length, _ in lengths], n=10)[-1] <= P90_FUNCTION


def test_every_module_says_what_it_is_for() -> None:
    silent = [named(file) for file, tree in TREES.items() if not (ast.get_docstring(tree) or "").strip()]
    assert not silent, "\n".join(silent)


def test_nothing_dangerous_or_rude_stands_in_the_package() -> None:
    found = [f"{named(file)}: {fault}" for file, tree in TREES.items() for fault in faults(tree)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "print(1)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "yaml.load(f)",
        "subprocess.run(c, shell=True)",
        "import pickle",
        "from pickle import loads",
        "try:\n    pass\nexcept:\n    pass",
        "eval('1')",
        "from x import *",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
        "np.load(p, allow_pickle=True)",
        "tar.extractall(p)",
    ],
)
def test_the_check_sees_a_fault(code: str) -> None:
    assert list(faults(ast.parse(code)))


def test_what_is_allowed_is_not_called_a_fault() -> None:
    assert not list(
        faults(ast.parse("torch.load(p, weights_only=True); model.to(d).eval(); re.compile('x'); f.load(p)"))
    )
