"""Row-shaped builders: each shape of annotation becomes turns, media, references; a bad row is told by its reason."""

import base64
import json
import random
from collections import Counter

import pytest

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.marks import unescape_marks
from minigpt4o.conversation.objects import written
from minigpt4o.datasets.prompts import load_prompts, pool_names


@pytest.fixture
def folder(tmp_path):
    """A media folder with three pictures and a sound (their bytes do not matter here)."""
    (tmp_path / "media" / "sub").mkdir(parents=True)
    for name in ("1.jpg", "2.jpg", "sub/COCO_000000000007.jpg", "a.wav"):
        (tmp_path / "media" / name).write_bytes(b"bytes of " + name.encode())
    return tmp_path


def build(folder, builder, written, file="rows.json", split="train", **values):
    path = folder / file
    if isinstance(written, str):
        path.write_text(written, encoding="utf-8")
    elif file.endswith("l"):
        path.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    else:
        path.write_text(json.dumps(written), encoding="utf-8")
    values = {"annotations": {split: str(path)}, "media_root": str(folder / "media")} | values
    return registry.build(Part("builder", builder, values), name="mine", split=split)


def sample(builder, index=0, seed=0):
    return builder.sample(index, random.Random(seed))


def texts(builder, index=0, seed=0):
    return [(t.role, t.text) for t in written(sample(builder, index, seed)).turns]


def reason(builder, index=0):
    with pytest.raises(SkipSample) as caught:
        sample(builder, index)
    assert "row" in caught.value.detail
    return caught.value.reason


# --- pairs


@pytest.mark.parametrize("wrap", ["list", "annotations", "data"])
def test_pairs_from_json_lists_and_wrapped_lists(folder, wrap):
    rows = [{"image": "1.jpg", "caption": "a cat"}, {"image": "2.jpg", "caption": "a dog"}]
    builder = build(folder, "pairs", rows if wrap == "list" else {"info": {}, wrap: rows})
    found = sample(builder, 1)
    assert texts(builder, 1) == [("user", "<image>"), ("assistant", "a dog")]
    assert found.images[0].read() == b"bytes of 2.jpg"
    assert (found.id, found.dataset, found.answers) == ("rows.json:2", "mine", ["a dog"])
    assert found.where.endswith("rows.json row 2")


@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("rows.csv", 'file,text\na.wav,"a bell, twice"\n'),
        ("rows.tsv", "file\ttext\na.wav\ta bell, twice\n"),
        ("rows.jsonl", [{"file": "a.wav", "text": "a bell, twice"}]),
        ("bom.csv", '\ufefffile,text\na.wav,"a bell, twice"\n'),
    ],
)
def test_pairs_of_sounds_from_tables_and_lines(folder, file, rows):
    builder = build(folder, "pairs", rows, file, fields={"audio": "file", "text": "text"}, prompts=["What is it?"])
    assert texts(builder) == [("user", "<audio>What is it?"), ("assistant", "a bell, twice")]
    assert len(sample(builder).audios) == 1
    assert not sample(builder).images


def test_pairs_name_the_picture_by_a_template_and_nest_into_objects(folder):
    rows = {"annotations": [{"image_id": 7, "meta": {"words": ["x", "seven"]}}]}
    values = {"image_template": "sub/COCO_{image_id:012d}.jpg", "fields": {"text": "meta.words.1", "id": "image_id"}}
    builder = build(folder, "pairs", rows, **values)
    assert sample(builder).images[0].read() == b"bytes of sub/COCO_000000000007.jpg"
    assert sample(builder).answers == ["seven"]
    assert sample(builder).id == "7"


def test_pairs_draw_one_of_several_texts_and_keep_all(folder):
    rows = "file,caption_1,caption_2,caption_3\na.wav,one,two,\n"
    builder = build(folder, "pairs", rows, "c.csv", fields={"audio": "file", "text": "caption_*"})
    assert sample(builder).answers == ["one", "two"]
    learned = {texts(builder, seed=s)[1][1] for s in range(20)}
    assert learned == {"one", "two"}
    assert texts(builder, seed=3) == texts(builder, seed=3)


def test_pairs_group_rows_of_one_picture_for_scoring(folder):
    rows = [{"image": f"{i}.jpg", "caption": f"{i}{c}"} for c in "ab" for i in (1, 2)]
    assert len(build(folder, "pairs", rows)) == 4
    grouped = build(folder, "pairs", rows, group_by="image")
    assert [sample(grouped, i).answers for i in (0, 1)] == [["1a", "1b"], ["2a", "2b"]]


