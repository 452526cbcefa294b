"""Addresses that callers name: only public ones are fetched, whatever they are called and wherever they lead."""

import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from api_server import ask, image, said, serving
from small_media import png

from minigpt4o.serve.api.fetch import Fetcher, is_public
from minigpt4o.serve.limits import ChatError

PUBLIC = "93.184.215.14"


class Site(BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]] = []  # noqa: RUF012  (host, path) of every request

    def do_GET(self) -> None:
        self.seen.append((self.headers["Host"], self.path))
        name = self.path.strip("/").split("?")[0]
        with suppress(OSError):
            getattr(self, f"send_{name}", self.send_picture)()

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_picture(self) -> None:
        self.answer(png())

    def send_missing(self) -> None:
        self.answer(b"/srv/secret", 404)

    def send_packed(self) -> None:
        self.answer(b"x" * 10, Content_Encoding="gzip")

    def send_large(self) -> None:
        self.answer(bytes(200_000))

    def send_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(10_000):
            self.wfile.write(bytes(1000))

    def send_short(self) -> None:
        self.answer(b"abc", Content_Length="100")
        self.close_connection = True

    def send_drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b"x")
            time.sleep(0.05)

    def send_slowhead(self) -> None:
        for _ in range(100):
            self.wfile.write(b"H")
            self.wfile.flush()
            time.sleep(0.05)

    def send_inner(self) -> None:
        self.answer(b"", 302, Location="http://inner.example/secret")

    def send_metadata(self) -> None:
        self.answer(b"", 307, Location="http://169.254.169.254/latest/meta-data/")

    def send_file(self) -> None:
        self.answer(b"", 302, Location="file:///etc/passwd")

    def send_moved(self) -> None:
        self.answer(b"", 301, Location="/picture")

    def send_loop(self) -> None:
        self.answer(b"", 301, Location="/loop")

    def log_message(self, *args) -> None:
        """Nothing."""


NAMES = {"public.example": [PUBLIC], "inner.example": ["10.0.0.7"], "mixed.example": [PUBLIC, "127.0.0.1"]}


@pytest.fixture(scope="module")
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.handle_error = lambda *args: None  # callers hang up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetcher(site):
    """One for which `public.example` is public and leads to the local site; `reached` lists where it went."""
    reached = []

    def resolve(host: str, port: int) -> list[str]:
        if host in NAMES:
            return NAMES[host]
        return [str(found[4][0]) for found in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)]

    def connect(address, timeout):
        reached.append(address[0])
        return socket.create_connection(site, timeout)

    made = Fetcher(100_000, 0.6, resolve, connect)
    made.reached = reached
    Site.seen.clear()
    return made


PRIVATE = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "192.0.0.192",
    "192.88.99.1",
    "168.63.129.16",
    "::7f00:1",
    "3fff::1",
    "5f00::1",
    "100::1",
    "no-address",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_no_address_of_a_network_of_ones_own_is_public(address) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", PUBLIC, "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_addresses_of_the_internet_are(address) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost:6379/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[fe80::1%25lo]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://192.168.0.1/",
        "http://inner.example/",
        "https://inner.example/",
        "http://mixed.example/",
        "http://no.such.name.example/",
        "http://0/",
        "http:///picture",
        "http://",
        "file:///etc/passwd",
        "ftp://public.example/",
        "http://me:secret@public.example/",
        "http://public.example@127.0.0.1/",
        "http://public.example:99999/",
        "http://public.example:x/",
        "http://[::1/",
        "http://public.example/a b",
        "http://public.example/\r\nHost: inner.example",
        "http://public.example/" + "x" * 5000,
        "http://" + "a" * 70 + ".example/",
        "http://\u2488\u2488.example\u3002x/",
    ],
)
def test_what_is_not_public_is_not_reached(fetcher, url) -> None:
    with pytest.raises(ChatError) as error:
        fetcher.fetch(url)
    assert fetcher.reached == []
    assert "10.0.0.7" not in str(error.value)


def test_a_public_picture_is_fetched_under_its_own_name(fetcher) -> None:
    assert fetcher.fetch("http://public.example/picture?size=1#part") == png()
    assert Site.seen == [("public.example", "/picture?size=1")]
    assert fetcher.fetch("http://public.example:8080/moved") == png()
    assert set(fetcher.reached) == {PUBLIC}


@pytest.mark.parametrize("path", ["inner", "metadata", "file", "loop"])
def test_a_redirect_leads_nowhere_else(fetcher, path) -> None:
    with pytest.raises(ChatError):
        fetcher.fetch(f"http://public.example/{path}")
    assert set(fetcher.reached) == {PUBLIC}
    assert {host for host, _ in Site.seen} == {"public.example"}
    assert len(Site.seen) <= 4


def test_a_name_is_asked_once_so_that_it_cannot_change_its_mind(site) -> None:
    answers = [[PUBLIC], ["127.0.0.1"]]
    reached = []

    def connect(address, timeout):
        reached.append(address[0])
        return socket.create_connection(site, timeout)

    assert Fetcher(100_000, 2.0, lambda host, port: answers.pop(0), connect).fetch("http://public.example/") == png()
    assert reached == [PUBLIC]
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("missing", "status 404"),
        ("packed", "compressed"),
        ("large", "more than 0.0954 MB"),
        ("endless", "more than 0.0954 MB"),
        ("short", "could not be read|whole file"),
        ("drip", "within 0.6 seconds"),
        ("slowhead", "within 0.6 seconds"),
    ],
)
def test_size_and_time_are_bounded(fetcher, path, why) -> None:
    began = time.monotonic()
    with pytest.raises(ChatError, match=why) as error:
        fetcher.fetch(f"http://public.example/{path}")
    assert time.monotonic() - began < 2
    assert "secret" not in str(error.value)


def test_the_server_fetches_only_if_it_is_allowed_to(make_session, fetcher) -> None:
    picture = image("http://public.example/picture")
    with serving(make_session(), fetcher=fetcher) as api:
        fetched = said(ask(api.url, picture, "what?"))
        for url in ("http://inner.example/a.png", "http://public.example/inner", "http://127.0.0.1/a.png"):
            refused = ask(api.url, image(url), "what?")
            assert refused.status_code == 400
            assert refused.json()["error"]["code"] == "invalid_image_url"
        assert set(fetcher.reached) == {PUBLIC}
    with serving(make_session()) as api:
        refused = ask(api.url, picture, "what?")
        assert refused.status_code == 400
        assert "--allow-urls" in refused.json()["error"]["message"]
    assert fetched
