"""Answer by likelihood: of the choices a question gives, the one that the model finds likeliest is its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.batch import Example
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.datasets.collate import collate
from minigpt4o.models.ranking import Likelihood, padded_places, rank_batch
from minigpt4o.tasks.choice import COMPAT, LIKELIHOODS, WEIGHED

NORMS = ("mean", "sum")


@dataclass(frozen=True)
class Ranked:
    """What the model chose, and how likely it found each choice."""

    answer: str
    likelihoods: dict[str, tuple[float, int]]  # choice -> natural logarithm of its probability, tokens with the end
    profile: str = ""  # compat, where that profile's way to order them was taken

    def meta(self) -> dict[str, Any]:
        """What a prediction tells of it besides."""
        told: dict[str, Any] = {LIKELIHOODS: {choice: list(found) for choice, found in self.likelihoods.items()}}
        return told | ({WEIGHED: COMPAT} if self.profile == COMPAT else {})


def rank(
    model: Any, encoder: SampleEncoder, task: Any, examples: Mapping[int, Example], device: Any
) -> dict[int, Ranked]:
    """The examples whose task gives choices, by their place; pictures and prompt run once for each question.

    A choice counts by its mean log-probability per token, its end included, or by the sum (`task.config.normalise`).
    In profile compat it is the reference's mean over the places of the row, for a row that stands alone: so the
    order of the choices depends on no other row. Among equals the first wins.
    """
    choices = {place: list(dict.fromkeys(task.choices(example.sample))) for place, example in examples.items()}
    asked = [place for place, given in choices.items() if given]
    if not asked:
        return {}
    batch = collate([examples[place] for place in asked], model.tokenizer.pad_token_id, side="left").to(device)
    ids = [[encoder.answer_ids(choice) for choice in choices[place]] for place in asked]
    found: dict[int, Ranked] = {}
    for place, row in zip(asked, rank_batch(model, batch, ids), strict=True):
        scores = [score(one, encoder, task, len(examples[place].input_ids)) for one in row]
        best = max(range(len(row)), key=lambda i: (scores[i], -i))
        told = {choice: (one.total, one.tokens) for choice, one in zip(choices[place], row, strict=True)}
        found[place] = Ranked(choices[place][best], told, encoder.template.profile)
    return found


def score(one: Likelihood, encoder: SampleEncoder, task: Any, places: int) -> float:
    """By what the choices of a prompt of so many places are ordered, the largest first."""
    if encoder.template.profile == COMPAT:
        return one.total / padded_places(places, one.tokens)
    norm = getattr(task.config, "normalise", NORMS[0])
    if norm not in NORMS:
        raise ConfigError(f"task.normalise is {norm!r}; known: {', '.join(NORMS)}")
    return one.total if norm == "sum" else one.mean


def how_answered(samples: Sequence[Any], encoder: SampleEncoder, task: Any) -> str:
    """In words, for the results: generated, or how choices were ranked."""
    if not any(task.choices(sample) for sample in samples):
        return "generated"
    if encoder.template.profile == COMPAT:
        return "likeliest choice: log-probability over the places of its row, end included (MiniGPT-v2, row alone)"
    norm = getattr(task.config, "normalise", NORMS[0])
    return f"likeliest choice: {norm} of the log-probabilities of its tokens, end included"
