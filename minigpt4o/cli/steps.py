"""Run commands as steps of a longer work: side by side, output shown as it comes, time and memory measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_SAMPLE_SECONDS = 0.5  # how often memory is looked at
_GRACE_SECONDS = 60  # to save and stop


@dataclass
class Step:
    """One command to run. `name` stands before each line it writes and names its log."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """What a step cost."""

    name: str
    seconds: float
    peak_mib: float  # resident memory of its whole family of processes, shared pages counted in each
    code: int
    tail: str  # its last lines


def run_steps(steps: Sequence[Step], logs: Path, at_once: int = 1) -> list[Outcome]:
    """Run steps, at most `at_once` at a time, in the order given. After a failure no new one is started.

    Each step's output goes to standard output with its name in front and to `logs/<name>.log`. If this is
    interrupted, the steps at work are asked to stop (SIGTERM: they save) and waited for.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting, outcomes = list(steps), []
    gate = threading.Condition()
    running: dict[str, subprocess.Popen[str] | None] = {}

    def work(step: Step) -> None:
        outcome = _run(step, logs / f"{step.name}.log", lambda process: running.update({step.name: process}))
        with gate:
            del running[step.name]
            outcomes.append(outcome)
            gate.notify()

    with gate:
        try:
            while waiting or running:
                if any(outcome.code for outcome in outcomes):
                    waiting.clear()
                while waiting and len(running) < max(at_once, 1):
                    step = waiting.pop(0)
                    running[step.name] = None
                    threading.Thread(target=work, args=(step,), daemon=True).start()
                if running:
                    gate.wait()
        except BaseException:
            _stop([process for process in running.values() if process is not None])
            raise
    order = [step.name for step in steps]
    return sorted(outcomes, key=lambda outcome: order.index(outcome.name))


def _run(step: Step, log: Path, started: Callable[[subprocess.Popen[str]], None]) -> Outcome:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **step.environment}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.monotonic()
    tail: list[str] = []
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            list(step.command),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that its whole family can be asked to stop
        ) as process,
    ):
        started(process)
        memory = _MemoryWatch(process.pid)
        assert process.stdout is not None
        for line in process.stdout:  # text mode takes a lone carriage return as a line's end too
            file.write(line)
            if line.strip():
                tail = [*tail[-19:], line]
                sys.stdout.write(f"[{step.name}] {line}")
                sys.stdout.flush()
        code = process.wait()
        memory.stop()
    return Outcome(step.name, time.monotonic() - start, memory.peak_mib, code, "".join(tail))


def _stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        try:
            os.killpg(process.pid, signal.SIGTERM)
        except ProcessLookupError:  # it has ended by itself
            continue
    for process in processes:
        try:
            process.wait(timeout=_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


class _MemoryWatch:
    """Looks at a process and all its descendants twice a second and remembers the largest sum (Linux; else 0)."""

    def __init__(self, pid: int) -> None:
        self.peak_mib = 0.0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self.peak_mib = max(self.peak_mib, family_mib(self._pid))


def family_mib(pid: int) -> float:
    """Resident memory of a process and its descendants now, in MiB; 0.0 where /proc is not there."""
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        parents[int(folder.name)] = int(after_name[1])
        pages[int(folder.name)] = int(after_name[21])
    family, grew = {pid}, True
    while grew:
        more = {child for child, parent in parents.items() if parent in family} - family
        family |= more
        grew = bool(more)
    return sum(pages.get(member, 0) for member in family) * _PAGE / 2**20
