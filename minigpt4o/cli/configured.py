"""The commands that read a YAML: train, eval, demo, chat."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from minigpt4o.cli.habits import habit_options
from minigpt4o.cli.help import USES
from minigpt4o.cli.listing import print_config, print_kind, say
from minigpt4o.common.config import Settings, load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.log import rank_of_environment
from minigpt4o.common.registry import registry


def train(args: argparse.Namespace) -> int:
    """Train, or dry-run."""
    return _run(args)


def evaluate(args: argparse.Namespace) -> int:
    """Evaluate, dry-run, score predictions that are there (`--from`), or compare two evaluations."""
    for flag, given, needed in (("--partial", args.partial, "--from"), ("--metric", args.metric, "--compare")):
        if given and not (args.source if needed == "--from" else args.compare):
            raise ConfigError(f"eval: {flag} belongs to {needed}")
    if args.compare:
        if args.source:
            raise ConfigError("eval: --from and --compare are two commands; score again first, then compare")
        from minigpt4o.runners.evaluate_compare import compare

        first, second = args.compare
        compare(first, second, args.metric or "", args.out or "")
        return 0
    return _rescore(args) if args.source else _run(args)


def _rescore(args: argparse.Namespace) -> int:
    """The configuration is the one given, else the one that lies beside the predictions."""
    from minigpt4o.runners.evaluate_source import config_beside

    source = Path(args.source)
    if args.cfg_path is None:
        args.cfg_path = config_beside(source)
        if args.cfg_path is None:
            raise ConfigError(
                f"eval: --from {source} says what was answered, not to what: name the YAML with --cfg-path"
            )
    settings = load(args)
    if settings is not None:
        from minigpt4o.runners.evaluate_from import rescore

        rescore(settings, source, args.partial)
    return 0


def demo(args: argparse.Namespace) -> int:
    """The chat page."""
    settings = load(args)
    if settings is None:
        return 0
    from minigpt4o.serve import web

    return int(web.main(settings, args) or 0)


def chat(args: argparse.Namespace) -> int:
    """The chat in the terminal."""
    settings = load(args)
    if settings is None:
        return 0
    from minigpt4o.serve import terminal

    return int(terminal.main(settings, args) or 0)


def _run(args: argparse.Namespace) -> int:
    settings = load(args)
    if settings is None:
        return 0
    runner = registry.build(settings.run, settings=settings)
    if args.dry_run:
        runner.dry_run()
    else:
        runner.run()
    return 0


def load(args: argparse.Namespace) -> Settings | None:
    """The settings, or None if the command was only to tell something."""
    if args.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    if args.cfg_path is None:
        if args.list:
            print_kind(args.list)
            return None
        raise ConfigError(f"{args.command}: --cfg-path FILE is missing; shipped ones stand in {_shipped(args.command)}")
    settings = _settings(args)
    if getattr(args, "dataset", None):
        settings = settings.keep([name for name in args.dataset.split(",") if name])
    if args.list:
        print_kind(args.list)
    if args.print_config and rank_of_environment() == 0:
        print_config(settings)
    if args.check:
        if args.command in USES:
            from minigpt4o.serve.inference import chat_config

            chat_config(settings)  # what could answer nothing is a problem, too
        names = ", ".join(settings.datasets) or "none"
        say(
            f"ok: {settings.path}: model {settings.model.name}, runner {settings.run.name},"
            f" {len(settings.datasets)} data set(s): {names}"
        )
    return None if args.list or args.check or args.print_config else settings


def _settings(args: argparse.Namespace) -> Settings:
    """Of a YAML; commands that use a model that is there also take what a run left: any folder or file of it."""
    options: list[Any] = [*args.options, *habit_options(args)]
    if args.command in USES and Path(args.cfg_path).exists():
        from minigpt4o.serve.opening import source_of_path

        return source_of_path(args.cfg_path, None, options, "").settings
    return load_settings(args.cfg_path, options)


def _shipped(command: str) -> str:
    return "train_configs/" if command == "train" else "eval_configs/"
