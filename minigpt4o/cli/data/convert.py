"""`data convert`: published files -> canonical rows or tars, and BLIP's list of URLs -> img2dataset's table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import yaml

from minigpt4o.cli.data.opening import chosen_sets, open_splits, pairs_of
from minigpt4o.cli.data.tables import aligned, told_losses
from minigpt4o.cli.listing import say
from minigpt4o.common import presets
from minigpt4o.common.errors import ConfigError, DataError, SkipSample
from minigpt4o.common.source import nearest
from minigpt4o.conversation.sample import MediaKind
from minigpt4o.datasets.prepare.canonical import Found, JsonLines, Tally, of_sample
from minigpt4o.datasets.prepare.foreign import Source
from minigpt4o.datasets.prepare.foreign_chat import ALSO, FORMS, form_of
from minigpt4o.datasets.media import EXTENSIONS
from minigpt4o.datasets.prepare.url_lists import write_url_table
from minigpt4o.datasets.prepare.walk import drawn
from minigpt4o.datasets.prepare.writing import refuse_existing, whole_file

FORM_NAMES = ("auto", "blip", *FORMS, *ALSO)
TROUBLE = 1  # exit code when something was written, but not all
_PROCESSORS: dict[MediaKind, tuple[str, dict[str, object]]] = {
    "image": (
        "vis_processor",
        {
            "train": {"name": "blip2_image_train", "image_size": 224},
            "eval": {"name": "blip2_image_eval", "image_size": 224},
        },
    ),
    "audio": ("audio_processor", {"train": {"name": "log_mel"}, "eval": {"name": "log_mel"}}),
}


def convert(args: argparse.Namespace) -> int:
    """Convert what is named; 1 if a damaged end or rows that could not be used were left out of what was written."""
    if args.cfg_path:
        if args.what:
            raise ConfigError("data convert: give SRC or --cfg-path, not both")
        return _write(args, _of_builders(args), Path())
    if not args.what:
        raise ConfigError("data convert: name the file or folder to convert, or --cfg-path FILE.yaml")
    path = Path(args.what)
    if not path.exists() and presets.find("datasets", args.what) is not None:
        return _write(args, _of_builders(args), Path())
    if not path.exists():
        near = nearest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file or folder" + (f"; did you mean {near[0]!r}?" if near else ""))
    if args.form not in FORM_NAMES:
        close = nearest(args.form, FORM_NAMES)
        mend = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(FORM_NAMES)}"
        raise ConfigError(f"data convert --from {args.form}: unknown form; {mend}")
    form = form_of(path) if args.form == "auto" else ALSO.get(args.form, args.form)
    if (form == "blip") != (args.to == "tsv"):
        raise ConfigError(
            f"data convert --to {args.to}: {path} is {form}; --to tsv is for BLIP's lists of url and caption "
            "(--from blip), all other forms become --to jsonl or --to shards"
        )
    if form == "blip":
        return _blip(path, Path(args.out), args.overwrite)
    root = Path(args.media_root) if args.media_root else path if path.is_dir() and form == "folder" else path.parent
    if not root.is_dir():
        raise ConfigError(f"--media-root {root}: no such folder")
    fields = pairs_of(args.fields, "--fields")
    source = Source(path, root, fields, args.prompt, args.language, args.keep_missing)
    return _write(args, FORMS[form](source), root)


def _blip(path: Path, out: Path, overwrite: bool) -> int:
    """A list of URLs as img2dataset's table; what lies before a broken end is kept."""
    refuse_existing(out, overwrite)
    tally = Tally()
    broken = write_url_table(path, out, tally)
    say(f"written: {out}, {tally.written:,} rows")
    told_losses(tally.lost, tally.first)
    say(f"fetch the pictures with: python -m minigpt4o.cli data download NAME --url-list {out}")
    if broken is not None:
        say(f"NOT ALL: {broken}")
    return TROUBLE if broken is not None else 0


