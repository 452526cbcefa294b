"""Free answers judged by another model beside a reference answer, as LLaVA-Bench does, at a URL that the user names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt4o.common.cache import cache_dir
from minigpt4o.common.chat_endpoint import ChatEndpoint
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.files import write_json
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Sample
from minigpt4o.metrics.result import Measured, mean
from minigpt4o.tasks.base import EvaluationTask, Prediction

JUDGED, JUDGED_AS = "judge", "judged_as"  # keys of meta: the judge's raw words; SHA-256 of what was asked of whom
# The system sentence of LLaVA's eval_gpt_review_bench.py; what stands below it is laid out as there.
SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
OWN_RULE = (
    "Two assistants answered a question about a picture; the context above says in words what the picture shows. Give "
    "each answer a score from 1 to 10 for how helpful, relevant, accurate and detailed it is; more is better. Write "
    "the two scores, that of Assistant 1 first, on the first line with a space between them and nothing else on it. "
    "Then explain your scores; the order of the answers must not matter."
)
HIGHEST = 10.0
_PAIR = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*[, ]\s*(\d+(?:\.\d+)?)\s*$")


@registry.register("task", "judged")
class Judged(EvaluationTask):
    """A judge scores the reference answer and ours, 1 to 10 each; the result is the sum of ours over that of theirs.

    The sample's first answer is the reference, `meta["question"]` the question, `meta["caption"]` the picture in words,
    `meta["category"]` the kind of question. Without `url` nothing is sent, and only lengths are told. The judge's raw
    words stand in each row, and in the cache, so that no answer is judged twice.
    """

    @dataclass
    class Config:
        url: str = ""  # base of an OpenAI-compatible server, such as http://localhost:8000/v1; empty: nobody judges
        model: str = ""  # name of the judge there
        key_variable: str = "OPENAI_API_KEY"  # environment variable that holds the key, if one is needed
        temperature: float = 0.2  # of the judge; LLaVA's script has 0.2
        max_tokens: int = 1024  # longest verdict
        rule: str = ""  # LLaVA's rule.json, whose words ask the judge for each category; empty: words of our own
        rule_prefix: str = "llava_bench_"  # stands before the category in that file
        max_new_tokens: int = 512  # longest answer of the model under test, in tokens
        min_new_tokens: int = 0  # shortest answer, in tokens
        num_beams: int = 1  # beams of the search; 1 is greedy
        repetition_penalty: float = 1.0  # above 1 discourages tokens that were said already
        length_penalty: float = 1.0  # of the beam search; above 1 favours long answers

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.url and not config.model:
            raise ConfigError("task.model: name the judge that is behind task.url")
        self.judge: ChatEndpoint | None = None
        if config.url:
            self.judge = ChatEndpoint(
                config.url, config.model, config.key_variable, config.temperature, config.max_tokens
            )
        self.rules = _rules(config.rule) if config.rule else {}

    def prediction(self, sample: Sample, prompt: str, answer: str, donor: str = "") -> Prediction:
        """The answer with the judge's words beside it, if there is a judge and an answer.

        Words that the sample's meta brings along (an answer scored again) stay where the same was asked of the same
        judge.
        """
        found = super().prediction(sample, prompt, answer, donor)
        if self.judge is not None and answer.strip():
            mark = self._mark(found, "")
            if found.meta.get(JUDGED_AS) != mark or JUDGED not in found.meta:
                found.meta |= {JUDGED: self.words(found), JUDGED_AS: mark}
        return found

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """`relative_score` (sum of our scores / sum of the reference's), `score` and `reference_score` of 10."""
        lengths = [float(len(p.answer.split())) for p in predictions]
        told = {"answer_words": Measured(mean(lengths), lengths, "words of an answer, divided at blanks")}
        words = [str(p.meta.get(JUDGED, "")) for p in predictions]
        if not any(words):
            return told
        pairs = [read_pair(text) for text in words]
        rows = [[pair[1], pair[0]] if pair else [0.0, HIGHEST] for pair in pairs]
        sums = [sum(column) for column in zip(*rows, strict=True)]
        unread = [pair is None for pair in pairs]
        judge = f"judge {self.config.model}, {self._whose_rule()}" if self.judge is not None else "judge as in the rows"
        who = f"{judge}; unjudged or unreadable = 0 of 10"
        ours, theirs = [row[0] for row in rows], [row[1] for row in rows]
        relative = Measured(
            relative_of_sums(sums),
            [relative_of_sums(row) for row in rows],
            f"sum of our scores / sum of the reference's (LLaVA-Bench); {who}",
            rows,
            relative_of_sums,
            unread,
        )
        return {
            "relative_score": relative,
            "score": Measured(mean(ours), ours, f"mean score of 10; {who}", unread=unread),
            "reference_score": Measured(mean(theirs), theirs, f"mean score of the reference; {who}", unread=unread),
            **told,
        }

    def words(self, prediction: Prediction) -> str:
        """The judge's raw words on one answer, asked for once: they are kept in the cache where it can be written."""
        assert self.judge is not None, "without a judge nothing is asked"
        path = cache_dir("judge", self._mark(prediction, self.config.url) + ".json")
        if path.is_file():
            return str(json.loads(path.read_text(encoding="utf-8"))["words"])
        words = self.judge(self._messages(prediction))
        with suppress(OSError):  # a cache that cannot be written is no error: the words stand in the row too
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"judge": self.config.model, "words": words})
        return words

    def _messages(self, prediction: Prediction) -> list[dict[str, str]]:
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": self.question(prediction)}]

    def _mark(self, prediction: Prediction, url: str) -> str:
        """What tells one request from another: the judge, how it draws, and the words."""
        config, messages = self.config, self._messages(prediction)
        key = json.dumps([url, config.model, config.temperature, config.max_tokens, messages], sort_keys=True)
        return hashlib.sha256(key.encode()).hexdigest()

    def question(self, prediction: Prediction) -> str:
        """What the judge is asked, laid out as in LLaVA-Bench."""
        meta = prediction.meta
        context = meta.get("caption", "")
        context = "\n".join(map(str, context)) if isinstance(context, list) else str(context)
        reference = prediction.truth[0] if prediction.truth else ""
        parts = [
            ("Context", context),
            ("Question", str(meta.get("question", prediction.prompt))),
            ("Assistant 1", f"{reference}\n\n[End of Assistant 1]"),
            ("Assistant 2", f"{prediction.answer}\n\n[End of Assistant 2]"),
            ("System", self.rule_of(str(meta.get("category", "")))),
        ]
        return "".join(f"[{title}]\n{text}\n\n" for title, text in parts)

    def rule_of(self, category: str) -> str:
        """How the judge is asked to score answers to this kind of question."""
        if not self.rules:
            return OWN_RULE
        name = self.config.rule_prefix + category
        if name not in self.rules:
            raise ConfigError(f"{self.config.rule}: has no {name!r}; it has {', '.join(sorted(self.rules))}")
        return self.rules[name]

    def _whose_rule(self) -> str:
        return f"asked as in {Path(self.config.rule).name}" if self.rules else "asked in our own words"


def read_pair(words: str) -> tuple[float, float] | None:
    """(score of the reference, score of ours) from the first line of a verdict; None if it does not hold just two."""
    found = _PAIR.match(words.strip().split("\n")[0])
    return (float(found[1]), float(found[2])) if found else None


def relative_of_sums(sums: Sequence[float]) -> float:
    """Ours over theirs; 0 where theirs is nothing."""
    return float(sums[0]) / float(sums[1]) if sums[1] else 0.0


def _rules(file: str) -> dict[str, str]:
    try:
        tree: Any = json.loads(Path(file).read_text(encoding="utf-8"))
        return {str(name): str(one["prompt"]) for name, one in tree.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"task.rule: {file} is no rule.json of LLaVA ({type(error).__name__}: {error})") from error
