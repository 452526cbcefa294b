"""The page as it is served: a real app on a free port, asked as a browser or a stranger would ask it."""

import json
import socket
import threading
from contextlib import closing

import httpx
import pytest

from minigpt4o.common.errors import ConfigError
from minigpt4o.serve.guard import FILE_POLICY, POLICY, names_address
from minigpt4o.serve.web import Visitor, build_app, credentials, free_port, literal, open_page

gradio_client = pytest.importorskip("gradio_client")


@pytest.fixture(scope="module")
def url(tiny_model, request):
    """The app of the tiny model, open for the tests of this module."""
    from minigpt4o.common.registry import Part, registry
    from minigpt4o.serve.inference import open_chat

    config = registry.get("runner", "chat").Config(
        vis_processor=Part("processor", "blip2_image_eval", {"image_size": 16}),
        audio_processor=Part("processor", "log_mel", {"n_mels": 8, "seconds": 0.12}),
        max_new_tokens=12,
        min_new_tokens=4,
        server_port=0,
        max_file_mb=1.0,
        max_text_chars=500,
        title="a tiny chat",
    )
    page = build_app(open_chat(tiny_model, config).fresh, config)
    address = open_page(page, config)
    yield address
    page.close()


def client(url):
    return gradio_client.Client(url, verbose=False, analytics_enabled=False)


def send(person, text, *files) -> list[dict]:
    """What the page shows after a message."""
    message = {"text": text, "files": [gradio_client.handle_file(str(file)) for file in files]}
    _, shown = person.predict(message, api_name="/chat")
    return shown


def words(message) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def test_a_picture_and_a_sound_are_uploaded_and_answered(url, files) -> None:
    shown = send(client(url), "what is there?", files["red.png"], files["tone.wav"])
    assert [m["role"] for m in shown] == ["user", "user", "user", "assistant", "assistant"]
    assert "red.png" in json.dumps(shown[0])
    assert "tone.wav" in json.dumps(shown[1])
    assert words(shown[2]) == "what is there?"
    assert "only so much of a sound" in words(shown[3])  # 0.2 seconds were sent, 0.12 are heard
    assert words(shown[4])


def test_every_visitor_has_a_conversation_of_their_own(url) -> None:
    one, two = client(url), client(url)
    send(one, "first of one")
    shown_two = send(two, "first of two")
    shown_one = send(one, "second of one")
    assert [words(m) for m in shown_one if m["role"] == "user"] == ["first of one", "second of one"]
    assert [words(m) for m in shown_two if m["role"] == "user"] == ["first of two"]
    _, cleared, *_ = one.predict(api_name="/reset")
    assert not cleared
    assert [words(m) for m in send(one, "new") if m["role"] == "user"] == ["new"]


def test_answers_stream(url) -> None:
    job = client(url).submit({"text": "tell me", "files": []}, api_name="/chat")
    job.result(timeout=60)
    assert len(job.outputs()) >= 3


@pytest.mark.parametrize(
    ("name", "said"),
    [("program.png", "no picture or sound"), ("empty.png", "empty"), ("cut.png", "cannot be read")],
)
def test_what_cannot_be_used_is_said_in_the_chat_and_the_chat_goes_on(url, files, name, said) -> None:
    person = client(url)
    reply = words(send(person, "look", files[name])[-1])
    assert said in reply
    assert "/tmp" not in reply
    assert words(send(person, "hello")[-1])


def test_limits_hold_for_those_who_go_around_the_page(url, files, tmp_path) -> None:
    person = client(url)
    assert "501 characters" in words(send(person, "x" * 501)[-1])
    assert "9 files" in words(send(person, "look", *[files["red.png"]] * 9)[-1])
    big = httpx.post(f"{url}gradio_api/upload", files={"files": ("x.png", b"x" * (2 << 20))})
    assert big.status_code == 413
    long = httpx.post(f"{url}gradio_api/queue/join", content=b" " * (3 << 20))
    assert long.status_code == 413


