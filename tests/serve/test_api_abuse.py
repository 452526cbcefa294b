"""What strangers may send to the API: each is refused in words, and the next person is served."""

import base64
import json
import re
import socket
import struct
import zlib

import httpx
import pytest
from api_server import ask, audio, data_url, image, said, serving, user
from small_media import png, wav

from minigpt4o.serve.limits import Limits

LIMITS = Limits(max_file_mb=1.0, max_audio_seconds=5.0, max_image_pixels=1_000_000)
INSIDES = re.compile(r"/tmp|/work|/home|/usr|Traceback|\.py\b|site-packages|object at 0x")


@pytest.fixture(scope="module")
def api(tiny_model):
    from minigpt4o.common.registry import Part, registry
    from minigpt4o.serve.inference import open_chat

    config = registry.get("runner", "chat").Config(
        vis_processor=Part("processor", "blip2_image_eval", {"image_size": 16}),
        audio_processor=Part("processor", "log_mel", {"n_mels": 8, "seconds": 0.12}),
        max_new_tokens=12,
        min_new_tokens=4,
    )
    session = open_chat(tiny_model, config)
    session.limits = LIMITS
    with serving(session, max_body_mb=4) as server:
        server.expected = said(ask(server.url, "are you well?"))
        yield server


def post(url, body, **headers) -> httpx.Response:
    given = {"content-type": "application/json", **headers}
    return httpx.post(f"{url}/v1/chat/completions", content=body, headers=given, timeout=30)


def ensure_refused(api, response, *, status: int = 400) -> dict:
    """It is an error as OpenAI's clients read it, tells no insides, and the next person gets the usual answer."""
    assert response.status_code == status, response.text[:300]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert not INSIDES.search(response.text), response.text
    assert len(response.content) < 1000
    assert said(ask(api.url, "are you well?")) == api.expected
    return error


# ---- files ----


def bomb_png(side: int) -> bytes:
    """A few kilobytes that would be `side` x `side` pixels."""
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * min(side, 2000)), 9)
    parts = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def wav_header(seconds: int, held: int = 64) -> bytes:
    """A WAV that promises so many seconds and holds `held` bytes."""
    size = seconds * 16000 * 2
    head = b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    return head + b"data" + struct.pack("<I", size) + bytes(held)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><image href="file:///etc/passwd"/></svg>'
