"""Tars are read by an index that notices every cut and every damaged header; members are decoded by a closed table."""

import gzip
import io
import json
import random
import tarfile

import pytest
from tar_making import group_members

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.datasets.shards.index import split_name
from minigpt4o.datasets.shards.tar import BLOCK, Tar

PNG = b"\x89PNG not really"


def write_tar(path, members, **kind):
    with tarfile.open(path, "w", **{"format": tarfile.USTAR_FORMAT, **kind}) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def captions(count, extra=()):
    members = []
    for i in range(count):
        members += [(f"{i:04d}.png", PNG + bytes([i])), (f"{i:04d}.json", json.dumps({"caption": f"no {i}"}).encode())]
    return members + list(extra)


def shards(path, split="train", **values):
    values = {"annotations": {split: str(path)}, "fields": {"image": "png", "text": "json.caption"}} | values
    return registry.build(Part("builder", "shards", values), name="tars", split=split)


def reason(builder, index):
    with pytest.raises(SkipSample) as caught:
        builder.sample(index, random.Random(0))
    return caught.value.reason


def test_members_are_where_the_index_says(tmp_path):
    path = write_tar(tmp_path / "a.tar", captions(5))
    tar = Tar(path)
    assert not tar.damage
    with tarfile.open(path) as reference:
        expected = [(m.name, m.offset_data, m.size) for m in reference]
    assert [(m.name, m.offset, m.size) for m in tar.members] == expected
    assert tar.read(tar.members[2]) == PNG + b"\x01"
    assert tar.media(tar.members[2]).read() == PNG + b"\x01"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_and_foreign_names_are_read_in_every_tar_format(tmp_path, form):
    name = "f/" * 60 + "x" * 20 + ".png" if form == tarfile.USTAR_FORMAT else "音" * 60 + "y" * 120 + ".png"
    tar = Tar(write_tar(tmp_path / "a.tar", [(name, b"data"), ("b.txt", b"B")], format=form))
    assert [m.name for m in tar.members] == [name, "b.txt"]
    assert not tar.damage


def test_any_cut_of_a_tar_is_reported(tmp_path):
    whole = write_tar(tmp_path / "a.tar", captions(6)).read_bytes()
    content = len(whole.rstrip(b"\0")) // BLOCK * BLOCK + BLOCK  # then two blocks of zeros, then padding
    draw = random.Random(0)
    path = tmp_path / "cut.tar"
    for end in [0, 1, BLOCK, content, content + BLOCK, *(draw.randrange(content + 2 * BLOCK) for _ in range(150))]:
        path.write_bytes(whole[:end])
        tar = Tar(path)
        assert tar.damage, f"a cut at byte {end} went unnoticed"
        assert str(path) in tar.damage
    path.write_bytes(whole[: content + 2 * BLOCK])
    assert not Tar(path).damage


def test_a_flipped_bit_in_any_header_is_reported(tmp_path):
    path = write_tar(tmp_path / "a.tar", captions(6))
    whole, headers = path.read_bytes(), [m.offset - BLOCK for m in Tar(path).members]
    draw = random.Random(1)
    unnoticed = []
    for _ in range(300):
        at, bit = draw.choice(headers) + draw.randrange(BLOCK), 1 << draw.randrange(8)
        damaged = bytearray(whole)
        damaged[at] ^= bit
        path.write_bytes(damaged)
        tar = Tar(path)
        if not tar.damage:
            unnoticed.append(([m.name for m in tar.members], (at % BLOCK, bit)))
    names = [m.name for m in _members(tmp_path, whole)]
    assert all(found == names and 148 <= place[0] < 156 for found, place in unnoticed), unnoticed
    assert len(unnoticed) <= 3  # NUL <-> blank after the checksum means the same


def _members(folder, data):
    (folder / "whole.tar").write_bytes(data)
    return Tar(folder / "whole.tar").members


