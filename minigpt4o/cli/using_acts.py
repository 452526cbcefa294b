"""What `serve`, `predict`, `export`, `report` and `doctor` do."""

from __future__ import annotations

import argparse
import os

from minigpt4o.cli.configured import load

API_KEY = "MINIGPT4O_API_KEY"


def serve(args: argparse.Namespace) -> int:
    """The HTTP API."""
    if args.api_key is None:
        args.api_key = os.environ.get(API_KEY) or None
    settings = load(args)
    if settings is None:
        return 0
    from minigpt4o.serve.api import main

    return int(main(settings, args) or 0)


def predict(args: argparse.Namespace) -> int:
    """Answers to a file of rows."""
    settings = load(args)
    if settings is None:
        return 0
    from minigpt4o.serve import predict

    return int(predict.main(settings, args) or 0)


def export(args: argparse.Namespace) -> int:
    """A Hugging Face folder of a checkpoint."""
    from minigpt4o.serve.export import main

    return int(main(args) or 0)


def report(args: argparse.Namespace) -> int:
    """report.html of an evaluation, made again."""
    from minigpt4o.runners.report_again import main

    return int(main(args) or 0)


def doctor(args: argparse.Namespace) -> int:
    """A look at this machine."""
    from minigpt4o.serve.doctor import main

    return int(main(args) or 0)