def test_pairs_fill_prompts_from_the_row_and_place_media_where_the_prompt_says(folder):
    rows = [{"image": ["1.jpg", "2.jpg"], "caption": "no", "thing": "cup"}]
    builder = build(folder, "pairs", rows, prompts=["Is the {thing} of <image> in <image>?"])
    assert texts(builder)[0] == ("user", "Is the cup of <image> in <image>?")
    assert reason(build(folder, "pairs", rows, prompts=["<image>Is it?"])) == "media_mismatch"
    assert reason(build(folder, "pairs", rows, prompts=["{colour}?"])) == "missing_field"


def test_text_alone_has_nobody_who_asks(folder):
    builder = build(folder, "pairs", [{"line": "once upon a time"}], fields={"text": "line"})
    assert texts(builder) == [("assistant", "once upon a time")]


def test_marks_that_come_from_data_are_only_words(folder):
    rows = [{"image": "1.jpg", "caption": "x", "q": "what does <image> mean?"}]
    (_, asked), _ = texts(build(folder, "pairs", rows, prompts=["{q}"]))
    assert asked.count("<image>") == 1
    assert unescape_marks(asked) == "<image>what does <image> mean?"


def test_bad_rows_keep_their_places_and_tell_their_reason(folder):
    lines = [
        '{"image": "1.jpg", "caption": "good"}',
        "{broken",
        '["a list"]',
        '{"image": "none.jpg", "caption": "x"}',
        '{"image": "1.jpg"}',
        '{"image": "1.jpg", "caption": "  "}',
        '{"image": "1.jpg", "caption": {"a": 1}}',
        '{"image": "1.jpg", "caption": "\\ud800"}',
        '{"image": "https://example.com/1.jpg", "caption": "x"}',
        '{"image": "model.pkl", "caption": "x"}',
        '{"image": "1.jpg", "caption": null}',
    ]
    builder = build(folder, "pairs", "\n".join(lines), "rows.jsonl")
    assert len(builder) == len(lines)
    assert sample(builder).answers == ["good"]
    assert [reason(builder, i) for i in range(1, 11)] == [
        "bad_json",
        "bad_json",
        "missing_file",
        "missing_field",
        "bad_text",
        "bad_text",
        "bad_text",
        "forbidden_type",
        "forbidden_type",
        "missing_field",
    ]


def test_ids_are_unique_even_if_the_column_is_not(folder):
    rows = [{"image": "1.jpg", "caption": c, "image_id": 5} for c in "abc"]
    builder = build(folder, "pairs", rows, fields={"id": "image_id", "image": "image", "text": "caption"})
    assert [sample(builder, i).id for i in range(3)] == ["5", "5#2", "5#3"]


# --- files, splits, fields


def test_slips_of_the_configuration_are_named_with_their_mend(folder):
    rows = [{"image": "1.jpg", "caption": "x"}]
    cases = [
        ({"split": "tset", "annotations": {"test": "x", "train": "y"}}, r"no split 'tset'.*test, train.*mean 'test'"),
        ({"fields": {"imge": "image"}}, r"fields: unknown key 'imge'; did you mean 'image'"),
        ({"media_root": "nowhere"}, r"media_root 'nowhere' is no folder"),
        ({"annotations": {"train": str(folder / "rowz.json")}}, r"does not exist.*did you mean 'rows.json'"),
        ({"annotations": {"train": str(folder / "*.none")}}, r"no file matches"),
        ({"annotations": {"train": "https://x.org/a.json"}}, r"not a local file"),
        ({"annotations": {"train": "pipe:cat a.json"}}, r"not a local file"),
        ({"annotations": {"all": str(folder / "rows.json")}}, r"annotations.all .*`folds`"),
        ({"prompts": "caption_fr"}, r"no pool 'caption_fr'; did you mean 'caption_"),
        ({"rows": "items"}, r"no 'items' \(rows\)"),
    ]
    for values, said in cases:
        with pytest.raises(DataError, match=f"(?s){said}"):
            build(folder, "pairs", rows, **values)


