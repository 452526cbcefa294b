"""Pick the next token of each row from its logits, in the way its own decoding says."""

# B rows, V vocabulary

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minigpt4o.conversation.batch import Decoding
from minigpt4o.models.answer import Answer

Way = tuple[float, bool, float, float]


@dataclass(eq=False)
class Row:
    """One answer in the making. Its random draws come from (decoding.seed, name) and from nothing else."""

    answer: Answer
    decoding: Decoding
    limit: int  # tokens it may take
    name: str = ""  # the sample's id
    tokens: list[int] = field(default_factory=list)  # every token chosen, the one that ends the answer included
    cut: bool = False  # it ended because of its limit
    draws: torch.Generator | None = None

    def __post_init__(self) -> None:
        self.rewind_draws()

    def rewind_draws(self) -> None:
        """Set the random draws to where the tokens chosen so far have left them."""
        if self.decoding.do_sample:
            self.draws = _generator(self.decoding.seed, self.name)
            for _ in self.tokens:
                self.draw()

    def draw(self) -> Tensor:
        """(1,) the next uniform number of this row."""
        return torch.rand(1, generator=self.draws)

    @property
    def done(self) -> bool:
        return self.answer.done

    @property
    def way(self) -> Way:
        """What rows must have in common for their tokens to be picked in one go."""
        decoding = self.decoding
        if not decoding.do_sample:
            return (decoding.repetition_penalty, False, 1.0, 1.0)
        return (decoding.repetition_penalty, True, decoding.temperature, decoding.top_p)

    def take(self, token: int) -> None:
        """The next token of the answer; one after its end is ignored."""
        if self.done:
            return
        self.tokens.append(token)
        self.answer.add(token)
        if len(self.tokens) >= self.limit:
            self.end()

    def end(self) -> None:
        """No more tokens: what there is of the answer is all of it."""
        if not self.done:
            self.cut = True
            self.answer.finish()


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def choose(logits: Tensor, rows: Sequence[Row], end_ids: Sequence[int]) -> Tensor:
    """(B, V) float32, which is changed, -> (B,) token ids."""
    early = [i for i, row in enumerate(rows) if len(row.answer.ids) < row.decoding.min_new_tokens]
    ways: dict[Way, list[int]] = {}
    for i, row in enumerate(rows):
        ways.setdefault(row.way, []).append(i)
    if len(ways) == 1:
        return _choose(logits, rows, early, end_ids)
    tokens = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    for places in ways.values():
        at = torch.tensor(places, device=logits.device)
        own_early = [i for i, place in enumerate(places) if place in early]
        tokens[at] = _choose(logits[at], [rows[place] for place in places], own_early, end_ids)
    return tokens


def _choose(logits: Tensor, rows: Sequence[Row], early: Sequence[int], end_ids: Sequence[int]) -> Tensor:
    """The same for rows of one way."""
    penalty, do_sample, temperature, top_p = rows[0].way
    if penalty != 1.0:
        said = [(i, token) for i, row in enumerate(rows) for token in set(row.answer.ids)]
        at, seen = torch.tensor(said, dtype=torch.int64).reshape(-1, 2).to(logits.device).unbind(1)
        values = logits[at, seen]
        logits[at, seen] = torch.where(values > 0, values / penalty, values * penalty)
    if early:  # nothing ends these yet
        places = torch.tensor([(i, end) for i in early for end in end_ids], dtype=torch.int64).reshape(-1, 2)
        at, ends = places.to(logits.device).unbind(1)
        logits[at, ends] = -torch.inf
    return _drawn(logits, rows, temperature, top_p) if do_sample else logits.argmax(dim=-1)


def _drawn(logits: Tensor, rows: Sequence[Row], temperature: float, top_p: float) -> Tensor:
    """Sample from the smallest set of tokens whose probability reaches top_p."""
    probabilities, ids = (logits / temperature).softmax(dim=-1).sort(dim=-1, descending=True)
    reached = probabilities.cumsum(dim=-1)
    probabilities = probabilities.masked_fill(reached - probabilities >= top_p, 0.0)
    reached = probabilities.cumsum(dim=-1)
    uniform = torch.stack([row.draw() for row in rows]).to(logits.device)
    picked = (reached <= uniform * reached[:, -1:]).sum(dim=-1, keepdim=True)
    last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
    return ids.gather(1, torch.minimum(picked, last)).squeeze(1)