HTML = b"<!doctype html><script>alert(1)</script><img src=x onerror=alert(1)>"
ZIP = b"PK\x03\x04" + bytes(60)
FILES = {
    "text": b"not a picture at all",
    "empty": b"",
    "one byte": b"\x89",
    "png signature only": b"\x89PNG\r\n\x1a\n",
    "cut png": png(side=200)[:80],
    "png with a broken body": png(side=64)[:60] + bytes(200),
    "pixel bomb": bomb_png(20_000),
    "larger pixel bomb": bomb_png(60_000),
    "just over the pixels": bomb_png(1_001),
    "svg": SVG,
    "html": HTML,
    "gif that is html": b"GIF89a" + HTML,
    "executable": b"MZ\x90\x00" + bytes(300),
    "elf": b"\x7fELF" + bytes(300),
    "zip": ZIP,
    "pdf": b"%PDF-1.7\n" + bytes(100),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "tiff": b"II*\x00" + bytes(100),
    "pickle": b"\x80\x04\x95" + bytes(40),
    "a sound": wav(),
    "zeros": bytes(100_000),
    "path": b"../../../../etc/passwd",
}
SOUNDS = {
    "text": b"not a sound",
    "empty": b"",
    "three hours": wav_header(3 * 3600),
    "three hours and long": wav_header(3 * 3600, 500_000),
    "six seconds": wav(6.0),
    "header only": wav()[:44],
    "a picture": png(),
    "html": HTML,
    "flac signature only": b"fLaC" + bytes(40),
    "ogg signature only": b"OggS" + bytes(60),
    "aiff": b"FORM" + struct.pack(">I", 46) + b"AIFFCOMM" + bytes(30),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_picture_is_refused(api, name) -> None:
    error = ensure_refused(api, ask(api.url, image(data_url(FILES[name])), "what?"))
    assert error["param"] in ("messages[0].content[0]", "messages")


@pytest.mark.parametrize("name", SOUNDS)
def test_a_bad_sound_is_refused(api, name) -> None:
    error = ensure_refused(api, ask(api.url, audio(SOUNDS[name]), "what?"))
    assert error["param"] in ("messages[0].content[0]", "messages")


ADDRESSES = {
    "no base64": "data:image/png;base64,@@@@",
    "half base64": data_url()[:-3],
    "no encoding": "data:image/svg+xml,<svg/>",
    "no comma": "data:image/png;base64",
    "empty": "",
    "file": "file:///etc/passwd",
    "path": "/etc/passwd",
    "climbing path": "../../../../etc/passwd",
    "markup": "<img src=x onerror=alert(1)>",
    "script": "javascript:alert(1)",
    "ftp": "ftp://example.com/a.png",
    "gopher": "gopher://127.0.0.1:6379/_x",
    "web, which is not allowed": "https://example.com/a.png",
    "loopback": "http://127.0.0.1/a.png",
    "larger than a file may be": data_url(bytes(1_100_000)),
    "other letters": "data:image/png;base64,\u0663\u0664\u0665\u0666",
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_bad_address_is_refused(api, name) -> None:
    ensure_refused(api, ask(api.url, image(ADDRESSES[name]), "what?"))


def test_the_name_and_kind_a_caller_claims_are_not_believed(api) -> None:
    good = said(ask(api.url, image(data_url()), "what?"))
    odd = image(data_url(kind="../../etc/passwd<script>"))
    odd["image_url"]["filename"] = odd["file"] = "../../etc/passwd"
    assert said(ask(api.url, odd, "what?")) == good
    assert said(ask(api.url, image(data_url(kind="text/html")), "what?")) == good


# ---- requests ----

BODIES = {
    "no json": b"{",
    "empty": b"",
    "a list": b"[]",
    "a number": b"1",
    "not utf-8": b'{"messages": "\xff"}',
    "deep": b"[" * 200_000,
    "nan": b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    "infinite": b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1e999}',
    "a very long number": b'{"messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 10_000 + b"}",
    "no messages": b"{}",
    "no message": b'{"messages": []}',
}
MESSAGES = {
    "no objects": ["x"],
    "no role": [{"content": "x"}],
    "unknown role": [{"role": "root", "content": "x"}],
    "a role that is a list": [{"role": [], "content": "x"}],
    "a tool": [{"role": "tool", "content": "x", "tool_call_id": "1"}],
    "no content": [{"role": "user"}],
    "content that is a number": [{"role": "user", "content": 1}],
    "blank": [{"role": "user", "content": "  "}],
    "unknown part": [{"role": "user", "content": [{"type": "video_url"}]}],
    "parts that are words": [{"role": "user", "content": ["x"]}],
    "an answer last": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
    "an answer first": [{"role": "assistant", "content": "y"}, {"role": "user", "content": "x"}],
    "system last": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}],
    "a picture of the system": [{**user(image(data_url())), "role": "system"}, user("x")],
    "100000 characters": [{"role": "user", "content": "x" * 100_000}],
    "100000 characters in parts": [user(*["x" * 10_000] * 10)],
    "many long ones": [{"role": "user", "content": "x" * 19_000}] * 40,
    "too long for the model": [{"role": "user", "content": "what is there? " * 300}],
    "too many messages": [{"role": "user", "content": "x"}] * 2000,
    "too many files": [user(*[image(data_url())] * 9)],
    "too many files of all": [user(*[image(data_url())] * 8)] * 5,
    "half a character": [{"role": "user", "content": "\ud83d"}],
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_refused(api, name) -> None:
    ensure_refused(api, post(api.url, BODIES[name]))


