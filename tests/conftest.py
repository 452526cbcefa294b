"""What is derived from the data of tests is kept apart from what the person at this machine has derived."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    before = os.environ.get("MINIGPT4O_CACHE")
    os.environ["MINIGPT4O_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["MINIGPT4O_CACHE"]
    else:
        os.environ["MINIGPT4O_CACHE"] = before
