"""`data check` and `data stats`: what a person reads about their data, and the exit code of trouble."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

from minigpt4o.cli import main


def picture(path: Path, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((48, 48)).save(path)


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    """Train of four pictures and test of two, all good, in a YAML."""
    monkeypatch.chdir(tmp_path)
    for n in range(6):
        picture(tmp_path / f"{n}.png", n)
    rows = [{"image": f"{n}.png", "caption": f"picture {n}" if n % 2 else f"写真の{n}"} for n in range(6)]
    Path("train.json").write_text(json.dumps(rows[:4]))
    Path("test.json").write_text(json.dumps(rows[4:]))
    pixels = {"name": "blip2_image_eval", "image_size": 32}
    node = {
        "builder": "pairs",
        "annotations": {"train": "train.json", "test": "test.json"},
        "media_root": ".",
        "vis_processor": {"train": pixels, "eval": pixels},
    }
    Path("c.yaml").write_text(yaml.safe_dump({"datasets": {"mine": node}}))
    return rows


CHECK = ["data", "check", "--cfg-path", "c.yaml", "--workers", "0"]


def test_good_data_are_healthy(pairs, capsys):
    assert main([*CHECK, "--json", "report.json"]) == 0
    told = capsys.readouterr().out
    assert told.index("mine train") < told.index("mine test") and "languages  Japanese 50.0 %, Latin 50.0 %" in told
    assert "healthy: 6 samples looked at" in told
    report = json.loads(Path("report.json").read_text())
    assert report["trouble"] == [] and [s["samples"] for s in report["splits"]] == [4, 2]
    assert report["splits"][0]["answered_characters"]["max"] == 9


def test_broken_and_missing_media_are_trouble_and_named(pairs, capsys):
    raw = Path("1.png").read_bytes()
    Path("1.png").write_bytes(raw[: len(raw) // 2])
    Path("2.png").unlink()
    assert main([*CHECK, "--bad", "bad.jsonl"]) == 1
    told = capsys.readouterr().out
    assert "unreadable_image 1" in told and "missing_file 1" in told and "2 sample(s) cannot be used" in told
    bad = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    assert [(b["split"], b["index"], b["reason"]) for b in bad] == [
        ("train", 1, "unreadable_image"),
        ("train", 2, "missing_file"),
    ]
    assert main([*CHECK, "--max-bad", "2"]) == 0
    assert main([*CHECK, "--split", "test"]) == 0


def test_without_media_only_what_is_absent_is_seen(pairs):
    Path("1.png").write_bytes(b"no picture")
    assert main([*CHECK, "--no-media"]) == 0
    Path("1.png").unlink()
    assert main([*CHECK, "--no-media"]) == 1


def test_a_copy_of_a_training_picture_in_test_is_a_leak(pairs, capsys):
    Path("5.png").write_bytes(Path("0.png").read_bytes())
    assert main([*CHECK]) == 1
    told = capsys.readouterr().out
    assert "LEAK: mine train and mine test" in told and "test[1] is train[0]" in told
    assert main([*CHECK, "--no-media"]) == 0  # another file: only its bytes tell


def test_the_same_file_in_both_splits_is_a_leak_without_reading_it(pairs):
    Path("test.json").write_text(json.dumps([{**pairs[0], "caption": "another"}]))
    assert main([*CHECK, "--no-media"]) == 1


def test_pictures_that_only_look_alike_are_told_and_no_trouble(pairs, capsys):
    with Image.open("0.png") as image:
        image.resize((96, 96)).save("5.png")
    assert main(CHECK) == 0
    assert "pictures alike but not equal 1" in capsys.readouterr().out


def test_a_split_that_cannot_be_opened_is_trouble_and_the_others_are_looked_at(pairs, capsys):
    Path("test.json").unlink()
    assert main(CHECK) == 1
    told = capsys.readouterr().out
    assert "mine test: CANNOT BE OPENED" in told and "mine train" in told
    Path("train.json").unlink()
    assert main(CHECK) == 3


def test_a_file_of_ones_own_is_checked_without_a_yaml(pairs, capsys):
    assert main(["data", "check", "train.json", "--workers", "0"]) == 0
    row = {"messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "x"}]}
    Path("rows.jsonl").write_text(json.dumps({**row, "images": ["0.png"]}) + "\n" + json.dumps(row) + "\n")
    capsys.readouterr()
    assert main(["data", "check", "rows.jsonl", "--workers", "0"]) == 1
    assert "media_mismatch 1" in capsys.readouterr().out


def test_boxes_outside_their_picture_are_trouble(pairs, capsys):
    rows = [
        {"image": "0.png", "sents": "dog", "bbox": box, "width": 48, "height": 48}
        for box in ([0, 0, 9, 9], [40, 0, 40, 9])
    ]
    Path("boxes.json").write_text(json.dumps(rows))
    node = {"builder": "boxes", "annotations": {"train": "boxes.json"}, "media_root": "."}
    Path("b.yaml").write_text(yaml.safe_dump({"datasets": {"refer": node}}))
    assert main(["data", "check", "--cfg-path", "b.yaml", "--workers", "0"]) == 1
    assert "bad_box 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name one thing to look at"),
        (["train.json", "--cfg-path", "c.yaml"], "name one thing to look at"),
        (["coco_captions"], "did you mean 'coco_caption'"),
        (["--cfg-path", "c.yaml", "--split", "tset"], "did you mean 'test'?"),
        (["--cfg-path", "c.yaml", "--dataset", "mein"], "did you mean 'mine'?"),
        (["--cfg-path", "c.yaml", "--limit", "-1"], "is below 0"),
        (["--cfg-path", "c.yaml", "--medai"], "did you mean --media?"),
        (["--cfg-path", "c.yaml", "--options", "datasets.mine.media_rot=x"], "media_root"),
    ],
)
def test_mistakes_on_the_command_line_are_named(pairs, capsys, words, told):
    assert main(["data", "check", *words]) == 2
    assert told in capsys.readouterr().err


def test_options_are_laid_over_a_known_set(pairs, capsys):
    options = ["datasets.coco_caption.annotations.train=train.json", "datasets.coco_caption.media_root=."]
    options += ["datasets.coco_caption.image_template=", "datasets.coco_caption.fields.image=image"]
    options += ["datasets.coco_caption.split_field=", "datasets.coco_caption.fields.id=image"]
    assert main(["data", "check", "coco_caption", "--split", "train", "--workers", "0", "--options", *options]) == 0
    told = capsys.readouterr().out
    assert "published   414,113" in told and "samples           4" in told


# --- stats


def test_stats_tell_lengths_sizes_and_answers_without_torch(pairs):
    code = (
        "import sys; from minigpt4o.cli import main\n"
        "code = main(['data', 'stats', '--cfg-path', 'c.yaml', '--workers', '0', '--json', 's.json'])\n"
        "assert 'torch' not in sys.modules; sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "picture width" in done.stdout and "languages: Japanese 50.0 %" in done.stdout
    train = json.loads(Path("s.json").read_text())["splits"][0]
    assert train["measures"]["picture width"]["mean"] == 48 and train["measures"]["pictures"]["count"] == 4
    assert train["different_answers"] == 4 and "seconds" not in train["measures"]


def test_stats_of_sounds_tell_seconds_and_count_what_cannot_be_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for n, seconds in enumerate((0.5, 1.5)):
        soundfile.write(f"{n}.wav", np.zeros(int(seconds * 8000), np.float32), 8000)
    rows = "".join(f"{n}.wav,a beep\n" for n in (0, 1, 2))
    Path("a.csv").write_text(f"audio,caption\n{rows}")
    assert main(["data", "stats", "a.csv", "--workers", "0", "--json", "s.json"]) == 0
    told = capsys.readouterr().out
    assert "a beep" in told and "missing_file 1" in told
    (split,) = json.loads(Path("s.json").read_text())["splits"]
    seconds = split["measures"]["seconds"]
    assert (seconds["min"], seconds["max"], seconds["mean"]) == (0.5, 1.5, 1.0)
    assert split["frequent_answers"] == [{"answer": "a beep", "count": 2}]


def test_columns_stay_aligned_where_letters_are_wide():
    from minigpt4o.cli.data.tables import aligned, cut, size_words

    assert aligned([["写真", "1"], ["abc", "22"]]) == ["写真   1", "abc   22"]
    assert cut("a\nb " + "c" * 50, 20) == "a b ccccccccccccc..." and size_words(2048) == "2.0 KiB"