def test_unreadable_annotation_files_name_line_and_column(folder):
    with pytest.raises(DataError, match=r"rows.json:2:1: not valid JSON: Extra data .*jsonl"):
        build(folder, "pairs", '{"a": 1}\n{"a": 2}\n')
    with pytest.raises(DataError, match=r"holds: info, cap. Name it with `rows:`"):
        build(folder, "pairs", {"info": {"a": 1}, "cap": 3})
    with pytest.raises(DataError, match=r"end in .json, .jsonl, .csv or .tsv"):
        build(folder, "pairs", "x", "rows.txt")
    (folder / "latin.json").write_bytes(b'["caf\xe9"]')
    with pytest.raises(DataError, match="byte 5 is not UTF-8"):
        build(folder, "pairs", [], annotations={"train": str(folder / "latin.json")})
    with pytest.raises(DataError, match="split 'train' holds no sample"):
        build(folder, "pairs", [])


def test_patterns_name_many_files_in_order(folder):
    for i in range(12):
        (folder / f"p{i:02d}.jsonl").write_text(json.dumps({"image": "1.jpg", "caption": str(i)}) + "\n")
    for pattern, expected in (("p{00..03}.jsonl", "0123"), ("p{02,01}.jsonl", "21"), ("p0[45].jsonl", "45")):
        builder = build(folder, "pairs", [], annotations={"train": str(folder / pattern)})
        assert "".join(sample(builder, i).answers[0] for i in range(len(builder))) == expected


def test_folds_divide_one_file_without_overlap_and_keep_pictures_whole(folder):
    rows = [{"image": f"{i // 3}.jpg", "caption": str(i)} for i in range(300)]
    for i in range(100):
        (folder / "media" / f"{i}.jpg").touch()
    values = {"annotations": {"all": str(folder / "rows.json")}, "folds": 5, "test_folds": [0], "val_folds": [1]}
    splits = {s: build(folder, "pairs", rows, split=s, **values) for s in ("train", "val", "test")}
    pictures = {s: {g[0].values["image"] for g in b.table.groups} for s, b in splits.items()}
    assert sum(map(len, splits.values())) == 300
    assert sum(map(len, pictures.values())) == 100
    assert 10 <= len(pictures["test"]) <= 30
    turned = build(folder, "pairs", rows[::-1], split="test", **values)
    assert {g[0].values["image"] for g in turned.table.groups} == pictures["test"]
    with pytest.raises(DataError, match="no fold is named for split 'test'"):
        build(folder, "pairs", rows, split="test", **(values | {"test_folds": []}))
    with pytest.raises(DataError, match="both val_folds and test_folds"):
        build(folder, "pairs", rows, **(values | {"test_folds": [1]}))
    with pytest.raises(DataError, match=r"folds \[5\] do not exist"):
        build(folder, "pairs", rows, **(values | {"test_folds": [5]}))


def test_a_column_may_say_the_split_and_max_samples_thins_evenly(folder):
    rows = [{"image": "1.jpg", "caption": str(i), "split": "val" if i % 2 else "train"} for i in range(40)]
    builder = build(folder, "pairs", rows, split="val", split_field="split", max_samples=4)
    assert [sample(builder, i).answers[0] for i in range(4)] == ["1", "11", "21", "31"]


def test_the_fingerprint_tells_changed_annotations_but_not_a_moved_file(folder):
    rows = [{"image": "1.jpg", "caption": "x"}]
    first = build(folder, "pairs", rows).fingerprint()
    (folder / "other").mkdir()
    assert build(folder, "pairs", rows, "other/rows.json").fingerprint() == first
    assert build(folder, "pairs", [{"image": "1.jpg", "caption": "y"}]).fingerprint() != first


# --- questions


def test_questions_of_the_lavis_form_draw_answers_by_frequency(folder):
    row = {"question_id": 9, "image": "1.jpg", "question": "what?", "answer": ["cat"] * 9 + ["dog"]}
    row["question_type"] = "q"
    builder = build(folder, "questions", [row], prompts="minigpt_v2_vqa")
    drawn = Counter(texts(builder, seed=s)[1][1] for s in range(300))
    assert 240 < drawn["cat"] < 295
    found = sample(builder)
    assert (found.id, len(found.answers)) == ("9", 10)
    assert found.meta == {"question": "what?", "question_type": "q"}
    asked = {texts(builder, seed=s)[0][1] for s in range(20)}
    assert "<image>[vqa] what?" in asked
    assert len(asked) == 2


