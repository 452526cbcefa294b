"""What a person names (a known set, a YAML, a file of their own) as checked data sets with builders by split."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common import presets
from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.layers import lay_options, read_options
from minigpt4o.common.loading import Loading
from minigpt4o.common.nodes import DatasetSpec
from minigpt4o.common.problems import Place, Problems
from minigpt4o.common.registry import Part, registry
from minigpt4o.common.settings import Settings
from minigpt4o.common.source import nearest
from minigpt4o.common.yaml_places import from_plain

SPLITS = ("train", "val", "test")
SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz")


def chosen_sets(args: argparse.Namespace) -> dict[str, DatasetSpec]:
    """The data sets that `--cfg-path FILE`, a known name or a file of one's own mean, narrowed by `--dataset`."""
    return chosen_settings(args).datasets


def chosen_settings(args: argparse.Namespace) -> Settings:
    """The same with the rest of the YAML."""
    if bool(args.what) == bool(args.cfg_path):
        raise ConfigError(
            f"data {args.action}: name one thing to look at: --cfg-path FILE.yaml, the NAME of a known set "
            "(`data list` shows them), or a FILE of yours"
        )
    if args.cfg_path:
        settings = load_settings(args.cfg_path, args.options or [], needs=["datasets"])
    else:
        settings = _settings_of({"datasets": _node_of(args.what, args)}, args)
    if args.dataset:
        settings = settings.keep([name.strip() for name in args.dataset.split(",")])
    if not settings.datasets:
        raise ConfigError(f"{args.cfg_path}: holds no data set under `datasets`")
    return settings


def _settings_of(tree: dict[str, Any], args: argparse.Namespace) -> Settings:
    """Settings of a tree that stands in no file, with the options laid over."""
    problems = Problems()
    place = Place("option", f"data {args.action} {args.what}")
    given, lost = read_options(args.options or [])
    for word in lost:
        problems.add(Place("option", f"--options {word}"), "", f"{word!r} is no key=value")
    root = lay_options(from_plain(tree, place), given, problems)
    return Loading(root, problems, str(args.what), ["datasets"]).settings()


def _node_of(what: str, args: argparse.Namespace) -> dict[str, Any]:
    """`{NAME: None}` for a known set, `{data: {...}}` for files."""
    root = {"media_root": str(args.media_root)} if args.media_root else {}
    if presets.find("datasets", what) is not None:
        return {what: root or None}
    if Path(what).exists() or any(c in what for c in "*{"):
        return {"data": file_node(what, args.media_root)}
    known = presets.names("datasets")
    close = nearest(what, known)
    mend = f"did you mean {' or '.join(map(repr, close))}?" if close else "`data list` shows the known sets"
    raise ConfigError(f"data {args.action} {what}: neither a known data set nor a file; {mend}")


def file_node(what: str, media_root: str | None) -> dict[str, Any]:
    """The YAML node that reads a file as it is: tars, dialogues, folders of classes, or pairs."""
    from minigpt4o.datasets.prepare.foreign import COLUMNS, stream_rows
    from minigpt4o.datasets.prepare.foreign_chat import form_of

    if what.endswith(SHARD_ENDINGS):
        return {"builder": "shards", "annotations": {"train": what}}
    path = Path(what)
    if not path.exists():
        raise ConfigError(f"{what}: a pattern may name tars only; give one file, or describe the data set in a YAML")
    form = form_of(path)
    node: dict[str, Any] = {"annotations": {"train": what}, "media_root": media_root or str(path.parent)}
    if form in ("llava", "messages"):
        return {"builder": "conversations", **node}
    if form == "folder":
        return {"builder": "labelled", "annotations": {"train": what}}
    if form != "table":
        raise ConfigError(f"{what}: looks like {form}; convert it first: data convert {what} --out rows.jsonl")
    row: Mapping[str, Any] = next((r for _, r in stream_rows(path) if isinstance(r, dict)), {})
    fields = {n: c for n in ("image", "audio", "text") for c in reversed(COLUMNS[n]) if c in row}
    if "text" not in fields:
        raise ConfigError(f"{what}: no column of texts was recognised among {', '.join(row)}; convert it with --fields")
    return {"builder": "pairs", "fields": fields, **node}


def splits_of(builder: Part) -> list[str]:
    """The splits that a builder's node names: train, val, test, then others."""
    annotations = builder.values.get("annotations")
    if not isinstance(annotations, Mapping):
        return list(SPLITS)
    found = [str(split) for split in annotations if split != "all"]
    if "all" in annotations:
        carved = ["train", *(s for s in SPLITS[1:] if builder.values.get(f"{s}_folds"))]
        found += [split for split in carved if split not in found]
    return [split for split in SPLITS if split in found] + [split for split in found if split not in SPLITS]


def wanted_splits(spec: DatasetSpec, asked: str | None) -> list[str]:
    """All splits of a data set, or those asked for that it has."""
    known = splits_of(spec.builder)
    return known if not asked else [s for s in known if s in {w.strip() for w in asked.split(",")}]


def check_split_known(sets: Mapping[str, DatasetSpec], asked: str | None) -> None:
    """Raises ConfigError for a split that no data set has."""
    known = list(dict.fromkeys(s for spec in sets.values() for s in splits_of(spec.builder)))
    for split in (asked or "").split(","):
        if split.strip() and split.strip() not in known:
            close = nearest(split.strip(), known)
            mend = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
            raise ConfigError(f"--split {split.strip()}: no data set here has such a split; {mend}")


def open_split(spec: DatasetSpec, split: str) -> Any:
    """The builder of one split, its texts cleaned as in training. Raises DataError."""
    from minigpt4o.runners.build import build_builder

    return build_builder(spec, split)


def open_splits(
    sets: Mapping[str, DatasetSpec], asked: str | None
) -> tuple[list[tuple[DatasetSpec, str, Any]], list[tuple[str, str, DataError]]]:
    """(spec, split, builder) of all that can be opened, and (name, split, why not) of the rest.

    Raises the first DataError if nothing can be opened.
    """
    check_split_known(sets, asked)
    opened: list[tuple[DatasetSpec, str, Any]] = []
    closed: list[tuple[str, str, DataError]] = []
    for spec in sets.values():
        for split in wanted_splits(spec, asked):
            try:
                opened.append((spec, split, open_split(spec, split)))
            except DataError as error:
                closed.append((spec.name, split, error))
    if not opened:
        raise closed[0][2] if closed else ConfigError("no data set here has a split that was asked for")
    return opened, closed


def about_of(spec: DatasetSpec) -> dict[str, str]:
    """The `about` node of a data set: licence, source, count, ..."""
    return {str(key): str(value) for key, value in (getattr(spec, "about", None) or {}).items()}


def pairs_of(words: Sequence[str] | None, flag: str) -> dict[str, str]:
    """`name=value` words as a mapping."""
    found = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"{flag} {word}: write NAME=COLUMN")
        found[name] = value
    return found
