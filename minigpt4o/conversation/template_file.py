"""Read a template's YAML file: every key is known and of its kind, or the error names file, key and mend."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.source import nearest

TEMPLATES = Path(__file__).parent / "templates"
Tree = dict[str, Any]

TEXT, MAYBE_TEXT, YES_NO, TEXTS = (str,), (str, type(None)), (bool,), (list,)
AROUND = {"before": TEXT, "again": MAYBE_TEXT, "behind_system": MAYBE_TEXT, "lead": TEXT, "after": TEXT}
AROUND_MEDIUM = {"before": TEXT, "after": TEXT}
ROLES = dict.fromkeys(("system", "user", "assistant"), AROUND)
MEDIA = dict.fromkeys(("image", "audio"), AROUND_MEDIUM)
WORDS = {"bos": YES_NO, "system": TEXT, "roles": ROLES, "media": MEDIA, "stop": TEXTS}
SERVING = {**WORDS, "joined": YES_NO, "forgets": YES_NO, "answer": TEXT}
SCHEMA: Mapping[str, Any] = {
    **WORDS,
    "about": TEXT,
    "reference": {"prompt_template": TEXT, "end_sym": TEXT},
    "compat": {"train": WORDS, "serve": SERVING},
    "examples": TEXTS,
}
_NAMED = {TEXT: "a text", MAYBE_TEXT: "a text or null", YES_NO: "true or false", TEXTS: "a list"}


def template_names() -> list[str]:
    """Names of the templates that come with the package."""
    return sorted(path.stem for path in TEMPLATES.glob("*.yaml"))


def find_template(name: str) -> Path:
    """The file of a template's name, or the path itself. Raises ConfigError with the nearest names."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else TEMPLATES / f"{name}.yaml"
    if not path.is_file():
        hint = nearest(name, template_names())
        mend = f"did you mean {hint[0]!r}?" if hint else f"known: {', '.join(template_names())}"
        raise ConfigError(f"unknown conversation template {name!r}; {mend} (or the path of a .yaml file)")
    return path


def read_template(path: Path) -> Tree:
    """The checked content of a template's file."""
    import yaml

    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a template is a mapping with `roles` and `media`; see {TEMPLATES / 'toy.yaml'}")
    _check(tree, SCHEMA, path, "")
    missing = [role for role in ("user", "assistant") if role not in tree.get("roles", {})]
    if missing:
        raise ConfigError(f"{path}: `roles` lacks {', '.join(missing)}")
    return tree


def overlaid(tree: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """The tree with the values of `over` laid on it, mapping by mapping."""
    laid = deepcopy(dict(tree))
    for key, value in over.items():
        inside = isinstance(value, Mapping) and isinstance(laid.get(key), Mapping)
        laid[key] = overlaid(laid[key], value) if inside else deepcopy(value)
    return laid


@cache
def reference_words() -> dict[tuple[str, str], str]:
    """(prompt_template, end_sym) as MiniGPT-4's YAML files write them -> name of the template that is meant."""
    found = {}
    for name in template_names():
        given = read_template(TEMPLATES / f"{name}.yaml").get("reference")
        if given is not None:
            found[given["prompt_template"], given["end_sym"]] = name
    return found


def _check(node: Mapping[str, Any], schema: Mapping[str, Any], path: Path, at: str) -> None:
    for key, value in node.items():
        where = f"{at}.{key}" if at else str(key)
        if key not in schema:
            hint = nearest(str(key), schema)
            mend = f"did you mean {hint[0]!r}?" if hint else f"known: {', '.join(sorted(schema))}"
            raise ConfigError(f"{path}: unknown key `{where}`; {mend}")
        wanted = schema[key]
        if isinstance(wanted, Mapping):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{path}: `{where}` is {value!r}, but must be a mapping of {', '.join(wanted)}")
            _check(value, wanted, path, where)
        elif not isinstance(value, wanted):
            raise ConfigError(f"{path}: `{where}` is {value!r}, but must be {_NAMED[wanted]}")
        elif key == "stop" and not all(isinstance(word, str) and word for word in value):
            raise ConfigError(f"{path}: `{where}` is {value!r}, but must be a list of texts that are not empty")
