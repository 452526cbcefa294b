"""The act behind `export`: open, choose a form, write, compare, describe, publish the folder, perhaps push it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.common.files import MANIFEST, TMP_PREFIX, sha256_of, write_bytes, write_json
from minigpt4o.common.registry import Part, registry
from minigpt4o.serve.export.card_scores import Results, read_results, scores_of
from minigpt4o.serve.opening import Source, build, image_processors, image_size_of, source_of_path

log = logging.getLogger(__name__)

TORCH_FILES = (".pth", ".pt", ".bin", ".safetensors")
# How an exported model answers if its YAML is not that of a chat.
PLAIN = {"max_new_tokens": 300, "do_sample": False}


def main(args: argparse.Namespace) -> int:
    """`export SRC OUT`."""
    out = Path(args.out)
    if os.path.lexists(out):
        raise ConfigError(f"{out} exists; nothing is written over: name another place, or remove it first")
    if args.push:
        from minigpt4o.serve.export.push import ensure_can_push

        ensure_can_push(args.push, args.dry_run)
    elif args.public or args.dry_run:
        raise ConfigError(f"export: {'--public' if args.public else '--dry-run'} belongs to --push")
    results = read_results(args.results) if args.results else []
    source = open_source(args)
    out.parent.mkdir(parents=True, exist_ok=True)
    model = build(source, "cpu", args.weights)
    unfinished = out.parent / f"{TMP_PREFIX}{out.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        told = write(model, source.settings, unfinished, out.name, args, results)
        os.rename(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    for line in [*told, f"written: {out}"]:
        sys.stdout.write(f"{line}\n")
    if args.dry_run:
        from minigpt4o.serve.export.push import listed

        sys.stdout.write(listed(out, args.push, private=not args.public))
    elif args.push:
        from minigpt4o.serve.export.push import push

        sys.stdout.write(f"pushed: {push(out, args.push, private=not args.public)}\n")
    return 0


def open_source(args: argparse.Namespace) -> Source:
    """The settings that a checkpoint, run or job folder, a YAML, or a file of weights with its YAML means."""
    src, options = Path(args.src).expanduser(), ["model.precision=fp32", *(args.options or [])]
    if not src.exists():
        raise CheckpointError(f"{src} does not exist; give a step, run or job folder, a YAML, or a .pth file")
    if args.cfg_path is None and (src.is_dir() or src.suffix in (".yaml", ".yml")):
        return source_of_path(src, None, options, "")
    if args.cfg_path is None:
        raise ConfigError(f"export {src}: what model these weights belong to stands in no file; give --cfg-path YAML")
    if src.suffix in (".yaml", ".yml"):
        raise ConfigError("export: SRC is a YAML already; leave --cfg-path out")
    return Source(load_settings(args.cfg_path, [f"model.ckpt={src}", *options]))


def write(
    model: Any, settings: Any, folder: Path, name: str, args: argparse.Namespace, results: Sequence[Results] = ()
) -> list[str]:
    """Write the first form that gives the model's own logits. Returns what to tell."""
    from minigpt4o.models.export.forms import Export, forms_of
    from minigpt4o.serve.export import check
    from minigpt4o.serve.export.card import Facts, card
    from minigpt4o.serve.inference import chat_config

    forms, notes = forms_of(model, args.form)
    media = processors_of(settings, model)
    scores = scores_of(results, marks_of(settings, model)) if results else []
    probe = None if args.no_check else check.probe_of(model)
    compared, config = "", chat_config(settings)
    for number, form in enumerate(forms):
        export = Export(
            model,
            form,
            folder,
            media,
            args.merge_lora,
            dtype_of(args.dtype, model),
            config.separator,
            config.system,
            tuple(settings.plugins),
        )
        try:
            export.write()
            if probe is not None:
                checked = check.compare(export, probe)
                check.ensure_same(checked, export)
                compared = f"{checked.told()}; {_same_prompt(export, last=number + 1 == len(forms))}"
        except (ConfigError, CheckpointError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            if number + 1 == len(forms):
                raise
            log.warning("not as %s", error if str(error).startswith(form.title) else f"{form.title}: {error}")
            notes = [*notes, str(error) if str(error).startswith(form.title) else f"{form.title}: {error}"]
            continue
        break
    write_generation(folder, settings, model)
    step = checkpoint_of(settings)
    facts = Facts(name, export, settings, step, run_of(step), parts_in(step), args.licence or "", "", scores, notes)
    told = [f"not as {note}" for note in notes]
    if compared:
        facts.checked = compared
        told.append(f"compared: {compared}")
    if export.adapters:
        told.append("adapters are not merged: they lie in adapter/ (merge them with --merge-lora)")
    write_bytes(folder / "README.md", card(facts).encode())
    open_to_readers(folder)
    return [f"form: {form.title}, opened by {form.auto}, needs {' and '.join(form.needs)}", *told]


def _same_prompt(export: Any, last: bool) -> str:
    """What the comparison of prompts tells. A form behind which there is another one is refused for a difference."""
    from minigpt4o.serve.export.check_prompt import ensure_same_prompt

    try:
        return ensure_same_prompt(export)
    except CheckpointError as error:
        if not last:
            raise
        log.warning("%s", error)
        return str(error)


def open_to_readers(folder: Path) -> None:
    """Files as readable as any other of this person: libraries write weights through private temporary files."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        file.chmod((0o777 if file.is_dir() else 0o666) & ~mask)


def processors_of(settings: Any, model: Any) -> dict[str, Part]:
    """The evaluation processor of each kind of medium, in the sizes of the encoders."""
    from minigpt4o.serve.inference import PROCESSOR_FIELDS, chat_config

    config = chat_config(settings)
    found: dict[str, Part] = {}
    for kind, field in PROCESSOR_FIELDS.items():
        chosen: Part | None = getattr(config, field)
        if kind not in model.slots:
            continue
        if kind == "image" and chosen is None:
            chosen = image_processors(settings, model)["eval"]
        if chosen is None:
            raise ConfigError(
                f"the configuration opens no {kind}: name run.{field} (a YAML with `runner: chat`) or a data set that "
                "has one"
            )
        known = {f.name for f in registry.entry("processor", chosen.name).fields}
        if kind == "image" and "image_size" in known:
            chosen = dataclasses.replace(chosen, values={"image_size": image_size_of(model), **chosen.values})
        found[kind] = chosen
    return found


def dtype_of(name: str, model: Any) -> Any:
    """The number format of the weights; `auto`: that of the language model's own file."""
    import torch

    if name != "auto":
        return getattr(torch, name)
    config = model.whole.config if hasattr(model, "whole") else model.llm.model.config
    found = getattr(config, "dtype", None)
    return found if isinstance(found, torch.dtype) and found.is_floating_point else torch.float32


def write_generation(folder: Path, settings: Any, model: Any) -> None:
    """generation_config.json: the decoding of a chat's YAML, else greedy; the ids of the tokenizer."""
    from transformers import GenerationConfig

    if settings.run.name == "chat":
        config = registry.get("runner", "chat").Config(**settings.run.values)
        names = ["max_new_tokens", "min_new_tokens", "do_sample", "num_beams", "repetition_penalty", "length_penalty"]
        names += ["temperature", "top_p"] if config.do_sample else []
        values = {name: getattr(config, name) for name in names}
        standard = {"min_new_tokens": 0, "num_beams": 1, "repetition_penalty": 1.0, "length_penalty": 1.0}
        values = {name: value for name, value in values.items() if standard.get(name) != value}
    else:
        values = dict(PLAIN)
    ends, tokenizer = list(model.llm.eos_ids), model.tokenizer
    known = tokenizer.get_added_vocab()
    ends += [known[word] for word in model.conversation.serving.stop if word in known and known[word] not in ends]
    GenerationConfig(
        **values, eos_token_id=sorted(ends), pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
    ).save_pretrained(folder)
    file = folder / "config.json"
    tree = json.loads(file.read_bytes())
    inner = tree.get("text_config", tree)  # BLIP-2 asks its language model, which knows only its own configuration
    inner["eos_token_id"] = sorted(ends) if len(ends) > 1 else next(iter(ends), None)
    write_json(file, tree)


def checkpoint_of(settings: Any) -> Path | None:
    """The step folder (or file) laid over the model."""
    from minigpt4o.common.weight_files import locate
    from minigpt4o.models.weights import resolve_checkpoint

    named = settings.model.values.get("ckpt") or ""
    found = locate(str(named)) if named else None
    if found is None:
        return None
    return found if found.is_file() and found.suffix in TORCH_FILES else resolve_checkpoint(found)


def run_of(step: Path | None) -> Any:
    """The settings of the run that wrote a checkpoint, if its config.yaml lies beside it."""
    places = [] if step is None else [folder / "config.yaml" for folder in (step, *step.parents[:3])]
    file = next((place for place in places if place.is_file()), None)
    return None if file is None else load_settings(file, [])


def parts_in(step: Path | None) -> frozenset[str]:
    """Parts of the model of which a checkpoint holds weights."""
    from minigpt4o.models.base import part_of
    from minigpt4o.models.weights import TRAINED_FILE, tensor_shapes

    if step is None:
        return frozenset()
    return frozenset(part_of(name) for name in tensor_shapes(step if step.is_file() else step / TRAINED_FILE))


def marks_of(settings: Any, model: Any) -> dict[str, str]:
    """What an evaluation notes of the model it asks."""
    from minigpt4o.runners.evaluate_model import weights_sha256

    step = checkpoint_of(settings)
    file = None if step is None else step if step.is_file() else step / MANIFEST
    return {
        "checkpoint_sha256": sha256_of(file) if file is not None and file.is_file() else "",
        "weights_sha256": weights_sha256(model),
    }
