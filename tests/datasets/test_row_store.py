"""Rows are found by their places: what a file says is read alike, its faults keep their place, nothing is held."""

import csv
import io
import json
import logging
import os
import random

import numpy as np
import pytest

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.datasets.tables import json_rows as row_json
from minigpt4o.datasets.tables import store as row_store
from minigpt4o.datasets.tables.cache import load, save
from minigpt4o.datasets.tables.groups import laid_together, times_seen
from minigpt4o.datasets.tables.rows import Row, read_rows, unfold


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT4O_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows_of(path, key=""):
    rows, _ = read_rows([path], key)
    assert [r.values for r in rows] == [rows[i].values for i in range(len(rows))], "in a row and one by one"
    return rows


# --- json


LISTS = [
    [{"a": 1, "b": "日本é", "c": [1, 2.5, None, True, {"x": '"]}\\'}]}, {"d": -1e9, "e": {}}, [], "s", 12],
    {"info": {"a": [1]}, "images": [{"id": 1}], "annotations": [{"x": "y" * 90}, {"z": [{"k": i} for i in range(40)]}]},
    {"k1": {"a": 1}, "k2": {"b": "é"}},
    {"data": []},
]


def broken(text, rng):
    """The text with up to three faults."""
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        i = rng.randrange(len(text) + 1)
        text = rng.choice(
            (text[:i], text[:i] + text[i + 1 :], text[:i] + rng.choice('{}[]",:0-\\ \nae日\0') + text[i:])
        )
    return text


def said_by_json(text):
    """What the json module makes of the whole text: rows, or where it is wrong."""
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        return f"{error.lineno}:{error.colno}: not valid JSON: {error.msg}"
    if isinstance(tree, dict):
        named = next((tree[key] for key in row_json.LIST_KEYS if isinstance(tree.get(key), list)), None)
        if named is None and tree and all(isinstance(v, dict) for v in tree.values()):
            named = [{"key": key, **values} for key, values in tree.items()]
        tree = named
    return tree if isinstance(tree, list) else "not a list"


@pytest.mark.parametrize("piece", [7, 64, 1 << 20])
def test_the_places_of_a_list_are_found_and_its_faults_told_as_the_json_module_tells_them(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(row_json, "PIECE", piece)
    monkeypatch.setattr(row_json, "WINDOW", 4 * piece)
    rng, file, kinds = random.Random(piece), tmp_path / "x.json", set()
    for _ in range(600):
        text = json.dumps(rng.choice(LISTS), ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1)))
        text = broken(text, rng)
        put(file, "\ufeff" * (rng.random() < 0.2) + text)
        wanted = said_by_json(text)
        kinds.add(type(wanted))
        if isinstance(wanted, str):
            with pytest.raises(DataError) as caught:
                read_rows([file])
            assert wanted in str(caught.value) or wanted == "not a list", text
        else:
            objects = [v if isinstance(v, dict) else {} for v in wanted]
            assert [row.values for row in rows_of(file)] == objects, text
    assert kinds == {str, list}


