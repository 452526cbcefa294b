"""How much faster an evaluation asks than one prompt at a time, and ranks than one candidate at a time.

    python benchmarks/eval.py --cfg-path eval_configs/toy/all.yaml --dataset toy_vqa_en,toy_caption_en

Generation: prompts sorted by length and answered in batches, rows that have ended leaving the batch, against the same
prompts in the data's order one by one. Ranking: the choices of a question are those of its data set's commonest
answers; the picture and the prompt run once for each question, against the whole row run anew for each candidate, as
the reference ranks. Both sides open the media before the clock runs, give the same answers (checked), and are timed
in turn; the ratio is that of the medians. After `make quickstart` the toy checkpoints are there.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from minigpt4o.common.config import load_settings
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Turn
from minigpt4o.datasets.collate import collate
from minigpt4o.models.ranking import rank_batch
from minigpt4o.runners.build import build_encoders
from minigpt4o.runners.evaluate_items import SEEN, Item
from minigpt4o.runners.evaluate_model import build_variant


def in_turn(rounds: int, *works: Callable[[], Any]) -> tuple[list[float], list[Any]]:
    """Median seconds of each, run alternately, and what each gave last."""
    seconds: list[list[float]] = [[] for _ in works]
    given: list[Any] = [None] * len(works)
    for _ in range(rounds):
        for place, work in enumerate(works):
            began = time.perf_counter()
            given[place] = work()
            seconds[place].append(time.perf_counter() - began)
    return [statistics.median(one) for one in seconds], given


def generation(one: Any, items: Sequence[Item], rounds: int) -> dict[str, Any]:
    """Batches sorted by length against one prompt after the other."""
    decoding = one.task.decoding

    def batched() -> dict[str, str]:
        return {row["id"]: row["answer"] for batch in one.batches(items) for row in one.ask(batch, decoding)}

    def singly() -> dict[str, str]:
        return {row["id"]: row["answer"] for item in items for row in one.ask([item], decoding)}

    batched()  # media opened, memory warm
    (fast, slow), (together, alone) = in_turn(rounds, batched, singly)
    same = sum(together[name] == answer for name, answer in alone.items())
    return {"prompts": len(items), "batched_s": fast, "singly_s": slow, "ratio": slow / fast, "same_answers": same}


def ranking(one: Any, items: Sequence[Item], choices: Sequence[str], rounds: int) -> dict[str, Any]:
    """One run of picture and prompt for all choices against the whole row once for each candidate."""
    ids = [one.encoder.answer_ids(choice) for choice in choices]
    batches = [[one.encoder.prompt(item.sample, random.Random(0)) for item in batch] for batch in one.batches(items)]

    def learned(item: Item, choice: str) -> Any:
        turns = [*item.sample.turns[:-1], Turn("assistant", choice)]
        return one.encoder.example(replace(item.sample, turns=turns), random.Random(0))

    rows = [[[learned(item, choice) for item in batch] for choice in choices] for batch in one.batches(items)]
    pad = one.model.tokenizer.pad_token_id

    def once() -> list[int]:
        best = []
        for examples in batches:
            batch = collate(examples, pad, side="left").to(one.device)
            for found in rank_batch(one.model, batch, [ids] * len(examples)):
                best.append(max(range(len(choices)), key=lambda c: found[c].mean))
        return best

    @torch.no_grad()
    def anew() -> list[int]:
        best = []
        for candidates in rows:
            losses = torch.stack([_mean_losses(one, collate(c, pad).to(one.device)) for c in candidates], dim=1)
            best += losses.argmin(dim=1).tolist()
        return best

    once()
    (fast, slow), (ours, theirs) = in_turn(rounds, once, anew)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    told = {"questions": len(items), "choices": len(choices), "once_s": fast, "per_candidate_s": slow}
    return {**told, "ratio": slow / fast, "same_answers": same}


def _mean_losses(one: Any, batch: Any) -> torch.Tensor:
    """(B,): the mean loss of each row's learned tokens."""
    model = one.model
    hidden = model.llm.hidden(model.embed(batch)[:, :-1], batch.attention_mask[:, :-1])
    labels = batch.labels[:, 1:]
    found = []
    for states, wanted in zip(hidden, labels, strict=True):
        at = wanted >= 0
        found.append(torch.nn.functional.cross_entropy(model.llm.logits(states[at]).float(), wanted[at]))
    return torch.stack(found)


def measure(settings: Any, args: argparse.Namespace) -> dict[str, Any]:
    runner = registry.build(settings.run, settings=settings)
    runner.config.batch_size_eval = args.batch_size
    label, checkpoint = list(runner.variants().items())[-1]
    device = torch.device(args.device)
    variant = build_variant(settings, label, checkpoint, device)
    encoders, found = build_encoders(settings, variant.model, runner.config.split), {}
    for name, data in runner.collect().items():
        runner.cache.wrap(encoders[name], name)
        one = runner.questioner(variant, encoders[name], data, device)
        items = data.conditions[SEEN][: args.prompts]
        told = {"generation": generation(one, items, args.rounds)}
        answers = Counter(item.sample.turns[-1].text for item in items)
        choices = [answer for answer, _ in answers.most_common(args.choices)]
        if len(choices) > 1 and not any(item.sample.boxes for item in items):
            told["ranking"] = ranking(one, items, choices, args.rounds)
        found[name] = told
        say(name, told)
    return {"model": label, "batch_size": args.batch_size, "device": args.device, "datasets": found}


def say(name: str, told: dict[str, Any]) -> None:
    for kind, one in told.items():
        fast, slow = (value for key, value in one.items() if key.endswith("_s"))
        total = next(iter(one.values()))
        line = f"{name} {kind}: {slow:.2f} s -> {fast:.2f} s, {one['ratio']:.1f} times as fast"
        sys.stdout.write(f"{line}; same answers {one['same_answers']} of {total}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg-path", default="eval_configs/toy/all.yaml")
    parser.add_argument("--options", nargs="*", default=[])
    parser.add_argument("--dataset", default="toy_vqa_en,toy_caption_en,toy_refer_ja,toy_audio_qa_en")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=96, help="prompts of each data set")
    parser.add_argument("--choices", type=int, default=8, help="choices of each question")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    parser.add_argument("--out", default="", help="write the figures as JSON")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    settings = load_settings(args.cfg_path, args.options).keep(args.dataset.split(","))
    found = {**measure(settings, args), "threads": args.threads}
    for kind in ("generation", "ranking"):
        ratios = [told[kind]["ratio"] for told in found["datasets"].values() if kind in told]
        found[f"{kind}_ratio"] = statistics.median(ratios) if ratios else None
    sys.stdout.write(json.dumps({key: value for key, value in found.items() if key != "datasets"}) + "\n")
    if args.out:
        Path(args.out).write_text(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
