"""A conversation that is too long for the model loses its oldest words, never its media."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from minigpt4o.conversation.marks import marks_of
from minigpt4o.conversation.sample import Turn


@dataclass(frozen=True)
class Fit:
    """What is left of a conversation and how many places of the model's row it takes."""

    turns: list[Turn]
    places: int  # may still exceed the room: the last exchange is never dropped
    dropped: int = 0  # turns that were left out, the oldest first


def fit_turns(turns: Sequence[Turn], room: int, places: Callable[[Sequence[Turn]], int]) -> Fit:
    """As many of the newest turns as take at most `room` places, counted by `places`.

    A leading system turn always stays. An exchange (what was said and the answer) is dropped as a whole; the marks of
    its media move in order to the front of the oldest words that are kept. The count is taken a few times only,
    however long the conversation is.
    """
    whole = Fit(list(turns), places(turns))
    starts = _exchanges(turns)
    if whole.places <= room or len(starts) < 2:
        return whole
    low, high = 1, len(starts) - 1  # exchanges to drop: `low` may be enough, `high` is all that can be
    best = _without(turns, starts, high, places)
    while low < high and best.places <= room:
        middle = (low + high) // 2
        tried = _without(turns, starts, middle, places)
        if tried.places <= room:
            best, high = tried, middle
        else:
            low = middle + 1
    return best


def _exchanges(turns: Sequence[Turn]) -> list[int]:
    """Where exchanges begin: at words of a user that follow no other words of a user."""
    return [i for i, turn in enumerate(turns) if turn.role == "user" and (i == 0 or turns[i - 1].role != "user")]


def _without(turns: Sequence[Turn], starts: Sequence[int], drop: int, places: Callable[[Sequence[Turn]], int]) -> Fit:
    head = [turn for turn in turns[: starts[0]] if turn.role == "system"]
    gone, kept = turns[starts[0] : starts[drop]], list(turns[starts[drop] :])
    marks = "".join(marks_of(turn.text) for turn in gone if turn.role != "assistant")
    kept[0] = replace(kept[0], text=marks + kept[0].text)
    left = [*head, *kept]
    return Fit(left, places(left), len(turns) - len(left))
