"""Validation while training: the mean loss of each data set, and the same few questions answered every time."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from minigpt4o.common import distributed
from minigpt4o.common.errors import SkipSample
from minigpt4o.common.files import write_bytes
from minigpt4o.conversation.batch import Batch, Decoding, Example
from minigpt4o.conversation.objects import in_original_frame
from minigpt4o.datasets.collate import collate
from minigpt4o.runners.build import build_builders, build_encoders, has_split
from minigpt4o.runners.data import pad_id
from minigpt4o.runners.engine import Engine

if TYPE_CHECKING:
    from minigpt4o.common.config import Settings

log = logging.getLogger(__name__)


class Validator:
    """Holds fixed samples of the validation splits; opens their media anew each time."""

    def __init__(self, settings: Settings, config: Any, model: Any) -> None:
        self.config, self.pad_id = config, pad_id(model)
        self.device = next(model.parameters()).device
        self.stop = list(model.conversation.serving.stop)
        self.encoders = build_encoders(settings, model, "val")
        self.builders: dict[str, Any] = {}
        for split in config.valid_splits:
            have = [n for n, spec in settings.datasets.items() if has_split(spec.builder, split)]
            self.builders |= build_builders(settings, split, have) if have else {}
        if config.valid_splits and not self.builders:
            log.info("no data set has a split of %s: no validation while training", config.valid_splits)

    def losses(self, engine: Engine) -> dict[str, float]:
        """Mean loss per learned token of each data set, over the same batches every time, shared among the ranks."""
        found = {}
        for name, builder in self.builders.items():
            total = torch.zeros(2, dtype=torch.float64)  # sum, count
            batches = self._batches(name, builder)
            share = 1 if engine.sharded else distributed.get_world_size()
            for batch in batches[0 if engine.sharded else distributed.get_rank() :: share]:
                loss_sum, count = engine.evaluate(batch.to(self.device))
                total += torch.stack([loss_sum.double().cpu(), count.double().cpu()])
            if not engine.sharded:
                distributed.all_reduce_sum(total)
            if total[1] > 0:
                found[name] = float(total[0] / total[1])
        return found

    def _batches(self, name: str, builder: Any) -> list[Batch]:
        wanted = self.config.valid_batches * self.config.batch_size_eval
        examples = self._examples(name, builder, wanted, ask=False)
        size = self.config.batch_size_eval
        return [collate(examples[i : i + size], self.pad_id) for i in range(0, len(examples), size)]

    def _examples(self, name: str, builder: Any, wanted: int, *, ask: bool) -> list[Example]:
        """Evenly spread samples; those that cannot be used are left out."""
        encoder = self.encoders[name]
        encode = encoder.prompt if ask else encoder.example
        count, found = len(builder), []
        for index in sorted({i * count // max(wanted, 1) for i in range(min(wanted, count))} if wanted else ()):
            rng = random.Random(f"{self.config.seed}/{name}/{index}")
            try:
                found.append(encode(builder.sample(index, rng), rng))
            except SkipSample as skip:
                log.debug("validation sample %s[%d] left out: %s", name, index, skip)
        return found

    def probe(self, engine: Engine, step: int, folder: Path) -> None:
        """Answer the probe questions, kept in samples/step-N.jsonl. Rank 0 alone, unless weights are sharded."""
        if not (self.builders and self.config.probe_size) or not (distributed.is_main() or engine.sharded):
            return
        each = -(-self.config.probe_size // len(self.builders))
        lines: list[str] = []
        for name, builder in self.builders.items():
            examples = self._examples(name, builder, min(each, self.config.probe_size - len(lines)), ask=True)
            if examples:
                decoding = Decoding(max_new_tokens=self.config.probe_tokens)
                batch = collate(examples, self.pad_id, side="left").to(self.device)
                answers = engine.generate(batch, decoding, self.stop)
                lines += [_row(e, answer) for e, answer in zip(examples, answers, strict=True)]
        if distributed.is_main():
            write_bytes(folder / f"step-{step:06d}.jsonl", "".join(lines).encode())


def _row(example: Example, answer: str) -> str:
    sample = example.sample
    asked = sample.turns[:-1] if sample.turns and sample.turns[-1].role == "assistant" else sample.turns
    truth = sample.answers or [t.text for t in sample.turns[-1:] if t.role == "assistant"]
    row = {
        "dataset": sample.dataset,
        "id": sample.id,
        "language": sample.language,
        "prompt": [t.text for t in asked],
        "truth": truth,
        "answer": in_original_frame(answer, example.frame),  # as the truth is, whatever a processor crops or pads
    }
    return json.dumps(row, ensure_ascii=False) + "\n"
