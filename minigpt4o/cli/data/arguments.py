"""What can be typed after `data`."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable
from typing import Any

from minigpt4o.cli.numbers import count, some

FORMS = "auto, blip, table (csv, tsv, json, jsonl), folder, coco, refcoco, llava, messages (sharegpt, openai)"


def add_parser(commands: Any) -> None:
    """The command `data` and what it can do."""
    what = "look at, convert, fetch and check data sets"
    parser = commands.add_parser("data", help=what, description=what)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, module, function, add, text in _ACTIONS:
        action = actions.add_parser(name, help=text, description=text)
        add(action)
        action.set_defaults(run=_later(module, function), said_by=action)


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """The act behind an action, imported when it runs."""

    def run(args: argparse.Namespace) -> int:
        return int(getattr(importlib.import_module(f"minigpt4o.cli.data.{module}"), function)(args) or 0)

    return run


def _add_sets(parser: argparse.ArgumentParser, what: str) -> None:
    """Ways to name data sets."""
    parser.add_argument("what", nargs="?", metavar="WHAT", help=what)
    parser.add_argument("--cfg-path", "--cfg_path", metavar="FILE", help="the data sets of this YAML")
    parser.add_argument("--dataset", metavar="A,B", help="only these data sets of it")
    parser.add_argument("--options", nargs="*", action="extend", metavar="KEY=VALUE", help="lay values over the file")
    parser.add_argument("--media-root", metavar="DIR", help="folder that the media paths of WHAT start from")


def _add_walk(parser: argparse.ArgumentParser) -> None:
    """How many samples are looked at, by how many processes."""
    workers = min(8, os.cpu_count() or 1)
    parser.add_argument("--split", metavar="A,B", help="only these splits (default: all)")
    parser.add_argument(
        "--limit", type=count, default=0, metavar="N", help="only so many of each split, evenly spread"
    )
    parser.add_argument("--workers", type=count, default=workers, metavar="N", help=f"processes (default: {workers})")
    parser.add_argument("--json", metavar="FILE", help="write everything into this file, too")


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="all about this one; none: an overview")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="the overview as a Markdown table")
    form.add_argument("--json", action="store_true", help="as JSON")


def _add_convert(parser: argparse.ArgumentParser) -> None:
    _add_sets(parser, "file or folder to convert, or a known set")
    parser.add_argument("--split", metavar="A,B", help="of a known set or a YAML: only these splits")
    parser.add_argument("--from", dest="form", default="auto", metavar="FORM", help=f"{FORMS} (default: auto)")
    parser.add_argument(
        "--to",
        choices=("jsonl", "shards", "tsv"),
        default="jsonl",
        help="canonical rows, WebDataset tars, or (from blip) img2dataset's table (default: jsonl)",
    )
    parser.add_argument("--out", required=True, metavar="PATH", help="file to write; for shards a folder")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.add_argument(
        "--fields", nargs="*", action="extend", metavar="NAME=COLUMN", help="id, image, audio, text, question, ..."
    )
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what is asked where the source asks nothing")
    parser.add_argument("--language", default="", metavar="LL", help="of the texts: en, ja, ...")
    parser.add_argument("--name", metavar="NAME", help="of the data set in the YAML that is printed")
    parser.add_argument("--keep-missing", action="store_true", help="also take rows whose media are not there")
    parser.add_argument("--per-shard", type=some, default=1000, metavar="N", help="samples of a tar (default: 1000)")
    parser.add_argument("--workers", type=count, default=1, metavar="N", help="processes that index the tars")
    parser.add_argument(
        "--max-bad", type=count, default=0, metavar="N", help="end with 1 if more rows are left out (default: 0)"
    )


def _add_download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a known set, or with --url-list a name of your own")
    parser.add_argument(
        "--run", dest="start", action="store_true", help="run the commands; without it they are only printed"
    )  # `run` is what every command calls its act
    parser.add_argument("--root", metavar="DIR", help="folder of all data, as MINIGPT4O_DATA says it (default: data)")
    pictures = parser.add_argument_group("for sets of picture URLs (img2dataset)")
    pictures.add_argument("--url-list", metavar="FILE", help="a list that is already here (tsv, csv, json, parquet)")
    pictures.add_argument("--image-size", type=some, default=224, metavar="N", help="pixels (default: 224)")
    pictures.add_argument(
        "--resize-mode",
        choices=("border", "keep_ratio", "center_crop", "no"),
        default="border",
        metavar="MODE",
        help="border: a square with white edges, as MiniGPT-4 fetched its pictures (default); keep_ratio, center_crop, no",
    )
    pictures.add_argument("--processes", type=some, default=16, metavar="N", help="(default: 16)")
    pictures.add_argument("--threads", type=some, default=128, metavar="N", help="downloads at once (default: 128)")


def _add_index(parser: argparse.ArgumentParser) -> None:
    _add_sets(parser, "tars (`DIR`, `DIR/{00000..00099}.tar`), or a known set")
    parser.add_argument("--again", action="store_true", help="look at unchanged tars, too")
    workers = min(8, os.cpu_count() or 1)
    parser.add_argument("--workers", type=count, default=workers, metavar="N", help=f"processes (default: {workers})")


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_sets(parser, "a known set, or a file of yours (jsonl, json, csv, tsv, tar)")
    _add_walk(parser)
    parser.add_argument(
        "--media",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="open every picture and sound with the data set's processors and know it by its bytes (default)",
    )
    parser.add_argument(
        "--max-bad", type=count, default=0, metavar="N", help="bad samples, or leaks, that are no trouble (default: 0)"
    )
    parser.add_argument("--bad", metavar="FILE", help="write a line of JSON for every bad sample")


def _add_stats(parser: argparse.ArgumentParser) -> None:
    _add_sets(parser, "a known set, or a file of yours (jsonl, json, csv, tsv, tar)")
    _add_walk(parser)
    parser.add_argument(
        "--media", action=argparse.BooleanOptionalAction, default=True, help="read the headers of media (default)"
    )


def _add_show(parser: argparse.ArgumentParser) -> None:
    _add_sets(parser, "a known set, or a file of yours (jsonl, json, csv, tsv, tar)")
    parser.add_argument("--split", metavar="A,B", help="these splits (default: train, or the first there is)")
    parser.add_argument("--count", type=some, default=24, metavar="N", help="samples of all sets (default: 24)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    parser.add_argument("--model", metavar="FILE", help="YAML whose model's template and tokenizer cut the texts")
    parser.add_argument("--out", default="sheet.html", metavar="FILE", help="page to write (default: sheet.html)")
    parser.add_argument("--json", metavar="FILE", help="write texts, labels and counts into this file, too")


def _add_curate(parser: argparse.ArgumentParser) -> None:
    _add_sets(parser, "a known set, or a file of yours, that holds pictures")
    parser.add_argument("--split", metavar="NAME", help="its split (default: train, or the first there is)")
    parser.add_argument("--model", required=True, metavar="PATH", help="YAML or run folder of the model")
    parser.add_argument("--ckpt", metavar="PATH", help="its checkpoint, run or job folder, or .pth file")
    parser.add_argument("--model-options", nargs="*", action="extend", metavar="KEY=VALUE", help="lay over its YAML")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N (default: auto)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write; started again it goes on there")
    parser.add_argument(
        "--limit", type=count, default=5000, metavar="N", help="pictures to describe, 0 = all (default: 5000)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw of pictures (default: 0)")
    parser.add_argument("--batch-size", type=some, default=8, metavar="N", help="pictures at once (default: 8)")
    _add_asking(parser)
    _add_refining(parser)


def _add_asking(parser: argparse.ArgumentParser) -> None:
    asking = parser.add_argument_group("what is asked, and what is kept (words; in Japanese: characters)")
    asking.add_argument("--prompt", default="", metavar="TEXT", help="what the model is asked")
    asking.add_argument("--go-on", default="", metavar="TEXT", help="what it is told when the answer is short")
    asking.add_argument("--short", type=count, default=80, metavar="N", help="words below that (default: 80)")
    asking.add_argument("--max-new-tokens", type=some, default=300, metavar="N", help="of one answer (default: 300)")
    asking.add_argument("--sample", action="store_true", help="draw the words; without it always the likeliest")
    asking.add_argument("--min-words", type=count, default=40, metavar="N", help="of what is kept (default: 40)")
    asking.add_argument("--max-words", type=some, default=400, metavar="N", help="of what is kept (default: 400)")


def _add_refining(parser: argparse.ArgumentParser) -> None:
    refining = parser.add_argument_group("let another model mend the texts")
    refining.add_argument("--refine-url", default="", metavar="URL", help="OpenAI-compatible, http://HOST:PORT/v1")
    refining.add_argument("--refine-model", default="", metavar="NAME", help="the model's name there")
    refining.add_argument(
        "--refine-key", default="OPENAI_API_KEY", metavar="NAME", help="environment variable that holds the key"
    )
    refining.add_argument("--refine-path", default="", metavar="DIR", help="a local chat model in place of a URL")


_ACTIONS = (
    ("list", "known", "list_sets", _add_list, "the known data sets: licence, count, and whether they are here"),
    ("convert", "convert", "convert", _add_convert, "bring data into canonical rows, tars, or img2dataset's table"),
    ("download", "download", "download", _add_download, "print (or run) the commands that fetch a known set"),
    ("index", "index", "index", _add_index, "look through tars: counts, sizes, SHA-256, damage"),
    ("check", "check", "check", _add_check, "health report: missing, corrupt, duplicates, leaks; exit 1 on trouble"),
    ("show", "show", "show", _add_show, "contact sheet (HTML): pictures with boxes, sounds, tokens, what is learned"),
    ("stats", "stats", "stats", _add_stats, "distributions of lengths, rounds, media, sizes, languages, boxes"),
    ("curate", "curate", "curate", _add_curate, "stage 2 data: let a stage 1 model describe pictures, keep the good"),
)
