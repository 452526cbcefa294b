"""The first run: toy world, tokenizer, stages 0, 1 and 2, evaluation, each step reused if it is already done."""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt4o.cli.numbers import some
from minigpt4o.cli.steps import Outcome, Step, run_steps
from minigpt4o.common.cores import cores
from minigpt4o.common.errors import ConfigError, Minigpt4oError

LOGS = Path("output/toy/quickstart")
LEDGER = LOGS / "steps.json"  # name of a step -> the key it was started or done with, and what it cost
CHAT = "eval_configs/toy/demo.yaml"


# Of conversation/templates/toy.yaml: who speaks is the template's to say, the brackets of media are words like others.
SPEAKERS = ("<user>", "<assistant>")
BRACKETS = ("<Img>", "</Img>", "<Aud>", "</Aud>")


@dataclass(frozen=True)
class Act:
    """One step: what runs, the YAML it reads, and the file that is there when it is done."""

    name: str
    command: tuple[str, ...]
    product: str  # a path; for a YAML, a name inside <run.output_dir>/<run.job_name>/<any run>
    config: str = ""
    ranks: int = 1  # processes, if there are as many cores
    options: tuple[str, ...] = ()  # values laid over the YAML

    def products(self) -> list[Path]:
        """The files that show that it was done, oldest first."""
        if not self.config:
            return [path for path in [Path(self.product)] if path.is_file()]
        run = _run_node(self.config)
        job = Path(run.get("output_dir", "output")) / run.get("job_name", "run")
        return sorted(job.glob(f"*/{self.product}"), key=lambda path: path.stat().st_mtime)


# Stages 1 and 2 stand in their files with AdamW, which every engine knows. Muon needs far fewer steps on a CPU.
FAST = ("run.optimizer=muon", "run.init_lr=4e-3")


def train(name: str, ranks: int = 1, options: tuple[str, ...] = ()) -> Act:
    config = f"train_configs/toy/{name}.yaml"
    return Act(name, ("train.py", "--cfg-path", config), "finished.json", config, ranks, options)


def evaluate(name: str, ranks: int = 1) -> Act:
    config = f"eval_configs/toy/{name}.yaml"
    return Act("eval", ("eval.py", "--cfg-path", config), "report.html", config, ranks)


CLI = ("-m", "minigpt4o.cli")
# Acts of one row do not need each other and run side by side.
PLAN: tuple[tuple[Act, ...], ...] = (
    (Act("world", (*CLI, "toy-world", "--out", "data/toy", "--size", "small"), "data/toy/manifest.json"),),
    (
        Act(
            "tokenizer",
            (
                *CLI,
                "tokenizer",
                "data/toy/tokenizer_text.txt",
                "--out",
                "output/toy/tokenizer",
                "--vocab-size",
                "768",
                "--special",
                *SPEAKERS,
                "--word",
                *BRACKETS,
            ),
            "output/toy/tokenizer/tokenizer.json",
        ),
    ),
    (train("stage0_language"), train("stage0_image"), train("stage0_audio")),  # the longest first
    (train("stage1", ranks=2, options=FAST),),
    (train("stage2", ranks=2, options=FAST),),
    (evaluate("all", ranks=2),),
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `quickstart` to the command line."""
    parser = subparsers.add_parser(
        "quickstart", help="the toy world: train, measure, ready to chat", description=__doc__
    )
    parser.add_argument("--force", action="store_true", help="do every step again, even if it is done")
    steps = [act.name for row in PLAN for act in row]
    parser.add_argument("--until", choices=steps, metavar="STEP", help=f"stop after this step: {', '.join(steps)}")
    parser.add_argument("--cores", type=some, default=cores(), metavar="N", help="default: the cores of this machine")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what is not done yet; print what each step cost and how to go on."""
    _require_checkout()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to stop = interrupted: the steps save and end
    start, key, seconds = time.monotonic(), _common_key(), {}
    for row in PLAN:
        keys = {act.name: _key(key, act) for act in row}
        todo = [act for act in row if args.force or not is_done(act, keys[act.name])]
        for act in row:
            if act not in todo:
                _say(f"{act.name}: done before, reused (again: --force)")
        for outcome in _do(todo, keys, args.cores):
            seconds[outcome.name] = outcome.seconds
        key = _digest(*keys.values())
        if args.until in keys:
            break
    _say_costs(seconds, time.monotonic() - start)
    _say_next()
    return 0


def _do(acts: Sequence[Act], keys: Mapping[str, str], cores: int) -> list[Outcome]:
    if not acts:
        return []
    _say(f"now: {', '.join(act.name for act in acts)}")
    steps = [_step(act, cores, again=_ledger().get(act.name, {}).get("started") == keys[act.name]) for act in acts]
    for act in acts:
        _write(act.name, started=keys[act.name])
    outcomes = run_steps(steps, LOGS, at_once=cores)
    for outcome in outcomes:
        if not outcome.code:
            cost = {"seconds": round(outcome.seconds, 1), "peak_mib": round(outcome.peak_mib)}
            _write(outcome.name, done=keys[outcome.name], **cost)
    for outcome in outcomes:
        if outcome.code:
            raise Minigpt4oError(
                f"quickstart: {outcome.name} ended with status {outcome.code} after {outcome.seconds:.0f} s; all of it:"
                f" {LOGS / outcome.name}.log; what was finished is kept, so run it again when this is mended"
                f"\n{outcome.tail}"
            )
    return outcomes


def _step(act: Act, cores: int, again: bool) -> Step:
    """One thread a process: the acts of a row, or the ranks of an act, share the cores.

    `again`: the very same act was started before and not finished; training then goes on where it was.
    """
    command = list(act.command)
    ranks = min(act.ranks, cores)
    if ranks > 1:
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), *command]
    if act.config.startswith("train_configs/") and again:
        command += ["--resume_from_checkpoint", "auto"]
    if act.options:
        command += ["--options", *act.options]
    if act.name == "world":
        command += ["--workers", str(cores)]
    return Step(act.name, [sys.executable, *command], {"OMP_NUM_THREADS": "1"})


