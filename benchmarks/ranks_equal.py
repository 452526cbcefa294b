"""One process and several ranks, torch and DeepSpeed, must learn the same: compare losses step by step.

    python benchmarks/ranks_equal.py --cfg-path train_configs/toy/stage1.yaml --steps 20

Runs the configuration once with one process and the torch engine, then under torchrun with each engine, every rank
taking its share of the same global batch. Dropout must be off: ranks draw it differently by design.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENGINES = ["torch", "deepspeed:1", "deepspeed:2", "deepspeed:3"]


def launch(
    args: argparse.Namespace, output: Path, job: str, ranks: int, engine: str, rows: int
) -> list[dict[str, Any]]:
    """Train `--steps` steps; the rows of metrics.jsonl."""
    name, _, stage = engine.partition(":")
    options = [
        *args.options,
        f"run.max_steps={args.steps}",
        f"run.batch_size_train={rows}",
        f"run.output_dir={output}",
        f"run.job_name={job}",
        f"run.engine.name={name}",
        *([f"run.engine.zero_stage={stage}"] if stage else []),
        "run.device=cpu",
        "run.threads=1",
        "run.probe_size=0",
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = command if ranks > 1 else [sys.executable]
    command += [str(ROOT / "train.py"), "--cfg-path", args.cfg_path, "--options", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{job} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    (log,) = (output / job).glob("*/metrics.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg-path", required=True)
    parser.add_argument("--options", nargs="*", default=[])
    parser.add_argument("--engines", nargs="+", default=ENGINES, help="torch or deepspeed:STAGE")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--global-batch", type=int, default=8)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        one = launch(args, Path(folder), "one", 1, "torch", args.global_batch)
        for engine in args.engines:
            rows = launch(
                args, Path(folder), engine.replace(":", ""), args.ranks, engine, args.global_batch // args.ranks
            )
            apart = max(abs(a["loss"] - b["loss"]) for a, b in zip(one, rows, strict=True))
            same_data = all(a["ids"] == b["ids"] for a, b in zip(one, rows, strict=True))
            ok = apart <= args.tolerance and same_data
            bad += not ok
            sys.stdout.write(
                f"{engine:12s} {args.ranks} ranks, {len(rows)} steps: largest loss difference {apart:.2e}, "
                f"data order {'equal' if same_data else 'DIFFERENT'}: {'ok' if ok else 'NOT EQUAL'}\n"
            )
            sys.stdout.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
