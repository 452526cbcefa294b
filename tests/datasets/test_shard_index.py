"""A shard is gone through once: its index is kept, used while the shard is the same, and never believed afterwards."""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from tar_making import LONG_AGO, PNG, captions, group_members, shards, write_set, write_tar

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.datasets.base import unique_ids
from minigpt4o.datasets.shards import files as shard_files
from minigpt4o.datasets.shards.files import beside, cached_file, table_of, write_index, write_set_index
from minigpt4o.datasets.shards.table import ShardTable
from minigpt4o.datasets.shards.tar import Tar
from minigpt4o.datasets.splits import fold_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT4O_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def texts(builder):
    return [builder.sample(i, random.Random(0)).answers[0] for i in range(len(builder))]


def blank(path):
    """The same size and date, but nothing of what was in it: whoever reads it finds no tar."""
    size = path.stat().st_size
    path.write_bytes(b"\xff" * size)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))


def test_a_second_opening_reads_no_byte_of_the_tars(tmp_path):
    paths = write_set(tmp_path / "tars", [3, 4])
    ids = list(shards(tmp_path / "tars/*.tar").ids)
    for path in paths:
        blank(path)
    assert list(shards(tmp_path / "tars/*.tar").ids) == ids


@pytest.mark.parametrize("change", ["size", "date"])
def test_an_index_is_not_believed_when_the_tar_changed(tmp_path, change):
    path = write_tar(tmp_path / "a.tar", captions(3))
    assert list(shards(path).ids) == ["0000", "0001", "0002"]
    write_tar(path, captions(40 if change == "size" else 3, start=7))
    if change == "date":
        os.utime(path, ns=(LONG_AGO, LONG_AGO + 1))
    assert list(shards(path).ids)[:3] == ["0007", "0008", "0009"]


