"""`doctor`: look at this machine and say, line by line, what is well, what may hurt and what must be mended."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

State = Literal["ok", "warn", "bad"]


@dataclass(frozen=True)
class Check:
    """What was found of one thing."""

    name: str
    state: State
    told: str
    mend: str = ""  # what to do about it; empty where all is well


MEND = "mend the bad lines above first; without one, MINIGPT4O_TRACEBACK=1 and the command that fails show more"
Look = Callable[[], Iterator[Check]]


def looks(output_dir: str, ports: list[int]) -> list[Look]:
    """Everything that is looked at, the cheap things first."""
    from minigpt4o.serve import doctor_machine as machine
    from minigpt4o.serve import doctor_packages as packages

    return [
        packages.python,
        packages.installed,
        packages.loads,
        packages.extras,
        machine.gpu,
        machine.memory,
        partial(machine.disk, output_dir),
        partial(machine.ports, ports),
        machine.environment,
        machine.weights,
        machine.sound,
        machine.fonts,
    ]


def examined(output_dir: str, ports: list[int]) -> list[Check]:
    """All findings. A look that itself fails is a finding too."""
    found: list[Check] = []
    for look in looks(output_dir, ports):
        name = getattr(look, "func", look).__name__
        try:
            found += look()
        except Exception as error:  # noqa: BLE001  whatever a broken installation raises, the other lines are told
            found.append(Check(name, "bad", f"could not be looked at: {type(error).__name__}: {error}", MEND))
    return found


def main(args: argparse.Namespace) -> int:
    """Tell everything; 1 if anything is bad."""
    found = examined(args.output_dir, list(args.ports))
    bad, warned = (sum(check.state == state for check in found) for state in ("bad", "warn"))
    if args.json:
        sys.stdout.write(
            json.dumps({"bad": bad, "warn": warned, "checks": [asdict(check) for check in found]}, indent=2) + "\n"
        )
        return int(bad > 0)
    width = max(len(check.name) for check in found)
    for check in found:
        sys.stdout.write(f"{check.state:4}  {check.name:{width}}  {check.told}\n")
        if check.mend:
            sys.stdout.write(f"{'':4}  {'':{width}}  -> {check.mend}\n")
    sys.stdout.write(f"{len(found)} looks: {bad} bad, {warned} to know of\n")
    return int(bad > 0)
