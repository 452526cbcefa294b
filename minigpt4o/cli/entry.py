"""Run a command; whatever goes wrong ends in one last line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from minigpt4o.cli.parser import parse
from minigpt4o.common.errors import Minigpt4oError
from minigpt4o.common.log import rank_of_environment, setup
from minigpt4o.common.problems import ConfigProblems

INTERRUPTED = 130
TRACEBACK = "MINIGPT4O_TRACEBACK"  # set to 1 to see where an error was raised
# What a machine answers to a path that a person typed, or to a full disk: no mistake of ours.
REFUSED = frozenset(
    {
        *(errno.ENOENT, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR),
        errno.ENAMETOOLONG,
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    }
)


def run_command(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into exit codes. Unexpected exceptions keep their traceback."""
    _steady()
    try:
        return _done(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:  # `... | head`: the reader has seen enough
        _silence()
        return 0
    except OSError as error:
        if error.errno not in REFUSED or os.environ.get(TRACEBACK) == "1":
            raise
        what = Minigpt4oError(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))
        _tell(what)
        if not error.filename:
            _silence()
        return what.exit_code


def _done(argv: Sequence[str]) -> int:
    """Do it; what we say of what went wrong is written to stderr."""
    everywhere = True  # whether each rank makes this mistake, so that one voice is enough
    try:
        args = parse(argv)
        setup()
        everywhere = False
        return _written(int(args.run(args) or 0))
    except SystemExit as end:  # --help and --version
        if end.code is None or isinstance(end.code, int):
            return _written(end.code or 0)
        raise
    except Minigpt4oError as error:
        if os.environ.get(TRACEBACK) == "1":
            raise
        if rank_of_environment() == 0 or not (everywhere or isinstance(error, ConfigProblems)):
            _tell(error)
        return error.exit_code
    except (Exception, KeyboardInterrupt) as error:
        if not _interrupted(error):
            raise
        sys.stderr.write(f"ERROR {INTERRUPTED} interrupted\n")
        return INTERRUPTED


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C stands behind an error: an import that is interrupted may end as one that found nothing."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _written(code: int) -> int:
    """Write out what was said, here, where a reader that has left or a full disk can still be noticed."""
    sys.stdout.flush()
    return code


def _silence() -> None:
    """Nothing more can be written: let the interpreter not try it again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _steady() -> None:
    """Odd bytes in a text must not end a run because the terminal cannot show them, nor a stream that is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  it stays open to the end
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries draw over their line; in a file they are noise


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
