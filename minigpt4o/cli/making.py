"""The commands that make files: the toy world and a tokenizer."""

from __future__ import annotations

import argparse

from minigpt4o.cli.listing import say


def toy_world(args: argparse.Namespace) -> int:
    """`toy-world`."""
    from minigpt4o.datasets.toy_world.write import write_toy_world

    counts = write_toy_world(args.out, size=args.size, seed=args.seed, level=args.level, workers=args.workers)
    for name, count in counts.items():
        say(f"{name:24} {count}")
    say(f"written: {args.out}")
    return 0


def tokenizer(args: argparse.Namespace) -> int:
    """`tokenizer`."""
    from minigpt4o.models.llms.tokenizer import SPECIAL_TOKENS, train_tokenizer

    special = [*SPECIAL_TOKENS, *(word for word in args.special if word not in SPECIAL_TOKENS)]
    folder = train_tokenizer(args.text, args.out, args.vocab_size, special, whole_words=args.word)
    say(f"written: {folder}")
    return 0
