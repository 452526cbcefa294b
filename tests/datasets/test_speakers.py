"""One turn of a dialogue is read alike wherever dialogues are read."""

import pytest

from minigpt4o.common.errors import SkipSample
from minigpt4o.datasets.prepare.foreign_chat import _turn
from minigpt4o.datasets.speakers import ROLES, spoken


@pytest.mark.parametrize("name", ROLES)
def test_both_ways_of_writing_a_turn_say_the_same(name) -> None:
    said = spoken({"from": name, "value": "hello"}, "a.json: row 1")
    assert said == spoken({"role": name, "content": "hello"}, "a.json: row 1") == (ROLES[name], "hello")


def test_a_file_to_convert_knows_every_speaker_that_training_knows() -> None:
    for name, role in ROLES.items():
        assert _turn({"from": name, "value": "hello"}, {}, None, "row 1") == {"role": role, "content": "hello"}


@pytest.mark.parametrize(("said", "told"), [("hello", "a turn is a str"), ({"from": "cat"}, "unknown speaker 'cat'")])
def test_what_is_no_turn_is_told_with_its_place(said, told) -> None:
    with pytest.raises(SkipSample, match=f"row 1: {told}"):
        spoken(said, "row 1")
