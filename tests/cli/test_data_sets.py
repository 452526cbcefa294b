"""`data list`, `data download` and `data index`: what is known, how it is fetched, what the tars hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from minigpt4o.cli import main
from minigpt4o.datasets.known import known_set, known_sets
from minigpt4o.datasets.prepare.fetch import Resize, file_urls, steps_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIGPT4O_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MINIGPT4O_CACHE", str(tmp_path / "cache"))
    return tmp_path


# --- list


def test_the_overview_names_every_known_set_and_loads_no_torch(here):
    code = "import sys; from minigpt4o.cli import main; c = main(['data', 'list']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in known_sets():
        assert f"\n{name} " in done.stdout
    assert "not here" in done.stdout


def test_one_set_is_told_whole_with_what_is_missing(here, capsys):
    assert main(["data", "list", "refcoco"]) == 0
    told = capsys.readouterr().out
    assert "licence" in told and "not here" in told and str(here / "data") in told
    folder = here / "data" / "refcoco_annotations" / "refcoco"
    folder.mkdir(parents=True)
    (folder / "refs(unc).p").write_bytes(b"")
    assert main(["data", "list", "refcoco", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)["refcoco"]
    assert record["files"] == "in part" and record["missing"] == [str(here / "data" / "coco" / "images")]
    (here / "data" / "coco" / "images").mkdir(parents=True)
    assert main(["data", "list", "refcoco"]) == 0
    assert "looked for, here:" in capsys.readouterr().out


def test_a_set_that_is_not_known_is_refused_with_the_nearest(here, capsys):
    assert main(["data", "list", "refcocoo"]) == 2
    assert "'refcoco'" in capsys.readouterr().err


def test_the_markdown_page_has_every_set(here, capsys):
    assert main(["data", "list", "--markdown"]) == 0
    page = capsys.readouterr().out
    assert all(f"`{name}`" in page for name in known_sets()) and "| --- |" in page


# --- download


@pytest.fixture
def programs(here, monkeypatch):
    """`curl`, `uvx`, `unzip` and `tar` that only write down how they were called."""
    folder = here / "bin"
    folder.mkdir()
    for name in ("curl", "uvx", "unzip", "tar"):
        file = folder / name
        file.write_text(f'#!/bin/sh\necho {name} "$@" >> {here}/calls\n')
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda: (here / "calls").read_text().splitlines() if (here / "calls").exists() else []


@pytest.mark.parametrize("name", ["refcoco", "cc_sbu", "laion", "coco_caption", "stair_captions", "cc12m"])
def test_without_run_nothing_is_started(programs, capsys, name):
    assert main(["data", "download", name]) == 0
    told = capsys.readouterr().out
    assert "nothing was started" in told and "curl --fail -L -C -" in told
    assert programs() == []


def test_stage_1_is_fetched_list_table_tars(here, programs, capsys):
    assert main(["data", "download", "cc_sbu"]) == 0
    curl, convert, fetch = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert curl.endswith("BLIP/datasets/ccs_synthetic_filtered_large.json")
    assert "data convert" in convert and "--to tsv" in convert
    assert fetch.startswith("uvx img2dataset --url_list") and "--output_format webdataset" in fetch
    assert "--image_size 224 --resize_mode border" in fetch
    assert f"--output_folder {here / 'data' / 'cc_sbu' / 'cc_sbu_dataset'} " in fetch
    assert Path(known_set("cc_sbu").annotations["train"]).parent == here / "data" / "cc_sbu" / "cc_sbu_dataset"


def test_with_run_the_commands_run_in_order_without_a_shell(here, programs):
    assert main(["data", "download", "refcoco", "--run"]) == 0
    calls = programs()
    assert [call.split()[0] for call in calls] == ["curl", "unzip", "curl", "unzip"]
    assert calls[0].endswith("refcoco.zip") and "train2014.zip" in calls[3]
    (here / "a;touch pwned.tsv").write_text("url\tcaption\n")
    assert main(["data", "download", "mine", "--url-list", "a;touch pwned.tsv", "--run", "--root", str(here)]) == 0
    assert programs()[-1].startswith("uvx img2dataset --url_list a;touch pwned.tsv") and not Path("pwned.tsv").exists()


def test_a_program_that_fails_ends_the_command(here, programs, capsys):
    (here / "bin" / "curl").write_text("#!/bin/sh\nexit 22\n")
    assert main(["data", "download", "refcoco", "--run"]) == 3
    assert "curl ended with code 22" in capsys.readouterr().err and programs() == []


def test_without_uvx_nothing_is_started_and_the_mend_is_told(here, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(here))
    (here / "list.tsv").write_text("url\tcaption\n")
    assert main(["data", "download", "mine", "--url-list", "list.tsv", "--run"]) == 2
    assert "uvx was not found on PATH; install uv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["cc_sbuu"], 2, "'cc_sbu'"),
        (["mine", "--url-list", "gone.tsv", "--run"], 3, "no such file"),
        (["mine", "--url-list", "list.xlsx"], 2, "img2dataset reads .tsv"),
        (["benchmark_vizwiz"], 3, "no command can fetch it"),
    ],
)
def test_what_cannot_be_fetched_is_told(here, programs, capsys, words, code, told):
    assert main(["data", "download", *words]) == code
    assert told in capsys.readouterr().err and programs() == []


def test_urls_of_files_are_read_from_prose_with_their_siblings():
    text = (
        "x of https://a.org/d/k_train.json, _val.json and _test.json; pictures http://b.org/t.zip and v.zip (c.org/p)"
    )
    assert file_urls(text) == [
        ("https://a.org/d/k_train.json", False),
        ("https://a.org/d/k_val.json", False),
        ("https://a.org/d/k_test.json", False),
        ("http://b.org/t.zip", True),
        ("http://b.org/v.zip", True),
    ]


def test_files_are_fetched_to_where_their_set_looks(here):
    one = known_set("coco_caption")
    targets = [words[words.index("-o") + 1] for words in steps_of(one, Resize()) if words[0] == "curl"]
    assert set(one.annotations.values()) <= set(targets)
    assert f"{one.media_root}/train2014.zip" in targets


def test_every_known_set_has_commands_or_none_but_never_fails(here):
    fetched = [name for name, one in known_sets().items() if steps_of(one, Resize())]
    assert {"refcoco", "cc_sbu", "laion", "coco_caption", "stair_captions", "llava_detail"} <= set(fetched)
    assert not [name for name in fetched if name.startswith(("toy_", "own_"))]


def test_img2dataset_is_never_imported():
    files = [*(ROOT / "minigpt4o").rglob("*.py")]
    assert not [file for file in files if "import img2dataset" in file.read_text(encoding="utf-8")]


# --- index


def tar(path: Path, count: int) -> None:
    import io

    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for n in range(count):
            for ending, data in (("jpg", b"x" * 700), ("txt", b"words")):
                info = tarfile.TarInfo(f"{n:04d}.{ending}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))


def test_tars_are_counted_hashed_and_not_read_again(here, capsys):
    import hashlib

    for n in range(3):
        tar(here / "t" / f"{n:05d}.tar", n + 1)
    assert main(["data", "index", "t/{00000..00002}.tar", "--workers", "2"]) == 0
    rows = dict(line.rsplit(None, 1) for line in capsys.readouterr().out.splitlines()[:6])
    assert (rows["shards"], rows["samples"], rows["members"], rows["unchanged"]) == ("3", "6", "12", "0")
    index = json.loads((here / "t" / "index.json").read_text())
    assert index["count"] == 6 and [s["count"] for s in index["shards"]] == [1, 2, 3]
    assert index["shards"][0]["sha256"] == hashlib.sha256((here / "t" / "00000.tar").read_bytes()).hexdigest()
    tar(here / "t" / "00001.tar", 5)
    os.utime(here / "t" / "00001.tar", (1, 1))
    assert main(["data", "index", "t", "--workers", "1"]) == 0
    rows = dict(line.rsplit(None, 1) for line in capsys.readouterr().out.splitlines()[:6])
    assert (rows["samples"], rows["unchanged"]) == ("9", "2")
    assert json.loads((here / "t" / "index.json").read_text())["count"] == 9


def test_damaged_and_missing_tars_are_trouble(here, capsys):
    tar(here / "t" / "00000.tar", 3)
    tar(here / "t" / "00001.tar", 3)
    raw = (here / "t" / "00001.tar").read_bytes()
    (here / "t" / "00001.tar").write_bytes(raw[:2000])
    assert main(["data", "index", "t/{00000..00002}.tar", "--workers", "1"]) == 1
    told = capsys.readouterr().out
    assert "cut off at byte 2000" in told and "missing: t/00002.tar" in told


def test_a_known_set_of_tars_is_indexed_by_its_name(here, capsys):
    tar(here / "data" / "laion" / "laion_dataset" / "00000.tar", 2)
    assert main(["data", "index", "laion", "--workers", "1"]) == 1  # the other 10,488 are missing
    told = capsys.readouterr().out
    assert "more" in told and (here / "data" / "laion" / "laion_dataset" / "index.json").exists()
    assert main(["data", "index", "refcoco"]) == 2
    assert "no set of tars" in capsys.readouterr().err
    assert main(["data", "index", "cc_sbu"]) == 3
    assert "none of the tars is here" in capsys.readouterr().err