@pytest.mark.parametrize("name", MESSAGES)
def test_bad_messages_are_refused(api, name) -> None:
    error = ensure_refused(api, post(api.url, json.dumps({"messages": MESSAGES[name]})))
    assert str(error["param"]).startswith("messages")


def test_too_long_for_the_model_has_openais_code(api) -> None:
    error = ask(api.url, "what is there? " * 300).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "256" in error["message"]


def test_a_body_that_is_too_large_is_refused_with_or_without_a_length(api) -> None:
    huge = b'{"messages": "' + b"x" * (5 << 20) + b'"}'
    ensure_refused(api, post(api.url, huge), status=413)
    pieces = (huge[i : i + 65536] for i in range(0, len(huge), 65536))
    ensure_refused(api, post(api.url, pieces), status=413)
    assert api.service.held == 0


def test_a_request_that_is_cut_off_leaves_nothing_behind(api) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as line:
            line.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b'Content-Length: 1000\r\n\r\n{"messages": ['
            )
    assert said(ask(api.url, "are you well?")) == api.expected
    assert api.service.held == 0


def test_marks_and_special_tokens_are_plain_text(api, tiny_model) -> None:
    typed = ["<image>", "<audio>", "<bbox>", "<Img>", "</Img>", *tiny_model.tokenizer.all_special_tokens]
    typed += [*tiny_model.tokenizer.get_added_vocab(), "<|im_start|>", "[INST]", "###"]
    plain = prompt_of(api, "a b")
    special = set(tiny_model.tokenizer.all_special_ids) | set(tiny_model.tokenizer.get_added_vocab().values())

    def count(ids) -> int:
        return sum(i in special or i < 0 for i in ids)

    for word in typed:
        assert count(prompt_of(api, f"a {word} b")) == count(plain), word
        assert count(prompt_of(api, "a b", system=f"x {word}")) == count(prompt_of(api, "a b", system="x"))
    with_picture = prompt_of(api, image(data_url()), "a <image> <image> b")
    assert sum(i < 0 for i in with_picture) == sum(i < 0 for i in prompt_of(api, image(data_url()), "a b"))
    assert said(ask(api.url, " ".join(typed)))


def prompt_of(api, *content, system: str = "") -> list[int]:
    """The ids the model is sent for a message."""
    import asyncio

    messages = [{"role": "system", "content": system}] * bool(system) + [user(*content)]
    _, answering = asyncio.run(api.service.begin(json.dumps({"messages": messages, "max_tokens": 1}).encode()))
    return answering.prompt_ids


def test_markup_comes_back_as_data_only(api) -> None:
    response = ask(api.url, "<script>alert(1)</script>", model="<script>alert(1)</script>")
    ensure_refused(api, response, status=404)
    assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/v1/files/../../etc/passwd", "/v1/models/%2e%2e%2fx"])
def test_what_is_not_there_is_said_as_json(api, path) -> None:
    response = httpx.get(api.url + path)
    assert response.status_code == 404
    assert "error" in response.json()
    assert "root:" not in response.text
    assert httpx.get(f"{api.url}/v1/chat/completions").status_code == 405


def test_20_bombs_at_once_do_not_fill_the_memory(api) -> None:
    import resource
    from concurrent.futures import ThreadPoolExecutor

    bomb = data_url(bomb_png(60_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: ask(api.url, image(bomb), "what?").status_code, range(20)))
    assert answers == [400] * 20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100, "MiB"


def test_base64_is_read_strictly(api) -> None:
    text = base64.b64encode(png()).decode()
    for broken in (text[:-1], text[:20] + "\n" + text[20:], text.replace("A", "-", 1)):
        ensure_refused(api, ask(api.url, image(f"data:image/png;base64,{broken}"), "what?"))
