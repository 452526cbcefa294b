"""Every example of docs/your-own-data.md is checked by the configuration and gives a sample."""

import io
import os
import random
import re
import tarfile
from pathlib import Path

import pytest

from minigpt4o.common.config import load_settings
from minigpt4o.common.registry import registry

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "your-own-data.md").read_text(encoding="utf-8")
DATA = Path(os.environ.get("MINIGPT4O_TEST_DATA", ROOT / ".." / "shared" / "data"))


def blocks(what):
    """(argument of the comment, code) of each marked block."""
    return re.findall(rf"<!-- {what}: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)


def builders_of(text, folder, split):
    indented = "".join(f"  {line}\n" for line in text.splitlines())
    (folder / "config.yaml").write_text("datasets:\n" + indented, encoding="utf-8")
    settings = load_settings(folder / "config.yaml", needs=["datasets"])
    return {name: registry.build(spec.builder, name=name, split=split) for name, spec in settings.datasets.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with all files of the page, and the media they name."""
    monkeypatch.chdir(tmp_path)
    for name, text in blocks("file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name in ("media/cat.png", "media/dog.png", "media/bell.wav", "classes/cat/1.png", "classes/dog/1.png"):
        (tmp_path / "my" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my" / name).write_bytes(b"media")
    (tmp_path / "my" / "shards").mkdir()
    for shard in ("00000", "00001"):
        with tarfile.open(tmp_path / "my" / "shards" / f"{shard}.tar", "w") as tar:
            for member in ("a.jpg", "a.txt"):
                info = tarfile.TarInfo(member)
                info.size = 5
                tar.addfile(info, io.BytesIO(b"bytes"))
    return tmp_path


@pytest.mark.parametrize(("builder", "text"), blocks("dataset"))
def test_each_example_of_the_page_gives_all_its_samples(folder, builder, text):
    (built,) = builders_of(text, folder, "train").values()
    assert builder in text
    for index in range(len(built)):
        sample = built.sample(index, random.Random(0))
        assert sample.turns[-1].role == "assistant"
        assert sample.images or sample.audios


def test_every_builder_of_rows_has_an_example():
    shown = {builder for builder, _ in blocks("dataset")}
    assert shown >= {"pairs", "shards", "conversations", "questions", "boxes", "labelled"}


@pytest.mark.parametrize(("name", "text"), blocks("real"))
def test_the_worked_example_shows_the_shipped_presets(tmp_path, name, text):
    shown = tmp_path / "shown.yaml"
    shown.write_text("datasets:\n" + "".join(f"  {line}\n" for line in text.splitlines()), encoding="utf-8")
    datasets = load_settings(shown, needs=["datasets"]).tree["datasets"]
    named = tmp_path / "named.yaml"
    named.write_text("datasets: {" + ", ".join(f"{one}: {{}}" for one in datasets) + "}\n", encoding="utf-8")
    assert load_settings(named, needs=["datasets"]).tree["datasets"] == datasets


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA} (MINIGPT4O_TEST_DATA)")
@pytest.mark.parametrize(("name", "text"), blocks("real"))
def test_the_worked_example_reads_real_data(tmp_path, monkeypatch, name, text):
    monkeypatch.setenv("OWN_DATA", str(DATA.resolve()))
    for split in ("train", "val", "test"):
        for built in builders_of(text, tmp_path, split).values():
            assert len(built) > 20
            assert built.sample(0, random.Random(0)).answers
