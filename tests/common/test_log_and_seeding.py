"""Lines of a run are plain and rank-aware; draws depend on their words alone."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from minigpt4o.common.log import log_to, rank_of_environment, setup
from minigpt4o.common.seeding import rng_for, seed_all, torch_seed


@pytest.fixture
def logger():
    yield logging.getLogger("minigpt4o")
    ours = logging.getLogger("minigpt4o")
    for handler in list(ours.handlers):
        ours.removeHandler(handler)
        handler.close()
    ours.propagate = True
    ours.setLevel(logging.NOTSET)


def test_rank_0_speaks_and_the_others_only_warn(capsys, monkeypatch, logger):
    setup()
    logger.info("step 3")
    assert capsys.readouterr().err.rstrip().endswith(" step 3")
    monkeypatch.setenv("RANK", "1")
    setup()
    logger.info("step 4")
    logger.warning("odd")
    assert capsys.readouterr().err.split(" ", 1)[1] == "[rank 1] warning: odd\n"


def test_setting_up_twice_writes_each_line_once_and_a_file_gets_it_too(capsys, tmp_path, logger):
    setup()
    setup()
    log_to(tmp_path / "run" / "log.txt")
    logger.info("once")
    assert capsys.readouterr().err.count("once") == 1
    assert (tmp_path / "run" / "log.txt").read_text().count("once") == 1


def test_lines_go_to_what_stderr_is_now_and_not_to_a_file_that_was_closed(capsys, monkeypatch, logger):
    with io.StringIO() as redirected:
        monkeypatch.setattr(sys, "stderr", redirected)
        setup()
        logger.info("into the file")
        assert "into the file" in redirected.getvalue()
        monkeypatch.undo()
    logger.info("after it")
    assert capsys.readouterr().err.endswith(" after it\n")


def test_a_single_process_is_rank_0(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert rank_of_environment() == 0


def test_draws_are_a_pure_function_of_their_words():
    here = [rng_for(7, "augment", 12).random(), torch_seed(7, "dropout", 3)]
    code = (
        "from minigpt4o.common.seeding import *; import sys\n"
        "sys.stdout.write(f\"{rng_for(7, 'augment', 12).random()!r} {torch_seed(7, 'dropout', 3)}\")"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [repr(here[0]), str(here[1])]


def test_different_words_give_different_draws():
    words = [(1,), ("1",), (True,), (1.0,), (1, 2), (12,), ("ab", "c"), ("a", "bc"), ("a", None), ("aNone",)]
    assert len({rng_for(*w).random() for w in words}) == len(words)
    assert len({torch_seed(*w) for w in words}) == len(words)
    assert all(0 <= torch_seed(i) < 2**63 for i in range(100))


def test_seed_all_makes_torch_and_numpy_repeat():
    import numpy
    import torch

    drawn = []
    for _ in range(2):
        seed_all(5)
        drawn.append((torch.rand(3).tolist(), numpy.random.rand(2).tolist()))
    assert drawn[0] == drawn[1]