def test_a_list_is_found_by_a_path_and_the_last_of_equal_keys_counts(tmp_path):
    tree = {"a.b": [{"n": 1}], "a": {"b": [{"n": 2}], "c": [0, {"d": [{"n": 3}]}]}}
    file = put(tmp_path / "x.json", json.dumps(tree))
    found = {key: [r.values["n"] for r in rows_of(file, key)] for key in ("a.b", "a.c.1.d")}
    assert found == {"a.b": [1], "a.c.1.d": [3]}
    with pytest.raises(DataError, match=r"there is no 'a.x' \(rows\)"):
        read_rows([file], "a.x")
    file = put(tmp_path / "y.json", '{"k": {"n": 1}, "l": {"n": 2}, "k": {"n": 3}}')
    assert [r.values for r in rows_of(file)] == [{"key": "k", "n": 3}, {"key": "l", "n": 2}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "x.json:1:1: not valid JSON: Expecting value"),
        (b'[{"a": "\xff"}]', "byte 8 is not UTF-8"),
        (b'[{"a": "\xe3\x81', "byte 8 is not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b'[{"a": ' + b"9" * 5000 + b"}]", "Exceeds the limit"),
        (b"7", "holds a single int, not a list of rows"),
        (b'{"a": 1}', "no list of rows found; the file holds: a"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_as_a_whole(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read_rows([put(tmp_path / "x.json", text)])


# --- lines and tables


def test_a_broken_line_keeps_its_place_and_its_reason(tmp_path):
    good = b'{"a": "\xe6\x97\xa5"}'
    lines = [good, b"", b'{"a": "caf\xe9"}', b"{broken", b"\xe3\x80\x80", b"[" * 99_999, b"9" * 5000, b"\0", good]
    rows = rows_of(put(tmp_path / "x.jsonl", b"\xef\xbb\xbf" + b"\r\n".join(lines)))
    assert [row.number for row in rows] == [1, 3, 4, 6, 7, 8, 9]
    assert [row.reason for row in rows if row.problem] == ["bad_text", *["bad_json"] * 4]
    assert rows[0].values == rows[6].values == {"a": "日"}
    assert "byte 29 of the file is not UTF-8" in rows[1].problem
    assert rows[2].problem.startswith("not valid JSON at column 2: Expecting property name")
    with pytest.raises(SkipSample) as caught:
        rows[1].check()
    assert caught.value.reason == "bad_text"


def test_files_of_nothing_have_no_rows_and_utf_16_is_told(tmp_path):
    for name in ("a.jsonl", "a.csv", "b.jsonl"):
        assert len(rows_of(put(tmp_path / name, "\ufeff" if name[0] == "b" else ""))) == 0
    assert len(rows_of(put(tmp_path / "c.csv", "a,b\n"))) == 0
    with pytest.raises(DataError, match="looks like UTF-16"):
        read_rows([put(tmp_path / "d.jsonl", '{"a": 1}'.encode("utf-16"))])
    with pytest.raises(DataError, match="byte 3 is not UTF-8"):
        read_rows([put(tmp_path / "e.csv", b"caf\xe9,b\n1,2\n")])


CELLS = ["a", "", 'he said "no"', "two\nlines", "x,y", "日本", "a\u2028b", " ", "t\tb", "'", "caf\u00e9 \x0b", "c\r\nd"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "sign"), [("x.csv", ","), ("x.tsv", "\t")])
def test_tables_are_cut_where_the_csv_module_cuts_them(tmp_path, name, sign, end):
    rng = random.Random(end + sign)
    for _ in range(60):
        records = [[rng.choice(CELLS) for _ in range(3)] for _ in range(rng.randrange(6))]
        text = io.StringIO()
        csv.writer(text, delimiter=sign, lineterminator=end).writerows([["a", "b", "a c"], *records])
        body = text.getvalue().replace(end, end * rng.choice((1, 1, 2)))
        wanted = list(csv.DictReader(io.StringIO(body, newline=""), delimiter=sign))
        assert [row.values for row in rows_of(put(tmp_path / name, "\ufeff" + body))] == wanted


def test_a_table_tells_the_line_a_cell_too_many_and_bytes_that_are_no_text(tmp_path):
    file = put(tmp_path / "x.csv", b'a,b\n1,"x\ny"\n1,2,3\ncaf\xe9,2\n5\n\0,6\n')
    rows = rows_of(file)
    assert [row.number for row in rows] == [3, 4, 5, 6, 7]
    assert "more cells than columns" in rows[1].problem
    assert (rows[2].reason, rows[2].problem[:26]) == ("bad_text", "byte 21 of the file is not")
    assert (rows[3].values, rows[4].values) == ({"a": "5"}, {"a": "\0", "b": "6"})


# --- the cache


def lines(count):
    return "".join(
        json.dumps({"id": i % 7, "g": i % 50, "caption": f"text {i}", "s": "ab"[i % 2]}) + "\n" for i in range(count)
    )


def build(file, split="train", **values):
    values = {"annotations": {split: str(file)}, "fields": {"text": "caption", "id": "id"}} | values
    return registry.build(Part("builder", "pairs", values), name="mine", split=split)


@pytest.fixture
def small(monkeypatch):
    """Everything is kept on disk, however small."""
    for module in ("store", "table", "rows", "layouts"):
        monkeypatch.setattr(f"minigpt4o.datasets.tables.{module}.KEPT_FROM", 1)
    monkeypatch.setattr("minigpt4o.datasets.tables.files.KEPT_BYTES", 1)


CHOICES = [
    {},
    {"group_by": "g"},
    {"split_field": "s", "split_names": {"train": "b"}},
    {"max_samples": 11},
    {"group_by": "g", "split_field": "s", "split_names": {"train": "a"}, "max_samples": 7},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_second_start_reads_its_places_from_the_cache_and_is_the_same(tmp_path, cache, small, monkeypatch, choice):
    file = put(tmp_path / "x.jsonl", lines(300))
    first = build(file, **choice)
    told = (list(first.table.ids), [[r.number for r in g] for g in first.table.groups], first.fingerprint())
    assert list(cache.glob("rows/*.arrays"))
    monkeypatch.setattr("minigpt4o.datasets.tables.files.scan_jsonl", lambda path: pytest.fail("looked through again"))
    monkeypatch.setattr("minigpt4o.datasets.tables.table.Table._plan", lambda self: pytest.fail("chosen again"))
    second = build(file, **choice)
    assert (list(second.table.ids), [[r.number for r in g] for g in second.table.groups], second.fingerprint()) == told


def test_the_choice_of_rows_is_the_plain_one(tmp_path):
    """Ids, groups and folds as one would make them of a list of all rows."""
    file = put(tmp_path / "x.jsonl", lines(300))
    wanted: dict[str, list[int]] = {}
    for i in range(300):
        wanted.setdefault(str(i % 50), []).append(i + 1)
    grouped = build(file, group_by="g")
    assert [[r.number for r in g] for g in grouped.table.groups] == list(wanted.values())
    plain = build(file)
    assert plain.table.ids[:9] == ["0", "1", "2", "3", "4", "5", "6", "0#2", "1#2"]
    assert (plain.table.ids[299], len(set(plain.table.ids))) == (f"{299 % 7}#43", 300)
    values = {"annotations": {"all": str(file)}, "folds": 4, "test_folds": [1], "val_folds": [2], "fold_by": "g"}
    parts = [build(file, split, **values) for split in ("train", "val", "test")]
    assert sorted(r.number for p in parts for g in p.table.groups for r in g) == list(range(1, 301))
    seen = [{g[0].values["g"] for g in p.table.groups} for p in parts]
    assert len(set.union(*seen)) == sum(map(len, seen)) == 50


def test_a_changed_file_is_looked_through_anew_and_its_old_places_are_removed(tmp_path, cache, small):
    file = put(tmp_path / "x.jsonl", lines(20))
    build(file)
    kept = set(cache.glob("rows/*.arrays"))
    rows = read_rows([file])[0]
    put(file, lines(10))
    os.utime(file, ns=(1, 1))
    with pytest.raises(DataError, match="was changed while it was in use"):
        rows[3]
    assert len(build(file)) == 10
    assert len(set(cache.glob("rows/*.arrays"))) == len(kept)


def test_a_damaged_cache_is_made_anew_and_one_that_cannot_be_written_is_no_error(tmp_path, cache, small, caplog):
    file = put(tmp_path / "x.jsonl", lines(20))
    build(file)
    for path in cache.glob("rows/*.arrays"):
        raw = bytearray(path.read_bytes())
        raw[-70] ^= 1
        path.write_bytes(raw)
    assert len(build(file)) == 20
    assert "is made anew" in caplog.text
    caplog.clear()
    for path in cache.glob("rows/*"):
        path.unlink()
    (cache / "rows").rmdir()
    put(cache / "rows", "in the way")
    with caplog.at_level(logging.WARNING):
        assert len(build(file)) == 20
    assert "kept in memory" in caplog.text


def test_arrays_come_back_as_they_were_kept(tmp_path):
    arrays = {
        "a": np.arange(9, dtype=np.uint64),
        "b": np.empty((0, 3)),
        "c": np.array([True]),
        "d": np.eye(3, dtype="f4"),
    }
    assert save(tmp_path / "x.arrays", arrays)
    found = load(tmp_path / "x.arrays")
    assert found is not None
    assert all(np.array_equal(found[k], v) and found[k].dtype == v.dtype for k, v in arrays.items())
    assert load(tmp_path / "none.arrays") is None
    for length in range(0, (tmp_path / "x.arrays").stat().st_size - 64, 37):
        put(tmp_path / "cut.arrays", (tmp_path / "x.arrays").read_bytes()[:length])
        assert load(tmp_path / "cut.arrays") is None


# --- made of others


def test_keys_are_found_without_being_held_and_the_last_of_equal_ones_counts():
    rows = row_store.Listed([Row({"id": i % 40, "n": i}, "f", i) for i in range(100)])
    index = row_store.KeyIndex(rows, "", lambda row: str(row.values["id"]), "test")
    assert [index.find(str(i)).values["n"] for i in (0, 19, 20, 39)] == [80, 99, 60, 79]
    assert index.find("40") is None


def test_numbers_of_groups_and_of_repeats_are_those_of_first_appearance():
    values = np.array([5, 3, 5, 9, 3, 5], np.uint64)
    assert laid_together(values).tolist() == [0, 1, 0, 2, 1, 0]
    assert times_seen(values).tolist() == [1, 1, 2, 1, 2, 3]
    assert times_seen(np.arange(4)) is None


def test_rows_unfold_in_place_and_an_empty_list_gives_none(tmp_path):
    file = put(tmp_path / "x.jsonl", '{"q": ["a", "b"]}\n{"q": []}\n{"q": "c"}\n{"q": ["d"]}\n')
    rows = unfold(read_rows([file])[0], ["q"])
    assert [row.values.get("q") for row in rows] == ["a", "b", "c", "d"]
    assert [row.values for row in rows] == [rows[i].values for i in range(4)]
    assert "not lists of equal length" in rows[2].problem
    assert 0 < rows.size(0) < len(file.read_bytes())


def test_a_text_of_100_000_letters_is_one_row_among_others(tmp_path):
    file = put(tmp_path / "x.jsonl", json.dumps({"caption": "a" * 100_000}) + "\n" + json.dumps({"caption": "b"}))
    builder = build(file, fields={"text": "caption"})
    assert [len(builder.sample(i, random.Random(0)).answers[0]) for i in (0, 1)] == [100_000, 1]
    assert builder.size_hint(0) > 100_000 > 100 > builder.size_hint(1) > 0


def test_a_read_that_fails_for_a_moment_is_tried_again_and_one_that_goes_on_failing_costs_its_sample(
    tmp_path, monkeypatch
):
    from minigpt4o.datasets import bad
    from minigpt4o.datasets.tables import files

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"caption": f"c{i}"}) + "\n" for i in range(5000)))
    values = {"annotations": {"train": str(tmp_path / "rows.jsonl")}, "fields": {"text": "caption"}}
    builder, other = (registry.build(Part("builder", "pairs", values), name="d", split="train") for _ in range(2))
    real, failures = files.FILES.read, [2]

    def failing(*words):
        if failures[0]:
            failures[0] -= 1
            raise OSError(5, "Input/output error")
        return real(*words)

    monkeypatch.setattr(files.FILES, "read", failing)
    monkeypatch.setattr(bad, "PAUSE_S", 0)
    assert bad.attempt(builder, 4001, 0, lambda sample, rng: sample).answers == ["c4001"]
    failures[0] = 99
    assert bad.attempt(other, 4503, 0, lambda sample, rng: sample)[0] == "read_error"
