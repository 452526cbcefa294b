"""Write down what is spoken: word and character error rates over all utterances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from minigpt4o.common.registry import registry
from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.speech import cer, wer
from minigpt4o.tasks.base import EvaluationTask, Prediction

UNSPACED = frozenset({"ja", "zh", "th"})  # languages whose words have no borders in writing


@registry.register("task", "speech_recognition")
class SpeechRecognition(EvaluationTask):
    """Transcripts: WER and CER, of which the first named leads; lower is better, and they can be above 1."""

    @dataclass
    class Config:
        max_new_tokens: int = 200  # longest transcript, in tokens
        min_new_tokens: int = 0  # shortest transcript, in tokens
        num_beams: int = 1  # beams of the search; 1 is greedy
        repetition_penalty: float = 1.0  # above 1 discourages tokens that were said already
        length_penalty: float = 1.0  # of the beam search; above 1 favours long transcripts
        metric: Literal["auto", "wer", "cer"] = "auto"  # which leads; auto: cer for Japanese, Chinese and Thai
        normaliser: Literal["basic", "whisper_basic", "none"] = (
            "basic"  # of both texts: case and punctuation; as Whisper's basic one; none
        )

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """`wer` and `cer`; an utterance that nobody answered counts as all words missed."""
        answers = [p.answer for p in predictions]
        truths = [p.truth[0] if p.truth else "" for p in predictions]
        both = {
            "wer": wer(answers, truths, self.config.normaliser),
            "cer": cer(answers, truths, self.config.normaliser),
        }
        lead = self.config.metric
        if lead == "auto":
            lead = "cer" if predictions and all(p.language in UNSPACED for p in predictions) else "wer"
        return {name: both[name] for name in sorted(both, key=lambda name: name != lead)}