def test_answers_may_be_weights_or_one_word_or_objects(folder):
    rows = [
        {"image": "1.jpg", "question": "q", "answer": {"a": 0.0, "b": 1.0}},
        {"image": "1.jpg", "question": "q", "answer": "yes"},
        {"image": "1.jpg", "question": "q", "answers": [{"answer": "x", "answer_id": 1}]},
        {"image": "1.jpg", "question": "q", "answer": []},
        {"image": "1.jpg", "question": "q", "answer": {"a": "many"}},
    ]
    builder = build(folder, "questions", rows)
    assert {texts(builder, 0, s)[1][1] for s in range(9)} == {"b"}
    assert sample(builder, 1).answers == ["yes"]
    assert sample(builder, 2).answers == ["x"]
    assert reason(builder, 3) == "no_target"
    assert reason(builder, 4) == "bad_text"


def test_questions_and_answers_may_lie_in_two_files_as_vqa_v2_has_them(folder):
    asked = {"questions": [{"image_id": 7, "question": "q?", "question_id": i} for i in (70, 71)]}
    given = {"annotations": [{"question_id": 70, "answers": [{"answer": "two", "answer_id": 1}]}]}
    (folder / "given.json").write_text(json.dumps(given))
    builder = build(
        folder,
        "questions",
        asked,
        answers={"train": str(folder / "given.json")},
        image_template="sub/COCO_{image_id:012d}.jpg",
    )
    assert texts(builder) == [("user", "<image>q?"), ("assistant", "two")]
    assert reason(builder, 1) == "no_target"


def test_questions_with_choices_and_about_sounds(folder):
    rows = [{"id": "x", "audio": "a.wav", "q": "which?", "c": ["bell", "dog"], "a": "B"}]
    fields = {"id": "id", "audio": "audio", "question": "q", "choices": "c", "answer": "a"}
    builder = build(folder, "questions", rows, fields=fields, prompts=["{question} {choices}"])
    assert texts(builder) == [("user", "<audio>which? A. bell B. dog"), ("assistant", "B")]
    with pytest.raises(DataError, match=r"place \{qestion\}; known: \{question\}"):
        build(folder, "questions", rows, fields=fields, prompts=["{qestion}"])


# --- boxes


def test_boxes_are_asked_for_and_asked_about(folder):
    row = {"image": "1.jpg", "sents": ["left cup", "cup"], "bbox": [10, 20, 30, 40], "width": 100, "height": 200}
    refer = written(sample(build(folder, "boxes", [row], prompts=["[refer] {expression}"])))
    assert refer.turns[1].text == "{<10><10><40><30>}"
    assert refer.turns[0].text in ("<image>[refer] left cup", "<image>[refer] cup")
    assert refer.boxes[0].xyxy == (10, 20, 40, 60)
    assert refer.boxes[0].image_size == (100, 200)
    identify = written(sample(build(folder, "boxes", [row], ask="identify", prompts=["what is {box}"])))
    assert identify.turns[0].text == "<image>what is {<10><10><40><30>}"
    assert identify.answers == ["left cup", "cup"]
    corners = row | {"bbox": "[10, 20, 40, 60]"}
    assert sample(build(folder, "boxes", [corners], box_format="xyxy")).boxes[0].xyxy == (10, 20, 40, 60)
    assert "{<10><10><40><30>}" in texts(build(folder, "boxes", [row], ask="identify"))[0][1]


