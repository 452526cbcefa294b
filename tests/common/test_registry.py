"""Classes are found by name from their source; adding one is dropping a file, with no other edit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import HOMES, Part, Registry, registry
from minigpt4o.common.source import REQUIRED, read_entries

ROOT = Path(__file__).resolve().parents[2]


def test_every_shipped_class_is_documented_and_its_fields_have_known_types():
    from minigpt4o.common.schema import _RULES, parse_type

    def leaves(kind):
        if kind.name == "literal":
            return []
        return [kind.name, *(leaf for arg in kind.args for leaf in leaves(arg))]

    for kind in HOMES:
        for name in registry.names(kind):
            entry = registry.entry(kind, name)
            assert entry.doc, entry.place
            for spec in entry.fields:
                where = f"{entry.file}:{spec.line} {spec.name}"
                assert spec.doc, f"{where} has no comment saying what it is"
                unknown = set(leaves(parse_type(spec.type))) - {*_RULES, "Part", "..."}
                assert not unknown, f"{where}: {unknown}"
                assert bool(spec.part_kind) == ("Part" in spec.type), where


def test_source_and_imported_class_tell_the_same():
    import dataclasses

    for kind, name in (("bridge", "linear"), ("task", "vqa"), ("lr_scheduler", "constant_lr"), ("runner", "chat")):
        entry = registry.entry(kind, name)
        config = getattr(registry.get(kind, name), "Config", None)
        names = [f.name for f in dataclasses.fields(config)] if config else []
        assert [spec.name for spec in entry.fields] == names


def test_a_miss_names_the_nearest_and_a_clash_names_both(world):
    with pytest.raises(ConfigError, match="unknown bridge 'liner'; did you mean 'linear'"):
        registry.entry("bridge", "liner")
    with pytest.raises(ConfigError, match="unknown kind 'bridges'"):
        registry.names("bridges")
    (world / "clashing.py").write_text(
        'from minigpt4o.common.registry import registry\n@registry.register("bridge", "linear")\nclass Mine: ...\n'
    )
    mine = Registry(HOMES)
    mine.add_plugin("clashing")
    with pytest.raises(ConfigError, match=r"'linear' is registered twice: at .*linear\.py:\d+ and at .*clashing\.py:3"):
        mine.names("bridge")


def test_fields_are_read_from_source_with_defaults_and_comments(tmp_path):
    file = tmp_path / "mod.py"
    file.write_text(
        "from x import registry, part, field, dataclass\n"
        '@registry.register("bridge", "a", "b")\n'
        "class A:\n"
        '    """First line.\n\n    More."""\n'
        "    class Config:\n"
        "        need: int  # must be given\n"
        "        rate: float = -1.5  # negative\n"
        "        names: list[str] = field(\n"
        '            default_factory=lambda: ["x"]\n'
        "        )  # after the bracket\n"
        "        flag: bool = (\n"
        "            True  # inside\n"
        "        )\n"
        '        inner: Part = part("llm", default="tiny", doc="said")\n'
    )
    (entry,) = read_entries(file, "mod")
    assert (entry.names, entry.doc, entry.class_name) == (("a", "b"), "First line.", "A")
    facts = {s.name: (s.default, s.doc, s.part_kind) for s in entry.fields}
    assert facts == {
        "need": (REQUIRED, "must be given", ""),
        "rate": (-1.5, "negative", ""),
        "names": (["x"], "after the bracket", ""),
        "flag": (True, "inside", ""),
        "inner": ("tiny", "said", "llm"),
    }


def test_a_default_that_is_no_literal_is_told_with_its_line(tmp_path):
    file = tmp_path / "mod.py"
    file.write_text('@registry.register("bridge", "a")\nclass A:\n    class Config:\n        x: int = compute()  # x\n')
    with pytest.raises(ConfigError, match=r"mod\.py:4: the default of 'x' is not a literal"):
        read_entries(file, "mod")


def test_a_part_is_built_from_its_values_and_what_the_program_knows():
    bridge = registry.build(Part("bridge", "linear", {"bias": False}), from_dim=3, from_tokens=2, to_dim=5)
    assert sum(p.numel() for p in bridge.parameters()) == 15


# ---- adding by the book: each drops files into a copy of the tree, and nothing else is edited ----

FILES = {
    "models/mine.py": '''
"""A model of my own."""
from dataclasses import dataclass
from minigpt4o.common.registry import registry

@registry.register("model", "mine")
class Mine:
    """My model."""
    @dataclass
    class Config:
        width: int = 8  # features
    def __init__(self, config):
        self.config = config
''',
    "datasets/builders/letters.py": '''
"""A builder of a new shape."""
from dataclasses import dataclass
from minigpt4o.common.registry import registry

@registry.register("builder", "letters")
class Letters:
    """One letter a row."""
    @dataclass
    class Config:
        alphabet: str = "abc"  # the rows
    def __init__(self, config, *, name, split):
        self.config, self.name, self.split = config, name, split
    def __len__(self):
        return len(self.config.alphabet)
''',
    "configs/datasets/my_letters.yaml": "datasets: {my_letters: {builder: letters, alphabet: abcd}}\n",
    "configs/datasets/my_pairs.yaml": "datasets: {my_pairs: {builder: pairs, annotations: {train: rows.json}}}\n",
    "configs/models/mine_wide.yaml": "model: {arch: mine, width: 64}\n",
    "tasks/count.py": '''
"""A task of my own."""
from minigpt4o.common.registry import registry

@registry.register("task", "count")
class Count:
    """Counts."""
''',
}
PLUGIN = '''
"""An outside module."""
from dataclasses import dataclass
from minigpt4o.common.registry import registry, Part, part

@registry.register("runner", "walk")
class Walk:
    """Walks."""
    @dataclass
    class Config:
        task: Part = part("task", doc="what")
    def __init__(self, config, *, settings):
        self.settings = settings
    def run(self):
        import sys
        from minigpt4o.common.registry import registry
        model = registry.build(self.settings.model)
        sets = {n: registry.build(s.builder, name=n, split="train") for n, s in self.settings.datasets.items()
                if n == "my_letters"}
        task = type(registry.get("task", self.settings.run["task"].name)())
        names = sorted(self.settings.datasets)
        sys.stdout.write(f"{model.config.width} {len(sets['my_letters'])} {task.__name__} {names}")
'''
YAML = """\
plugins: [my_lab]
model: {arch: mine, model_type: wide}
datasets:
  my_letters:
  my_pairs:
