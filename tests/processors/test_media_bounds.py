"""Bombs and endless files are refused before they are read or decoded: fast, and without taking memory."""

import io
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import soundfile
from PIL import Image

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.audio import open_audio
from minigpt4o.processors.image import open_image, upright_size


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, extra=b"", bits=1, rows=b"\0" * 64):
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_of_60000():
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    at = data.index(b"\xff\xc0") + 5  # height and width in the frame header
    data[at : at + 4] = struct.pack(">HH", 60000, 60000)
    return bytes(data)


def webp_of_16383():
    size = (16382).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size + size
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body)) + body


BOMBS = {
    "pixels.png": lambda: png(10_000, 10_000, rows=zlib.compress(bytes(10_000 * 1251))),
    "texts.png": lambda: png(
        4, 4, b"".join(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000), 9)) for _ in range(60))
    ),
    "one_text.png": lambda: png(4, 4, chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(100_000_000), 9))),
    "profile.png": lambda: png(4, 4, chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(100_000_000), 9))),
    "header.jpg": jpeg_of_60000,
    "canvas.webp": webp_of_16383,
    "screen.gif": lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;",
    "rows.ppm": lambda: b"P6 60000 60000 255\n" + bytes(100),
    "tags.tif": lambda: (
        b"II*\0\x08\0\0\0" + struct.pack("<HHHIIHHII", 2, 256, 4, 1, 60000, 257, 4, 1, 60000) + bytes(4)
    ),
}


TRIED_BY_ANOTHER_PROCESS = """
import io, json, resource, sys, time
from PIL import Image
from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.image import open_image

small = io.BytesIO()
Image.new("RGB", (8, 8)).save(small, "PNG")
open_image(Media(data=small.getvalue()))
found = {}
for path in sys.argv[1:]:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        open_image(Media(path))
        reason = "opened"
    except SkipSample as skip:
        reason = skip.reason
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    found[path] = (reason, time.process_time() - start, grown)
sys.stdout.write(json.dumps(found))
"""


def test_picture_bombs_are_refused_at_once_and_take_no_memory(tmp_path):
    for name, make in BOMBS.items():
        (tmp_path / name).write_bytes(make())
        assert (tmp_path / name).stat().st_size < 300_000
    files = [str(tmp_path / name) for name in BOMBS]
    run = subprocess.run([sys.executable, "-c", TRIED_BY_ANOTHER_PROCESS, *files], capture_output=True, check=True)
    for path, (reason, seconds, mebibytes) in json.loads(run.stdout).items():
        assert reason in ("image_too_large", "unreadable_image"), path
        assert seconds < 0.1, path
        assert mebibytes < 50, path


def test_a_file_of_five_gigabytes_is_not_read(tmp_path):
    for name, open_it, reason in (("a.jpg", open_image, "image_too_large"), ("a.wav", open_audio, "audio_too_long")):
        with (tmp_path / name).open("wb") as file:
            file.truncate(5 << 30)  # sparse: it takes no room on the disk
        with pytest.raises(SkipSample) as caught:
            open_it(Media(str(tmp_path / name)))
        assert caught.value.reason == reason
        assert "5,368,709,120 bytes" in caught.value.detail
    with pytest.raises(SkipSample, match="image_too_large"):
        upright_size(Media(str(tmp_path / "a.jpg")))


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(SkipSample) as caught:
            open_image(Media(str(path)))
        assert caught.value.reason == "read_error"


def test_a_byte_range_beyond_the_end_of_its_file_is_told(tmp_path):
    file = tmp_path / "shard.tar"
    file.write_bytes(bytes(1000))
    with pytest.raises(SkipSample, match="100 of 600 bytes") as caught:
        open_image(Media(str(file), offset=900, size=600, name="shard.tar:a.jpg"))
    assert caught.value.reason == "read_error"


def test_an_hour_of_silence_is_cut_and_not_unpacked(tmp_path):
    file = tmp_path / "hour.flac"
    with soundfile.SoundFile(file, "w", 16000, 1, format="FLAC") as out:
        for _ in range(60):
            out.write(np.zeros(16000 * 60, np.int16))
    assert file.stat().st_size < 1_000_000
    wave, rate = open_audio(Media(str(file)), 10.0)
    assert len(wave) == 10 * rate


def test_ordinary_metadata_do_not_make_a_picture_a_bomb():
    text = b"".join(chunk(b"tEXt", b"k\0" + bytes([65]) * 50_000) for _ in range(10))
    assert open_image(Media(data=png(4, 4, text, 8, zlib.compress(bytes(20))))).size == (4, 4)


def test_the_size_of_a_picture_is_told_upright_and_whatever_its_pixels():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
    assert upright_size(Media(data=file.getvalue())) == (20, 40)
    assert upright_size(Media(data=png(9000, 9000))) == (9000, 9000)
    with pytest.raises(SkipSample) as caught:
        upright_size(Media(data=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"))
    assert caught.value.reason == "unreadable_image"