def test_a_stranger_cannot_make_the_server_fetch_or_give_files(url) -> None:
    file = {"path": "http://192.0.2.1/x.png", "meta": {"_type": "gradio.FileData"}}
    body = {"data": [{"text": "x", "files": [file]}, None], "fn_index": 0, "session_hash": "s"}
    assert httpx.post(f"{url}gradio_api/queue/join", json=body).status_code == 400
    for path in ("/etc/passwd", "../../../../etc/passwd", "setup.py", "%2e%2e/setup.py"):
        assert httpx.get(f"{url}gradio_api/file={path}").status_code in (403, 404)


@pytest.mark.parametrize("route", ["file=", "proxy=", "file/"])
@pytest.mark.parametrize("address", ["http://192.0.2.1/x.png", "https%3A%2F%2Fexample.org%2Fx.png"])
def test_no_route_hands_on_what_lies_at_an_address(url, route, address) -> None:
    answer = httpx.get(f"{url}gradio_api/{route}{address}", timeout=5)
    assert (answer.status_code, answer.json()) == (400, {"error": "Addresses are not fetched."})


def test_a_file_opened_by_its_address_runs_nothing(url) -> None:
    page = b"<script>alert(1)</script>"
    for name in ("a.html", "a.svg", "a.xml", "a.png"):
        (place,) = httpx.post(f"{url}gradio_api/upload", files={"files": (name, page)}).json()
        headers = httpx.get(f"{url}gradio_api/file={place}").headers
        assert headers["content-security-policy"] == FILE_POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert name == "a.png" or headers["content-disposition"].startswith("attachment")


def test_every_answer_carries_the_security_headers(url) -> None:
    for path in ("", "config", "gradio_api/info", "nowhere"):
        headers = httpx.get(url + path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
    assert "form-action 'self'" in POLICY


def test_stopping_through_the_page_keeps_the_beginning_of_the_answer(make_session) -> None:
    visitor = Visitor(make_session(max_new_tokens=150, min_new_tokens=150))
    with closing(visitor.answer("a long story", [])) as updates:
        next(updates)  # the question is shown
        next(updates)  # and the first words
        visitor.session.stop()
        list(updates)
    reply = visitor.shown[-1]["content"]
    assert reply == visitor.session.exchanges[0].answer
    assert len(visitor.session.model.tokenizer(reply)["input_ids"]) < 150


def test_a_visitor_who_leaves_ends_the_generation(make_session) -> None:
    visitor = Visitor(make_session(max_new_tokens=150, min_new_tokens=150))
    with closing(visitor.answer("a long story", [])) as updates:
        next(updates)
        next(updates)
    assert not [t for t in threading.enumerate() if t.name == "chat-generate"]


def test_a_port_in_use_gives_way_to_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) not in (0, port)


def test_nobody_else_can_reach_the_page_unless_there_are_passwords(make_config) -> None:
    assert credentials(make_config()) == []
    for values in ({"server_name": "0.0.0.0"}, {"share": True}, {"auth": ["no-password"]}):
        with pytest.raises(ConfigError, match=r"run\.(auth|server_name|share)"):
            credentials(make_config(**values))
    assert credentials(make_config(server_name="0.0.0.0", auth=["me:a:b"])) == [("me", "a:b")]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"data": [{"files": [{"path": "https://x.test/a"}]}]}', True),
        (b'{"data": [{"files": [{"path": "/tmp/gradio/a.png"}], "text": "http://x.test"}]}', False),
        (b"not json", False),
        (b"[" * 100_000, False),
    ],
)
def test_addresses_are_seen_in_files_and_not_in_words(body, found) -> None:
    assert names_address(body) is found


def test_words_stay_words_on_the_page(url) -> None:
    assert literal("<image> <img src=x> </b> &amp; {<12><34>} a < b & c") == (
        "&lt;image> &lt;img src=x> &lt;/b> &amp;amp; {<12><34>} a < b & c"
    )
    shown = send(client(url), "<script>x</script>")
    assert words(shown[0]) == "&lt;script>x&lt;/script>"
