"""What evaluation tasks share: samples become prompts, answers become predictions, predictions become scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.objects import written
from minigpt4o.conversation.sample import Box, Sample
from minigpt4o.metrics.formats import Said
from minigpt4o.metrics.intervals import bootstrap, bootstrap_corpus
from minigpt4o.metrics.result import Measured


@dataclass
class Prediction:
    """One answer of the model beside the truth: a line of a predictions file."""

    id: str
    dataset: str
    language: str
    prompt: str  # as the template renders it, with marks where media stand
    answer: str  # as the model gave it
    truth: list[str]
    boxes: list[Box] = field(default_factory=list)  # the true ones, in pixels
    meta: dict[str, Any] = field(default_factory=dict)
    media: dict[str, list[str]] = field(default_factory=dict)  # names of the pictures and sounds that were given
    donor: str = ""  # whose media were given, if not its own
    answered: bool = True  # false: it could not be asked, or nobody handed in an answer; `skipped` of its row

    def row(self) -> dict[str, Any]:
        """Plain data for JSON; who writes a row that nobody answered adds `skipped`, the reason."""
        return {key: value for key, value in asdict(self).items() if key != "answered"}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prediction:
        """The inverse of `row`."""
        values = {f.name: row[f.name] for f in fields(cls) if f.name in row}
        values["answered"] = "skipped" not in row
        values["boxes"] = [
            Box(tuple(b["xyxy"]), tuple(b["image_size"]), b["label"], b["image"]) for b in row.get("boxes", [])
        ]
        return cls(**values)


@dataclass
class Score:
    """A metric's value with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int
    unparsable: int  # answers that could not be read; they count as wrong
    variant: str  # which definition of the metric
    interval: str = ""  # how the interval was made
    better: str = "higher"  # "lower" for error rates


class EvaluationTask:
    """Base of tasks that generate answers and score them; the same data may also be trained on."""

    Config: type
    official_format: str = ""  # metrics.formats: what predictions are handed in as; "" = no official form

    def __init__(self, config: Any) -> None:
        self.config = config
        self.official_format = getattr(config, "official_format", "") or self.official_format

    @property
    def decoding(self) -> Decoding:
        """How answers are generated: the fields of `Config` that `Decoding` knows."""
        known = {f.name for f in fields(Decoding)}
        return Decoding(**{f.name: getattr(self.config, f.name) for f in fields(self.config) if f.name in known})

    def train_step(self, model: Any, batch: Any) -> Any:
        """The summed loss over the assistant's turns."""
        return model(batch)

    def items(self, sample: Sample) -> list[Sample]:
        """The prompts one sample asks; the last turn of each is the true answer."""
        return [sample]

    def choices(self, sample: Sample) -> list[str]:
        """The answers among which the likeliest is taken; empty: the answer is generated."""
        return []

    def generates(self, sample: Sample) -> bool:
        """Whether an answer is generated: where there are no choices, or with `by: both` besides ranking them."""
        return not self.choices(sample) or getattr(self.config, "by", "") == "both"

    def truth(self, sample: Sample) -> list[str]:
        """All accepted answers."""
        if sample.answers:
            return list(sample.answers)
        last = written(sample).turns[-1] if sample.turns else None
        return [last.text] if last is not None and last.role == "assistant" else []

    def prediction(self, sample: Sample, prompt: str, answer: str, donor: str = "") -> Prediction:
        """The model's answer to a sample, ready to be written down."""
        media = {"image": [str(m) for m in sample.images], "audio": [str(m) for m in sample.audios]}
        return Prediction(
            id=sample.id,
            dataset=sample.dataset,
            language=sample.language,
            prompt=prompt,
            answer=answer,
            truth=self.truth(sample),
            boxes=list(sample.boxes),
            meta=dict(sample.meta),
            media={kind: names for kind, names in media.items() if names},
            donor=donor,
        )

    def official_id(self, sample: Sample | Prediction) -> str:
        """How the benchmark's own files call a sample: `meta["official_id"]`, else its id here."""
        return str(sample.meta.get("official_id", sample.id))

    def to_official(self, prediction: Prediction) -> Said:
        """What is handed in for one prediction."""
        question, choice = (str(prediction.meta.get(key, "")) for key in ("question", "choice"))
        return Said(self.official_id(prediction), prediction.answer, question, choice)

    def from_official(self, said: Said, sample: Sample) -> str:
        """The answer as this task reads it, from a file that was handed in."""
        return said.answer

    def told_official(self, said: Said) -> dict[str, Any]:
        """What such a file says besides the answer and is scored: for the prediction's meta."""
        return {}

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """Every metric of the task over the predictions, in order of importance."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is measured")

    def score(self, predictions: Sequence[Prediction], rounds: int = 1000, seed: int = 0) -> dict[str, Score]:
        """Every metric with its interval."""
        return {name: score_of(measured, rounds, seed) for name, measured in self.measure(predictions).items()}


def score_of(measured: Measured, rounds: int = 1000, seed: int = 0) -> Score:
    """A metric with its bootstrap interval."""
    if measured.corpus is not None:
        found = bootstrap_corpus(measured.statistics, measured.corpus, rounds, seed, groups=measured.groups)
    else:
        found = bootstrap(measured.each, rounds, seed, groups=measured.groups)
    unread = sum(measured.unread)
    return Score(found.value, found.low, found.high, found.n, unread, measured.variant, found.method, measured.better)
