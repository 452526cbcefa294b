"""`report FOLDER`: report.html of an evaluation that is done, made again of its results, predictions and data."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.registry import registry
from minigpt4o.runners.evaluate_folder import CONFIG, PREDICTIONS, RESULTS, file_name
from minigpt4o.runners.evaluate_items import Data
from minigpt4o.runners.evaluate_journal import Journal
from minigpt4o.runners.evaluate_summary import Answers, results
from minigpt4o.runners.report import write_report
from minigpt4o.runners.report_examples import Browsed, choose

log = logging.getLogger(__name__)

REPORT = "report.html"


def main(args: argparse.Namespace) -> int:
    """Write it and say where."""
    folder = evaluation_in(Path(args.folder))
    out = Path(args.out) if args.out else folder / REPORT
    write(folder, out, [Path(run) for run in args.curves])
    sys.stdout.write(f"report: {out}\n")
    return 0


def evaluation_in(folder: Path) -> Path:
    """The folder of an evaluation that is done, or the newest one below a job folder. Raises ConfigError."""
    if (folder / RESULTS).is_file():
        return folder
    done = sorted(folder.glob(f"*/{RESULTS}"), key=lambda file: file.stat().st_mtime_ns) if folder.is_dir() else []
    if not done:
        raise ConfigError(f"{folder}: no {RESULTS} in it; give the folder of an evaluation that is done, or its job")
    return done[-1].parent


def write(folder: Path, out: Path, curves: list[Path]) -> None:
    """The report of one evaluation. Without its data it has no examples, and says so."""
    try:
        tree = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        variants, datasets = tree["variants"], tree["datasets"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / RESULTS} cannot be read: {error}") from error
    try:
        settings, config, answers = answers_of(folder, variants, datasets)
        answers.source = tree["run"].get("from") or {}
        again, found = results(answers, config, settings, folder)
    except (ConfigError, DataError, OSError) as error:
        log.warning("no examples in the report: %s", str(error).split("\n")[0])
        write_report(out, tree, lambda size: Browsed(), curves)
        return

    def examples(size: int) -> Browsed:
        return choose(answers, found, config.gallery, config.seed, size, config.group_by)

    curves = curves or [Path(run) for run in config.curves]
    write_report(out, in_order(tree, again), examples, curves, int(config.report_mb * 1e6))


def in_order(values: Any, like: Any) -> Any:
    """`values` with the keys of its mappings in the order of `like`: a JSON file has them sorted."""
    if not isinstance(values, Mapping) or not isinstance(like, Mapping):
        return values
    keys = [*(key for key in like if key in values), *(key for key in values if key not in like)]
    return {key: in_order(values[key], like.get(key)) for key in keys}


def answers_of(folder: Path, variants: Mapping[str, Any], datasets: Mapping[str, Any]) -> tuple[Any, Any, Answers]:
    """The settings, those of the run, and its answers beside their prompts, as far as all are there."""
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder / CONFIG} is missing")
    settings = load_settings(folder / CONFIG, []).keep(list(datasets))
    runner = registry.build(settings.run, settings=settings)
    if not hasattr(runner, "collect"):
        raise ConfigError(f"{folder / CONFIG}: runner {settings.run.name} evaluates nothing")
    data: dict[str, Data] = {}
    journals: dict[tuple[str, str, str], Journal] = {}
    for name, one in runner.collect().items():
        there = _conditions(datasets[name])
        kept = {c: items for c, items in one.conditions.items() if c in there}
        data[name] = Data(name, one.task, one.asked, kept)
        for label in variants:
            for condition in kept:
                path = folder / PREDICTIONS / f"{file_name(label, name, condition)}.jsonl"
                journals[label, name, condition] = Journal(path, _header(path))
    labels = [*(label for label in runner.variants() if label in variants), *variants]
    ordered = {label: variants[label] for label in labels}
    return settings, runner.config, Answers(data, journals, ordered)


def _conditions(dataset: Mapping[str, Any]) -> set[str]:
    """Conditions under which every variant was asked."""
    return set.intersection(*(set(told["conditions"]) for told in dataset["variants"].values()))


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            return json.loads(file.readline())["header"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: no predictions of an evaluation ({error})") from error
