"""Rows from Parquet, saved `datasets` folders, COCO files, pictures with texts beside them, forms that people share."""

import base64
import json
import random

import pytest

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.datasets.tables.rows import read_rows


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT4O_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    for name in ("1.jpg", "2.jpg", "a.wav"):
        put(tmp_path / "media" / name, b"bytes of " + name.encode())
    return tmp_path


def put(path, raw):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return path


def build(folder, builder, annotations, **values):
    values = {"annotations": {"train": str(annotations)}, "media_root": str(folder / "media")} | values
    return registry.build(Part("builder", builder, values), name="mine", split="train")


def written(folder, builder, rows, name="rows.json", **values):
    return build(folder, builder, put(folder / name, json.dumps(rows)), **values)


def sample(builder, index=0):
    return builder.sample(index, random.Random(0))


def texts(builder, index=0):
    return [t.text for t in sample(builder, index).turns]


# --- Parquet and Arrow

PICTURES = [{"bytes": f"picture {i}".encode(), "path": f"{i}.png"} for i in range(700)]


def table():
    arrow = pytest.importorskip("pyarrow")
    columns = {"id": list(range(700)), "image": PICTURES, "caption": [f"text {i} 日本" + "a" * i for i in range(700)]}
    return arrow.table(columns | {"tags": [["x"] * (i % 3) for i in range(700)]})


def saved(path, parts=2):
    """A folder as `Dataset.save_to_disk` writes it: Arrow streams and a state that names them in order."""
    arrow = pytest.importorskip("pyarrow")
    path.mkdir(parents=True)
    whole, names = table(), [f"data-{n:05d}-of-{parts:05d}.arrow" for n in range(parts)]
    for number, name in enumerate(names):
        piece = whole.slice(number * 700 // parts, 700 // parts)
        with arrow.ipc.new_stream(str(path / name), whole.schema) as writer:
            writer.write_table(piece, max_chunksize=100)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "x", "_split": "train"}
    put(path / "state.json", json.dumps(state))
    put(path / "dataset_info.json", "{}")
    return path


@pytest.mark.parametrize("kind", ["parquet", "folder", "parquet without room"])
def test_rows_with_their_pictures_come_out_of_parquet_and_saved_folders(folder, cache, kind):
    whole = table()
    if kind == "folder":
        path = saved(folder / "set")
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(whole, path := folder / "x.parquet", row_group_size=90)
    if kind == "parquet without room":
        put(cache / "rows", "in the way")
    builder = build(folder, "pairs", path)
    assert len(builder) == 700
    for index in (699, 0, 350, 89, 90):
        found = sample(builder, index)
        assert (found.answers, found.id) == ([f"text {index} 日本" + "a" * index], str(index))
        assert found.images[0].read() == f"picture {index}".encode()
    assert builder.table.row(5).columns("tags") == ["x", "x"]
    assert builder.size_hint(699) >= builder.size_hint(3) > 0
    assert builder.modality(3) == "image"
    assert build(folder, "pairs", path).fingerprint() == builder.fingerprint()


def test_arrow_folders_and_parquet_files_that_cannot_be_read_say_why(folder):
    pytest.importorskip("pyarrow")
    put(folder / "dict/dataset_dict.json", '{"splits": ["train", "test"]}')
    put(folder / "empty/readme.md", "")
    put(folder / "odd/state.json", "{}")
    put(folder / "x.parquet", b"PAR1 not at all PAR1")
    put(folder / "broken/x.arrow", b"nothing")
    for name, said in (
        ("dict", "holds the splits train, test; name one of them"),
        ("empty", "is a folder without Arrow files"),
        ("odd", "does not say which files hold the rows"),
        ("x.parquet", "x.parquet: "),
        ("broken", "broken: "),
    ):
        with pytest.raises(DataError, match=said):
            read_rows([folder / name])
    with pytest.raises(DataError, match="`rows` names a place in a JSON file"):
        read_rows([folder / "x.parquet"], "data")


def test_without_pyarrow_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'minigpt4o\[parquet\]'"):
        read_rows([put(folder / "x.parquet", b"PAR1")])


# --- COCO