def is_done(act: Act, key: str) -> bool:
    """Whether the act was finished with this very key, and its work is still there."""
    return _ledger().get(act.name, {}).get("done") == key and bool(act.products())


def _write(name: str, **facts: Any) -> None:
    ledger = {**_ledger(), name: facts}
    LEDGER.parent.mkdir(parents=True, exist_ok=True)
    fresh = LEDGER.with_suffix(".tmp")
    fresh.write_text(json.dumps(ledger, indent=2), encoding="utf-8")
    fresh.replace(LEDGER)


def _ledger() -> dict[str, dict[str, Any]]:
    return json.loads(LEDGER.read_text(encoding="utf-8")) if LEDGER.is_file() else {}


def _run_node(config: str) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load(Path(config).read_text(encoding="utf-8")).get("run") or {})


def _common_key() -> str:
    """Presets and templates stand behind every YAML: a change of one makes every step new."""
    files = sorted(Path(__file__).parent.parent.rglob("*.yaml"))
    return _digest(*(file.read_text(encoding="utf-8") for file in files))


def _key(before: str, act: Act) -> str:
    config = Path(act.config).read_text(encoding="utf-8") if act.config else ""
    return _digest(before, *act.command, *act.options, config)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _require_checkout() -> None:
    missing = [act.config for row in PLAN for act in row if act.config and not Path(act.config).is_file()]
    if missing:
        raise ConfigError(f"quickstart: {missing[0]} is not here; run it in the folder that holds train_configs/")


def _say(text: str) -> None:
    sys.stdout.write(f"\n[quickstart] {text}\n")
    sys.stdout.flush()


def _say_costs(now: dict[str, float], total: float) -> None:
    rows = [f"  {'step':<18}{'seconds':>9}{'peak MiB':>10}"]
    for name, spent in _ledger().items():
        if "done" not in spent:
            continue
        reused = "" if name in now else "   (before)"
        rows.append(f"  {name:<18}{spent['seconds']:>9.1f}{spent['peak_mib']:>10}{reused}")
    _say("\n".join([f"finished in {total:.0f} s", *rows]))


def _say_next() -> None:
    reports = [path for path in PLAN[-1][-1].products() if path.suffix == ".html"]
    lines = ["what to do next:"]
    if reports:
        lines.append(f"  open the report      xdg-open {reports[-1]}")
    lines.append(f"  chat in the browser  python demo.py --cfg-path {CHAT}")
    lines.append(f"  chat in the terminal python -m minigpt4o.cli chat --cfg-path {CHAT}")
    lines.append("  (after `source .venv/bin/activate`, or with .venv/bin/python)")
    _say("\n".join(lines))
