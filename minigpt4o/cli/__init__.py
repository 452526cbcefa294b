"""The command line: `python -m minigpt4o.cli COMMAND`; train.py, eval.py and demo.py are doors into it."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 config, 3 data, 4 checkpoint, 5 not finite, 75 saved."""
    from minigpt4o.cli.entry import run_command

    return run_command(argv)
