"""`data show`: a contact sheet of data sets: pictures with boxes, sounds, tokens and what is learned, in one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from minigpt4o.cli.data.opening import check_split_known, chosen_settings, open_split, wanted_splits
from minigpt4o.cli.data.tables import cut, told_losses
from minigpt4o.cli.listing import say
from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.files import write_json
from minigpt4o.common.nodes import DatasetSpec
from minigpt4o.common.registry import Part


def show(args: argparse.Namespace) -> int:
    """Draw, look, write the page; 1 if not one sample can be used."""
    from minigpt4o.runners.data_sheet import SetSheet, draw_set, open_reading, record
    from minigpt4o.runners.data_sheet_page import write_sheet

    settings = chosen_settings(args)
    chosen, closed = _splits(settings.datasets, args), list[tuple[str, str, DataError]]()
    reading = open_reading(_model(args, settings.model))
    say(f"{'tokens' if reading.exact else 'words'}: {cut(reading.note)}")
    sheets: list[SetSheet] = []
    each, rest = divmod(args.count, max(len(chosen), 1))
    for number, (spec, split) in enumerate(chosen):
        try:
            builder = open_split(spec, split)
        except DataError as error:
            closed.append((spec.name, split, error))
            continue
        sheet = draw_set(spec, split, builder, reading, max(each + (number < rest), 1), args.seed)
        say(f"{spec.name} {split}: {len(sheet.good)} shown of {sheet.total:,}")
        told_losses(sheet.reasons, {look.reason: [f"[{look.index}] {look.detail}"] for look in sheet.bad}, "  ")
        sheets.append(sheet)
    for name, split, why in closed:
        say(f"{name} {split}: cannot be opened: {cut(str(why), 400)}")
    if not sheets:
        raise closed[0][2]
    write_sheet(Path(args.out), f"Data of {args.what or args.cfg_path}", sheets, reading, args.seed)
    say(f"written: {args.out}")
    if args.json:
        write_json(Path(args.json), {"reading": reading.note, "sheets": [record(sheet) for sheet in sheets]})
        say(f"written: {args.json}")
    return 0 if any(sheet.good for sheet in sheets) else 1


def _model(args: argparse.Namespace, own: Part) -> Part | None:
    """The model whose tokenizer and template are used: of `--model FILE`, else of the YAML itself."""
    if args.model:
        return load_settings(args.model, [], needs=["model"]).model
    return own if own is not None and own.name else None


def _splits(sets: dict[str, DatasetSpec], args: argparse.Namespace) -> list[tuple[DatasetSpec, str]]:
    """The splits to draw from: those asked for, or the first of each data set, which is train where there is one."""
    check_split_known(sets, args.split)
    chosen = []
    for spec in sets.values():
        splits = wanted_splits(spec, args.split)
        chosen += [(spec, split) for split in (splits if args.split else splits[:1])]
    if not chosen:
        raise ConfigError("data show: no data set here has a split that was asked for")
    return chosen
