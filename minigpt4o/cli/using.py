"""What can be typed after the commands that use a model that is there: serve, predict, export, report, doctor."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

from minigpt4o.cli.numbers import port, some

# Commands that read a YAML (or the folder of a run) as train, eval, demo and chat do.
CONFIGURED = {
    "serve": "answer over HTTP as OpenAI's chat API does",
    "predict": "answer every row of a file",
}


def add_configured(parser: argparse.ArgumentParser, name: str) -> None:
    """The arguments of `serve` or `predict` beside those that every command with a YAML has."""
    {"serve": _serve, "predict": _predict}[name](parser)
    parser.set_defaults(run=_later(name))


def add_parsers(commands: Any) -> None:
    """The commands `export`, `report` and `doctor`."""
    for name, (what, add) in _PLAIN.items():
        parser = commands.add_parser(name, help=what, description=what)
        add(parser)
        parser.set_defaults(run=_later(name))


def _later(name: str) -> Callable[[argparse.Namespace], int]:
    """The act behind a command, imported when it runs."""

    def run(args: argparse.Namespace) -> int:
        return int(getattr(importlib.import_module("minigpt4o.cli.using_acts"), name)(args) or 0)

    return run


def _serve(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    where.add_argument("--port", type=port, default=8000, help="port; 0 = any free one (default: 8000)")
    who = parser.add_argument_group("who may do what")
    who.add_argument("--api-key", metavar="KEY", help="asked of every caller (default: MINIGPT4O_API_KEY, else none)")
    who.add_argument("--allow-urls", action="store_true", help="fetch pictures from public http(s) addresses")
    who.add_argument(
        "--allow-origin",
        nargs="+",
        action="extend",
        metavar="ORIGIN",
        help="let pages of these origins ask, e.g. http://localhost:3000 (default: none)",
    )
    who.add_argument("--model-name", metavar="NAME", help="what callers name the model (default: of its checkpoint)")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-batch", type=some, metavar="N", help="answers at one time (default: run.max_batch)")
    limits.add_argument(
        "--max-waiting", type=some, metavar="N", help="requests that may wait (default: run.max_waiting)"
    )
    limits.add_argument("--max-body-mb", type=some, default=64, metavar="MB", help="of one request (default: 64)")
    limits.add_argument(
        "--timeout", type=some, default=300, metavar="SECONDS", help="the longest one request may take (default: 300)"
    )
    limits.add_argument(
        "--threads", type=some, metavar="N", help="CPU threads that compute (default: OMP_NUM_THREADS, or cores - 1)"
    )


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="IN", help="JSON lines: OpenAI messages, LLaVA turns, or plain rows; - for standard input"
    )
    parser.add_argument("out", metavar="OUT", help="JSON lines to write, gone on with if there; - for standard output")
    parser.add_argument("--batch-size", type=some, default=8, metavar="N", help="rows answered at once (default: 8)")
    parser.add_argument("--limit", dest="rows", type=some, metavar="N", help="only the first N rows")
    parser.add_argument("--media-root", metavar="DIR", help="folder that file names start from (default: of IN)")
    parser.add_argument(
        "--decoding",
        nargs="*",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="max_new_tokens, num_beams, do_sample, temperature, top_p, ... (default: a chat's YAML, else greedy)",
    )
    parser.add_argument("--fresh", action="store_true", help="answer everything again, whatever OUT holds")


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", help="a step, run or job folder, a YAML, or a .pth with --cfg-path")
    parser.add_argument("out", metavar="OUT", help="folder to write; it must not exist")
    parser.add_argument("--cfg-path", "--cfg_path", metavar="FILE", help="the YAML of a .pth, or in place of the run's")
    parser.add_argument("--options", nargs="*", action="extend", metavar="KEY=VALUE", help="lay values over the YAML")
    parser.add_argument("--format", choices=("hf",), default="hf", help="what is written (default: hf)")
    parser.add_argument(
        "--as",
        dest="form",
        choices=("auto", "transformers", "code"),
        default="auto",
        help="transformers: a class it has, or refuse; code: with code beside it (default: auto, the first that fits)",
    )
    parser.add_argument("--merge-lora", action="store_true", help="add adapters to the weights (else a peft folder)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="number format (default: auto, that of the language model's file)",
    )
    parser.add_argument("--results", metavar="FILE", help="results.json (or its folder) for the model card")
    parser.add_argument("--licence", "--license", metavar="NAME", help="licence to state in the model card")
    parser.add_argument("--weights", metavar="DIR", help="folder of the weight files (default: MINIGPT4O_WEIGHTS)")
    parser.add_argument("--no-check", action="store_true", help="do not open the folder again to compare logits")
    parser.add_argument("--push", metavar="NAME", help="upload the folder to the Hugging Face hub as org/name")
    parser.add_argument("--dry-run", action="store_true", help="--push: list the files, upload nothing")
    parser.add_argument("--public", action="store_true", help="--push: for everyone to see (default: private)")


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", help="an evaluation (or its job folder): results.json, predictions/"
    )
    parser.add_argument("--curves", nargs="*", default=[], metavar="RUN", help="training runs whose curves are drawn")
    parser.add_argument("--out", metavar="FILE", help="where to write (default: report.html in FOLDER)")


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--output-dir", "--output_dir", default="output", metavar="DIR", help="where runs will lie")
    parser.add_argument("--ports", nargs="*", type=port, default=[7860, 8000], metavar="PORT", help="ports to look at")


_PLAIN: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "export": ("write a checkpoint as a Hugging Face folder with model card", _export),
    "report": ("write the report of an evaluation again", _report),
    "doctor": ("look at this machine: versions, GPU, disk, ports, weights", _doctor),
}
