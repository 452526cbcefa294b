"""The code of docs/data-engine.md runs, and the keys and names that the page gives exist."""

from __future__ import annotations

import re
from pathlib import Path

from minigpt4o.common.nodes import DatasetSpec
from minigpt4o.common.registry import registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data-engine.md").read_text(encoding="utf-8")


def test_its_code_runs():
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    namespace: dict[str, object] = {}
    exec(code, namespace)  # noqa: S102 -- the page's own code
    assert "place" in namespace


def test_the_keys_and_tests_that_it_names_exist():
    fields = {f.name for f in registry.entry("runner", "runner_base").fields}
    named = set(re.findall(r"`run\.(\w+)", PAGE))
    assert len(named) > 6
    assert named <= fields
    shards = {f.name for f in registry.entry("builder", "shards").fields} | set(DatasetSpec.__dataclass_fields__)
    for word in ("shuffle", "window_shards", "allow_remote", "index", "cache_gb", "replacement"):
        assert word in PAGE and word in shards
    for path in re.findall(r"tests/[\w/]+\.py", PAGE):
        assert (ROOT / path).is_file(), path
