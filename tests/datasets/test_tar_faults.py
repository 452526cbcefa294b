"""10,000 seeded faults in tars: no crash, no hang, what is left out is counted by reason, the rest is delivered."""

import gzip
import io
import json
import logging
import random
import struct
import tarfile
import time
import zlib
from collections import Counter
from functools import cache

import pytest
import torch
from PIL import Image
from tar_making import shards

from minigpt4o.common.errors import SKIP_REASONS, DataError
from minigpt4o.conversation.batch import Example
from minigpt4o.datasets.bad import attempt
from minigpt4o.datasets.shards.files import write_index
from minigpt4o.datasets.shards.tar import BLOCK, Tar
from minigpt4o.processors.image import open_image

CUTS, FLIPS, FORGED, PACKED, PAYLOAD = 1200, 1200, 600, 200, 300  # faults of whole tars
TARS, PER_TAR = 130, 50  # tars of good samples and as many with a fault each: 6,500
SLOWEST = 2.0  # seconds that one sample or one tar may take


@cache
def picture(number, kind="JPEG"):
    """(encoded bytes, pixels as they are read) of a small picture."""
    image = Image.new("RGB", (12, 10), (number * 37 % 256, number * 91 % 256, number * 53 % 256))
    image.putpixel((number % 12, number % 10), (255, 255, 0))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue(), Image.open(io.BytesIO(file.getvalue())).convert("RGB").tobytes()


def encode(sample, rng):
    """The real way of opening; the example carries what was read."""
    pixels = open_image(sample.images[0]).tobytes()
    empty = torch.empty(0, dtype=torch.int64)
    return Example(empty, empty, [torch.frombuffer(bytearray(pixels), dtype=torch.uint8)], [], sample)


def deliver(builder):
    """Key -> (caption, pixels) of the good samples, and the reasons of the others; each sample is one of them."""
    good, reasons = {}, Counter()
    for index in range(len(builder)):
        begin = time.perf_counter()
        result = attempt(builder, index, index, encode)
        assert time.perf_counter() - begin < SLOWEST
        if isinstance(result, Example):
            good[result.sample.id] = (result.sample.answers[0], bytes(result.images[0].numpy()))
        else:
            assert result[0] in SKIP_REASONS
            reasons[result[0]] += 1
    assert len(good) + reasons.total() == len(builder)
    return good, reasons


def open_kept(path, **values):
    return shards(path, fields={"image": "jpg,png", "text": "json.caption"}, damaged="keep", **values)


def tar_of(members, **kind):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **{"format": tarfile.USTAR_FORMAT, **kind}) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            else:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data or b""))
    return file.getvalue()


def sound(number):
    """A good sample: its members, and what must be delivered."""
    key, caption = f"{number:05d}", f"no {number}"
    encoded, pixels = picture(number % 40)
    return [(f"{key}.jpg", encoded), (f"{key}.json", json.dumps({"caption": caption}).encode())], {
        key: (caption, pixels)
    }


def whole_tar(count=6):
    """(bytes, key -> (end of its last member, what must be delivered))."""
    members, expected = [], {}
    for number in range(count):
        made, good = sound(number)
        members += made
        expected |= good
    return tar_of(members), expected