run: {runner: walk, task: count}
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the package with the files dropped in."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "minigpt4o", copy / "minigpt4o", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        (copy / "minigpt4o" / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / "minigpt4o" / name).write_text(text)
    (copy / "my_lab.py").write_text(PLUGIN)
    (copy / "a.yaml").write_text(YAML)
    return copy


def run(tree, *words):
    command = [sys.executable, "-m", "minigpt4o.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=tree, check=False)


def test_dropped_files_and_a_plugin_are_used_with_no_other_edit(tree):
    done = run(tree, "train", "--cfg-path", "a.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "64 4 Count ['my_letters', 'my_pairs']"


def test_dropped_files_are_listed_and_documented(tree):
    assert "my_letters" in run(tree, "list", "dataset").stdout
    assert "My model." in run(tree, "list", "model").stdout
    assert run(tree, "docs-config", "--out", "page.md").returncode == 0
    page = (tree / "page.md").read_text()
    assert "### `letters`" in page
    assert "| `alphabet` | `str` | `abc` | the rows |" in page


def test_a_slip_in_what_was_dropped_is_told_like_any_other(tree):
    done = run(tree, "train", "--cfg-path", "a.yaml", "--check", "--options", "datasets.my_letters.alphabt=x")
    assert done.returncode == 2
    assert "did you mean 'alphabet'?" in done.stderr.splitlines()[-1]
