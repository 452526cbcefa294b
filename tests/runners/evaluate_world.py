"""An evaluation of any size without weights: questions in a JSON file, and a model that answers from their words.

Named as a plugin by the YAML, so that its parts are known by name like any other.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn, tensor

from minigpt4o.common.config import load_settings
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Sample
from minigpt4o.conversation.template import load_template
from minigpt4o.metrics.result import Measured, mean
from minigpt4o.metrics.vqa import simple
from minigpt4o.tasks.base import EvaluationTask, Prediction

WORDS = ["red", "green", "blue", "white", "black", "small", "big", "round"]


def byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.add_tokens(sorted(pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@registry.register("model", "echo")
class Echo(nn.Module):
    """Answers with a word drawn from the prompt's ids: the same prompt, the same answer."""

    @dataclass
    class Config:
        skill: float = 0.5  # how often it says the true word
        says: str = ""  # what it says to everything; empty: a word

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(tensor([config.skill]))
        self.tokenizer, self.conversation = byte_tokenizer(), load_template("toy")
        self.slots: dict[str, int] = {}
        self.max_txt_len = 200

    def generate(self, batch: Any, decoding: Any, on_text: Any = None, stop: Sequence[str] = ()) -> list[str]:
        rows = zip(batch.input_ids, batch.attention_mask, batch.samples, strict=True)
        return [self._word(ids[kept.bool()], int(sample.id.split("#")[0]) - 100) for ids, kept, sample in rows]

    def _word(self, ids: Tensor, number: int) -> str:
        if self.config.says:
            return self.config.says
        draw = random.Random(hashlib.sha256(repr(ids.tolist()).encode()).digest())
        return truth(number) if draw.random() < self.config.skill else draw.choice(WORDS)


@registry.register("task", "handed_in")
class HandedIn(EvaluationTask):
    """Questions whose answers are handed in as the VQA server wants them."""

    official_format = "vqa"

    @dataclass
    class Config:
        max_new_tokens: int = 4  # longest answer

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        return {"exact_match": simple([p.answer for p in predictions], [p.truth for p in predictions])}


@registry.register("task", "ranked")
class Ranked(EvaluationTask):
    """The likeliest of the choices of a row."""

    @dataclass
    class Config:
        max_new_tokens: int = 4  # longest answer
        by: str = "likelihood"  # both: generate too
        normalise: str = "mean"  # or sum

    def choices(self, sample: Sample) -> list[str]:
        return list(sample.meta.get("choices", []))

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        each = [float(p.answer in p.truth) for p in predictions]
        return {"accuracy": Measured(mean(each), each, "equal")}


def truth(number: int) -> str:
    return WORDS[number * 7 % len(WORDS)]


def make_world(folder: Path, count: int, **run: Any) -> Path:
    """A YAML that asks so many questions of a model that needs no weights."""
    rows = [
        {
            "question_id": 100 + i,
            "question": f"number {i} " + "and " * (i * 5 % 11) + "?",
            "answer": [truth(i)],
            "question_type": f"type {i % 3}",
            "choices": WORDS[i % 4 : i % 4 + 3],
        }
        for i in range(count)
    ]
    (folder / "questions.json").write_text(json.dumps(rows))
    tree = {
        "plugins": ["evaluate_world"],
        "model": {"arch": "echo"},
        "datasets": {
            "words": {
                "builder": "questions",
                "annotations": {"test": str(folder / "questions.json")},
                "fields": {"id": "question_id", "question": "question", "answer": "answer"},
                "keep": ["question_type", "choices"],
                "language": "en",
                "task": {"name": "handed_in", "max_new_tokens": 4},
            }
        },
        "run": {
            "runner": "evaluate",
            "device": "cpu",
            "output_dir": str(folder / "output"),
            "baselines": [],
            "bootstrap": 50,
            "batch_size_eval": 4,
            "report": False,
            **run,
        },
    }
    path = folder / "eval.yaml"
    path.write_text(json.dumps(tree))  # JSON is YAML
    return path


def evaluated(path: Path, *options: str, run_id: str = "r") -> Path:
    """The folder of an evaluation that has come to its end."""
    settings = load_settings(path, [f"run.run_id={run_id}", *options])
    registry.build(settings.run, settings=settings).run()
    return Path(settings.run["output_dir"]) / settings.run["job_name"] / run_id


def results_of(run: Path) -> dict[str, Any]:
    """results.json without what time and place decide."""
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    for key in ("seconds", "run_id"):
        del found["run"][key]
    return found


def seen(run: Path, name: str = "words", label: str = "model") -> dict[str, Any]:
    found: dict[str, Any] = results_of(run)["datasets"][name]["variants"][label]["conditions"]["seen"]
    return found