COCO = {
    "info": {"year": 2014},
    "images": [{"id": 7, "file_name": "1.jpg", "width": 100, "height": 50}, {"id": 8, "file_name": "2.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 8, "caption": "a dog"},
        {"id": 2, "image_id": 7, "caption": "a cat", "category_id": 3, "bbox": [10, 5, 20, 30]},
        {"id": 3, "image_id": 9, "caption": "lost"},
    ],
    "categories": [{"id": 3, "name": "cat"}],
}


def test_coco_annotations_are_joined_with_their_pictures(folder):
    fields = {"image": "file_name", "text": "caption"}
    builder = written(folder, "pairs", COCO, layout="coco", fields=fields)
    assert [(sample(builder, i).images[0].name, sample(builder, i).answers) for i in (0, 1)] == [
        ("2.jpg", ["a dog"]),
        ("1.jpg", ["a cat"]),
    ]
    with pytest.raises(SkipSample, match="image_id 9 is not among the images of rows.json"):
        sample(builder, 2)
    assert builder.table.row(1).values["category"] == "cat"
    captions = {key: COCO[key] for key in ("images", "annotations")}
    assert len(written(folder, "pairs", captions, layout="coco", fields=fields)) == 3


def test_coco_boxes_carry_the_name_of_their_category_and_the_size_of_their_picture(folder):
    fields = {"image": "file_name", "expression": "category", "box": "bbox", "width": "width", "height": "height"}
    box = sample(written(folder, "boxes", COCO, layout="coco", fields=fields), 1).boxes[0]
    assert (box.label, box.xyxy, box.image_size) == ("cat", (10, 5, 30, 35), (100, 50))


# --- a text beside each picture


def test_a_folder_of_pictures_with_a_text_beside_each(folder):
    for name, text in (("x/1.jpg", " A cat.\n"), ("x/2.png", None), ("y/3.jpg", b"caf\xe9"), ("y/4.jpg", "")):
        put(folder / "set" / name, b"picture")
        if text is not None:
            put((folder / "set" / name).with_suffix(".txt"), text)
    values = {"annotations": {"train": str(folder / "set")}, "beside": ".txt", "prompts": ["Describe it."]}

    def again():
        return registry.build(Part("builder", "labelled", values), name="mine", split="train")

    builder, reasons = again(), []
    assert texts(builder) == ["<image>Describe it.", "A cat."]
    for index in (1, 2, 3):
        with pytest.raises(SkipSample) as caught:
            sample(builder, index)
        reasons.append(caught.value.reason)
    assert reasons == ["missing_file", "bad_text", "bad_text"]
    assert (builder.modality(0), builder.size_hint(0), builder.size_hint(1)) == ("image", 8, 0)
    put(folder / "set/x/1.txt", "Another text.")
    assert again().fingerprint() != builder.fingerprint()


# --- forms that people share


def test_sharegpt_rows_with_lists_of_pictures_and_sounds(folder):
    said = [{"from": "human", "value": "<image><image>What, and <audio>?"}, {"from": "gpt", "value": "Two cats."}]
    row = {"conversations": said, "images": ["1.jpg", "2.jpg"], "audios": ["a.wav"], "system": "Be brief."}
    builder = written(folder, "conversations", [row])
    assert texts(builder) == ["Be brief.", "<image><image>What, and<audio>?", "Two cats."]
    assert builder.modality(0) == "image+audio"


def test_openai_parts_with_data_urls_and_sounds_in_place(folder):
    data = base64.b64encode(b"media").decode()
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{data}"},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{data}"}},
        {"type": "audio", "path": "a.wav"},
        {"type": "text", "text": "What?"},
    ]
    rows = [
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Much."}]},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]},
    ]
    builder = written(folder, "conversations", rows)
    assert texts(builder)[0] == "<image><image><audio><audio><audio>What?"
    assert [m.read() for m in sample(builder).audios] == [b"media", b"media", b"bytes of a.wav"]
    assert [builder.modality(i) for i in (0, 1)] == ["image+audio", "text"]


def test_instructions_with_inputs_and_outputs(folder):
    rows = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"instruction": "Greet.", "input": "", "output": "Hello"},
    ]
    values = {"fields": {"text": "output"}, "prompts": ["{instruction}\n{input?}"]}
    builder = written(folder, "pairs", rows, **values)
    assert [texts(builder, i) for i in (0, 1)] == [["Add.\n1 and 2", "3"], ["Greet.", "Hello"]]
    assert builder.modality(0) == "text"


def test_ltu_and_salmonn_rows_need_their_fields_named_only(folder):
    ltu = [
        {"instruction": "What sound?", "input": "", "audio_id": "a.wav", "dataset": "x", "task": "y", "output": "Rain."}
    ]
    fields = {"audio": "audio_id", "text": "output"}
    assert texts(written(folder, "pairs", ltu, fields=fields, prompts=["{instruction} {input?}"])) == [
        "<audio>What sound?",
        "Rain.",
    ]
    salmonn = {"annotation": [{"path": "a.wav", "task": "QA", "text": "A bell.", "Q": "What rings?"}]}
    builder = written(folder, "pairs", salmonn, fields={"audio": "path", "text": "text"}, prompts=["{Q?}"])
    assert texts(builder) == ["<audio>What rings?", "A bell."]
    assert builder.modality(0) == "audio"


def test_every_builder_tells_the_size_and_the_media_of_a_sample(folder):
    row = {"question_id": 1, "image": "1.jpg", "question": "q", "answer": "a", "sents": "x", "bbox": [0, 0, 1, 1]}
    rows = [row, row | {"question": "q" * 500, "image": ""}]
    for builder in (written(folder, "questions", rows), written(folder, "boxes", rows)):
        assert 500 < builder.size_hint(1) - builder.size_hint(0) + 10 < 520
        assert builder.modality(0) == "image"
    assert written(folder, "questions", rows).modality(1) == "text"
    for name in ("x", "y"):
        for number in (1, 2):
            put(folder / f"set/{name}/{number}.jpg", b"")
            put(folder / f"sounds/{name}/{number}.wav", b"")
    first = {"name": "labelled", "annotations": {"train": str(folder / "set")}}
    second = {"name": "labelled", "annotations": {"train": str(folder / "sounds")}, "kind": "audio"}
    parts = {
        k: Part("builder", "labelled", {a: b for a, b in v.items() if a != "name"})
        for k, v in (("first", first), ("second", second))
    }
    match = registry.build(Part("builder", "match", parts), name="mine", split="train")
    assert (match.modality(0), match.size_hint(0)) == ("image+audio", len("Do they mean the same?"))
