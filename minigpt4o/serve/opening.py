"""From what a person names (a preset, a YAML, a folder of a run) to a built model with its weights and processors."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt4o.common.config import Settings, load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.files import CHECKPOINTS, find_checkpoint
from minigpt4o.common.layers import lay_options, read_options
from minigpt4o.common.loading import Loading
from minigpt4o.common.problems import Place, Problems
from minigpt4o.common.registry import Part, registry
from minigpt4o.common.yaml_places import from_plain
from minigpt4o.serve.supply import supplied
from minigpt4o.serve.zoo import Family, family_of

log = logging.getLogger(__name__)

RUN_CONFIG = "config.yaml"  # of a run, as it was resolved; its model.ckpt is what the run began with
POINTERS = ("best", "last")  # files of a run that name one of its checkpoints


@dataclass(frozen=True)
class Source:
    """What is opened: its settings, and the names its checkpoint may have."""

    settings: Settings
    checkpoints: tuple[str, ...] = ()  # any of these is meant by model.ckpt
    origin: str = ""  # where such a checkpoint comes from


def source_of_preset(
    arch: str, model_type: str, checkpoint: str | None = None, options: Sequence[str] = (), profile: str = ""
) -> Source:
    """A preset of `configs/models`. `checkpoint`: None = the published one, "" = none, else a path or a name."""
    family = family_of(arch, model_type)
    tree: dict[str, Any] = {"model": {"arch": arch, "model_type": model_type}, "run": {"runner": "chat"}}
    if family is not None:
        tree["model"]["template"] = family.template
    if checkpoint:
        tree["model"]["ckpt"] = checkpoint
    settings = settings_of(tree, f"{arch} {model_type}", with_profile(options, profile))
    published = family is not None and checkpoint is None and not settings.model.values.get("ckpt")
    return Source(settings, family.checkpoints, family.source) if published and family else Source(settings)


def source_of_family(family: Family, checkpoint: str | None, options: Sequence[str], profile: str) -> Source:
    """The preset and checkpoint of a published model."""
    return source_of_preset(family.arch, family.model_type, checkpoint, options, profile)


def source_of_path(path: str | Path, checkpoint: str | None, options: Sequence[str], profile: str) -> Source:
    """A YAML file, or what a run of ours left: its folder, its job's, a step's, its config.yaml, `best` or `last`.

    What a run left is opened with its newest checkpoint (or the one named), not with the one that it began with.
    """
    place = Path(path).expanduser()
    if place.name == RUN_CONFIG and checkpoint is None and (place.parent / CHECKPOINTS).is_dir():
        place = place.parent
    if place.is_file() and place.name not in POINTERS:
        more = [] if checkpoint is None else [f"model.ckpt={checkpoint}"]
        return Source(load_settings(place, [*more, *with_profile(options, profile)]))
    step = find_checkpoint(place)
    config = next((f for f in (p / RUN_CONFIG for p in (step, *step.parents[:3])) if f.is_file()), None)
    if config is None:
        raise ConfigError(f"{place}: no {RUN_CONFIG} beside the checkpoint {step}; name the YAML of its run instead")
    chosen = str(step) if checkpoint is None else checkpoint
    return Source(load_settings(config, [f"model.ckpt={chosen}", *with_profile(options, profile)]))


def is_path(name: str | Path) -> bool:
    """Whether a person means a file or folder of theirs, and not a known name."""
    return isinstance(name, Path) or Path(name).exists() or name.endswith((".yaml", ".yml")) or "/" in name


def with_profile(options: Sequence[str], profile: str) -> list[str]:
    """The options with the profile set in front of them."""
    return [*([f"model.profile={profile}"] if profile else []), *options]


def settings_of(tree: Mapping[str, Any], label: str, options: Sequence[str]) -> Settings:
    """Settings of a plain tree that stands in no file; `label` is what errors call it."""
    problems = Problems()
    given, lost = read_options(list(options))
    for word in lost:
        problems.add(Place("option", f"options {word!r}"), "", f"{word!r} is no key=value")
    root = lay_options(from_plain(dict(tree), Place("preset", label)), given, problems)
    return Loading(root, problems, label, ["model"]).settings()


def build(source: Source, device: Any = None, weights: str | Path | None = None) -> Any:
    """The model on its device in eval mode. Raises ConfigError naming all missing weight files before it builds."""
    from minigpt4o.runners.hosts import tell_other_hosts

    place = device_of(str(device or "auto"))
    chosen = supplied(source.settings.model, weights, source.checkpoints, source.origin)
    values = dict(chosen.values)
    if place.type == "cpu" and values.get("precision", "auto") == "auto":
        values["precision"] = "fp32"
    model = registry.build(dataclasses.replace(chosen, values=values))
    tell_other_hosts(model, values.get("ckpt") or "")
    return model.to(place).eval()


def device_of(name: str) -> Any:
    """The torch device a user's word means; `auto` is the first GPU if there is one."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device is {name!r}, but no GPU can be used here; write `auto` or `cpu`")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: {name!r} is no device; write auto, cpu, cuda or cuda:1") from error


# ---- processors ----


def image_processors(settings: Settings | None, model: Any) -> dict[str, Part]:
    """`train` and `eval`: of the run, else of the first data set that has any, else plain ones at the model's size."""
    chosen: dict[str, Part] = {}
    if settings is not None:
        own = settings.run.values.get("vis_processor")
        sets = [spec.vis_processor for spec in settings.datasets.values() if spec.vis_processor]
        if isinstance(own, Part):
            chosen["eval"] = own
        elif sets:
            chosen.update({str(use): part for use, part in sets[0].items()})
    side = image_size_of(model)
    profile = str(getattr(model.config, "profile", "default"))
    for use in ("train", "eval"):
        other = chosen.get("train" if use == "eval" else "eval")
        chosen.setdefault(use, other or _plain(f"blip2_image_{use}", side, profile))
    return {use: chosen[use] for use in ("train", "eval")}


def _plain(name: str, side: int, profile: str) -> Part:
    known = {field.name for field in registry.entry("processor", name).fields}
    values: dict[str, Any] = {"image_size": side}
    return Part("processor", name, {**values, "profile": profile} if "profile" in known else values)


def image_size_of(model: Any) -> int:
    """Side of the pictures the model's image encoder takes. Raises ConfigError if it takes none."""
    if "image" not in model.encoders:
        raise ConfigError(f"this model takes no pictures; its encoders: {', '.join(model.encoders) or 'none'}")
    return int(model.encoders["image"].example().shape[-1])
