"""What can be typed after `python -m minigpt4o.cli`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from minigpt4o import __version__
from minigpt4o.cli import quickstart, using
from minigpt4o.cli.data import arguments as data
from minigpt4o.cli.help import USES, Parser, examples, overview

ABOUT = "Align frozen vision, audio and language models; talk to the result."
CONFIGURED = {
    "train": "train what a YAML describes; what was stopped goes on",
    "eval": "measure what a YAML describes, and write a report",
    "demo": "chat in the browser, on this machine only unless told otherwise",
    "chat": "chat in the terminal",
    **using.CONFIGURED,
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; bare `key=value` words end up in `options`. `help COMMAND` is `COMMAND --help`."""
    words = list(argv)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    parser, commands = build_parser()
    args, rest = parser.parse_known_args(words)
    if args.command is None:
        for word in rest:
            raise parser.unknown(word)
        parser.parse_args(["--help"])
    command = getattr(args, "said_by", commands[args.command])  # an action of a command knows its own flags
    takes_options = args.command in CONFIGURED
    for word in rest:
        if word.startswith("-") or not takes_options:
            raise command.unknown(word)
    if takes_options:
        args.options = [*(args.options or []), *rest]
    return args


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The whole command line, and the parser of each command."""
    parser = Parser(prog="minigpt4o", usage="minigpt4o COMMAND ...")
    parser.add_argument("--version", action="version", version=f"minigpt4o {__version__}", help="say the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", prog="minigpt4o", help=argparse.SUPPRESS)
    for name, what in CONFIGURED.items():
        _add_configured(commands.add_parser(name, help=what, description=what), name)
    for name, (what, add) in _PLAIN.items():
        add(commands.add_parser(name, help=what, description=what))
    data.add_parser(commands)
    using.add_parsers(commands)
    quickstart.add_parser(commands)
    said = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    parser.description = f"{ABOUT}\n\n{overview(said)}"
    parser.epilog = examples("")
    for name, command in commands.choices.items():
        command.epilog = examples(name)
    return parser, dict(commands.choices)


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """The act behind a command, imported when it runs."""

    def run(args: argparse.Namespace) -> int:
        import importlib

        return int(getattr(importlib.import_module(f"minigpt4o.cli.{module}"), function)(args) or 0)

    return run


def _add_configured(parser: argparse.ArgumentParser, name: str) -> None:
    if name in USES:
        what, metavar = "a YAML file, or what a run left: its folder, a step's, its config.yaml", "YAML|RUN"
    else:
        what, metavar = "the YAML file: model, datasets, run", "YAML"
    parser.add_argument("--cfg-path", "--cfg_path", metavar=metavar, help=what)
    parser.add_argument(
        "--options",
        "--cfg-options",
        nargs="*",
        action="extend",
        metavar="KEY=VALUE",
        help="lay values over the file; bare KEY=VALUE words do the same",
    )
    parser.add_argument("--check", action="store_true", help="tell every problem of the configuration, start nothing")
    parser.add_argument("--print-config", action="store_true", help="every value and where it came from")
    parser.add_argument("--list", metavar="KIND", help="the names of a kind (encoder, builder, task, ...), then end")
    if name in ("train", "eval"):
        parser.add_argument("--dry-run", action="store_true", help="build everything, one step, write nothing")
    _add_habits(parser, name)
    parser.set_defaults(run=_later("configured", "evaluate" if name == "eval" else name))
    if name in using.CONFIGURED:
        using.add_configured(parser, name)


def _add_habits(parser: argparse.ArgumentParser, name: str) -> None:
    """Flags people know from elsewhere; each stands for one option."""
    habits = parser.add_argument_group("short for an option")
    habits.add_argument("--gpu-id", type=int, metavar="N", help="run.device=cuda:N")
    habits.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)
    if name in ("train", "eval"):
        habits.add_argument("--output_dir", "--output-dir", metavar="DIR", help="run.output_dir")
        limited = "run.limit" if name == "eval" else "datasets.*.max_samples"
        habits.add_argument("--limit", type=int, metavar="N", help=limited)
    if name == "train":
        habits.add_argument("--max_steps", "--max-steps", type=int, metavar="N", help="run.max_steps")
        habits.add_argument("--resume_from_checkpoint", "--resume", metavar="PATH", help="run.resume_ckpt_path")
        habits.add_argument("--report_to", "--report-to", metavar="NAMES", help="run.trackers, separated by commas")
        habits.add_argument("--deepspeed", metavar="FILE", help="run.engine=deepspeed, ZeRO stage from a JSON file")
    if name == "eval":
        parser.add_argument("--dataset", metavar="A,B", help="only these data sets")
        _add_without_model(parser.add_argument_group("without a model"))
    if name == "demo":
        habits.add_argument("--share", action="store_true", default=None, help="run.share: a public tunnel")
        habits.add_argument("--auth", action="append", metavar="NAME:PASSWORD", help="run.auth: who may come in")
        habits.add_argument("--server-name", metavar="ADDRESS", help="run.server_name")
        habits.add_argument("--server-port", type=int, metavar="PORT", help="run.server_port")
    if name == "chat":
        parser.add_argument("--image", action="append", metavar="FILE", help="ask one question about this picture")
        parser.add_argument("--audio", action="append", metavar="FILE", help="ask one question about this sound")
        parser.add_argument("--text", metavar="WORDS", help="the one question; then end")


def _add_without_model(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--from",
        dest="source",
        metavar="PATH",
        help="score predictions again: a run folder, a file of ours or of a server",
    )
    parser.add_argument("--partial", action="store_true", help="--from: score what is there, and say n of N")
    parser.add_argument(
        "--compare", nargs=2, metavar="RUN", help="paired differences of two evaluations (RUN or RUN:MODEL)"
    )
    parser.add_argument("--metric", metavar="NAME", help="--compare: only this metric")
    parser.add_argument("--out", metavar="FILE", help="--compare: where to write (default: compare.json in the second)")


def _add_toy_world(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="data/toy", metavar="DIR", help="folder to write (default: data/toy)")
    parser.add_argument("--size", default="small", help="tiny, small, medium (default: small)")
    parser.add_argument("--level", default="pair", help="how hard (default: pair)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (default: 0)")
    parser.add_argument("--workers", type=int, default=1, help="processes; the bytes do not depend on it (default: 1)")
    parser.set_defaults(run=_later("making", "toy_world"))


def _add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="+", metavar="FILE", help="UTF-8 text files; for minigpt4o also .jsonl and .gz")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--for", dest="model", choices=("llm", "minigpt4o"), default="llm", help="the model it serves (default: llm)"
    )
    parser.add_argument("--vocab-size", type=int, help="number of tokens (default: 512; for minigpt4o 200000)")
    llm = parser.add_argument_group("for llm")
    llm.add_argument("--special", nargs="*", default=[], metavar="TOKEN", help="special tokens besides the usual")
    llm.add_argument("--word", nargs="*", default=[], metavar="TEXT", help="plain text that is one token")
    own = parser.add_argument_group("for minigpt4o")
    own.add_argument("--media-rows", type=int, metavar="N", help="rows kept for pictures, and sounds (default: 128)")
    own.add_argument("--field", metavar="NAME", help="field of a .jsonl line that holds the text (default: text)")
    own.add_argument("--min-count", type=int, metavar="N", help="leave out what is seen less often (default: 2)")
    parser.set_defaults(run=_later("making", "tokenizer"))


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "src", metavar="SRC", help="a step, run or job folder of ours, an official .pth file, or a Gemma-3n folder"
    )
    parser.add_argument(
        "out", metavar="OUT", help="what to write; official: FILE.pth, or a folder for checkpoint_{epoch}.pth"
    )
    parser.add_argument(
        "--to", choices=("official", "own", "minigpt4o"), help="the layout of OUT (default: the one SRC is not in)"
    )
    parser.add_argument(
        "--cfg-path", "--cfg_path", metavar="FILE", help="the training YAML OUT shall continue (official -> own)"
    )
    parser.add_argument(
        "--tokenizer", metavar="DIR", help="the vocabulary of OUT (-> minigpt4o; default: the one of SRC)"
    )
    parser.set_defaults(run=_later("convert", "convert"))


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", metavar="KIND", help="encoder, builder, task, dataset, ...; none: the kinds")
    parser.add_argument("--plugins", nargs="*", default=[], metavar="MODULE", help="look in these modules too")
    parser.set_defaults(run=_later("listing", "list_command"))


def _add_docs_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", default="docs/config-reference.md", metavar="FILE", help="the page (default: docs/config-reference.md)"
    )
    parser.add_argument("--check", action="store_true", help="only say whether the page is current")
    parser.set_defaults(run=_later("docs_config", "docs_config"))


def _add_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", nargs="?", choices=("bash", "zsh"), default="bash", help="default: bash")
    parser.set_defaults(run=_later("completion", "completion"))


_PLAIN: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "toy-world": ("write the toy world: pictures, sounds, texts", _add_toy_world),
    "tokenizer": ("train a tokenizer on text files", _add_tokenizer),
    "convert": ("our checkpoints <-> .pth of MiniGPT-4; Gemma 3n -> Minigpt4o", _add_convert),
    "list": ("what a YAML can name: encoders, bridges, tasks, data sets, ...", _add_list),
    "docs-config": ("write docs/config-reference.md from the classes", _add_docs_config),
    "completion": ("write the shell's completion of these commands and flags", _add_completion),
}
