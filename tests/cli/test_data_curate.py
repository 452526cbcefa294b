"""`data curate`, typed as a person types it: a model that was trained here describes pictures for the next stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from minigpt4o.cli import main

COLOURS = ("red", "green", "blue", "white")
ASKED = "what do you see?"
ANSWER = "There is a plain square. It is as large as the picture."
TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>", "<Img>", "</Img>", "<Aud>", "</Aud>"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with pictures and the run of a tiny model that learned to say ANSWER."""
    from minigpt4o.models.llms.tokenizer import train_tokenizer

    here = tmp_path_factory.mktemp("stage1")
    (here / "text.txt").write_text(f"{ASKED} {ANSWER} " * 30)
    words = train_tokenizer([here / "text.txt"], here / "tokenizer", 300, special_tokens=TOKENS)
    for colour in COLOURS:
        Image.new("RGB", (24, 24), colour).save(here / f"{colour}.png")
    rows = [{"image": f"{colour}.png", "caption": ANSWER} for colour in COLOURS]
    (here / "rows.json").write_text(json.dumps(rows))
    small = {"width": 16, "depth": 1, "heads": 2}
    options = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    pixels = {"name": "blip2_image_eval", "image_size": 16}
    config = {
        "model": {
            "arch": "aligned",
            "llm": {"name": "causal_lm", "tokenizer": str(words), "options": options},
            "encoders": {"image": {"name": "timm_vit", "image_size": 16, "patch_size": 8, **small}},
            "bridges": {"image": "linear"},
            "template": "toy",
            "train": ["llm", "bridges", "encoders"],  # so that all of it lies in the checkpoint
            "precision": "fp32",
        },
        "datasets": {
            "squares": {
                "builder": "pairs",
                "annotations": {"train": str(here / "rows.json")},
                "media_root": str(here),
                "prompts": [ASKED],
                "vis_processor": {"train": pixels, "eval": pixels},
            }
        },
        "run": {
            "task": "image_text_pretrain",
            "output_dir": str(here),
            "job_name": "run",
            "init_lr": 0.02,
            "min_lr": 0.002,
            "max_steps": 60,
            "batch_size_train": 4,
            "num_workers": 0,
        },
    }
    (here / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "--cfg-path", str(here / "c.yaml")]) == 0
    return here


@pytest.fixture
def command(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = ["data", "curate", "--cfg-path", str(trained / "c.yaml"), "--model", str(trained / "run"), "--out", "made"]
    return [*chosen, "--prompt", ASKED, "--short", "4", "--min-words", "5", "--max-new-tokens", "40", "--device", "cpu"]


def test_what_is_written_is_read_by_the_next_stage(command, capsys):
    assert main([*command, "--limit", "3"]) == 0
    told = capsys.readouterr().out
    assert "3 pictures described, 3 kept; dropped: none" in told
    captions = json.loads(Path("made/filter_cap.json").read_text())["annotations"]
    assert [row["caption"] for row in captions] == [ANSWER] * 3
    assert sorted(p.stem for p in Path("made/image").glob("*.jpg")) == sorted(row["image_id"] for row in captions)
    Path("next.yaml").write_text(told[told.index("datasets:") :])  # the lines it says to use
    assert main(["data", "check", "--cfg-path", "next.yaml", "--workers", "0"]) == 0
    assert main(["data", "show", "--cfg-path", "next.yaml", "--json", "sheet.json"]) == 0
    assert len(json.loads(Path("sheet.json").read_text())["sheets"][0]["shown"]) == 3


def test_started_again_it_asks_nothing_twice_and_refuses_to_mix(command, capsys):
    assert main([*command, "--limit", "2"]) == 0
    before = Path("made/curation.jsonl").read_bytes()
    first = capsys.readouterr().out
    assert main([*command, "--limit", "2"]) == 0
    assert capsys.readouterr().out == first and Path("made/curation.jsonl").read_bytes() == before
    assert main([*command, "--limit", "3"]) == 4
    error = capsys.readouterr().err
    assert "another limit; name another --out, or remove that file" in error and "run." not in error.split("ERROR")[1]


def test_what_is_not_good_enough_is_not_written(command, capsys):
    assert main([*command, "--min-words", "50"]) == 3
    assert "4 too_short" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--refine-url", "http://localhost:1/v1"], "needs --refine-model"),
        (["--refine-url", "http://localhost:1/v1", "--refine-path", "x"], "not both"),
        (["--split", "test"], "no data set here has such a split"),
        (["--batch-size", "0"], "below 1"),
    ],
)
def test_slips_are_refused_before_a_model_is_opened(command, capsys, more, said):
    assert main([*command, *more]) == 2
    assert said in capsys.readouterr().err