def test_a_tar_that_was_written_just_now_may_be_written_again_unseen_so_its_index_is_not_kept(tmp_path):
    path = write_tar(tmp_path / "a.tar", captions(2))
    now = time.time_ns() + 10**9
    os.utime(path, ns=(now, now))
    table_of(path)
    assert cached_file(path).exists()  # from the future: no clock of this machine
    cached_file(path).unlink()
    now = time.time_ns()
    os.utime(path, ns=(now, now // 10**9 * 10**9))  # a file system that counts whole seconds
    table_of(path)
    assert not cached_file(path).exists()


def test_an_index_beside_the_tar_serves_without_a_cache(tmp_path, cache):
    path = write_tar(tmp_path / "a.tar", captions(3))
    facts = write_index(path)
    assert (facts.groups, facts.members, len(facts.sha256)) == (3, 6, 64)
    blank(path)
    assert list(shards(path).ids) == ["0000", "0001", "0002"]
    assert not cache.exists()


def test_a_copy_with_another_date_is_indexed_anew(tmp_path):
    path = write_tar(tmp_path / "a.tar", captions(3))
    write_index(path)
    shutil.copy(path, tmp_path / "b.tar")
    shutil.copy(beside(path), beside(tmp_path / "b.tar"))
    blank(tmp_path / "b.tar")
    os.utime(tmp_path / "b.tar", ns=(LONG_AGO, LONG_AGO + 1))
    with pytest.raises(DataError, match="is not a tar"):
        shards(tmp_path / "b.tar")


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MINIGPT4O_CACHE", str(tmp_path / "file" / "below"))
    path = write_tar(tmp_path / "a.tar", captions(3))
    assert texts(shards(path)) == ["no 0", "no 1", "no 2"]


def test_an_index_file_that_is_cut_anywhere_is_made_again(tmp_path):
    path = write_tar(tmp_path / "a.tar", captions(3))
    whole = table_of(path).dump()
    file = cached_file(path)
    assert file.read_bytes() == whole
    draw = random.Random(0)
    for end in [0, 1, 8, 16, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(50))]:
        file.write_bytes(whole[:end])
        assert ShardTable.load(file) is None
    assert table_of(path).dump() == whole


def test_any_tar_is_grouped_as_its_members_say_however_they_are_mixed(tmp_path):
    draw = random.Random(1)
    for number in range(30):
        keys = [f"{'d/' * draw.randrange(2)}k{draw.randrange(6)}" for _ in range(20)]
        members = [
            (f"{draw.choice(['', './'])}{k}.{draw.choice(['png', 'JSON', 'a.b', 'txt'])}", b"x" * draw.randrange(9))
            for k in keys
        ]
        path = write_tar(tmp_path / f"{number}.tar", members)
        expected = group_members(Tar(path))
        store = shards(path).store
        found = [store.group(i) for i in range(len(store))]
        assert [(g.key, g.members, g.twice) for g in found] == [(g.key, g.members, g.twice) for g in expected]
        assert store.shards[0].table.in_archive_order() == Tar(path).members


def test_keys_that_come_twice_are_told_apart_and_folds_go_by_the_key(tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    keys = []
    for shard in range(3):
        numbers = random.Random(shard).sample(range(12), 8)
        write_tar(folder / f"{shard}.tar", [m for n in numbers for m in captions(1, n)])
        keys += [f"{n:04d}" for n in numbers]
    assert list(shards(folder / "*.tar").ids) == unique_ids(keys)
    held = shards(folder / "*.tar", annotations={"all": str(folder / "*.tar")}, folds=3, test_folds=[1])
    assert list(held.ids) == unique_ids([k for k in keys if fold_of(k, 3) != 1])
    thin = shards(folder / "*.tar", max_samples=5)
    assert list(thin.ids) == unique_ids([keys[i * len(keys) // 5] for i in range(5)])


# --- counts that somebody promised


def lazy(folder, **values):
    return shards(f"{folder}/{{00000..00002}}.tar", **{"lazy_above": 0, **values})


LISTINGS = {
    "index.json": {"shards": [{"name": f"{n:05d}.tar", "count": c} for n, c in enumerate((3, 5, 4))]},
    "sizes.json": {"00000.tar": 3, "00001.tar": 5, "00002.tar": 4, "__len__": 12},
    "other.json": {"shardlist": [{"url": f"x/{n:05d}.tar", "nsamples": c} for n, c in enumerate((3, 5, 4))]},
}


@pytest.mark.parametrize("name", [*LISTINGS, "stats"])
def test_counts_beside_the_tars_open_a_set_without_opening_a_tar(tmp_path, cache, name):
    paths = write_set(tmp_path / "tars", [3, 5, 4])
    expected = texts(shards(tmp_path / "tars/*.tar"))
    shutil.rmtree(cache)
    if name == "stats":
        for path, count in zip(paths, (3, 5, 4), strict=True):
            path.with_name(path.stem + "_stats.json").write_text(json.dumps({"count": 99, "successes": count}))
    else:
        (tmp_path / "tars" / name).write_text(json.dumps(LISTINGS[name]))
    builder = lazy(tmp_path / "tars", index=str(tmp_path / "tars" / name) if name == "other.json" else "")
    builder.fingerprint()
    list(map(builder.order("0", 0), range(12)))
    assert len(builder) == 12
    assert not cache.exists()
    assert builder.sample(4, random.Random(0)).answers == ["no 4"]
    assert [path for path in paths if cached_file(path).exists()] == [paths[1]]
    assert texts(builder) == expected
    assert builder.ids[4] == "00001/0004"


def test_the_name_of_a_large_set_does_not_depend_on_who_counted_it(tmp_path):
    paths = write_set(tmp_path / "tars", [3, 5, 4])
    counted = lazy(tmp_path / "tars")
    assert not counted.store.lazy
    write_set_index(paths)
    promised = lazy(tmp_path / "tars")
    assert promised.store.lazy
    assert promised.fingerprint() == counted.fingerprint()
    assert list(promised.ids) == list(counted.ids)
    write_tar(paths[1], captions(5, start=3), format=0)
    os.truncate(paths[1], paths[1].stat().st_size + 512)
    assert lazy(tmp_path / "tars").fingerprint() != counted.fingerprint()


@pytest.mark.parametrize(("promised", "bad"), [(6, [8]), (4, [])])
def test_a_broken_promise_is_refused_or_counted_and_never_moves_another_sample(tmp_path, promised, bad):
    write_set(tmp_path / "tars", [3, 5, 4])
    (tmp_path / "tars/sizes.json").write_text(json.dumps({"00000.tar": 3, "00001.tar": promised, "00002.tar": 4}))
    refusing = lazy(tmp_path / "tars")
    assert refusing.sample(2, random.Random(0)).answers == ["no 2"]
    for _ in range(2):
        with pytest.raises(DataError, match=rf"00001\.tar: holds 5 samples, {promised} are promised.*data index"):
            refusing.sample(4, random.Random(0))
    keeping = lazy(tmp_path / "tars", damaged="keep")
    found = [keeping.sample(i, random.Random(0)).answers[0] for i in range(len(keeping)) if i not in bad]
    for index in bad:
        with pytest.raises(SkipSample, match="missing_member"):
            keeping.sample(index, random.Random(0))
        assert keeping.ids[index] == "00001/sample 5"
    assert found == [f"no {i}" for i in range(12) if promised == 6 or i != 7]
    with pytest.raises(DataError, match="00001.tar: holds 5 samples"):
        shards(f"{tmp_path}/tars/*.tar")


def test_listings_that_are_none_are_named(tmp_path):
    write_set(tmp_path / "tars", [3])
    for text, said in (("{", "not valid JSON"), ("[1]", "holds a list"), ('{"shards": [{"name": 1}]}', "is no index")):
        (tmp_path / "tars/index.json").write_text(text)
        with pytest.raises(DataError, match=rf"tars/index\.json: .*{said}.*data index"):
            shards(tmp_path / "tars/*.tar")


LARGE = """
import resource, sys, time
from pathlib import Path
from tar_making import shards
import minigpt4o.datasets.builders.shards
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
before, begin = resident(), time.process_time()
builder = shards(sys.argv[1] + "/{00000..10488}.tar", shuffle="window", max_samples=0)
opened = time.process_time() - begin
builder.fingerprint()
order = builder.order("0", 3)
found = {order(turn) for turn in range(50_000_000, 50_001_000)}
sys.stdout.write(f"{len(builder)} {opened} {(resident() - before) / 1e6} {len(found)}")
"""


def test_a_set_of_laion_s_size_is_open_at_once(tmp_path):
    assert resource.getpagesize() > 0
    names = [f"{n:05d}.tar" for n in range(10_489)]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "sizes.json").write_text(json.dumps({name: 9_500 + n % 500 for n, name in enumerate(names)}))
    path = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    count, seconds, megabytes, distinct = map(float, done.stdout.split())
    assert count == sum(9_500 + n % 500 for n in range(10_489))
    assert seconds < 2
    assert megabytes < 100
    assert distinct == 1000


# --- bytes that changed


def test_sha256_finds_every_flipped_bit_of_the_payload(tmp_path):
    path = write_tar(tmp_path / "a.tar", captions(4))
    write_index(path)
    whole, draw = path.read_bytes(), random.Random(2)
    data = [o for m in Tar(path).members for o in range(m.offset, m.offset + m.size)]
    assert texts(shards(path, verify="sha256")) == [f"no {i}" for i in range(4)]
    for number in range(300):
        flipped = bytearray(whole)
        flipped[draw.choice(data)] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        os.utime(path, ns=(LONG_AGO, LONG_AGO + number % 2))  # with and without a telling date
        for _ in range(2):
            with pytest.raises(DataError, match=r"a\.tar: has another SHA-256"):
                shards(path, verify="sha256").sample(0, random.Random(0))
    kept = shards(path, verify="sha256", damaged="keep")
    for index in range(4):
        with pytest.raises(SkipSample, match="read_error"):
            kept.sample(index, random.Random(0))


def test_a_sha256_that_nobody_recorded_cannot_be_verified(tmp_path):
    paths = write_set(tmp_path / "tars", [2, 2])
    with pytest.raises(DataError, match="no SHA-256 is recorded for 2 of 2"):
        shards(tmp_path / "tars/*.tar", verify="sha256")
    listing = json.loads(write_set_index(paths).read_text())
    assert [row["count"] for row in listing["shards"]] == [2, 2]
    assert len(texts(shards(tmp_path / "tars/*.tar", verify="sha256"))) == 4


def test_a_tar_that_shrinks_while_it_is_read_costs_the_sample_not_the_run(tmp_path):
    path = write_tar(tmp_path / "a.tar", captions(3))
    builder = shards(path)
    os.truncate(path, 600)
    with pytest.raises(OSError, match="was changed in use"):
        builder.sample(2, random.Random(0))


# --- what else a builder tells


def test_what_webdataset_writes_is_read_as_webdataset_reads_it(tmp_path):
    wds = pytest.importorskip("webdataset")
    path = tmp_path / "a.tar"
    with wds.TarWriter(str(path)) as writer:
        for i in range(6):
            writer.write(
                {"__key__": f"dir/sample.{i:03d}"[:10] + str(i), "png": PNG, "json": {"caption": f"no {i}"}, "cls": i}
            )
    builder = shards(path)
    reference = list(wds.WebDataset(str(path), shardshuffle=False))
    found = [builder.store.group(i) for i in range(len(builder.store))]
    assert [g.key for g in found] == [r["__key__"] for r in reference]
    assert [g.raw() for g in found] == [{k: v for k, v in r.items() if not k.startswith("__")} for r in reference]


def test_hints_tell_the_length_of_the_text_and_the_kinds_of_media(tmp_path):
    members = [(f"{i}.{kind}", b"x" * (10 * i + 1)) for i in range(4) for kind in ("png", "txt", "wav")]
    path = write_tar(tmp_path / "a.tar", members)
    builder = shards(path, fields={"image": "png", "audio": "wav", "text": "txt"})
    assert [builder.size_hint(i) for i in range(4)] == [1, 11, 21, 31]
    assert builder.modality(0) == "image+audio"
    assert shards(path, fields={"text": "txt"}).modality(0) == "text"
    rows = [["a?", "b"], ["c?", "d"]]
    asked = [("a.png", PNG), ("a.json", json.dumps({"qa": rows}).encode())]
    questions = {"list": "json.qa", "question": "0", "answer": "1"}
    each = shards(write_tar(tmp_path / "b.tar", asked), fields={"image": "png"}, questions=questions)
    assert [each.size_hint(i) for i in range(2)] == [len(asked[1][1]) // 2] * 2


def test_fingerprints_are_those_of_checkpoints_written_before_there_was_an_index(tmp_path):
    write_tar(tmp_path / "0.tar", captions(4))
    write_tar(tmp_path / "1.tar", captions(3, start=2))
    whole = shards(tmp_path / "*.tar")
    assert whole.fingerprint() == "f1718066d792b678a8da932787b7c46a94825f345a6f771bc1a79db03126cb45"
    held = shards("", annotations={"all": str(tmp_path / "*.tar")}, folds=2, val_folds=[1], max_samples=2)
    assert held.fingerprint() == "6df16a6d0c6e29cb2985d281be712e15e7bf433ecb7ba8cf1670379167b088de"


def test_ids_and_items_are_sequences_that_keep_nothing(tmp_path):
    builder = shards(write_tar(tmp_path / "a.tar", captions(5)))
    assert builder.ids[-1] == "0004"
    assert builder.ids[1:3] == ["0001", "0002"]
    assert [group.key for group, _ in builder.items] == list(builder.ids)
    with pytest.raises(IndexError):
        builder.ids[5]
    assert isinstance(np.asarray(builder.store.counts), np.ndarray)


def test_the_command_s_functions_say_where_an_index_cannot_be(tmp_path):
    one = write_set(tmp_path / "a", [1]) + write_set(tmp_path / "b", [1])
    with pytest.raises(DataError, match="is of one folder"):
        write_set_index(one)
    with pytest.raises(DataError, match=r"none\.tar: cannot be read"):
        shard_files.write_index(tmp_path / "none.tar")
