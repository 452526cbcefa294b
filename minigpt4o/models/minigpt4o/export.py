"""Save a Minigpt4o together with its code: plain transformers then loads the folder where minigpt4o is not installed.

The reader then has to say that code from the folder may run (`trust_remote_code` of transformers).
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

HOME = __name__.rpartition(".")[0]
HERE = Path(__file__).parent
OURS = re.compile(rf"^(\s*)from {re.escape(HOME)}\.(\w+) import", re.MULTILINE)

WHOLE = {
    "AutoConfig": "configuration_minigpt4o.Minigpt4oConfig",
    "AutoModel": "modeling_minigpt4o.Minigpt4oModel",
    **dict.fromkeys(
        ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM"),
        "modeling_minigpt4o.Minigpt4oForConditionalGeneration",
    ),
}
TEXT = {
    "AutoConfig": "configuration_minigpt4o.Minigpt4oTextConfig",
    "AutoModel": "modeling_text.Minigpt4oTextModel",
    "AutoModelForCausalLM": "modeling_text.Minigpt4oForCausalLM",
}
MAPS = {"minigpt4o": WHOLE, "minigpt4o_text": TEXT}  # only the top configuration may carry a map
PARTS = {"feature_extractor": "AutoFeatureExtractor", "image_processor": "AutoImageProcessor"}


def relative(source: str, name: str) -> tuple[str, list[str]]:
    """A module's text with our imports made relative, and the modules that it needs."""
    text = OURS.sub(r"\1from .\2 import", source)
    needed = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            needed.append(node.module)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            if any(module.split(".")[0] == HOME.split(".")[0] for module in modules):
                raise ValueError(f"{name}.py, line {node.lineno}: {', '.join(modules)} cannot travel with the model")
    return text, needed


def bundle(modules: list[str]) -> dict[str, str]:
    """File name -> text of these modules and all that they need of this folder."""
    files: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if f"{name}.py" not in files:
            text, needed = relative((HERE / f"{name}.py").read_text(encoding="utf-8"), name)
            files[f"{name}.py"] = text
            waiting += needed
    return files


def place(part: Any) -> str | None:
    """ "module.Class" of an object of ours, None of others."""
    home, _, module = type(part).__module__.rpartition(".")
    return f"{module}.{type(part).__name__}" if home == HOME else None


def add_to_json(file: Path, change: dict[str, Any]) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    for key, value in change.items():
        values[key] = {**values.get(key, {}), **value} if key in values else value
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def export_with_code(model: Any, processor: Any, folder: str | Path) -> Path:
    """`save_pretrained` of the model and of its processor (or tokenizer, or None), plus the code and the maps to it."""
    folder = Path(folder)
    kind = model.config.model_type
    if kind not in MAPS:
        raise ValueError(f"a model of type {kind!r} cannot be exported; known: {', '.join(MAPS)}")
    model.save_pretrained(folder)
    add_to_json(folder / "config.json", {"auto_map": MAPS[kind]})
    used = list(MAPS[kind].values())
    if processor is not None:
        processor.save_pretrained(folder)
    own = place(processor)
    if own is not None:
        maps: dict[str, Any] = {"auto_map": {"AutoProcessor": own}}
        for name, auto_class in PARTS.items():
            part = place(getattr(processor, name, None))
            if part is not None:
                maps[name] = {"auto_map": {auto_class: part}}
        used += [target for entry in maps.values() for target in entry.get("auto_map", entry).values()]
        add_to_json(folder / "processor_config.json", maps)
    for file, text in bundle(sorted({target.split(".")[0] for target in used})).items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


__all__ = ["export_with_code"]
