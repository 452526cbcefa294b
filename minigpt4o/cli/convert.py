"""The command `convert`: a checkpoint of ours <-> a `.pth` of MiniGPT-4's runner, to the bit; Gemma 3n -> Minigpt4o."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minigpt4o.cli.listing import say
from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.common.files import MANIFEST


def convert(args: argparse.Namespace) -> int:
    """`convert SRC OUT`."""
    from minigpt4o.models.weights import TORCH_FILES

    source, out = Path(args.src), Path(args.out)
    if not source.exists():
        raise CheckpointError(f"{source} does not exist; give a step, run or job folder, or a .pth file")
    if args.to == "minigpt4o" or (args.to is None and _is_transformers(source)):
        if args.cfg_path:
            raise ConfigError("convert --cfg-path serves the way from an official file to ours; leave it out")
        return _to_minigpt4o(source, out, args.tokenizer)
    if args.tokenizer:
        raise ConfigError("convert --tokenizer serves the way from Gemma 3n to Minigpt4o: add --to minigpt4o")
    found = "official" if source.is_file() and source.suffix in TORCH_FILES else "own"
    wanted = "own" if found == "official" else "official"
    if args.to not in (None, wanted):
        raise ConfigError(f"convert --to {args.to}: {source} is in that layout already; --to {wanted} is what is left")
    if found == "own":
        if args.cfg_path:
            raise ConfigError("convert --cfg-path serves the way from an official file to ours; leave it out")
        _to_official(source, out)
    else:
        _to_own(source, out, args.cfg_path)
    return 0


def _is_transformers(source: Path) -> bool:
    """A model folder of transformers, which no checkpoint of ours is."""
    return (source / "config.json").is_file() and not (source / MANIFEST).is_file()


def _to_minigpt4o(source: Path, out: Path, tokenizer: str | None) -> int:
    from minigpt4o.models.minigpt4o_convert import convert_gemma3n

    for line in convert_gemma3n(source, out, tokenizer).lines():
        say(line)
    say(f"written: {out}; load it with Minigpt4oForConditionalGeneration.from_pretrained")
    return 0


def _to_official(source: Path, out: Path) -> None:
    from minigpt4o.common.files import find_checkpoint, write_bytes
    from minigpt4o.models.official import to_official
    from minigpt4o.models.weights import TORCH_FILES, LoadReport
    from minigpt4o.runners import checkpoint, official_file

    step = find_checkpoint(source)
    learned, progress, identity = checkpoint.load(step)
    epoch = official_file.epoch_written(progress, identity)
    target = out if out.suffix in TORCH_FILES else out / f"checkpoint_{max(epoch, 0)}.pth"
    _refuse_existing(target)
    names = to_official(learned.weights)
    unnamed = [name for name in learned.weights if name not in names]
    say(LoadReport(list(names), [], unnamed).table())
    write_bytes(target, official_file.file_bytes(official_file.contents(learned, progress, identity)))
    if unnamed:
        say(f"{len(unnamed)} tensor(s) have no official name and keep ours; MiniGPT-4 skips them: {unnamed[0]}, ...")
    for line in _told(progress, identity, epoch):
        say(line)
    say(f"written: {target}, epoch {epoch}, from {step}")


def _told(progress: Any, identity: Any, epoch: int) -> list[str]:
    """What MiniGPT-4's runner cannot take up."""
    lines = []
    inside = progress.step - (epoch + 1) * int(identity.about.get("epoch_steps") or progress.step)
    if not identity.foreign and inside:
        lines.append(
            f"step {progress.step} is {inside} step(s) behind the end of an epoch; MiniGPT-4 only starts whole "
            f"epochs and would begin with epoch {epoch + 1}"
        )
    if identity.about.get("optimizer", "adamw") != "adamw":
        lines.append(f"the run used {identity.about['optimizer']}: its moments are not AdamW's and are not written")
    return lines


def _to_own(source: Path, out: Path, cfg_path: str | None) -> None:
    from minigpt4o.runners import checkpoint, official_file

    _refuse_existing(out)
    learned, progress, identity = official_file.read(source)
    report = official_file.report_of(source)
    if cfg_path:
        progress, identity = _fit(source, cfg_path, report, (learned, progress, identity))
    else:
        say(report.table())
    if report.unexpected:
        say(f"{len(report.unexpected)} tensor(s) are unknown and keep their names: {report.unexpected[0]}, ...")
    checkpoint.save(out, learned, progress, identity)
    say(f"written: {out}, {learned.updates} optimizer steps; use it as model.ckpt or as run.resume_ckpt_path")


def _fit(source: Path, cfg_path: str, report: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any]:
    """The state as one of the run that the YAML describes, which is built for that."""
    from minigpt4o.common import distributed
    from minigpt4o.common.registry import registry
    from minigpt4o.models.weights import LoadReport
    from minigpt4o.runners import resume

    settings = load_settings(cfg_path, [])
    runner = registry.build(settings.run, settings=settings)
    if not hasattr(runner, "train_step"):
        raise ConfigError(f"{cfg_path}: runner {settings.run.name} does not train; give the YAML of the training")
    runner.start()
    try:
        runner.build()
        held, wanted = set(state[0].weights), set(runner.model.trained_parameters())
        unknown = [*sorted(held - wanted - set(report.unexpected)), *report.unexpected]
        say(LoadReport(sorted(held & wanted), sorted(wanted - held), unknown).table())
        return resume.completed(runner, source, *state)
    finally:
        distributed.finish(runner.world)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ConfigError(f"{path} exists; nothing is written over: name another place, or remove it first")
