"""Run a command; whatever goes wrong ends in one last line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from minigpt4o.cli.parser import parse
from minigpt4o.common.errors import Minigpt4oError
from minigpt4o.common.log import rank_of_environment, setup
from minigpt4o.common.problems import ConfigProblems

INTERRUPTED = 130
TRACEBACK = "MINIGPT4O_TRACEBACK"  # set to 1 to see where an error was raised


def run_command(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into exit codes. Unexpected exceptions keep their traceback."""
    _steady()
    everywhere = True  # whether each rank makes this mistake, so that one voice is enough
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        setup()
        everywhere = False
        return int(args.run(args) or 0)
    except Minigpt4oError as error:
        if os.environ.get(TRACEBACK) == "1":
            raise
        if rank_of_environment() == 0 or not (everywhere or isinstance(error, ConfigProblems)):
            _tell(error)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(f"ERROR {INTERRUPTED} interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # `... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _steady() -> None:
    """Odd bytes in a file name or a text must not end a run because the terminal cannot show them."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _tell(error: Minigpt4oError) -> None:
    """What is wrong, the last line beginning with ERROR and the code."""
    lines = str(error).rstrip("\n").split("\n")
    if isinstance(error, ConfigProblems) and len(lines) > 1:
        lines = [*lines, f"{len(error.problems)} problems in the configuration, listed above; nothing was started"]
    elif len(lines) > 1:
        lines = [*lines[1:], lines[0]]  # the first line says it, the rest are details
    for line in lines[:-1]:
        sys.stderr.write(f"{line}\n")
    sys.stderr.write(f"ERROR {error.exit_code} {lines[-1]}\n")
    sys.stderr.flush()