def _of_builders(args: argparse.Namespace) -> Iterator[Found]:
    """Every sample of the chosen data sets and splits, as their builders give them."""
    opened, closed = open_splits(chosen_sets(args), args.split)
    for name, split, error in closed:
        say(f"left out: {name} {split}: {error}")
    for _, split, builder in opened:
        for index in range(len(builder)):
            sample = drawn(builder, index)
            if isinstance(sample, SkipSample):
                yield sample
                continue
            try:
                yield of_sample(sample, split)
            except SkipSample as skip:
                yield skip


def _write(args: argparse.Namespace, found: Iterator[Found], root: Path) -> int:
    tally, out = Tally(), Path(args.out)
    node = _jsonl(args, found, root, tally) if args.to == "jsonl" else _tars(args, found, tally)
    if not tally.written:
        raise DataError(_nothing(args, tally))
    say(f"written: {out}, {tally.written:,} samples")
    counts = [(f"{kind}s", f"{count:,}") for kind, count in sorted(tally.kinds.items())]
    counts += [("boxes", f"{tally.boxes:,}")] if tally.boxes else []
    counts += [(f"split {split}", f"{count:,}") for split, count in tally.splits.items() if split]
    for line in aligned([["  " + name, count] for name, count in counts]):
        say(line)
    told_losses(tally.lost, tally.first)
    node |= {key: value for kind, (key, value) in _PROCESSORS.items() if tally.kinds[kind]}
    say("\nto use it, write into your YAML:\n")
    tree = {"datasets": {args.name or out.stem.replace(".", "_"): node}}
    say(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120).rstrip())
    return TROUBLE if sum(tally.lost.values()) > args.max_bad else 0


def _nothing(args: argparse.Namespace, tally: Tally) -> str:
    first = next(iter(tally.first.values()), ["the source holds no rows"])
    lost = ", ".join(f"{count:,} {reason}" for reason, count in tally.lost.most_common()) or "none"
    return f"{args.what or args.cfg_path}: no row could be converted ({lost}); the first: {first[0]}"


def _jsonl(args: argparse.Namespace, found: Iterator[Found], root: Path, tally: Tally) -> dict[str, object]:
    out = Path(args.out)
    if out.suffix not in (".jsonl", ".ndjson"):
        raise ConfigError(f"--out {out}: rows are written to a .jsonl file; for a folder of tars add --to shards")
    refuse_existing(out, args.overwrite)
    with whole_file(out) as file:
        writer = JsonLines(out, root)
        file.writelines(writer.lines(found, tally))
        if not tally.written:
            raise DataError(_nothing(args, tally))
    splits = [split for split in tally.splits if split]
    node: dict[str, object] = {"builder": "conversations"}
    node["annotations"] = {split: str(out) for split in splits} or {"train": str(out)}
    node["media_root"] = str(root)
    if splits:
        node["split_field"] = "split"
    return node


def _tars(args: argparse.Namespace, found: Iterator[Found], tally: Tally) -> dict[str, object]:
    from minigpt4o.cli.data.index import index_files
    from minigpt4o.datasets.shards.writer import Shards

    out = Path(args.out)
    if out.is_dir() and any(out.glob("*.tar")) and not args.overwrite:
        raise ConfigError(f"{out} holds tars; name another folder, or add --overwrite to replace them")
    if out.is_file():
        raise ConfigError(f"--out {out}: is a file; tars are written into a folder")
    for old in out.glob("*.tar") if args.overwrite and out.is_dir() else []:
        old.unlink()
    shards = Shards(out, args.per_shard)
    paths = shards.write(found, tally)
    if not paths:
        raise DataError(_nothing(args, tally))
    index_files(paths, args.workers)
    last = paths[-1].stem
    pattern = f"{out}/{paths[0].name}" if len(paths) == 1 else f"{out}/{{{paths[0].stem}..{last}}}.tar"
    fields: dict[str, str] = {}
    for kind, known in EXTENSIONS.items():
        if shards.endings & known:
            fields[kind] = ",".join(sorted(shards.endings & known))
    node: dict[str, object] = {"builder": "shards", "annotations": {"train": pattern}}
    if shards.asks:
        node |= {"fields": fields, "questions": {"list": "json.qa", "question": 0, "answer": 1}, "rounds": True}
    else:
        node["fields"] = {**fields, "text": "txt"}
    return node
