"""The commands that read a YAML: train, eval, demo, chat."""

from __future__ import annotations

import argparse
import logging
import os

from minigpt4o.cli.habits import habit_options
from minigpt4o.cli.listing import print_config, print_kind, say
from minigpt4o.common.config import Settings, load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.log import rank_of_environment
from minigpt4o.common.registry import registry

log = logging.getLogger(__name__)


def train(args: argparse.Namespace) -> int:
    """Train, or dry-run."""
    return _run(args)


def evaluate(args: argparse.Namespace) -> int:
    """Evaluate, or dry-run."""
    return _run(args)


def demo(args: argparse.Namespace) -> int:
    """The chat page."""
    settings = _load(args)
    if settings is None:
        return 0
    from minigpt4o.serve import web

    return int(web.main(settings, args) or 0)


def chat(args: argparse.Namespace) -> int:
    """The chat in the terminal."""
    settings = _load(args)
    if settings is None:
        return 0
    from minigpt4o.serve import terminal

    return int(terminal.main(settings, args) or 0)


def _run(args: argparse.Namespace) -> int:
    settings = _load(args)
    if settings is None:
        return 0
    runner = registry.build(settings.run, settings=settings)
    if args.dry_run:
        runner.dry_run()
    else:
        runner.run()
    return 0


def _load(args: argparse.Namespace) -> Settings | None:
    """The settings, or None if the command was only to tell something."""
    if args.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    if args.cfg_path is None:
        if args.list:
            print_kind(args.list)
            return None
        raise ConfigError(f"{args.command}: --cfg-path FILE is missing; shipped ones stand in {_shipped(args.command)}")
    settings = load_settings(args.cfg_path, [*args.options, *habit_options(args)])
    if getattr(args, "dataset", None):
        settings = settings.keep([name for name in args.dataset.split(",") if name])
    if args.list:
        print_kind(args.list)
    if args.print_config and rank_of_environment() == 0:
        print_config(settings)
    if args.check:
        names = ", ".join(settings.datasets) or "none"
        say(
            f"ok: {settings.path}: model {settings.model.name}, runner {settings.run.name},"
            f" {len(settings.datasets)} data set(s): {names}"
        )
    return None if args.list or args.check or args.print_config else settings


def _shipped(command: str) -> str:
    return "train_configs/" if command == "train" else "eval_configs/"
