"""What the README and the other pages tell people to type works, and what they point at exists."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
FREE = ("--check", "--help", "--print-config")  # flags that make any command cheap


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    found = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    found.append((page.name, words))
    return found


def of_ours(words: list[str]) -> list[str] | None:
    """The words after `minigpt4o`, whichever way the command line is entered; None if it is another program."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[0] == "torchrun":
        script = next(i for i, word in enumerate(words) if word.endswith(".py"))
        words = ["python", *words[script:]]
    if words[0] in ("python", ".venv/bin/python") and words[1].endswith(".py"):
        return [Path(words[1]).stem, *words[2:]]
    if words[0] in ("python", ".venv/bin/python") and words[1:3] == ["-m", "minigpt4o.cli"]:
        return words[3:]
    return words[1:] if words[0] == "minigpt4o" else None


def test_there_are_commands_to_look_at() -> None:
    assert len([words for page, words in commands() if page == "README.md"]) > 8


def short(value: str | list[str]) -> str:
    return value if isinstance(value, str) else " ".join(value)[:70]


@pytest.mark.parametrize(("page", "words"), commands(), ids=short)
def test_every_command_can_be_typed(page: str, words: list[str]) -> None:
    from minigpt4o.cli.parser import parse

    ours = of_ours(words)
    if ours is not None:
        if not {"--help", "-h"} & set(ours):
            args = parse(ours)
            for path in filter(None, [getattr(args, "cfg_path", None)]):
                assert "/" not in path or not path.endswith(".yaml") or (ROOT / path).is_file(), f"no {path}"
    elif words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    else:
        assert words[0] in ("source", "git", "cd", "conda", "uv", "pip", "export", "xdg-open", ".venv/bin/python"), (
            words
        )


def cheap() -> list[list[str]]:
    """Commands that tell something and end: they are run."""
    found = []
    for _, words in commands():
        ours = of_ours(words)
        if ours and (ours[0] == "list" or any(flag in ours for flag in FREE)) and ours not in found:
            found.append(ours)
    return found


@pytest.mark.parametrize("words", cheap(), ids=short)
def test_the_cheap_ones_run_without_torch_and_end_well(words: list[str]) -> None:
    code = "import sys; from minigpt4o.cli import main; sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


LINKED = sorted([*PAGES, ROOT / "CHANGELOG.md", *ROOT.glob("dataset/*.md")])


def anchors(page: Path) -> set[str]:
    """What a link may name behind #: the headings, as GitHub makes anchors of them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for title in re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        word = base = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
        number = 0
        while word in found:
            number += 1
            word = f"{base}-{number}"
        found.add(word)
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_point_at_files_and_headings_that_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link or link.startswith("mailto:"):
            continue
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (heading and target.suffix == ".md" and heading not in anchors(target)):
            missing.append(link)
    assert not missing


def test_every_page_can_be_found_from_the_index() -> None:
    text = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)\s#]+)", text))
    assert {page.name for page in ROOT.glob("docs/*.md")} - {"index.md"} <= linked


def test_the_readme_names_registered_parts_and_their_keys() -> None:
    from minigpt4o.common.registry import registry

    (text,) = blocks(ROOT / "README.md", "yaml")
    model = yaml.safe_load(text)["model"]
    nodes = [("model", {"name": model["arch"], **{key: value for key, value in model.items() if key != "arch"}})]
    nodes += [("llm", model["llm"])]
    nodes += [(kind[:-1], node) for kind in ("encoders", "bridges") for node in model[kind].values()]
    for kind, node in nodes:
        known = {field.name for field in registry.entry(kind, node["name"]).fields}
        assert set(node) - {"name"} <= known
