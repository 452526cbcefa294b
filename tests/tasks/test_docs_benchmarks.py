"""docs/benchmarks.md says of every benchmark what its YAML says: how many, what is asked, what is measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from minigpt4o.common.registry import Part, registry
from minigpt4o.datasets.known import KnownSet, known_sets
from minigpt4o.datasets.prompts import load_prompts
from minigpt4o.tasks.base import Prediction

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
SETS = {name: one for name, one in known_sets().items() if name.startswith("benchmark_")}
WHOLE = ("benchmark_refcoco", "benchmark_refcocop", "benchmark_refcocog")  # families; their splits stand in the table
LEFT_OUT = {"answer_words", "reference_score"}


def row(one: KnownSet) -> str:
    """The line of the table that the YAML asks for."""
    node = one.node
    given = node["task"] if isinstance(node["task"], dict) else {"name": node["task"]}
    values = {key: value for key, value in given.items() if key != "name"}
    task = registry.build(Part("task", given["name"], values))
    lead, *others = [name for name in measured(task) if name not in LEFT_OUT]
    variant = f" ({values['metric']})" if values.get("metric") in ("official", "minigpt4", "evalai") else ""
    metrics = f"**{lead}**{variant}" + "".join(f", {name}" for name in others)
    (prompt,) = load_prompts(node["prompts"], one.name)
    count = one.about["count"].partition(";")[0]
    cells = [
        f"[`{one.name}`](datasets.md#{one.name.lower()})",
        count,
        f"`{prompt}`",
        metrics,
        task.official_format or "-",
    ]
    return "| " + " | ".join(cells) + " |"


def measured(task: object) -> list[str]:
    """Names of the scores, of an answer that was ranked too if the task ranks."""
    meta = {"choices": ["yes", "no"], "judge": "5 5"}
    if getattr(getattr(task, "config", None), "by", "generation") != "generation":
        meta |= {"likelihoods": {"yes": [-1.0, 1], "no": [-2.0, 1]}, "generated": "yes"}
    row = Prediction("1", "d", "", "", "yes", ["yes"], meta=meta)
    return list(task.measure([row]))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(set(SETS) - set(WHOLE)))
def test_the_page_has_the_benchmark_as_its_yaml_has_it(name: str) -> None:
    assert row(SETS[name]) in PAGE.splitlines()


def test_the_page_names_nothing_that_is_not_there() -> None:
    for name in set(re.findall(r"`(benchmark_\w+)`", PAGE)):
        assert name in SETS, name
    for file in set(re.findall(r"eval_configs/[\w/]+\.yaml", PAGE)):
        assert (ROOT / file).is_file(), file
    for test in set(re.findall(r"tests/[\w/]+\.py", PAGE)):
        assert (ROOT / test).is_file(), test
    for file, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", PAGE):
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


def test_every_benchmark_is_run_by_a_configuration_of_a_family() -> None:
    run = set()
    for file in (ROOT / "eval_configs").glob("*.yaml"):
        run |= set(yaml.safe_load(file.read_text(encoding="utf-8")).get("datasets") or {})
    assert set(SETS) - run == set(WHOLE)
