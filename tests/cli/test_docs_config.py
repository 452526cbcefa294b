"""docs/config-reference.md is what the classes say."""

from __future__ import annotations

from pathlib import Path

from minigpt4o.cli.docs_config import reference
from minigpt4o.common.registry import HOMES, Registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "config-reference.md"


def test_the_page_is_current():
    assert PAGE.is_file(), "run `python -m minigpt4o.cli docs-config`"
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `python -m minigpt4o.cli docs-config`"


def test_the_page_holds_every_class_and_every_key():
    page, shipped = reference(), Registry(HOMES)
    for kind in HOMES:
        for name in shipped.names(kind):
            assert f"`{name}`" in page
            for spec in shipped.entry(kind, name).fields:
                assert f"| `{spec.name}` |" in page