def ends_of(path):
    """Key -> byte at which the blocks of its last member end."""
    return {m.name[:5]: m.offset + -(-m.size // BLOCK) * BLOCK for m in Tar(path).members}


@pytest.fixture(autouse=True)
def _quiet(tmp_path, monkeypatch):
    (tmp_path / "in the way").write_text("")
    monkeypatch.setenv(
        "MINIGPT4O_CACHE", str(tmp_path / "in the way" / "x")
    )  # files come and go faster than dates tell
    monkeypatch.setattr("minigpt4o.datasets.bad.PAUSE_S", 0)
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def refused(path):
    with pytest.raises(DataError, match=path.name):
        shards(path, fields={"image": "jpg", "text": "json.caption"})


# --- faults of whole tars


def test_tars_cut_at_any_byte_give_what_lies_before_the_cut(tmp_path):
    data, expected = whole_tar()
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    ends, draw = ends_of(path), random.Random(1)
    content = max(ends.values())
    for number in range(CUTS):
        end = draw.randrange(content + 2 * BLOCK)
        path.write_bytes(data[:end])
        if number % 10 == 0:
            refused(path)
        before = {key: value for key, value in expected.items() if ends[key] <= end}
        whole = Tar(path)
        assert whole.damage
        if not whole.members:
            with pytest.raises(DataError, match="holds no sample"):
                open_kept(path)
            continue
        good, reasons = deliver(open_kept(path))
        assert before.items() <= good.items() <= expected.items()
        assert set(reasons) <= {"missing_member"}
        assert reasons.total() <= 1


def test_a_flipped_bit_of_a_header_gives_what_lies_before_it(tmp_path):
    data, expected = whole_tar()
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    headers, ends, draw = [m.offset - BLOCK for m in Tar(path).members], ends_of(path), random.Random(2)
    unnoticed = 0
    for number in range(FLIPS):
        at = draw.choice(headers) + draw.randrange(BLOCK)
        damaged = bytearray(data)
        damaged[at] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        tar = Tar(path)
        if not tar.damage:  # NUL <-> blank after the checksum means the same
            unnoticed += 1
            assert [m.name for m in tar.members][1::2] == [f"{k}.json" for k in expected]
            continue
        if number % 10 == 0:
            refused(path)
        if tar.members:
            good, reasons = deliver(open_kept(path))
            assert {k for k in expected if ends[k] <= at} <= set(good)
            assert good.items() <= expected.items()
            assert set(reasons) <= {"missing_member"}
    assert unnoticed <= FLIPS // 100


def forge(draw, header):
    """A header with another field and a checksum that holds."""
    field = draw.choice([(0, 100), (100, 108), (124, 136), (124, 136), (156, 157), (156, 157), (257, 265), (345, 500)])
    size = field[1] - field[0]
    what = draw.choice(
        [
            bytes(size),
            b"7" * size,
            b"\xff" * size,
            b"\x80" + b"\0" * (size - 1),
            draw.randbytes(size),
            b"../" * 40,
            b"xLKgS5D",
        ]
    )
    header[field[0] : field[1]] = what[:size].ljust(size, b"\0") if size > 1 else what[-1:]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return header


def test_headers_that_lie_with_a_right_checksum_harm_nothing_that_lies_before_them(tmp_path):
    data, expected = whole_tar()
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    members, draw = Tar(path).members, random.Random(3)
    for _ in range(FORGED):
        at = draw.choice(members).offset - BLOCK
        path.write_bytes(data[:at] + forge(draw, bytearray(data[at : at + BLOCK])) + data[at + BLOCK :])
        begin = time.perf_counter()
        tar = Tar(path)
        if tar.members:
            good, _ = deliver(open_kept(path))
            before = {m.name[:5] for m in members if m.offset + m.size < at and m.name.endswith("json")}
            assert before <= set(good) or tar.damage
            assert all(good[key] == expected[key] for key in before if key in good)
        assert time.perf_counter() - begin < SLOWEST


@pytest.mark.parametrize(
    "record",
    [
        b"11 size=12x\n",
        b"99999 a=b\n",
        b"9" * 5000 + b" a=b\n",
        b"0 a=b\n",
        b"4 \n",
        b"-5 a=b\n",
        b"\xff" * 30,
        b"20 size=99999999999\n",
    ],
)
def test_extended_headers_that_make_no_sense_are_damage(tmp_path, record):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    body = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(-(-len(record) // BLOCK) * BLOCK, b"\0")
    (tmp_path / "a.tar").write_bytes(body + whole_tar(2)[0])
    assert "a.tar" in Tar(tmp_path / "a.tar").damage


def test_a_long_name_of_a_megabyte_is_damage(tmp_path):
    name = b"x" * ((1 << 20) + 1)
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, len(name)
    body = info.tobuf(tarfile.GNU_FORMAT) + name.ljust(-(-len(name) // BLOCK) * BLOCK, b"\0")
    (tmp_path / "a.tar").write_bytes(body + whole_tar(2)[0])
    assert "claims 1,048,577 bytes" in Tar(tmp_path / "a.tar").damage


def test_packed_tars_that_are_cut_or_changed_are_refused_and_never_half_read(tmp_path):
    data, expected = whole_tar()
    packed, path, draw = gzip.compress(data, mtime=0), tmp_path / "a.tgz", random.Random(4)
    for number in range(PACKED):
        changed = bytearray(packed)
        if number % 2:
            changed[draw.randrange(12, len(packed))] ^= 1 << draw.randrange(8)
        else:
            del changed[draw.randrange(2, len(packed)) :]
        path.write_bytes(changed)
        refused(path)
    path.write_bytes(packed)
    assert deliver(open_kept(path))[0] == expected


def test_flipped_bits_of_the_payload_are_all_found_by_sha256_and_hurt_no_neighbour_without(tmp_path):
    data, expected = whole_tar()
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    write_index(path)
    members, draw = Tar(path).members, random.Random(5)
    for _ in range(PAYLOAD):
        member = draw.choice(members)
        at = member.offset + draw.randrange(member.size)
        damaged = bytearray(data)
        damaged[at] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        good, _ = deliver(open_kept(path))
        untouched = {key: value for key, value in expected.items() if not member.name.startswith(key)}
        assert untouched.items() <= good.items()
        good, reasons = deliver(open_kept(path, verify="sha256"))
        assert (good, reasons) == ({}, {"read_error": 6})


# --- faults of single samples


def bomb(width, height):
    """A PNG of some hundred bytes that claims to be huge."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(4096))),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def as_json(value):
    return json.dumps({"caption": value}).encode()


def cut(data, draw, most=0.9):
    return data[: draw.randrange(int(len(data) * most))]


JPG, TXT = "unreadable_image", "bad_text"
# name -> (draw, picture, key) -> ([(ending, bytes)], reason, or the caption that is delivered)
FAULTS = {
    "jpeg cut": lambda r, p, c: ([("jpg", cut(p, r)), ("json", as_json(c))], JPG),
    "no bytes": lambda r, p, c: ([("jpg", b""), ("json", as_json(c))], JPG),
    "noise": lambda r, p, c: ([("jpg", r.randbytes(r.randrange(1, 3000))), ("json", as_json(c))], JPG),
    "svg": lambda r, p, c: ([("jpg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), ("json", as_json(c))], JPG),
    "bomb": lambda r, p, c: ([("png", bomb(r.randrange(9000, 60000), 30000)), ("json", as_json(c))], "image_too_large"),
    "ribbon": lambda r, p, c: ([("png", bomb(r.randrange(5000, 30000), 1)), ("json", as_json(c))], "extreme_aspect"),
    "other suffix": lambda r, p, c: ([("png", p), ("json", as_json(c))], c),
    "foreign suffix": lambda r, p, c: (
        [(r.choice(["exe", "jpg2", "seg.jpg"]), p), ("json", as_json(c))],
        "missing_member",
    ),
    "no picture": lambda r, p, c: ([("json", as_json(c))], "missing_member"),
    "no text": lambda r, p, c: ([("jpg", p)], "missing_member"),
    "link": lambda r, p, c: ([("jpg", None), ("json", as_json(c))], "missing_member"),
    "json cut": lambda r, p, c: ([("jpg", p), ("json", cut(as_json(c), r))], "bad_json"),
    "json depth": lambda r, p, c: ([("jpg", p), ("json", b"[" * r.randrange(100_000, 200_000))], "bad_json"),
    "json digits": lambda r, p, c: ([("jpg", p), ("json", b'{"caption": ' + b"9" * 6000 + b"}")], "bad_json"),
    "json list": lambda r, p, c: ([("jpg", p), ("json", b'["caption"]')], "missing_field"),
    "other key": lambda r, p, c: ([("jpg", p), ("json", b'{"text": "x"}')], "missing_field"),
    "null": lambda r, p, c: ([("jpg", p), ("json", as_json(None))], "missing_field"),
    "wrong type": lambda r, p, c: ([("jpg", p), ("json", as_json(r.choice([[c], {"a": 1}, True])))], TXT),
    "blank": lambda r, p, c: ([("jpg", p), ("json", as_json(r.choice(["", "  ", "\0", "\n\t"])))], TXT),
    "surrogate": lambda r, p, c: ([("jpg", p), ("json", b'{"caption": "a\\ud800"}')], TXT),
    "latin 1": lambda r, p, c: ([("jpg", p), ("json", b'{"caption": "caf\xe9 \xff"}')], TXT),
    "long": lambda r, p, c: ([("jpg", p), ("json", as_json(c[0] * (100_000 + r.randrange(9000))))], c[0] * 100_000),
    "twice": lambda r, p, c: ([("jpg", p), ("json", as_json(c)), (r.choice(["jpg", "json"]), p)], "duplicate_key"),
    "pickle": lambda r, p, c: ([("jpg", p), ("json", as_json(c)), (r.choice(["pkl", "pyd", "pth"]), CANARY)], c),
    "pickle alone": lambda r, p, c: ([("jpg.pkl", CANARY), ("json", as_json(c))], "missing_member"),
    "pickle inside": lambda r, p, c: ([("jpg", CANARY), ("json", as_json(c))], JPG),
}
CANARY = b"cos\nmkdir\n(S'canary'\ntR."
KEYS = ["{}", "../../../evil{}", "/abs{}", "d/./x{}", "長い名前{}", "a" * 180 + "{}", "sp ace{}\n"]


def test_ten_thousand_faults_are_meant():
    assert CUTS + FLIPS + FORGED + PACKED + PAYLOAD + TARS * PER_TAR == 10_000


def test_every_faulty_sample_is_counted_by_its_reason_and_every_good_one_delivered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = random.Random(6)
    path, seen = tmp_path / "a.tar", Counter()
    for number in range(TARS):
        members, expected, wanted = [], {}, Counter()
        for place in range(PER_TAR):
            made, good = sound(100 * number + place)
            members += [(name.replace(".", "s."), data) for name, data in made]
            expected |= {key + "s": value for key, value in good.items()}
            fault = draw.choice([*FAULTS])
            key = draw.choice(KEYS).format(f"{number:03d}{place:02d}f")
            encoded, pixels = picture(draw.randrange(40))
            bad, outcome = FAULTS[fault](draw, encoded, f"{fault} {key}")
            members += [(f"{key}.{ending}", data) for ending, data in bad]
            seen[fault] += 1
            if outcome in SKIP_REASONS:
                wanted[outcome] += 1
            else:
                expected[key] = (outcome.strip(), pixels)
        if number % 2:  # members of one key need not stand side by side
            draw.shuffle(members)
        path.write_bytes(tar_of(members, format=tarfile.PAX_FORMAT if number % 3 else tarfile.GNU_FORMAT))
        good, reasons = deliver(open_kept(path))
        assert reasons == wanted
        assert good == expected
    assert min(seen.values()) > 150
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "in the way"]  # no canary, nothing unpacked
    assert not (tmp_path.parent / "evil").exists()


def test_a_pickle_that_is_asked_for_as_picture_or_text_is_never_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for ending in ("pkl", "pyd", "pth", "npy"):
        (tmp_path / "a.tar").write_bytes(
            tar_of([(f"a.{ending}", CANARY), ("a.json", as_json("x")), ("a.jpg", picture(0)[0])])
        )
        for fields in ({"image": ending, "text": "json.caption"}, {"image": "jpg", "text": ending}):
            builder = shards(tmp_path / "a.tar", fields=fields)
            assert attempt(builder, 0, 0, encode)[0] == "forbidden_type"
    assert not (tmp_path / "canary").exists()
