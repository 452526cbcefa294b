"""The claim that a ranked answer says of itself whether greedy decoding would give just it."""

from __future__ import annotations

import torch

from minigpt4o.models.ranking import rank_batch

ROWS = ["t3 i t2", "t1 a t9", "t6"]
LENGTH = 4


@torch.no_grad()
def greedily(model, batch, row: int) -> list[int]:
    """The likeliest tokens one after the other, each from the whole row in one forward pass."""
    embeddings = model.embed(batch)[row : row + 1, batch.attention_mask[row].bool()]
    ids: list[int] = []
    for _ in range(LENGTH):
        said = model.llm.embed(torch.tensor([ids], dtype=torch.int64)) if ids else embeddings[:, :0]
        hidden = model.llm.hidden(torch.cat([embeddings, said], dim=1), None)
        ids.append(int(model.llm.logits(hidden[0, -1:]).argmax()))
    return ids


def test_an_answer_is_greedy_if_each_of_its_tokens_is_the_likeliest(make_model, make_batch):
    model = make_model().eval()
    batch = make_batch(model, ROWS, side="left")
    for row in range(len(ROWS)):
        best = greedily(model, batch, row)
        other = [*best[:-1], best[-1] + 1]
        answers = [[[5]] if i != row else [best, best[:1], other, [best[0] + 1, *best[1:]]] for i in range(len(ROWS))]
        assert [one.greedy for one in rank_batch(model, batch, answers)[row]] == [True, True, False, False]