def test_the_picture_s_own_size_serves_where_the_row_has_none(folder):
    from PIL import Image

    Image.new("RGB", (64, 32)).save(folder / "media" / "real.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (64, 32)).save(folder / "media" / "turned.jpg", exif=turned)
    rows = [{"image": name, "sents": "x", "bbox": [0, 0, 16, 16]} for name in ("real.png", "turned.jpg", "1.jpg")]
    builder = build(folder, "boxes", rows)
    assert sample(builder, 0).boxes[0].image_size == (64, 32)
    assert sample(builder, 1).boxes[0].image_size == (32, 64)
    assert reason_only(builder, 2) == "unreadable_image"


def reason_only(builder, index):
    with pytest.raises(SkipSample) as caught:
        sample(builder, index)
    return caught.value.reason


IMPOSSIBLE = [[0, 0, 0, 5], [1, 2, 3], [0, 0, 150, 10], [float("nan"), 0, 1, 1], None, "a b c d", [5, 5, -2, 2]]


@pytest.mark.parametrize("box", IMPOSSIBLE)
def test_impossible_boxes_are_counted(folder, box):
    row = {"image": "1.jpg", "sents": "x", "bbox": box, "width": 100, "height": 100}
    assert reason(build(folder, "boxes", [row])) == "bad_box"


# --- conversations


def llava(*said, **row):
    speakers = ("human", "gpt")
    turns = [{"from": speakers[i % 2], "value": text} for i, text in enumerate(said)]
    return {"id": "77", "conversations": turns, **row}


def test_llava_rows(folder):
    rows = [llava("<image>\nWhat is it?", "A cup.", "Red?", "No.", image="1.jpg"), llava("Hi", "Hello")]
    builder = build(folder, "conversations", rows)
    assert texts(builder) == [
        ("user", "<image>What is it?"),
        ("assistant", "A cup."),
        ("user", "Red?"),
        ("assistant", "No."),
    ]
    assert (sample(builder).id, sample(builder).answers) == ("77", ["No."])
    assert texts(builder, 1)[0] == ("user", "Hi")
    verbatim = build(folder, "conversations", rows, trim_at_marks=False)
    assert texts(verbatim)[0] == ("user", "<image>\nWhat is it?")


def test_one_picture_without_a_mark_stands_before_the_first_question(folder):
    builder = build(folder, "conversations", [llava("What is it?", "A cup.", image="1.jpg")])
    assert texts(builder)[0] == ("user", "<image>What is it?")


def test_marks_and_media_must_agree_and_the_row_is_named(folder):
    rows = [
        llava("<image>x", "y"),
        llava("<image><image>x", "y", image="1.jpg"),
        llava("x", "y", image=["1.jpg", "2.jpg"]),
        llava("<audio>x", "y", image="1.jpg"),
    ]
    builder = build(folder, "conversations", rows)
    for i in range(4):
        with pytest.raises(SkipSample, match="id 77") as caught:
            sample(builder, i)
        assert caught.value.reason == "media_mismatch"


def test_openai_messages_with_lists_of_media(folder):
    said = [("system", "Be brief."), ("user", "<image> and <audio>?"), ("assistant", "Both <image> are loud.")]
    messages = [{"role": role, "content": text} for role, text in said]
    rows = [{"messages": messages, "images": ["1.jpg"], "audios": ["a.wav"]}]
    found = sample(build(folder, "conversations", rows, "rows.jsonl"))
    assert [t.role for t in found.turns] == ["system", "user", "assistant"]
    assert found.turns[1].text == "<image>and<audio>?"
    assert found.turns[2].text == "Both <image> are loud."  # an answer's words are never places
    assert (len(found.images), len(found.audios)) == (1, 1)


def test_openai_messages_with_parts(folder):
    data = base64.b64encode(b"wave").decode()
    parts = [
        {"type": "text", "text": "Here "},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(b'png').decode()}"}},
        {"type": "image", "image": "2.jpg"},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "text", "text": "What?"},
    ]
    rows = [{"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Three."}]}]
    found = sample(build(folder, "conversations", rows, "rows.jsonl"))
    assert found.turns[0].text == "Here<image><image><audio>What?"
    assert [m.read() for m in found.images] == [b"png", b"bytes of 2.jpg"]
    assert found.audios[0].read() == b"wave"


def test_conversations_that_cannot_be_used_tell_why(folder):
    rows = [
        {"conversations": [{"from": "human", "value": "x"}]},
        {"conversations": []},
        {"text": "x"},
        {"conversations": [{"from": "tool", "value": "x"}]},
        {"conversations": ["x"]},
        {"messages": [{"role": "user", "content": [{"type": "video", "video": "x"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]},
    ]
    builder = build(folder, "conversations", rows)
    expected = ["no_target", "missing_field", "missing_field", "bad_json", "bad_json", "bad_json", "forbidden_type"]
    assert [reason(builder, i) for i in range(7)] == expected


# --- prompts


@pytest.mark.parametrize("name", pool_names())
def test_every_pool_can_be_read(name):
    prompts = load_prompts(name, "any")
    assert len(prompts) == len(set(prompts)) >= 1


def test_pools_have_the_reference_s_sizes_and_own_files_are_read(tmp_path):
    sizes = {"minigpt_v2_caption": 17, "minigpt_v2_refer": 7, "minigpt_v2_identify": 7, "minigpt4_stage2": 4}
    assert {name: len(load_prompts(name, "x")) for name in sizes} == sizes
    (tmp_path / "alignment.txt").write_text("<Img><ImageHere></Img> Describe it.\n\nWhat?\n")
    assert load_prompts(str(tmp_path / "alignment.txt"), "x") == ["<image>Describe it.", "What?"]
    (tmp_path / "bad.yaml").write_text("prompts: 3\n")
    with pytest.raises(DataError, match="list of texts"):
        load_prompts(str(tmp_path / "bad.yaml"), "x")
