"""Versions: of Python and of every package, against the bounds that the installed package states itself."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from minigpt4o.serve.doctor import Check

PACKAGE = "minigpt4o"
TESTED = ((3, 11), (3, 12))
# Extra -> what goes without it.
EXTRAS = {
    "demo": "the chat page",
    "serve": "the HTTP API",
    "train": "DeepSpeed, TensorBoard and wandb",
    "quantize": "8 and 4 bit language models",
    "parquet": "Parquet and Arrow files",
    "ja": "Japanese words in metrics (characters are used)",
    "test": "the tests",
}
TORCH_BUILDS = ("torch", "torchvision", "torchaudio")
COMPILED = (*TORCH_BUILDS, "numpy", "PIL.Image", "soundfile", "tokenizers", "safetensors.torch", "sentencepiece")
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def python() -> Iterator[Check]:
    """The interpreter."""
    version = sys.version_info[:2]
    told = f"{platform.python_version()} ({sys.executable})"
    if version < TESTED[0]:
        yield Check("python", "bad", told, f"install Python {TESTED[0][0]}.{TESTED[0][1]} or newer")
    elif version not in TESTED:
        yield Check("python", "warn", told, "tested are " + ", ".join(f"{a}.{b}" for a, b in TESTED))
    else:
        yield Check("python", "ok", told)


def installed() -> Iterator[Check]:
    """Packages that nothing goes without."""
    wanted = [line for line in _required() if "extra ==" not in line]
    if not wanted:
        yield Check("packages", "bad", f"{PACKAGE} is not installed in this Python", "pip install -e '.[all]'")
        return
    wrong = [check for line in wanted if (check := _compared(line, "bad"))]
    yield from wrong
    if not wrong:
        yield Check("packages", "ok", f"all {len(wanted)} within their bounds: {_told(wanted)}")
    apart = list(_apart_from_tested())
    if apart:
        more = f" and {len(apart) - 6} more" if len(apart) > 6 else ""
        told = f"other versions than were tested together: {', '.join(apart[:6])}{more}"
        yield Check("tested", "warn", told, f"pip install -c {CONSTRAINTS.name} -e '.[all]'")


def loads() -> Iterator[Check]:
    """Packages with compiled parts: builds that do not belong together have right versions and yet cannot be loaded."""
    broken = []
    for name in COMPILED:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  whatever a broken build raises
            broken.append(name)
            told = f"{name} is installed, but cannot be loaded: {type(error).__name__}: {_first_line(error)}"
            yield Check(f"load {name}", "bad", told, _together(name))
    if not broken:
        yield Check("load", "ok", f"{', '.join(COMPILED)} can be loaded")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:300]


def _together(name: str) -> str:
    """The mend: torch and what is built upon it come from one index, at versions that belong together."""
    if name not in TORCH_BUILDS:
        return f"pip install --force-reinstall --no-deps {name}"
    wanted = {line.split(">=")[0]: line for line in _required() if "extra" not in line}
    lines = " ".join(f"'{wanted.get(build, build)}'" for build in TORCH_BUILDS)
    return f"install these together, from one index, so that their CUDA is the same: pip install -U {lines}"


def extras() -> Iterator[Check]:
    """Packages that only some commands need."""
    for name, use in EXTRAS.items():
        lines = [line for line in _required() if f'extra == "{name}"' in line.replace("'", '"')]
        wrong = [check for line in lines if (check := _compared(line, "warn"))]
        if wrong:
            told = f"{'; '.join(check.told for check in wrong)}; needed for {use}"
            yield Check(f"extra {name}", "warn", told, f"pip install '{PACKAGE}[{name}]' where you need it")


def _required() -> list[str]:
    try:
        return list(metadata.requires(PACKAGE) or [])
    except metadata.PackageNotFoundError:
        return []


def _compared(line: str, state: str) -> Check | None:
    """What is wrong with one requirement; None if nothing is."""
    from packaging.requirements import Requirement

    wanted = Requirement(line)
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return Check(wanted.name, state, f"{wanted.name} is missing", f"pip install '{wanted.name}{wanted.specifier}'")  # type: ignore[arg-type]
    if not wanted.specifier.contains(found.split("+")[0], prereleases=True):
        told = f"{wanted.name} {found} is out of bounds ({wanted.specifier})"
        return Check(wanted.name, state, told, f"pip install '{wanted.name}{wanted.specifier}'")  # type: ignore[arg-type]
    return None


def _told(lines: list[str]) -> str:
    from packaging.requirements import Requirement

    names = [name for name in ("torch", "transformers", "timm", "peft") if name in {Requirement(w).name for w in lines}]
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def _apart_from_tested() -> Iterator[str]:
    """`name found (tested)` of packages at other versions than constraints.txt, where that file is here."""
    if not CONSTRAINTS.is_file():
        return
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        name, _, tested = line.partition("==")
        if not tested or name.startswith("#"):
            continue
        try:
            found = metadata.version(name.strip())
        except metadata.PackageNotFoundError:
            continue
        if found.split("+")[0] != tested.split(";")[0].strip().split("+")[0]:
            yield f"{name} {found} ({tested.split(';')[0].strip()})"