def test_damage_names_shard_and_byte_and_stops_unless_told_to_keep_the_rest(tmp_path, caplog):
    path = write_tar(tmp_path / "a.tar", captions(6))
    data = bytearray(path.read_bytes())
    at = Tar(path).members[6].offset - BLOCK
    data[at + 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.tar: the member header at byte {at} is damaged.*6 whole members"):
        shards(path)
    kept = shards(path, damaged="keep")
    assert len(kept) == 3
    assert "a.tar" in caplog.text


def test_what_is_no_tar_is_named(tmp_path):
    path = tmp_path / "page.tar"
    path.write_bytes(b"<!doctype html><title>404</title>" * 40)
    with pytest.raises(DataError, match="is not a tar; it begins with b'<!doctype html>"):
        shards(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        shards(path)
    one = write_tar(tmp_path / "a.tar", captions(1)).read_bytes()
    path.write_bytes(one + one)
    with pytest.raises(DataError, match="follows the end marker"):
        shards(path)


def test_a_gzipped_tar_is_read_whatever_its_name_and_a_cut_one_refused(tmp_path):
    plain = write_tar(tmp_path / "a.tar", captions(4))
    packed = tmp_path / "b.tar"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    one, other = shards(plain).sample(2, random.Random(0)), shards(packed).sample(2, random.Random(0))
    assert one.turns == other.turns
    assert one.images[0].read() == other.images[0].read()
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DataError, match="cut off"):
        shards(packed)


def test_names_are_split_at_the_first_dot_of_the_file():
    assert split_name("a.b/c.seg.PNG") == ("a.b/c", "seg.png")
    assert split_name("./x.json") == ("x", "json")


def test_bad_members_are_told_by_reason_and_the_good_ones_are_not_shifted(tmp_path):
    extra = [
        ("lone.json", b'{"caption": "no picture"}'),
        ("broken.png", PNG),
        ("broken.json", b"{not json"),
        ("twice.png", PNG),
        ("twice.json", b'{"caption": "a"}'),
        ("twice.png", PNG),
        ("keyless.png", PNG),
        ("keyless.json", b'{"title": "x"}'),
        ("latin.png", PNG),
        ("latin.json", '{"caption": "café"}'.encode("latin-1")),
        ("blank.png", PNG),
        ("blank.json", b'{"caption": "  "}'),
    ]
    builder = shards(write_tar(tmp_path / "a.tar", captions(2, extra)))
    assert len(builder) == 8
    reasons = [reason(builder, i) for i in range(2, 8)]
    assert reasons == ["missing_member", "bad_json", "duplicate_key", "missing_field", "bad_text", "bad_text"]
    assert builder.sample(1, random.Random(0)).answers == ["no 1"]


def test_members_of_one_key_need_not_stand_side_by_side(tmp_path):
    members = [("a.png", PNG), ("b.png", PNG), ("a.txt", b"A"), ("b.txt", b"B")]
    groups = group_members(Tar(write_tar(tmp_path / "a.tar", members)))
    assert [(g.key, sorted(g.members)) for g in groups] == [("a", ["png", "txt"]), ("b", ["png", "txt"])]


@pytest.mark.parametrize("extension", ["pkl", "pyd", "pth", "npy", "exe"])
def test_types_that_can_run_code_are_never_opened(tmp_path, extension):
    path = write_tar(tmp_path / "a.tar", [(f"a.{extension}", b"cos\nsystem\n"), ("a.txt", b"x"), ("a.png", PNG)])
    assert reason(shards(path, fields={"image": extension, "text": "txt"}), 0) == "forbidden_type"
    assert reason(shards(path, fields={"image": "png", "text": extension}), 0) == "forbidden_type"


def test_links_and_devices_in_a_tar_are_no_members(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"x{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/hostname"
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("../../evil.png"), io.BytesIO())
    assert [m.name for m in Tar(path).members] == ["../../evil.png"]


def test_a_list_of_questions_gives_a_sample_for_each_or_a_conversation_for_each_picture(tmp_path):
    rows = {"a": [["how many?", 2], ["red?", "no"]], "b": [["blue?", "yes"], ["no answer"]]}
    members = [(f"{k}.png", PNG) for k in rows] + [
        (f"{k}.json", json.dumps({"qa": v}).encode()) for k, v in rows.items()
    ]
    path = write_tar(tmp_path / "a.tar", members)
    asked = {"fields": {"image": "png"}, "questions": {"list": "json.qa", "question": "0", "answer": "1"}}
    each = shards(path, **asked, answers={"no": "not at all"})
    assert [each.ids[i] for i in range(len(each))] == ["a:0", "a:1", "b:0", "b:1"]
    assert [t.text for t in each.sample(0, random.Random(0)).turns] == ["<image>how many?", "2"]
    assert each.sample(1, random.Random(0)).answers == ["not at all"]
    assert reason(each, 3) == "missing_field"
    talk = shards(path, **asked, rounds=True).sample(0, random.Random(0))
    assert [t.text for t in talk.turns] == ["<image>how many?", "2", "red?", "no"]
    with pytest.raises(DataError, match="needs list, question and answer"):
        shards(path, questions={"list": "json.qa"})
    with pytest.raises(DataError, match="did you mean 'question'"):
        shards(path, questions={"list": "json.qa", "qestion": "0", "answer": "1"})


def test_the_fingerprint_is_that_of_the_index_not_of_the_place(tmp_path):
    one = write_tar(tmp_path / "a.tar", captions(4))
    (tmp_path / "elsewhere").mkdir()
    other = write_tar(tmp_path / "elsewhere" / "a.tar", captions(4))
    assert shards(one).fingerprint() == shards(other).fingerprint()
    write_tar(other, captions(5))
    assert shards(one).fingerprint() != shards(other).fingerprint()


def test_a_builder_of_tars_crosses_process_borders(tmp_path):
    import pickle

    builder = shards(write_tar(tmp_path / "a.tar", captions(3)))
    copy = pickle.loads(pickle.dumps(builder))  # noqa: S301 - our own bytes
    assert copy.sample(1, random.Random(0)).turns == builder.sample(1, random.Random(0)).turns
