"""Flags known from other frameworks, each as the option it stands for."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.layers import Option

# flag -> (name in the namespace, dotted key). The flags of the page (--share, --server-name, --server-port) are not
# here: a page opens from any YAML, whatever its runner, and serve/web.py lays them over its settings itself.
PLAIN = {
    "--output_dir": ("output_dir", "run.output_dir"),
    "--max_steps": ("max_steps", "run.max_steps"),
    "--resume_from_checkpoint": ("resume_from_checkpoint", "run.resume_ckpt_path"),
}


def habit_options(args: argparse.Namespace) -> list[Option]:
    """The options that the given flags stand for. A key that the YAML's runner lacks is told with the flag's name."""
    options = []
    for flag, (name, key) in PLAIN.items():
        value = getattr(args, name, None)
        if value is not None:
            options.append(Option(key, str(value), f"{flag} {value}"))
    if getattr(args, "limit", None) is not None:
        key = "run.limit" if args.command == "eval" else "datasets.*.max_samples"
        options.append(Option(key, str(args.limit), f"--limit {args.limit}"))
    if getattr(args, "gpu_id", None) is not None:
        options.append(Option("run.device", f"cuda:{args.gpu_id}", f"--gpu-id {args.gpu_id}"))
    if getattr(args, "report_to", None) is not None:
        names = [] if args.report_to in ("", "none") else [w for w in args.report_to.split(",") if w]
        options.append(Option("run.trackers", json.dumps(names), f"--report_to {args.report_to}"))
    if getattr(args, "deepspeed", None) is not None:
        engine = {"name": "deepspeed", "zero_stage": _zero_stage(args.deepspeed)}
        options.append(Option("run.engine", json.dumps(engine), f"--deepspeed {args.deepspeed}"))
    return options


def _zero_stage(file: str) -> int:
    """The ZeRO stage of a DeepSpeed JSON file. Everything else in such a file is a key of `run` here."""
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"--deepspeed {file}: no such file; without a file: --options run.engine=deepspeed")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--deepspeed {file}: not valid JSON: {error}") from None
    zero = settings.get("zero_optimization", {}) if isinstance(settings, dict) else None
    stage = zero.get("stage", 1) if isinstance(zero, dict) else None
    if stage not in (0, 1, 2, 3) or isinstance(stage, bool):
        raise ConfigError(f"--deepspeed {file}: zero_optimization.stage must be 0, 1, 2 or 3")
    return int(stage)
