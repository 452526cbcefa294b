"""Tasks that only learn: the next token of an answer, whatever the answer is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minigpt4o.common.registry import registry

if TYPE_CHECKING:
    from minigpt4o.conversation.batch import Batch
    from minigpt4o.models.base import LossSum


@registry.register("task", "image_text_pretrain", "conversation_finetune", "language_pretrain", "encoder_pretrain")
class LearnAnswers:
    """Learn what the assistant says: captions (stage 1), conversations (stage 2), plain text, encoders from scratch.

    The names differ in what `model.train` and the data sets of a recipe let learn, not in the loss.
    """

    @dataclass
    class Config:
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def train_step(self, model: Any, batch: Batch) -> LossSum:
        """The model's summed loss over the learned positions of a batch, and their number."""
        found: LossSum = model(batch)
        return found
