"""The pages that lead from nothing to a stage with real sets: their commands, YAML files and sets are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from minigpt4o.cli import main
from minigpt4o.cli.parser import parse
from minigpt4o.common import presets
from minigpt4o.common.config import load_settings
from minigpt4o.common.problems import ConfigProblems

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "dataset").glob("*.md"))
OTHER_PROGRAMS = {"make", "export", "git"}
_FILE = re.compile(r"<!-- file: (\S+) -->\n```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        found += [words for line in lines if (words := shlex.split(line, comments=True))]
    return found


def of_ours(words: list[str]) -> list[str] | None:
    """The words after `minigpt4o`; None for another program."""
    if words[0] == "torchrun":
        words = ["python", *words[next(i for i, word in enumerate(words) if word.endswith(".py")) :]]
    if words[:3] == ["python", "-m", "minigpt4o.cli"]:
        return words[3:]
    return [Path(words[1]).stem, *words[2:]] if words[0] == "python" else None


def files(page: Path) -> dict[str, str]:
    """What the page tells to save: name -> text."""
    return dict(_FILE.findall(page.read_text(encoding="utf-8")))


OURS = [(page, ours) for page in PAGES for words in commands(page) if (ours := of_ours(words))]

LAID_OVER = [(page, ours) for page, ours in OURS if {"--options", "--cfg-path"} <= set(ours)]


def short(value: object) -> str:
    return value.name if isinstance(value, Path) else " ".join(map(str, value))[:60] if isinstance(value, list) else ""


def test_every_stage_has_its_page_and_every_page_the_whole_way():
    names = {page.name for page in PAGES}
    stages = {"README_1_STAGE.md", "README_2_STAGE.md", "README_AUDIO.md", "README_MINIGPTv2_FINETUNE.md"}
    assert stages < names and "README_OWN_DATA.md" in names
    for page in PAGES:
        typed = [ours for one, ours in OURS if one == page]
        told = {words[1] for words in typed if words[0] == "data"} | {words[0] for words in typed}
        assert {"list", "check", "show", "train", "eval"} - told <= ({"eval"} if "2_STAGE" in page.name else set())


@pytest.mark.parametrize(("page", "ours"), OURS, ids=short)
def test_every_command_can_be_typed_and_names_what_there_is(page, ours):
    args = parse(ours)
    for flag in ("cfg_path", "model"):
        path = getattr(args, flag, None)
        if path and path.endswith(".yaml"):
            assert (ROOT / path).is_file() or path in files(page), f"{page.name}: no {path}"
    named = getattr(args, "what", None) or (args.name if ours[:2] in (["data", "list"], ["data", "download"]) else None)
    if named and "." not in named:
        assert presets.find("datasets", named) is not None, f"{page.name}: no data set {named!r}"


def test_other_programs_are_those_a_reader_has():
    others = {words[0] for page in PAGES for words in commands(page) if of_ours(words) is None}
    assert others <= OTHER_PROGRAMS


@pytest.mark.parametrize(("page", "name"), [(p, n) for p in PAGES for n in files(p)], ids=short)
def test_a_yaml_to_save_is_valid_as_it_stands(page, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(files(page)[name], encoding="utf-8")
    settings = load_settings(name)
    assert settings.datasets and not settings.notes


@pytest.mark.parametrize(("page", "ours"), LAID_OVER, ids=short)
def test_the_options_of_a_command_fit_its_yaml(page, ours, tmp_path, monkeypatch):
    args = parse(ours)
    monkeypatch.setenv("MINIGPT4O_DATA", "/big/disk/data")
    path = ROOT / args.cfg_path
    if args.cfg_path in files(page):
        path = tmp_path / args.cfg_path
        path.write_text(files(page)[args.cfg_path], encoding="utf-8")
    try:
        settings = load_settings(path, args.options, needs=["datasets"] if ours[0] == "data" else ("model", "run"))
    except ConfigProblems as error:
        raise AssertionError(str(error)) from error
    assert "$" not in str([spec.builder.values.get("annotations") for spec in settings.datasets.values()])


@pytest.mark.parametrize("name", sorted({o[2] for _, o in OURS if o[:2] == ["data", "download"]}))
def test_what_the_pages_download_has_commands(name, capsys):
    assert main(["data", "download", name]) == 0
    assert "curl --fail" in capsys.readouterr().out


def test_the_v2_page_tells_the_layout_of_every_set_of_its_yaml():
    text = (ROOT / "dataset/README_MINIGPTv2_FINETUNE.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("| `")]
    settings = load_settings(ROOT / "train_configs/minigptv2_finetune.yaml")
    for name, spec in settings.datasets.items():
        (line,) = [row for row in table if f"`{name}`" in row.split("|")[1]]
        train = spec.builder["annotations"]["train"].removeprefix("data/")
        paths = re.findall(r"`([^`]+)`", line.split("|")[2])
        folder = str(Path(paths[0]).parent)
        whole = {path if "/" in path else f"{folder}/{path}" for path in paths}
        assert whole & set(re.sub(r"\{(\w+),(\w+)\}", r"\1", train).split(",")), f"{name}: {train}"
        root = str(spec.builder.values.get("media_root") or "")
        if root and name != "refvg":
            assert f"`{root.removeprefix('data/')}`" in line.split("|")[3], f"{name}: {root}"


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_links_point_at_files_and_headings_that_exist(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / file if file else page
        assert target.exists(), link
        heads = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
        assert not anchor or anchor in anchors, link
