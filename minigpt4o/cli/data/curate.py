"""`data curate`: stage 2 data as MiniGPT-4's was made, from any pictures and a model after stage 1."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from minigpt4o.cli.data.opening import check_split_known, chosen_sets, open_split, wanted_splits
from minigpt4o.common.errors import CheckpointError, ConfigError


def curate(args: argparse.Namespace) -> int:
    """Describe, clean, refine, write; prints how many were kept and the YAML lines that use them."""
    from minigpt4o.serve.curation.curate import Curation, Plan
    from minigpt4o.serve.curation.describe import Asking, Describer
    from minigpt4o.serve.curation.rules import Rules

    sets = chosen_sets(args)
    if len(sets) != 1:
        raise ConfigError(f"data curate: {len(sets)} data sets ({', '.join(sets)}); choose one with --dataset")
    spec = next(iter(sets.values()))
    check_split_known(sets, args.split)
    splits = wanted_splits(spec, args.split)
    refine, refiner = _refiner(args)
    asking = Asking(
        **{key: value for key, value in (("prompt", args.prompt), ("go_on", args.go_on)) if value},
        short=args.short,
        max_new_tokens=args.max_new_tokens,
        do_sample=args.sample,
        seed=args.seed,
    )
    model, encoder, weights = _open_model(args, asking.max_new_tokens)
    plan = Plan(
        out=Path(args.out),
        limit=args.limit,
        seed=args.seed,
        batch_size=args.batch_size,
        asking=asking,
        rules=Rules(min_words=args.min_words, max_words=args.max_words),
        refiner=refiner,
    )
    builder = open_split(spec, splits[0])
    try:
        report = Curation(plan, builder, Describer(model, encoder, asking), weights, refine).run()
    except CheckpointError as error:
        raise CheckpointError(f"{str(error).split(';')[0]}; name another --out, or remove that file") from error
    sys.stdout.write(_told(report, plan.out))
    return 0


def _refiner(args: argparse.Namespace) -> tuple[Any, str]:
    """(how texts are refined or None, its name)."""
    if args.refine_url and args.refine_path:
        raise ConfigError("data curate: give --refine-url or --refine-path, not both")
    if args.refine_url:
        from minigpt4o.serve.curation.refine import Endpoint

        if not args.refine_model:
            raise ConfigError("data curate: --refine-url needs --refine-model, the name the server knows its model by")
        return Endpoint(args.refine_url, args.refine_model, args.refine_key), f"{args.refine_url} {args.refine_model}"
    if args.refine_path:
        from minigpt4o.serve.curation.refine import Local
        from minigpt4o.serve.opening import device_of

        return Local(args.refine_path, device_of(args.device)), str(args.refine_path)
    return None, ""


def _open_model(args: argparse.Namespace, room: int) -> tuple[Any, Any, str]:
    """(model, encoder of its prompts, SHA-256 of its weights)."""
    from minigpt4o.common.registry import registry
    from minigpt4o.conversation.opening import open_encoder
    from minigpt4o.runners.build import positions_of
    from minigpt4o.runners.evaluate_model import weights_sha256
    from minigpt4o.serve.opening import build, image_processors, source_of_path

    source = source_of_path(args.model, args.ckpt, args.model_options or [], "")
    model = build(source, args.device)
    processors = {"image": registry.build(image_processors(source.settings, model)["eval"])}
    positions = positions_of(model)
    encoder = open_encoder(
        model.tokenizer,
        model.conversation,
        model.slots,
        processors,
        model.max_txt_len,
        positions=positions,
        answer_room=min(room, positions // 2) if positions else 0,
    )
    return model, encoder, weights_sha256(model)


def _told(report: dict[str, Any], out: Path) -> str:
    """What a person wants to know at the end."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in report["dropped"].items()) or "none"
    return (
        f"{report['described']} pictures described, {report['kept']} kept; dropped: {dropped}\n"
        f"captions: {out / 'filter_cap.json'}, pictures: {out / 'image'}, why: {out / 'curation.json'}\n\n"
        "To learn from them:\n\n"
        "datasets:\n"
        "  cc_sbu_align:\n"
        f"    annotations: {{train: {out / 'filter_cap.json'}}}\n"
        f"    media_root: {out / 'image'}\n"
    )
