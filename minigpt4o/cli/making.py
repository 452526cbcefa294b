"""The commands that make files: the toy world and a tokenizer."""

from __future__ import annotations

import argparse
from pathlib import Path

from minigpt4o.cli.listing import say
from minigpt4o.common.errors import ConfigError


def toy_world(args: argparse.Namespace) -> int:
    """`toy-world`."""
    from minigpt4o.datasets.toy_world.write import write_toy_world

    counts = write_toy_world(args.out, size=args.size, seed=args.seed, level=args.level, workers=args.workers)
    for name, count in counts.items():
        say(f"{name:24} {count}")
    say(f"written: {args.out}")
    return 0


# Options of `tokenizer` that only one of the models takes.
_ONLY_FOR = {"llm": ("special", "word"), "minigpt4o": ("media_rows", "field", "min_count")}


def tokenizer(args: argparse.Namespace) -> int:
    """`tokenizer`."""
    wrong = [
        f"--{option.replace('_', '-')} is for --for {model}"
        for model, options in _ONLY_FOR.items()
        for option in options
        if model != args.model and getattr(args, option)
    ]
    if wrong:
        raise ConfigError(f"tokenizer --for {args.model}: {'; '.join(wrong)}")
    folder = _minigpt4o_tokenizer(args) if args.model == "minigpt4o" else _llm_tokenizer(args)
    say(f"written: {folder}")
    return 0


def _llm_tokenizer(args: argparse.Namespace) -> Path:
    from minigpt4o.models.llms.tokenizer import SPECIAL_TOKENS, train_tokenizer

    special = [*SPECIAL_TOKENS, *(word for word in args.special if word not in SPECIAL_TOKENS)]
    return train_tokenizer(args.text, args.out, args.vocab_size or 512, special, whole_words=args.word)


def _minigpt4o_tokenizer(args: argparse.Namespace) -> Path:
    from minigpt4o.models.minigpt4o.tokenizer_training import train_tokenizer

    named = ("vocab_size", *_ONLY_FOR["minigpt4o"])
    given = {name: getattr(args, name) for name in named if getattr(args, name) is not None}
    return train_tokenizer(args.text, args.out, **given)
