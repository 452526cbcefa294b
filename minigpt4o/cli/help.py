"""How the command line explains itself: help in 80 columns, examples, and the nearest right word for a wrong one."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any, NoReturn

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.source import nearest

WIDTH = 78  # of a text: a terminal has 80 columns
USES = ("demo", "chat", "predict", "serve")  # commands that answer with a model that was trained
# What a newcomer looks for -> the commands that do it, in the order of a day's work.
GROUPS = {
    "begin": ("quickstart", "doctor", "list"),
    "data": ("data", "toy-world", "tokenizer"),
    "train and measure": ("train", "eval", "report"),
    "talk to it": USES,
    "hand it on": ("export", "convert"),
    "of this program": ("docs-config", "completion"),
}
EXAMPLES = {
    "": (
        "minigpt4o quickstart                  everything once, in small, without GPU",
        "minigpt4o chat --cfg-path output/JOB  talk to what a run has learned",
        "minigpt4o COMMAND --help              every flag of a command, with examples",
    ),
    "train": (
        "minigpt4o train --cfg-path train_configs/toy/stage1.yaml",
        "minigpt4o train --cfg-path train_configs/toy/stage1.yaml --check",
        "minigpt4o train --cfg-path train_configs/toy/stage2.yaml run.max_epoch=2",
        "torchrun --nproc-per-node 2 train.py --cfg-path train_configs/toy/stage1.yaml",
    ),
    "eval": (
        "minigpt4o eval --cfg-path eval_configs/toy/all.yaml",
        "minigpt4o eval --cfg-path eval_configs/toy/all.yaml --dataset toy_vqa_en",
        "minigpt4o eval --from output/toy/eval/RUN",
        "minigpt4o eval --compare output/toy/eval/RUN_A output/toy/eval/RUN_B",
    ),
    "demo": (
        "minigpt4o demo --cfg-path eval_configs/toy/demo.yaml",
        "minigpt4o demo --cfg-path output/toy/stage2 --server-port 7861",
    ),
    "chat": (
        "minigpt4o chat --cfg-path eval_configs/toy/demo.yaml",
        'minigpt4o chat --cfg-path output/toy/stage2 --image a.png --text "what is it?"',
    ),
    "serve": (
        "minigpt4o serve --cfg-path eval_configs/toy/demo.yaml --port 8000",
        "MINIGPT4O_API_KEY=secret minigpt4o serve --cfg-path output/toy/stage2",
    ),
    "predict": (
        "minigpt4o predict in.jsonl out.jsonl --cfg-path output/toy/stage2",
        "minigpt4o predict - - --cfg-path output/toy/stage2 < in.jsonl | head",
    ),
    "export": (
        "minigpt4o export output/toy/stage2 exported",
        "minigpt4o export output/toy/stage2 exported --merge-lora --licence mit",
    ),
    "report": (
        "minigpt4o report output/toy/eval",
        "minigpt4o report output/toy/eval --curves output/toy/stage1 --out page.html",
    ),
    "doctor": ("minigpt4o doctor", "minigpt4o doctor --json --ports 7860 8000"),
    "convert": (
        "minigpt4o convert output/my_stage2 checkpoint.pth",
        "minigpt4o convert checkpoint.pth my_checkpoint",
    ),
    "list": ("minigpt4o list", "minigpt4o list encoder", "minigpt4o list dataset"),
    "toy-world": ("minigpt4o toy-world --out data/toy --size small",),
    "tokenizer": ("minigpt4o tokenizer texts.txt --out output/words --vocab-size 8000",),
    "quickstart": ("minigpt4o quickstart", "minigpt4o quickstart --until stage1"),
    "data": (
        "minigpt4o data list",
        "minigpt4o data check --cfg-path train_configs/toy/stage2.yaml --limit 200",
        "minigpt4o data show --cfg-path train_configs/toy/stage2.yaml --out sheet.html",
    ),
    "docs-config": ("minigpt4o docs-config --check",),
    "completion": ('eval "$(minigpt4o completion bash)"',),
}


class Layout(argparse.RawDescriptionHelpFormatter):
    """Each flag once, with its value behind it; never wider than 80 columns."""

    def __init__(self, prog: str, **more: Any) -> None:
        width = min(WIDTH, shutil.get_terminal_size().columns - 2)
        super().__init__(prog, **{"max_help_position": 26, "width": width, **more})

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(_spellings(action.option_strings))} {value}"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        text = super()._format_args(action, default_metavar)
        return text.strip("[]") if action.nargs == "*" else text


def _spellings(flags: Iterable[str]) -> list[str]:
    """Each flag once: `--cfg_path` is `--cfg-path` too, which need not be said."""
    return list({flag.replace("_", "-"): flag for flag in reversed(list(flags))}.values())[::-1]


class Parser(argparse.ArgumentParser):
    """Errors are ConfigErrors, so that they end like all others; a wrong word is told with the nearest right one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": Layout, **kwargs})
        if self.description:
            self.description = textwrap.fill(_sentence(self.description), WIDTH)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; see {self.prog} --help")

    def flags(self) -> list[str]:
        """All flags of this parser."""
        return [flag for action in self._actions for flag in action.option_strings]

    def unknown(self, word: str) -> ConfigError:
        """What to say of a word that nobody takes."""
        close = nearest(word.split("=")[0], self.flags(), n=1)
        mend = f"did you mean {close[0]}?" if close else f"see {self.prog} --help"
        return ConfigError(f"{self.prog}: unknown argument {word!r}; {mend}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        close = nearest(str(value), known, n=1)
        mend = f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}"
        raise argparse.ArgumentError(action, f"invalid choice: {value!r} ({mend})")


def _sentence(text: str) -> str:
    """A description begins with a capital letter and ends with a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ")", "?")) else ".")


def examples(name: str) -> str:
    """The examples of a command, for the end of its help."""
    lines = EXAMPLES.get(name, ())
    return "\n".join(("examples:", *(f"  {line}" for line in lines))) if lines else ""


def overview(commands: dict[str, str]) -> str:
    """All commands by what they are for; `commands` says what each does."""
    width = max(map(len, commands))
    blocks = []
    for title, names in GROUPS.items():
        rows = [f"{title}:"]
        for name in names:
            head = f"  {name:{width}}  "
            rows.append(textwrap.fill(commands[name], WIDTH, initial_indent=head, subsequent_indent=" " * len(head)))
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks)
