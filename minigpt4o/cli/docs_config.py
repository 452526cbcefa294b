"""Write docs/config-reference.md from the classes themselves, so that there is no second truth."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minigpt4o.cli.listing import say
from minigpt4o.common.dialect_data import WORDS as DATA_WORDS
from minigpt4o.common.dialect_model import WORDS as MODEL_WORDS
from minigpt4o.common.dialect_run import WORDS as RUN_WORDS
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.loading import common_dataset_fields
from minigpt4o.common.registry import HOMES, Registry
from minigpt4o.common.source import Entry, FieldSpec

INTRO = """\
<!-- Written by `python -m minigpt4o.cli docs-config` from the classes' own declarations; do not edit. -->
# Configuration reference

A YAML file has the keys `model`, `datasets`, `run`, and perhaps `plugins` (outside modules to look in) and
`profile` (`compat` makes every class that has a profile equal to MiniGPT-4's code, its faults included).
`--options a.b=c` lays values over the file; `--print-config` tells every value and where it came from;
`--check` tells every problem at once. A part is written as its name, or as a mapping with `name` and the keys below.
`${key}` repeats another value; `${oc.env:NAME}` reads the environment and is never written to a run's folder.
"""

TITLES = {
    "model": ("Models", "`model.arch` names one; `model.model_type` lays a preset of `configs/models/` below."),
    "encoder": ("Encoders", "Values of `model.encoders`."),
    "bridge": ("Bridges", "Values of `model.bridges`."),
    "llm": ("Language models", "`model.llm`."),
    "builder": ("Dataset builders", "`datasets.<name>.builder` names one; its keys stand in the same node."),
    "processor": ("Processors", "Values of `vis_processor`, `audio_processor`, `text_processor`."),
    "task": ("Tasks", "`run.task`, and `datasets.<name>.task` in an evaluation."),
    "runner": ("Runners", "`run.runner` names one; its keys stand in the same node."),
    "engine": ("Engines", "`run.engine`."),
    "lr_scheduler": ("Learning rate schedules", "`run.lr_sched`."),
    "tracker": ("Trackers", "Members of `run.trackers`."),
}


def docs_config(args: argparse.Namespace) -> int:
    """`docs-config [--check]`."""
    path, text = Path(args.out), reference()
    if not args.check:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        say(f"written: {path}")
        return 0
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{path} is not current; run `python -m minigpt4o.cli docs-config`")
    say(f"{path} is current")
    return 0


def reference() -> str:
    """The page. Only shipped classes: plugins are not looked at."""
    shipped = Registry(HOMES)
    blocks = [INTRO, _datasets()]
    for kind in HOMES:
        title, where = TITLES[kind]
        blocks.append(f"## {title}\n\n{where}\n")
        for entry in _entries(shipped, kind):
            blocks.append(_class(entry))
    return "\n".join([*blocks, _foreign()])


def _foreign() -> str:
    """The words of MiniGPT-4 and LAVIS, from the tables that translate them."""
    lines = [
        "## Keys of MiniGPT-4 and LAVIS\n",
        "Files written for them load unchanged (`model` keys for the archs minigpt4 and minigpt_v2). A key without",
        "effect is told when the file is loaded. `evaluation_datasets` becomes data sets `benchmark_*` and the runner",
        "`evaluate`.\n",
        "| key | here |",
        "| --- | --- |",
    ]
    tables = (("model", MODEL_WORDS), ("datasets.*", DATA_WORDS), ("run", RUN_WORDS))
    for node, words in tables:
        lines += [f"| `{node}.{key}` | {word.doc(node)} |" for key, word in words.items()]
    return "\n".join(lines) + "\n"


def _entries(shipped: Registry, kind: str) -> list[Entry]:
    found = {name: shipped.entry(kind, name) for name in shipped.names(kind)}
    return [entry for name, entry in found.items() if name == entry.names[0]]


def _datasets() -> str:
    text = (
        "## Data sets\n\nEvery `datasets.<name>` node takes these keys and those of its builder.\n"
        "If `configs/datasets/<name>.yaml` exists it is laid below the node.\n\n"
    )
    return text + _table(common_dataset_fields())


def _class(entry: Entry) -> str:
    names = " = ".join(f"`{name}`" for name in entry.names)
    head = f"### {names}\n\n{_cell(entry.doc)}\n"
    return f"{head}\n{_table(entry.fields)}" if entry.fields else head


def _table(fields: Iterable[FieldSpec]) -> str:
    rows = ["| key | type | default | what |", "|---|---|---|---|"]
    for spec in fields:
        default = "**required**" if spec.required else f"`{_written(spec.default)}`"
        kind = spec.type.replace("Part", f"Part ({spec.part_kind})") if spec.part_kind else spec.type
        rows.append(f"| `{spec.name}` | {_cell(f'`{kind}`')} | {_cell(default)} | {_cell(spec.doc)} |")
    return "\n".join(rows) + "\n"


def _written(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
