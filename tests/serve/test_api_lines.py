"""What travels on the line: early refusals, slow callers, ways to write a path, other sites' pages, the end."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest
from api_server import ask, data_url, image, said, serving, until, user

from minigpt4o.common.cores import cores
from minigpt4o.common.errors import ConfigError
from minigpt4o.serve.api import body, patience, running
from minigpt4o.serve.api.options import Options, options_of
from minigpt4o.serve.api.waiting_room import waiting_room
from minigpt4o.serve.threads import share_cores

CHAT = "/v1/chat/completions"
KEY = "a-key-that-nobody-guesses"


def line_to(api, head: str, rest: bytes = b"", seconds: float = 10.0) -> socket.socket:
    """A connection on which these lines of a POST and the first part of its body were sent."""
    host, port = api.url.removeprefix("http://").split(":")
    line = socket.create_connection((host, int(port)), timeout=seconds)
    line.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode() + rest)
    return line


def heard(line: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    found = b""
    while part := line.recv(65536):
        found += part
    return found


def letter_by_letter(line: socket.socket, text: bytes) -> None:
    for letter in text:
        line.sendall(bytes([letter]))
        time.sleep(0.02)


JSON = "Content-Type: application/json\r\n"


def test_a_huge_body_is_refused_before_it_is_sent(make_session) -> None:
    with serving(make_session(), max_body_mb=1) as api:
        began = time.monotonic()
        with line_to(api, f"{JSON}Content-Length: 10000000000\r\n") as line:
            answer = b""
            while not answer.endswith(b"}"):
                answer += line.recv(65536)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"connection: close" in answer
            assert b"at most 1 MB" in answer
        assert time.monotonic() - began < 2
        with line_to(api, f"{JSON}Expect: 100-continue\r\nContent-Length: 10000000000\r\n") as line:
            answer = heard(line)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"100 Continue" not in answer
        assert api.service.held == 0
        assert said(ask(api.url, "what?"))


def test_a_caller_who_sends_on_hears_why_it_is_refused(make_session) -> None:
    with serving(make_session(), max_body_mb=1, api_key=KEY) as api:
        for headers, status in (({}, 401), ({"authorization": f"Bearer {KEY}"}, 413)):
            given = {"content-type": "application/json", **headers}
            response = httpx.post(api.url + CHAT, content=bytes(3 << 20), headers=given, timeout=20)
            assert response.status_code == status
            assert response.json()["error"]["message"]


def test_who_sends_letter_by_letter_is_let_go(make_session, monkeypatch) -> None:
    monkeypatch.setattr(patience, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(body, "FIRST_SECONDS", 0.3)
    with serving(make_session()) as api:
        host, port = api.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as silent:
            assert silent.recv(100) == b""
        with socket.create_connection((host, int(port)), timeout=5) as slow, pytest.raises(ConnectionError):
            letter_by_letter(slow, b"POST / HTTP/1.1\r\n" * 100)
        with line_to(api, f"{JSON}Content-Length: 1000\r\n", b'{"mess') as half:
            answer = heard(half)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"request_timeout" in answer
        assert api.service.held == 0
        with httpx.Client() as client:  # a connection that is kept open may rest between requests
            for _ in range(2):
                assert client.get(f"{api.url}/health").status_code == 200
                time.sleep(0.5)
            assert len(api.server.server_state.connections) == 1
        until(lambda: not api.server.server_state.connections)


def test_a_long_answer_is_not_taken_for_a_slow_caller(make_session, monkeypatch) -> None:
    monkeypatch.setattr(patience, "HEAD_SECONDS", 0.05)
    monkeypatch.setattr(body, "FIRST_SECONDS", 0.5)
    with serving(make_session(max_new_tokens=200, min_new_tokens=200)) as api:
        assert said(ask(api.url, "a story"))
        assert ask(api.url, "a story", stream=True).text.endswith("data: [DONE]\n\n")


def test_ways_to_write_a_path(make_session) -> None:
    with serving(make_session()) as api:
        message = {"messages": [user("what?")]}
        assert httpx.post(f"{api.url}{CHAT}/", json=message).status_code == 200
        assert httpx.get(f"{api.url}/v1/models/").json()["data"][0]["id"] == "tiny"
        for path in ("/health", "/metrics", "/v1/models", "/v1/models/tiny"):
            head = httpx.head(api.url + path)
            assert (head.status_code, head.content) == (200, b"")
        wrong = httpx.get(api.url + CHAT)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert f"POST {CHAT}" in httpx.post(f"{api.url}/chat/completions", json=message).json()["error"]["message"]
        shouted = {"content-type": "Application/JSON; charset=UTF-8"}
        assert httpx.post(api.url + CHAT, content=json.dumps(message), headers=shouted).status_code == 200
        packed = {"content-type": "application/json", "content-encoding": "gzip"}
        assert httpx.post(api.url + CHAT, content=b"\x1f\x8b", headers=packed).status_code == 415


def test_each_answer_has_a_name_of_its_own(make_session) -> None:
    with serving(make_session()) as api:
        answers = [ask(api.url, "what?"), ask(api.url, ""), httpx.get(f"{api.url}/nowhere")]
        names = {answer.headers["x-request-id"] for answer in answers}
        assert len(names) == 3
        assert all(name.startswith("req_") for name in names)


def test_pages_of_a_named_origin_may_ask_and_others_not(make_session) -> None:
    origin = "http://localhost:3000"
    with serving(make_session(), allow_origin=(origin,), api_key=KEY) as api:
        leave = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        asked = httpx.options(api.url + CHAT, headers={"origin": origin, **leave})
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == origin
        assert "authorization" in asked.headers["access-control-allow-headers"].lower()
        other = httpx.options(api.url + CHAT, headers={"origin": "https://evil.example", **leave})
        assert other.status_code == 400
        assert "access-control-allow-origin" not in other.headers
        given = {"origin": origin, "authorization": f"Bearer {KEY}"}
        assert ask(api.url, "what?", headers=given).headers["access-control-allow-origin"] == origin
        keyless = ask(api.url, "what?", headers={"origin": origin})  # the page can read why
        assert (keyless.status_code, keyless.headers["access-control-allow-origin"]) == (401, origin)
    with serving(make_session()) as api:
        assert httpx.options(api.url + CHAT, headers={"origin": origin, **leave}).status_code == 405


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"allow_origin": ["*"]}, "set a key"),
        ({"allow_origin": ["chat.example"]}, "https://chat.example:8080"),
        ({"allow_origin": ["https://chat.example/page"]}, "is none"),
        ({"api_key": "two words and more"}, "holds blanks"),
        ({"api_key": "schl\u00fcssel-der-niemand-errät"}, "holds blanks"),
    ],
)
def test_options_that_could_not_work_are_refused_at_the_start(values, why) -> None:
    with pytest.raises(ConfigError, match=why) as error:
        options_of(SimpleNamespace(**values))
    assert values.get("api_key", "-") == "-" or values["api_key"] not in str(error.value)


def test_a_key_may_come_with_the_line_end_of_its_file() -> None:
    assert options_of(SimpleNamespace(api_key=f" {KEY}\n", allow_origin=["*"])).api_key == KEY


def test_a_caller_who_left_is_counted_as_one_and_not_as_a_fault(make_session) -> None:
    with serving(make_session(max_new_tokens=240, min_new_tokens=240)) as api:
        with pytest.raises(httpx.TimeoutException):
            httpx.post(api.url + CHAT, json={"messages": [user("a story")]}, timeout=0.1)
        requests = api.service.metrics.requests
        until(lambda: requests["chat", 499] == 1, 3.0)
        assert requests["chat", 500] == 0


def test_of_32_callers_half_leave_at_random_and_the_others_get_their_answers(make_session) -> None:
    draw = random.Random(7)
    leaving = {number: draw.uniform(0, 0.4) for number in draw.sample(range(32), 16)}
    with serving(make_session(max_new_tokens=60, min_new_tokens=40), max_batch=8, max_waiting=40) as api:
        expected = {n: said(ask(api.url, f"what is {n}?")) for n in range(32) if n not in leaving}

        def call(number: int) -> str:
            try:
                return said(ask_within(api.url, number, leaving.get(number)))
            except httpx.TimeoutException:
                return ""

        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(call, range(32)))
        assert {n: answers[n] for n in expected} == expected
        stats = api.service.engine.stats
        until(lambda: stats().running + stats().waiting == 0, 3.0)
        assert stats().cancelled > 0
        assert stats().failed == 0
        with ThreadPoolExecutor(8) as pool:  # all places are there again
            assert all(pool.map(lambda n: said(ask(api.url, f"what is {n}?")), range(8)))
        assert api.service.held == 0


def ask_within(url: str, number: int, seconds: float | None) -> httpx.Response:
    """The answer to a question, if it comes before its caller leaves."""
    content = {"messages": [user(f"what is {number}?")], "stream": seconds is not None and number % 2 == 0}
    if not content["stream"]:
        return httpx.post(url + CHAT, json=content, timeout=httpx.Timeout(60, read=seconds))
    end = time.monotonic() + (seconds or 0)
    with httpx.stream("POST", url + CHAT, json=content, timeout=60) as answer:
        for _ in answer.iter_raw():
            if time.monotonic() >= end:
                break
    raise httpx.ReadTimeout("left")


def test_whose_answer_is_not_ready_when_the_server_must_end_is_told(make_session, monkeypatch) -> None:
    monkeypatch.setattr(running, "GRACE_SECONDS", 0.2)
    session = make_session(max_new_tokens=240, min_new_tokens=240)
    with serving(session) as api:
        slow_down(api, monkeypatch)
        with ThreadPoolExecutor(2) as pool:
            whole = pool.submit(ask, api.url, "a story")
            stream = pool.submit(ask, api.url, "a story", stream=True)
            until(lambda: api.service.engine.stats().running == 2)
            api.server.should_exit = True
            assert whole.result(20).status_code == 503
            assert whole.result().json()["error"]["code"] == "shutting_down"
            assert '"code":"shutting_down"' in stream.result(20).text.rstrip().splitlines()[-1]
        api.thread.join(10)


def slow_down(api, monkeypatch) -> None:
    """Each step of the model takes 20 ms."""
    worker = api.service.engine._worker
    quick = worker.turn

    def turn() -> None:
        time.sleep(0.02)
        quick()

    monkeypatch.setattr(worker, "turn", turn)


def test_while_the_model_is_loaded_callers_are_told_to_come_again() -> None:
    with running.listen(Options(port=0)) as door:
        door.listen(8)
        url = running.address_of(door)
        with waiting_room(door):
            health = httpx.get(f"{url}/health")
            assert (health.status_code, health.json()) == (503, {"status": "loading"})
            asked = ask(url, image(data_url()), "what?")
            assert (asked.status_code, asked.headers["retry-after"]) == (503, "2")
            assert asked.json()["error"]["code"] == "model_loading"
            assert httpx.head(f"{url}/health").status_code == 503
            with socket.create_connection(door.getsockname()[:2]) as silent:  # holds up nobody
                assert httpx.get(f"{url}/health", timeout=2).status_code == 503
                assert silent
        with pytest.raises(httpx.TimeoutException):  # the door is open still, and nobody answers yet
            httpx.get(f"{url}/health", timeout=0.2)


def test_cores_are_those_of_the_container(tmp_path) -> None:
    all_of = cores(tmp_path)
    assert all_of >= 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores(tmp_path) == all_of
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cores(tmp_path) == 1
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(tmp_path) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cores(tmp_path) == all_of


def test_one_core_is_left_to_those_who_read_and_send_unless_the_user_says_otherwise(monkeypatch) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            monkeypatch.delenv(name, raising=False)
        torch.set_num_threads(4)
        monkeypatch.setattr("minigpt4o.serve.threads.cores", lambda: 3)
        assert share_cores() == torch.get_num_threads() == 2
        assert share_cores(3) == torch.get_num_threads() == 3
        monkeypatch.setattr("minigpt4o.serve.threads.cores", lambda: 1)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert share_cores() == 3
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert share_cores() == 1
    finally:
        torch.set_num_threads(before)


def test_the_key_is_nowhere_in_what_the_server_writes(demo_yaml) -> None:
    command = [sys.executable, "-m", "minigpt4o.cli", "serve", "--cfg-path", str(demo_yaml), "--port", "0"]
    environment = {**os.environ, "MINIGPT4O_API_KEY": KEY}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes)
    try:
        url = process.stdout.readline().split("answers at ")[1].split("/v1")[0]
        assert ask(url, "what?", headers={"authorization": f"Bearer {KEY}x"}, model="demo").status_code == 401
        assert ask(url, "what?", headers={"authorization": f"Bearer {KEY}"}, model="none").status_code == 404
    finally:
        process.terminate()
        out, errors = process.communicate(timeout=60)
    assert "chat 401" in errors
    assert KEY not in out + errors


def test_threads_that_answer_do_not_write_to_a_file_that_was_closed(make_session) -> None:
    import io
    import logging
    from contextlib import redirect_stderr

    from minigpt4o.common.log import setup

    logger = logging.getLogger("minigpt4o")
    kept = (list(logger.handlers), logger.propagate, logger.level)
    try:
        with serving(make_session()) as api:
            with io.StringIO() as old, redirect_stderr(old):
                setup()
            with redirect_stderr(io.StringIO()) as now:
                assert said(ask(api.url, "what?"))
                until(lambda: "chat 200" in now.getvalue())
        assert "Logging error" not in now.getvalue()
    finally:
        logger.handlers[:], logger.propagate = kept[0], kept[1]
        logger.setLevel(kept[2])
