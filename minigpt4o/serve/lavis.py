"""LAVIS's way in: `load_model_and_preprocess(name, model_type, is_eval, device)`, `load_model`, `model_zoo`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common import presets
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, registry
from minigpt4o.common.source import nearest
from minigpt4o.serve.opening import Source, build, image_processors, is_path, source_of_path, source_of_preset
from minigpt4o.serve.pictures import VisProcessor
from minigpt4o.serve.served import ServedModel

Processors = dict[str, Any]


def load_model_and_preprocess(
    name: str | Path,
    model_type: str = "base",
    is_eval: bool = False,
    device: Any = "cpu",
    *,
    weights: str | Path | None = None,
    checkpoint: str | None = None,
    options: Sequence[str] = (),
    profile: str = "",
) -> tuple[ServedModel, Processors, Processors]:
    """(model, vis_processors, txt_processors), processors by "train" and "eval".

    `name` and `model_type` are those of `model_zoo`; `name` may also be a checkpoint, run or job folder of your own
    training, or a YAML file. `weights` is the folder of the weight files (else MINIGPT4O_WEIGHTS), `checkpoint` the
    model's own file (None: the published one; "": none, the bridge starts fresh), `options` `a.b=c` words of a YAML,
    `profile` "compat" for the reference's prompts id for id.
    """
    source = _source(name, model_type, checkpoint, options, profile)
    model = _open(source, is_eval, device, weights)
    vis, txt = load_preprocess({"vis_processor": image_processors(source.settings, model.aligned), **_texts(source)})
    return model, vis, txt


def load_model(
    name: str | Path,
    model_type: str = "base",
    is_eval: bool = False,
    device: Any = "cpu",
    checkpoint: str | None = None,
    *,
    weights: str | Path | None = None,
    options: Sequence[str] = (),
    profile: str = "",
) -> ServedModel:
    """The model alone; see `load_model_and_preprocess`."""
    return _open(_source(name, model_type, checkpoint, options, profile), is_eval, device, weights)


def load_preprocess(config: Mapping[str, Any]) -> tuple[Processors, Processors]:
    """Processors of `{"vis_processor": {"train": {...}, "eval": {...}}, "text_processor": {...}}`.

    A node is a name, a mapping with `name` and its values, or a `Part`.
    """
    vis = {use: VisProcessor(_part(node)) for use, node in (config.get("vis_processor") or {}).items() if node}
    texts = config.get("text_processor") or {}
    txt: dict[str, Callable[[str], str]] = {use: registry.build(_part(node)) for use, node in texts.items() if node}
    return vis, txt


def _part(node: Any) -> Part:
    if isinstance(node, Part):
        return node
    if isinstance(node, str):
        node = {"name": node}
    values = {str(key): value for key, value in dict(node).items() if key != "name"}
    known = {field.name for field in registry.entry("processor", node["name"]).fields}
    for key in values:
        if key not in known:
            close = nearest(key, sorted(known))
            mend = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
            raise ConfigError(f"processor {node['name']!r} takes no {key!r}; {mend}")
    return Part("processor", node["name"], values)


def _texts(source: Source) -> dict[str, Any]:
    found = next((s.text_processor for s in source.settings.datasets.values() if s.text_processor), None) or {}
    some = next(iter(found.values()), Part("processor", "blip_caption"))
    return {"text_processor": {use: found.get(use, some) for use in ("train", "eval")}}


def _source(name: str | Path, model_type: str, checkpoint: str | None, options: Sequence[str], profile: str) -> Source:
    known = model_zoo.types
    if str(name) not in known and is_path(name):
        return source_of_path(name, checkpoint, options, profile)
    if str(name) not in known:
        close = nearest(str(name), list(known))
        mend = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        raise ConfigError(f"unknown model {str(name)!r}; {mend}")
    types = known[str(name)]
    if model_type == "base" and len(types) == 1:
        model_type = types[0]
    if model_type not in types:
        close = nearest(model_type, types)
        mend = f"did you mean {close[0]!r}?" if close else f"its types: {', '.join(types)}"
        raise ConfigError(f"unknown model_type {model_type!r} of {str(name)!r}; {mend}")
    return source_of_preset(str(name), model_type, checkpoint, options, profile)


def _open(source: Source, is_eval: bool, device: Any, weights: str | Path | None) -> ServedModel:
    model = ServedModel(build(source, device, weights))
    return model.eval() if is_eval else model.train()


class ModelZoo:
    """Architectures and their types: print it, or iterate over (name, types)."""

    @property
    def types(self) -> dict[str, list[str]]:
        """Architecture -> model types that have a preset."""
        archs = sorted(registry.names("model"), key=len, reverse=True)
        found: dict[str, list[str]] = {}
        for preset in presets.names("models", registry.plugins):
            arch = next((a for a in archs if preset.startswith(f"{a}_")), None)
            if arch is not None:
                found.setdefault(arch, []).append(preset.removeprefix(f"{arch}_"))
        return dict(sorted(found.items()))

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        return iter(self.types.items())

    def __len__(self) -> int:
        return sum(map(len, self.types.values()))

    def __repr__(self) -> str:
        line = "=" * 50
        rows = [f"{name:<30} {', '.join(types)}" for name, types in self]
        return "\n".join([line, f"{'Architectures':<30} Types", line, *rows])


model_zoo = ModelZoo()
