"""Kill a training at random moments, start it again with the same command, and compare with a run left in peace.

    python benchmarks/kill_test.py --cfg-path train_configs/toy/stage1.yaml --runs 20 --options run.max_steps=60

Each run is a forked process that SIGKILL ends again and again until one of them comes to its end. Then metrics.jsonl
(losses as exact hexadecimal floats, sample ids, learning rates) and the final weights and optimizer moments must be,
byte for byte, those of the uninterrupted run. CPU only: GPU kernels are not bit for bit repeatable. The parent takes
one step in memory before it forks, so that no child has to import anything.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

COMPARED = ("trained.safetensors", "optimizer.safetensors")


@dataclass
class Outcome:
    """What became of one run."""

    kills: int
    seconds: float
    log: str  # SHA-256 of metrics.jsonl
    weights: str  # SHA-256 of the final tensors


def with_run(settings: Any, **values: Any) -> Any:
    """The settings with other values in the run node."""
    return replace(settings, run=replace(settings.run, values={**settings.run.values, **values}))


def in_child(work: Callable[[], None]) -> int:
    """Fork; the child works and ends without returning."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)  # its loader's workers die with it
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def until_done(settings: Any, mean_wait: float, draw: random.Random) -> Outcome:
    """Start, kill after a random time, start again, until a start comes to its end."""
    from minigpt4o.common.registry import registry

    start, kills = time.monotonic(), 0
    folder = Path(settings.run["output_dir"]) / settings.run["job_name"]
    while True:
        pid = in_child(lambda: registry.build(settings.run, settings=settings).run())
        deadline = time.monotonic() + draw.expovariate(1 / mean_wait) if mean_wait else float("inf")
        done = 0
        while not done and time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.005)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code:
                raise SystemExit(f"{folder}: a start ended by itself with exit code {code}; see log.txt there")
            break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills += 1
        if any(folder.glob("*/finished.json")):  # killed after its last act
            break
    runs = [f for f in folder.iterdir() if (f / "finished.json").exists()]
    if len(runs) != 1:
        raise SystemExit(f"{folder}: {len(runs)} finished runs, not one")
    return Outcome(kills, time.monotonic() - start, *digests(runs[0]))


def digests(run: Path) -> tuple[str, str]:
    """SHA-256 of the step log, and of the tensors of the last checkpoint."""
    from minigpt4o.common.files import find_checkpoint

    step = find_checkpoint(run)
    tensors = hashlib.sha256(b"".join((step / name).read_bytes() for name in COMPARED)).hexdigest()
    return hashlib.sha256((run / "metrics.jsonl").read_bytes()).hexdigest(), tensors


def prepare(settings: Any, output: Path) -> Any:
    """One thread, resumable, below `output`; warmed up in this process."""
    from minigpt4o.common.registry import registry

    settings = with_run(settings, resume_ckpt_path="auto", output_dir=str(output), device="cpu", threads=1, trackers=[])
    registry.build(settings.run, settings=settings).dry_run()
    return settings


def kill_runs(settings: Any, output: Path, runs: int, mean_wait: float, seed: int, say: Callable[[str], None]) -> bool:
    """Whether every killed run equals the one left in peace. `mean_wait` 0: a fifth of its time."""
    settings = prepare(settings, output)
    peace = until_done(with_run(settings, job_name="peace"), 0, random.Random(seed))
    say(f"left in peace: {peace.seconds:.1f} s, log {peace.log[:12]}, weights {peace.weights[:12]}")
    wait = mean_wait or peace.seconds / 5
    same = 0
    for number in range(runs):
        found = until_done(with_run(settings, job_name=f"killed-{number}"), wait, random.Random(f"{seed}/{number}"))
        equal = (found.log, found.weights) == (peace.log, peace.weights)
        same += equal
        say(
            f"run {number + 1}/{runs}: {found.kills} kills, {found.seconds:.1f} s, log {found.log[:12]}, "
            f"weights {found.weights[:12]}: {'identical' if equal else 'DIFFERENT'}"
        )
    say(f"{same} of {runs} runs identical to the uninterrupted one")
    return same == runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg-path", required=True)
    parser.add_argument("--options", nargs="*", default=[])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--mean-wait", type=float, default=0.0, help="mean seconds before a kill; 0 = a fifth of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="", help="folder for the runs; default: a temporary one")
    args = parser.parse_args()
    logging.basicConfig()
    logging.getLogger().handlers[0].setLevel(logging.ERROR)  # each run's log.txt has the rest
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    from minigpt4o.common.config import load_settings

    torch.set_num_threads(1)  # before any work: threads do not survive a fork
    settings = load_settings(args.cfg_path, args.options)

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory() as folder:
        ok = kill_runs(settings, Path(args.out or folder), args.runs, args.mean_wait, args.seed, say)
    say(json.dumps({"identical": ok, "runs": args.runs}))
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
