"""`data convert`: published files become rows and tars that our builders read; gigabytes pass through little memory."""

from __future__ import annotations

import csv
import json
import pickle
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from PIL import Image

from minigpt4o.cli import main
from minigpt4o.common.config import load_settings
from minigpt4o.common.registry import registry
from minigpt4o.conversation.objects import written
from minigpt4o.datasets.prepare.json_stream import BrokenJson, JsonList


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (40 + n, 30), colour).save(folder / f"{n}.png")
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def samples_by_printed_yaml(out: str, tmp_path: Path, split: str = "train") -> list:
    """What the YAML lines that the command printed read."""
    text = out.split("write into your YAML:\n", 1)[1]
    config = tmp_path / "printed.yaml"
    config.write_text(text, encoding="utf-8")
    (spec,) = load_settings(config, [], needs=["datasets"]).datasets.values()
    builder = registry.build(spec.builder, name=spec.name, split=split)
    return [written(builder.sample(i, random.Random(0))) for i in range(len(builder))]


def texts(sample) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in sample.turns]


# --- BLIP's list of URLs


def blip_file(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for n in range(count):
            row = {"url": f"http://example.org/{n}.jpg", "caption": f"a picture of number {n}\twith a cat\nand 猫 "}
            file.write((", " if n else "") + json.dumps(row))
        file.write("]")


def test_blips_list_becomes_the_table_that_img2dataset_reads(tmp_path, capsys):
    blip_file(tmp_path / "ccs.json", 5)
    out = tmp_path / "ccs.tsv"
    assert (
        main(["data", "convert", str(tmp_path / "ccs.json"), "--from", "blip", "--to", "tsv", "--out", str(out)]) == 0
    )
    rows = list(csv.DictReader(out.open(encoding="utf-8", newline=""), delimiter="\t"))
    assert list(rows[0]) == ["url", "caption"] and len(rows) == 5
    assert rows[3] == {"url": "http://example.org/3.jpg", "caption": "a picture of number 3 with a cat and 猫"}
    assert len(out.read_text(encoding="utf-8").splitlines()) == 6  # one row, one line
    assert "data download" in capsys.readouterr().out


def test_a_table_without_names_is_read_in_either_order(tmp_path):
    (tmp_path / "cc12m.tsv").write_text("http://x/1.jpg\ta dog\nhttp://x/2.jpg\ta cat\n")
    (tmp_path / "cc3m.tsv").write_text("a dog\thttp://x/1.jpg\na cat\thttp://x/2.jpg\n")
    for name in ("cc12m", "cc3m"):
        out = tmp_path / f"{name}_urls.tsv"
        assert main(["data", "convert", str(tmp_path / f"{name}.tsv"), "--to", "tsv", "--out", str(out)]) == 0
        assert out.read_text().splitlines() == ["url\tcaption", "http://x/1.jpg\ta dog", "http://x/2.jpg\ta cat"]


def test_two_hundred_thousand_rows_pass_through_less_than_50_mb(tmp_path):
    blip_file(tmp_path / "big.json", 200_000)
    code = (
        "import resource, sys\n"
        "from minigpt4o.cli import main\n"
        "import minigpt4o.cli.data.convert\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "code = main(['data', 'convert', sys.argv[1], '--to', 'tsv', '--out', sys.argv[1] + '.tsv'])\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert 'torch' not in sys.modules\n"
        "sys.stderr.write(str(after - before)); sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "big.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "200,000 rows" in done.stdout
    assert int(done.stderr) < 50 * 1024, f"{int(done.stderr) / 1024:.0f} MB more"


@pytest.mark.parametrize("cut", [1, 30, 77, 150, 400])
def test_a_broken_tail_keeps_what_was_whole_and_says_so(tmp_path, capsys, cut):
    blip_file(tmp_path / "whole.json", 20)
    raw = (tmp_path / "whole.json").read_bytes()
    (tmp_path / "cut.json").write_bytes(raw[:-cut])
    out = tmp_path / "cut.tsv"
    assert (
        main(["data", "convert", str(tmp_path / "cut.json"), "--from", "blip", "--to", "tsv", "--out", str(out)]) == 1
    )
    kept = len(out.read_text(encoding="utf-8").splitlines()) - 1
    assert kept == raw[:-cut].count(b"}") and "NOT ALL" in capsys.readouterr().out


def test_a_list_that_is_broken_from_the_start_leaves_no_file(tmp_path, capsys):
    (tmp_path / "bad.json").write_text('{"error": "not found"}')
    out = tmp_path / "bad.tsv"
    assert (
        main(["data", "convert", str(tmp_path / "bad.json"), "--from", "blip", "--to", "tsv", "--out", str(out)]) == 3
    )
    assert not out.exists() and list(tmp_path.glob(".tmp-*")) == []
    assert "no JSON list" in capsys.readouterr().err


def test_rows_without_url_or_caption_are_counted(tmp_path, capsys):
    rows = [{"url": "http://x/1", "caption": "a"}, {"url": "http://x/2"}, 7, {"url": "", "caption": "b"}]
    (tmp_path / "some.json").write_text(json.dumps(rows))
    out = tmp_path / "some.tsv"
    assert main(["data", "convert", str(tmp_path / "some.json"), "--to", "tsv", "--out", str(out)]) == 0
    assert "missing_field 3" in capsys.readouterr().out


def test_the_json_stream_reads_what_json_reads(tmp_path, monkeypatch):
    values = [1, -2.5e3, "a,]b", [], {}, [1, [2, {"x": "é猫\u2028"}]], None, True, {"k": "v" * 100}, 123456789]
    path = tmp_path / "v.json"
    for piece in (1, 2, 3, 7, 64):
        monkeypatch.setattr("minigpt4o.datasets.prepare.json_stream.PIECE", piece)
        for ascii_only in (True, False):
            path.write_text(json.dumps(values, ensure_ascii=ascii_only, indent=piece % 2 or None), encoding="utf-8")
            assert list(JsonList(path)) == values


def test_the_json_stream_names_the_byte_of_the_damage(tmp_path):
    path = tmp_path / "v.json"
    path.write_bytes('["猫", "b", oops, 3]'.encode())
    stream, got = JsonList(path), []
    with pytest.raises(BrokenJson) as told:
        got.extend(iter(stream))  # keeps what came before the damage
    assert got == ["猫", "b"] and told.value.byte == path.read_bytes().index(b"oops") and told.value.count == 2


# --- canonical rows


def test_a_table_becomes_rows_that_the_printed_yaml_reads(tmp_path, pictures, capsys):
    (tmp_path / "my.csv").write_text("image,caption,language\n0.png,a red one,en\n1.png,緑,ja\ngone.png,lost,en\n")
    out = tmp_path / "my.jsonl"
    words = ["data", "convert", str(tmp_path / "my.csv"), "--media-root", str(pictures), "--out", str(out)]
    assert main(words) == 1  # one row was left out
    assert lines(out)[1] == {
        "id": "3",
        "messages": [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "緑"}],
        "images": ["1.png"],
        "language": "ja",
    }
    told = capsys.readouterr().out
    assert "missing_file 1" in told and "gone.png" in told
    found = samples_by_printed_yaml(told, tmp_path)
    assert [texts(s)[-1] for s in found] == [("assistant", "a red one"), ("assistant", "緑")]
    assert found[0].images[0].path == str(pictures / "0.png")
    assert main([*words, "--overwrite", "--max-bad", "1"]) == 0


def test_several_captions_of_a_row_become_a_row_each(tmp_path, pictures):
    (tmp_path / "clotho.csv").write_text("image,caption_1,caption_2,caption_3\n0.png,one,two,\n")
    out = tmp_path / "c.jsonl"
    assert (
        main(["data", "convert", str(tmp_path / "clotho.csv"), "--media-root", str(pictures), "--out", str(out)]) == 0
    )
    assert [row["messages"][-1]["content"] for row in lines(out)] == ["one", "two"]
    assert len({row["id"] for row in lines(out)}) == 2


def test_columns_can_be_named_and_a_question_asked(tmp_path, pictures):
    (tmp_path / "my.tsv").write_text("bild\ttext\n2.png\tblue\n")
    out = tmp_path / "my.jsonl"
    words = ["data", "convert", str(tmp_path / "my.tsv"), "--media-root", str(pictures), "--out", str(out)]
    assert main([*words, "--fields", "image=bild", "text=text", "--prompt", "Which colour?"]) == 0
    assert lines(out)[0]["messages"][0]["content"] == "<image>Which colour?"


def test_a_column_that_is_not_there_is_named(tmp_path, pictures, capsys):
    (tmp_path / "my.tsv").write_text("bild\twort\n2.png\tblue\n")
    words = ["data", "convert", str(tmp_path / "my.tsv"), "--out", str(tmp_path / "o.jsonl")]
    assert main([*words, "--fields", "image=bilt"]) == 3
    assert "no such column; it has: bild, wort" in capsys.readouterr().err
    assert main([*words, "--fields", "image=bild"]) == 3
    assert "no column of texts" in capsys.readouterr().err
    assert main([*words, "--fields", "imagebild"]) == 2
    assert not (tmp_path / "o.jsonl").exists()


def test_a_folder_takes_texts_beside_its_pictures_or_the_names_of_its_folders(tmp_path, pictures, capsys):
    (pictures / "0.txt").write_text("a red\npicture\n")
    (pictures / "1.txt").write_text("green")
    out = tmp_path / "f.jsonl"
    assert main(["data", "convert", str(pictures), "--out", str(out)]) == 1
    assert [row["messages"][-1]["content"] for row in lines(out)] == ["a red picture", "green"]
    assert "missing_member 1" in capsys.readouterr().out
    classes = tmp_path / "classes"
    for name in ("cat", "dog"):
        (classes / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(classes / name / "x.png")
    assert main(["data", "convert", str(classes), "--out", str(out), "--overwrite", "--prompt", "What is it?"]) == 0
    found = samples_by_printed_yaml(capsys.readouterr().out, tmp_path)
    assert [texts(s) for s in found] == [
        [("user", "<image>What is it?"), ("assistant", "cat")],
        [("user", "<image>What is it?"), ("assistant", "dog")],
    ]


COCO = {
    "images": [{"id": 5, "file_name": "0.png", "width": 40, "height": 30}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
}


def test_coco_captions_become_a_row_each(tmp_path, pictures):
    rows = [{"id": 1, "image_id": 5, "caption": "A dog."}, {"id": 2, "image_id": 5, "caption": " "}]
    (tmp_path / "captions.json").write_text(json.dumps({**COCO, "annotations": rows}))
    out = tmp_path / "c.jsonl"
    assert (
        main(["data", "convert", str(tmp_path / "captions.json"), "--media-root", str(pictures), "--out", str(out)])
        == 1
    )
    assert [(row["id"], row["images"]) for row in lines(out)] == [("1", ["0.png"])]


def test_coco_instances_carry_all_boxes_of_a_picture(tmp_path, pictures, capsys):
    boxes = [(1, [4, 3, 8, 6]), (2, [0, 0, 40, 30]), (1, [20, 15, 20.4, 15])]
    rows = [{"id": n, "image_id": 5, "category_id": c, "bbox": box} for n, (c, box) in enumerate(boxes)]
    (tmp_path / "instances.json").write_text(json.dumps({**COCO, "annotations": rows}))
    out = tmp_path / "i.jsonl"
    words = ["data", "convert", str(tmp_path / "instances.json"), "--media-root", str(pictures), "--out", str(out)]
    assert main(words) == 0
    (row,) = lines(out)
    assert row["objects"]["ref"] == ["cat", "dog"]
    assert row["objects"]["bbox"] == [[0, 0, 40, 30], [4, 3, 12, 9], [20, 15, 40, 30]]  # cut off at the border
    (sample,) = samples_by_printed_yaml(capsys.readouterr().out, tmp_path)
    assert texts(sample)[-1][1] == (
        "<p>cat</p> {<0><0><100><100>} <p>dog</p> {<10><10><30><30>}<delim>{<50><50><100><100>}"
    )


def refcoco(folder: Path, box: list[float]) -> Path:
    folder.mkdir()
    sentences = [{"raw": "the red dog", "sent": "red dog"}, {"raw": "a dog", "sent": "a dog"}]
    refs = [{"ref_id": 7, "ann_id": 1, "image_id": 5, "split": "testA", "sentences": sentences}]
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs))
    annotations = [{"id": 1, "image_id": 5, "bbox": box}]
    (folder / "instances.json").write_text(json.dumps({**COCO, "annotations": annotations}))
    return folder


def test_refcocos_pickle_becomes_a_row_for_each_expression(tmp_path, pictures, capsys):
    folder = refcoco(tmp_path / "refcoco", [4, 3, 8, 6])
    out = tmp_path / "r.jsonl"
    assert main(["data", "convert", str(folder), "--media-root", str(pictures), "--out", str(out)]) == 0
    rows = lines(out)
    assert [row["messages"][0]["content"] for row in rows] == [
        "<image>[refer] give me the location of the red dog",
        "<image>[refer] give me the location of a dog",
    ]
    assert rows[0]["objects"] == {"bbox": [[4, 3, 12, 9]], "bbox_type": "real"} and rows[0]["split"] == "testA"
    found = samples_by_printed_yaml(capsys.readouterr().out, tmp_path, "testA")
    assert texts(found[0])[-1] == ("assistant", "{<10><10><30><30>}") and len(found) == 2


def test_a_box_outside_its_picture_is_left_out(tmp_path, pictures, capsys):
    folder = refcoco(tmp_path / "refcoco", [30, 3, 30, 6])
    words = ["data", "convert", str(folder), "--media-root", str(pictures), "--out", str(tmp_path / "r.jsonl")]
    assert main(words) == 3
    assert "bad_box" in capsys.readouterr().err


class Evil:
    def __reduce__(self):
        return (Path("pwned.txt").write_text, ("x",))


def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path, pictures, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = refcoco(tmp_path / "refcoco", [4, 3, 8, 6])
    (folder / "refs(unc).p").write_bytes(pickle.dumps([Evil()]))
    assert main(["data", "convert", str(folder), "--media-root", str(pictures), "--out", "r.jsonl"]) == 3
    assert "nothing of it was run" in capsys.readouterr().err
    assert not Path("pwned.txt").exists() and not Path("r.jsonl").exists()


LLAVA = [
    {
        "id": "a",
        "image": "0.png",
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Red."}],
    },
    {"id": "b", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
    {"id": "c", "image": "0.png", "conversations": [{"from": "robot", "value": "?"}]},
    {"id": "d", "image": "0.png", "conversations": [{"from": "human", "value": "<image><image>"}]},
]


def test_llavas_dialogues_keep_their_turns(tmp_path, pictures, capsys):
    (tmp_path / "llava.json").write_text(json.dumps(LLAVA))
    out = tmp_path / "l.jsonl"
    words = ["data", "convert", str(tmp_path / "llava.json"), "--media-root", str(pictures), "--out", str(out)]
    assert main(words) == 1
    told = capsys.readouterr().out
    assert "bad_json 1" in told and "media_mismatch 1" in told
    found = samples_by_printed_yaml(told, tmp_path)
    assert texts(found[0]) == [("user", "<image>What?"), ("assistant", "Red.")] and found[1].images == []


def test_openai_messages_with_parts_and_boxes_pass_through(tmp_path, pictures, capsys):
    parts = [{"type": "image_url", "image_url": {"url": "0.png"}}, {"type": "text", "text": "Where?"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "<ref-object><bbox>"}]
    row = {"messages": turns, "objects": {"ref": ["dog"], "bbox": [[4, 3, 12, 9]]}}
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n{broken\n")
    out = tmp_path / "o.jsonl"
    words = ["data", "convert", str(tmp_path / "m.jsonl"), "--from", "sharegpt", "--media-root", str(pictures)]
    assert main([*words, "--out", str(out)]) == 1
    (sample,) = samples_by_printed_yaml(capsys.readouterr().out, tmp_path)
    assert texts(sample) == [("user", "<image>Where?"), ("assistant", "<p>dog</p> {<10><10><30><30>}")]


# --- tars


def test_tars_hold_what_the_printed_yaml_reads_and_equal_bytes(tmp_path, pictures, capsys):
    (tmp_path / "llava.json").write_text(json.dumps([LLAVA[0], LLAVA[0]]))
    words = ["data", "convert", str(tmp_path / "llava.json"), "--media-root", str(pictures), "--to", "shards"]
    assert main([*words, "--per-shard", "1", "--out", str(tmp_path / "tars")]) == 0
    found = samples_by_printed_yaml(capsys.readouterr().out, tmp_path)
    assert texts(found[0]) == [("user", "<image>What?"), ("assistant", "Red.")]
    assert found[0].images[0].read() == (pictures / "0.png").read_bytes()
    with tarfile.open(tmp_path / "tars" / "00000.tar") as tar:
        assert tar.getnames() == ["000000000.png", "000000000.txt", "000000000.json"]
    assert json.loads((tmp_path / "tars" / "index.json").read_text())["count"] == 2
    assert main([*words, "--per-shard", "1", "--out", str(tmp_path / "again")]) == 0
    for name in ("00000.tar", "00001.tar"):
        assert (tmp_path / "tars" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert main([*words, "--out", str(tmp_path / "again")]) == 2  # nothing is written over unasked


def test_tars_of_captions_are_read_as_pairs_and_hold_boxes_as_text(tmp_path, pictures, capsys):
    (tmp_path / "my.csv").write_text("image,caption\n0.png,red\n1.png,green\n2.png,blue\n")
    words = ["data", "convert", "--media-root", str(pictures), "--to", "shards", "--out", str(tmp_path / "tars")]
    assert main([*words, str(tmp_path / "my.csv"), "--per-shard", "2"]) == 0
    found = samples_by_printed_yaml(capsys.readouterr().out, tmp_path)
    assert [texts(s)[-1][1] for s in found] == ["red", "green", "blue"]
    assert main([*words, str(refcoco(tmp_path / "refcoco", [4, 3, 8, 6])), "--overwrite"]) == 0
    found = samples_by_printed_yaml(capsys.readouterr().out, tmp_path)
    assert texts(found[1])[-1] == ("assistant", "{<10><10><30><30>}")


def test_samples_of_tars_all_have_the_same_media(tmp_path, pictures, capsys):
    (tmp_path / "llava.json").write_text(json.dumps(LLAVA[:2]))
    words = ["data", "convert", str(tmp_path / "llava.json"), "--media-root", str(pictures), "--to", "shards"]
    assert main([*words, "--out", str(tmp_path / "tars")]) == 1
    told = capsys.readouterr().out
    assert "has no media where the first has image" in told and len(samples_by_printed_yaml(told, tmp_path)) == 1


def test_a_sample_with_two_pictures_does_not_fit_into_a_tar(tmp_path, pictures, capsys):
    row = {"messages": [{"role": "user", "content": "<image><image>?"}, {"role": "assistant", "content": "x"}]}
    (tmp_path / "m.jsonl").write_text(json.dumps({**row, "images": ["0.png", "1.png"]}))
    words = ["data", "convert", str(tmp_path / "m.jsonl"), "--media-root", str(pictures), "--to", "shards"]
    assert main([*words, "--out", str(tmp_path / "tars")]) == 3
    assert "use --to jsonl" in capsys.readouterr().err


# --- any data set of a YAML


def test_any_data_set_of_a_yaml_can_be_converted(tmp_path, pictures, capsys):
    (tmp_path / "v.json").write_text(json.dumps([{"image": "0.png", "question": "colour?", "answer": "red"}]))
    node = {"builder": "questions", "annotations": {"train": str(tmp_path / "v.json")}, "media_root": str(pictures)}
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"datasets": {"mine": node, "other": node}}))
    out = tmp_path / "o.jsonl"
    words = ["data", "convert", "--cfg-path", str(config), "--dataset", "mine", "--split", "train", "--out", str(out)]
    assert main(words) == 0
    (row,) = lines(out)
    assert row["split"] == "train" and row["images"] == [str((pictures / "0.png").resolve())]
    (sample,) = samples_by_printed_yaml(capsys.readouterr().out, tmp_path)
    assert texts(sample)[-1] == ("assistant", "red")
    assert main([*words, "--overwrite", "--split", "trian"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err


def test_a_known_set_is_converted_by_its_name(tmp_path, pictures):
    (tmp_path / "rows.json").write_text(json.dumps([{"image": "0.png", "caption": "red"}]))
    options = ["annotations.train=" + str(tmp_path / "rows.json"), "media_root=" + str(pictures), "split_field="]
    options += ["image_template=", "fields.image=image", "fields.id=image"]
    words = ["data", "convert", "coco_caption", "--split", "train", "--out", str(tmp_path / "o.jsonl"), "--options"]
    assert main([*words, *(f"datasets.coco_caption.{option}" for option in options)]) == 0
    assert lines(tmp_path / "o.jsonl")[0]["messages"][-1]["content"] == "red"


def test_media_inside_tars_are_written_beside_the_rows(tmp_path, pictures, capsys):
    (tmp_path / "my.csv").write_text("image,caption\n0.png,red\n")
    words = ["data", "convert", str(tmp_path / "my.csv"), "--media-root", str(pictures), "--to", "shards"]
    assert main([*words, "--out", str(tmp_path / "tars")]) == 0
    config = tmp_path / "c.yaml"
    config.write_text(capsys.readouterr().out.split("write into your YAML:\n")[1])
    out = tmp_path / "o.jsonl"
    assert main(["data", "convert", "--cfg-path", str(config), "--out", str(out)]) == 0
    (row,) = lines(out)
    assert Path(row["images"][0]).read_bytes() == (pictures / "0.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["gone.json", "--out", "o.jsonl"], 3, "no such file or folder"),
        (["--out", "o.jsonl"], 2, "name the file or folder"),
        (["my.csv", "--to", "tsv", "--out", "o.tsv"], 2, "--to tsv is for BLIP's lists"),
        (["my.csv", "--from", "cvs", "--out", "o.jsonl"], 2, "did you mean"),
        (["my.csv", "--out", "o.json"], 2, ".jsonl file"),
        (["my.csv", "--out", "my.jsonl"], 2, "exists"),
        (["my.csv", "--media-root", "nowhere", "--out", "o.jsonl"], 2, "no such folder"),
        (["my.csv", "--out", "o.jsonl", "--overwrit"], 2, "did you mean --overwrite?"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path, monkeypatch, capsys, words, code, told):
    monkeypatch.chdir(tmp_path)
    Path("my.csv").write_text("image,caption\nx.png,y\n")
    Path("my.jsonl").write_text("")
    assert main(["data", "convert", *words]) == code
    assert told in capsys.readouterr().err
    assert not list(Path().glob("o.*")) and not list(Path().glob(".tmp-*"))
