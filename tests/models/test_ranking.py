"""Claims about ranking answers by likelihood: equal to the plain way, and blind to neighbours."""

from __future__ import annotations

import pytest
import torch

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.batch import Batch
from minigpt4o.models.ranking import rank_batch

ROWS = ["t3 i t2", "t1 a t9", "t6", "i i t1"]
ANSWERS = [[[5, 6, 7], [8]], [[9, 10]], [[5], [5, 5], [5, 5, 5, 5]], [[11, 12, 13, 14, 15], [11, 12], [200]]]


def plainly(model, batch: Batch, row: int, ids: list[int]) -> float:
    """The whole row with the answer behind it in one forward pass, without a cache or padding."""
    embeddings = model.embed(batch)[row : row + 1, batch.attention_mask[row].bool()]
    whole = torch.cat([embeddings, model.llm.embed(torch.tensor([ids]))], dim=1)
    hidden = model.llm.hidden(whole, None)
    logs = model.llm.logits(hidden[0, -len(ids) - 1 : -1]).log_softmax(-1)
    return float(sum(logs[i, token] for i, token in enumerate(ids)))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen2"])
@pytest.mark.parametrize("pairs", [1, 3, 64])
def test_a_likelihood_is_the_sum_of_the_tokens_log_probabilities(make_model, make_batch, family, pairs):
    model = make_model(family)
    batch = make_batch(model, ROWS, side="left")
    found = rank_batch(model, batch, ANSWERS, pairs)
    with torch.no_grad():
        model.eval()
        for row, answers in enumerate(ANSWERS):
            for ids, likelihood in zip(answers, found[row], strict=True):
                assert likelihood.total == pytest.approx(plainly(model, batch, row, ids), abs=2e-5)
                assert likelihood.tokens == len(ids)
                assert likelihood.mean == likelihood.total / len(ids)


def test_an_answer_gets_the_same_alone_and_among_others(make_model, make_batch):
    model = make_model()
    together = rank_batch(model, make_batch(model, ROWS, side="left"), ANSWERS)
    fewer = rank_batch(model, make_batch(model, ROWS, side="left"), [answers[-1:] for answers in ANSWERS])
    for many, one in zip(together, fewer, strict=True):
        assert many[-1].total == pytest.approx(one[0].total, abs=1e-5)


def test_the_prompt_runs_once_however_many_answers_there_are(make_model, make_batch, monkeypatch):
    model = make_model()
    batch = make_batch(model, ROWS[:1], side="left")
    runs = []
    embed = type(model).embed
    monkeypatch.setattr(type(model), "embed", lambda self, given: runs.append(1) or embed(self, given))
    rank_batch(model, batch, [[[i] for i in range(3, 103)]])
    assert len(runs) == 1


def test_an_answer_without_tokens_is_refused_by_name(make_model, make_batch):
    model = make_model()
    batch = make_batch(model, ROWS[:1], side="left")
    with pytest.raises(DataError, match="no token"):
        rank_batch(model, batch, [[[5], []]])
