"""`data download`: print the commands that fetch a set; run them only when asked, each as a program of its own."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from minigpt4o.cli.listing import say
from minigpt4o.common import presets
from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.datasets.prepare.fetch import Resize, steps_of, url_list_steps
from minigpt4o.datasets.known import known_set

ROOT = "MINIGPT4O_DATA"  # the folder that the known sets' paths start from
_MENDS = {
    "uvx": "install uv (https://docs.astral.sh/uv, or `pip install uv`): it runs img2dataset in an environment of its "
    "own, whose older packages must not come into this one",
    "curl": "install curl with the system's package manager",
}


def download(args: argparse.Namespace) -> int:
    """Print, or with `--run` run, the commands for a known set or a list of URLs."""
    if args.root:
        os.environ[ROOT] = args.root  # the paths of the known sets begin with it, here and in what is started
    url_list = Path(args.url_list) if args.url_list else None
    if url_list is not None and args.start and not url_list.is_file():
        raise DataError(f"--url-list {url_list}: no such file")
    steps = _steps(args.name, Resize(args.image_size, args.resize_mode, args.processes, args.threads), url_list)
    for words in steps:
        say(shlex.join(words))
    if not args.start:
        say("# nothing was started; add --run to run these, or paste them into a shell")
        return 0
    _check_programs(steps)
    for words in steps:
        _run(words)
    say(f"done; now look at it: python -m minigpt4o.cli data check {args.name}")
    return 0


def _steps(name: str, resize: Resize, url_list: Path | None) -> list[list[str]]:
    """The commands for a known set, after what is said of it; or for a list of URLs under a name of its own."""
    if url_list is not None and presets.find("datasets", name) is None:
        return url_list_steps(Path(os.environ.get(ROOT, "data")) / name, None, resize, url_list)
    one = known_set(name)
    for key in ("licence", "source", "download", "layout"):
        for number, line in enumerate(_lines(one.about.get(key, ""))):
            say(f"# {'' if number else key:9} {line}")
    steps = steps_of(one, resize, url_list)
    if not steps:
        raise DataError(
            f"data download {name}: no command can fetch it; follow what is said above and put the files where "
            f"`data list {name}` looks for them"
        )
    return steps


def _lines(text: str) -> list[str]:
    return textwrap.wrap(text, 104, break_long_words=False, break_on_hyphens=False)


def _check_programs(steps: list[list[str]]) -> None:
    """Raises ConfigError before anything is started if a program is missing."""
    for program in dict.fromkeys(words[0] for words in steps):
        if program != "python" and shutil.which(program) is None:
            mend = _MENDS.get(program, f"install {program}")
            raise ConfigError(f"data download --run: {program} was not found on PATH; {mend}")


def _run(words: list[str]) -> None:
    program = sys.executable if words[0] == "python" else words[0]
    say(f"+ {shlex.join(words)}")
    sys.stdout.flush()
    code = subprocess.run([program, *words[1:]], check=False).returncode
    if code:
        raise DataError(f"{words[0]} ended with code {code}; start the same command again, it goes on where it stopped")
