"""What is derived from the data of tests is kept apart from what the person at this machine has derived."""

import logging
import os

import pytest


@pytest.fixture(autouse=True)
def _quiet_afterwards():
    """A command run inside a test sets the logging of the whole process up; the next test is not to speak for it."""
    ours = logging.getLogger("minigpt4o")
    before, level, spread = list(ours.handlers), ours.level, ours.propagate
    yield
    ours.handlers[:] = before
    ours.setLevel(level)
    ours.propagate = spread


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    before = os.environ.get("MINIGPT4O_CACHE")
    os.environ["MINIGPT4O_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["MINIGPT4O_CACHE"]
    else:
        os.environ["MINIGPT4O_CACHE"] = before
