"""Files nobody should send: broken, lying, harmful or huge ones, all cheap to make."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

from small_media import png, wav

JS = "window.hurt=1"
SVG = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{JS}"><script>{JS}</script></svg>'.encode()
HTML = f"<!doctype html><body onload='{JS}'><script>{JS}</script>".encode()
MARKUP = f"<img src=x onerror={JS}>"
LETTERS_BACKWARDS = "\u202e"  # a right-to-left override: `exe.png` looks like `gnp.exe`


@dataclass(frozen=True)
class Upload:
    """A file as a browser sends it. `taken`: its content is a good picture or sound, only its name is bad."""

    what: str
    name: str
    data: bytes
    taken: bool = False

    @property
    def kind(self) -> str:
        """What the browser claims it to be."""
        return "audio/wav" if self.name.endswith((".wav", ".flac", ".ogg", ".mp3")) else "image/png"


def uploads() -> list[Upload]:
    """Forty of them, and more."""
    return [*_no_media(), *_broken(), *_huge(), *_named()]


def _no_media() -> list[Upload]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../evil.txt", "x" * 1000)
    return [
        Upload("nothing, called a picture", "nothing.png", b""),
        Upload("nothing, called a sound", "nothing.wav", b""),
        Upload("words", "words.png", b"only words\n" * 20),
        Upload("a program", "program.png", b"MZ\x90\x00" + bytes(200)),
        Upload("a program of Linux, called a sound", "program.wav", b"\x7fELF" + bytes(200)),
        Upload("SVG", "drawing.svg.png", SVG),
        Upload("SVG behind white space", "drawing.png", b"\n  " + SVG),
        Upload("HTML", "page.png", HTML),
        Upload("HTML, called a sound", "page.mp3", HTML),
        Upload("PDF", "paper.png", b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>"),
        Upload("PostScript", "print.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"),
        Upload("a Photoshop file", "layers.png", b"8BPS\x00\x01" + bytes(60)),
        Upload("an archive", "archive.png", packed.getvalue()),
        Upload("a pickle", "weights.png", b"cos\nsystem\n(S'touch /tmp/hurt'\ntR."),
        Upload("a film", "film.png", b"\x00\x00\x00\x18ftypmp42" + bytes(100)),
        Upload("a playlist", "list.wav", b"#EXTM3U\nhttp://192.0.2.7/x.wav\nfile:///etc/passwd\n"),
        Upload("an address", "shortcut.png", b"[InternetShortcut]\nURL=file:///etc/passwd\n"),
        Upload("a script that begins like GIF", "script.png", b"GIF89a/*" + b"*/=1;" + JS.encode()),
    ]


def _broken() -> list[Upload]:
    whole = png(side=200)
    return [
        Upload("a picture cut in its header", "head.png", whole[:20]),
        Upload("a picture cut in its middle", "middle.png", whole[: len(whole) // 2]),
        Upload("a picture with a flipped bit", "bit.png", whole[:60] + bytes([whole[60] ^ 255]) + whole[61:]),
        Upload("JPEG of only a beginning", "start.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(30)),
        Upload("WebP that names a wrong size", "size.webp", b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(40)),
        Upload("GIF without a picture", "none.gif", b"GIF89a\x10\x00\x10\x00\x00\x00\x00;"),
        Upload("BMP of a negative size", "minus.bmp", b"BM" + bytes(12) + struct.pack("<Iii", 40, -5, -5) + bytes(40)),
        Upload("a sound cut in its header", "head.wav", wav()[:30]),
        Upload("a sound without samples", "silent.wav", _wav(b"", 16000)),
        Upload("a sound without channels", "channels.wav", _wav(bytes(100), 16000, channels=0)),
        Upload("a sound of no rate", "rate.wav", _wav(bytes(100), 0)),
        Upload(
            "a sound of numbers that are none", "nan.wav", _wav(struct.pack("<f", float("nan")) * 4000, 16000, 1, 3, 32)
        ),
        Upload("FLAC of only a beginning", "start.flac", b"fLaC\x00\x00\x00\x22" + bytes(34)),
        Upload("OGG of only a beginning", "start.ogg", b"OggS" + bytes(60)),
        Upload("MP3 of only a tag", "tag.mp3", b"ID3\x03\x00\x00\x7f\x7f\x7f\x7f" + bytes(60)),
    ]


def _huge() -> list[Upload]:
    return [
        Upload("a bomb: a picture of 30000 x 30000", "bomb.png", _png_header(30_000, 30_000)),
        Upload("a bomb: GIF of 65535 x 65535", "bomb.gif", b"GIF89a\xff\xff\xff\xff\x00\x00\x00," + bytes(20)),
        Upload("a line of 2000000 x 1", "line.png", _png_header(2_000_000, 1)),
        Upload("a bomb of words inside a picture", "words.png", _png_words(8 << 20)),
        Upload("a sound of three hours", "hours.wav", _wav(bytes(3 * 3600 * 50), 50, bits=8)),
        Upload("a file over the limit", "large.png", png() + bytes(1 << 20) + b"x"),
    ]


def _named() -> list[Upload]:
    red = png()
    names = {
        "a path": "../../../../tmp/hurt.png",
        "a path of Windows": "..\\..\\hurt.png",
        "a path from the root": "/tmp/hurt.png",
        "markup": f"{MARKUP}.png",
        "quotes": "\"'><script>1</script>.png",
        "300 letters": "n" * 300 + ".png",
        "right to left": f"{LETTERS_BACKWARDS}gnp.exe.png",
        "a format string": "%s%n{0.__class__}${x}.png",
        "only dots": "...png",
        "another kind": "red.wav",
    }
    return [Upload(f"a name: {what}", name, red, taken=True) for what, name in names.items()]


def _wav(data: bytes, rate: int, channels: int = 1, code: int = 1, bits: int = 16) -> bytes:
    form = struct.pack("<HHIIHH", code, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png_header(width: int, height: int) -> bytes:
    """A picture that is much larger than its file."""
    start = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return start + _chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + _chunk(b"IEND", b"")


def _png_words(size: int) -> bytes:
    start = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    return start + _chunk(b"zTXt", b"words\x00\x00" + zlib.compress(b"x" * size)) + _chunk(b"IEND", b"")
