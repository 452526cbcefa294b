"""Who may come in, what a full or closing server says, and what it counts."""

import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest
from api_server import ask, data_url, image, said, serving, until, user

from minigpt4o.common.errors import ConfigError
from minigpt4o.serve import api as api_package
from minigpt4o.serve.api.options import Options, is_loopback, options_of
from minigpt4o.serve.api.running import listen
from minigpt4o.serve.api.service import READERS, name_of

KEY = "a-key-that-nobody-guesses"


def test_nobody_comes_in_without_the_key(make_session) -> None:
    with serving(make_session(), api_key=KEY) as api:
        wrong = [{}, {"authorization": "Bearer"}, {"authorization": "Bearer x"}, {"authorization": KEY}]
        wrong += [{"authorization": f"Basic {KEY}"}, {"authorization": f"Bearer {KEY}x"}, {"api-key": KEY}]
        for headers in wrong:
            response = ask(api.url, "what?", headers=headers)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"
        assert said(ask(api.url, "what?", headers={"authorization": f"Bearer {KEY}"}))
        for path in ("/metrics", "/v1/models", "/nowhere"):
            assert httpx.get(api.url + path).status_code == 401
        assert httpx.get(f"{api.url}/health").status_code == 200
        assert api.service.engine.stats().answered == 1


def test_others_than_this_machine_need_a_key(make_session) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
        with pytest.raises(ConfigError, match="set a key"):
            options_of(SimpleNamespace(host=host))
        with pytest.raises(ConfigError, match="5 characters"):
            options_of(SimpleNamespace(host=host, api_key="short"))
        assert options_of(SimpleNamespace(host=host, api_key=KEY)).host == host
    assert options_of(SimpleNamespace()) == Options()
    assert Options().host == "127.0.0.1"
    assert [is_loopback(h) for h in ("127.0.0.2", "::1", "[::1]", "localhost", "0.0.0.0")] == [True] * 4 + [False]


def test_a_page_of_another_site_cannot_ask(make_session) -> None:
    with serving(make_session()) as api:
        assert ask(api.url, "x", headers={"host": "attacker.example"}).status_code == 403
        assert httpx.get(f"{api.url}/metrics", headers={"host": "attacker.example:8000"}).status_code == 403
        assert said(ask(api.url, "x", headers={"host": "localhost:8000"}))
        plain = httpx.post(f"{api.url}/v1/chat/completions", content=b"{}", headers={"content-type": "text/plain"})
        assert plain.status_code == 415
        assert "access-control-allow-origin" not in plain.headers


def test_a_full_queue_says_when_to_come_again(make_session) -> None:
    with serving(make_session(max_new_tokens=200, min_new_tokens=200), max_batch=1, max_waiting=2) as api:
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda n: ask(api.url, f"story {n}", max_tokens=60), range(12)))
        codes = [response.status_code for response in found]
        assert set(codes) == {200, 429}
        refused = found[codes.index(429)]
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert said(ask(api.url, "and now?", max_tokens=4))


def test_an_answer_that_takes_too_long_is_given_up(make_session) -> None:
    with serving(make_session(max_new_tokens=240, min_new_tokens=240), timeout=0.05) as api:
        response = ask(api.url, "a story")
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "timeout"
        assert response.headers["x-should-retry"] == "false"
        streamed = ask(api.url, "a story", stream=True)
        assert streamed.text.rstrip().splitlines()[-1].startswith('data: {"error"')
        until(lambda: api.service.engine.stats().running == 0, 2.0)


def test_told_to_stop_it_finishes_what_it_has_begun(make_session) -> None:
    with serving(make_session(max_new_tokens=200, min_new_tokens=200)) as api:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, api.url, "a story")
            until(lambda: api.service.engine.stats().running == 1)
            api.server.should_exit = True
            assert said(answer.result(30))
        api.thread.join(10)
        with pytest.raises(httpx.ConnectError):
            ask(api.url, "still there?")
        assert api.service.closing


def test_closing_ends_answers_with_a_word(make_session) -> None:
    with serving(make_session(max_new_tokens=240, min_new_tokens=240)) as api:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, api.url, "a story")
            until(lambda: api.service.engine.stats().running == 1)
            api.service.close()
            assert answer.result(30).status_code == 503
        assert ask(api.url, "and now?").status_code == 503
        assert httpx.get(f"{api.url}/health").status_code == 503


@pytest.mark.parametrize("begun", [1, 9])  # of the latter most have to wait for a thread that reads them
def test_closing_is_told_to_those_who_are_still_being_read(make_session, monkeypatch, begun) -> None:
    with serving(make_session()) as api:
        read, go, reading = api.service._read, threading.Event(), []

        def slowly(body: bytes):
            reading.append(body)
            assert go.wait(10)
            return read(body)

        monkeypatch.setattr(api.service, "_read", slowly)
        with ThreadPoolExecutor(begun) as pool:
            found = [pool.submit(ask, api.url, f"what {i}?") for i in range(begun)]
            until(lambda: len(reading) == min(begun, READERS))
            time.sleep(0.2)  # the others are in the queue of the readers
            api.service.close()
            go.set()
            errors = [one.result(20).json()["error"]["code"] for one in found]
        assert errors == ["shutting_down"] * begun


def test_what_is_longer_than_the_model_has_one_code_whoever_notices(make_session) -> None:
    for context in (0, 10_000):  # the latter: more than the language model has
        with serving(make_session(context=context)) as api:
            response = ask(api.url, "what is there? " * 300)
            assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_fault_of_the_model_is_told_without_insides_and_the_next_is_served(make_session, monkeypatch) -> None:
    session = make_session()
    with serving(session) as api:
        good = said(ask(api.url, "what?"))

        def broken(*args, **kwargs):
            raise RuntimeError("secret of /tmp/place")

        with monkeypatch.context() as patch:
            patch.setattr(type(session.model), "embed", broken)
            patch.setattr("minigpt4o.serve.engine_start.begin_fresh", broken)
            patch.setattr("minigpt4o.serve.engine_worker.begin_fresh", broken)
            response = ask(api.url, "what?")
            assert response.status_code == 500
            assert "secret" not in response.text
        with monkeypatch.context() as patch:
            patch.setattr(api.service, "begin", broken)
            response = ask(api.url, "what?")
            assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
            assert "secret" not in response.text
        assert said(ask(api.url, "what?")) == good


LINE = re.compile(r"# (HELP|TYPE) [a-z0-9_]+ .+|[a-z0-9_]+(\{[a-z]+=\"[^\"]+\"(,[a-z]+=\"[^\"]+\")*\})? [0-9.e+-]+")


def metrics_of(api) -> dict[str, float]:
    response = httpx.get(f"{api.url}/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.splitlines()
    assert all(LINE.fullmatch(line) for line in lines), [line for line in lines if not LINE.fullmatch(line)]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_the_counts_are_those_of_what_was_done(make_session) -> None:
    with serving(make_session()) as api:
        answers = [ask(api.url, image(data_url()), "what?").json() for _ in range(3)]
        ask(api.url, "x", model="other")
        httpx.get(f"{api.url}/some/{'x' * 50}")
        found = metrics_of(api)
        assert found['minigpt4o_requests_total{endpoint="chat",status="200"}'] == 3
        assert found['minigpt4o_requests_total{endpoint="chat",status="404"}'] == 1
        assert found['minigpt4o_requests_total{endpoint="other",status="404"}'] == 1
        assert found["minigpt4o_answer_tokens_total"] == sum(a["usage"]["completion_tokens"] for a in answers)
        assert found["minigpt4o_media_misses_total"] == 1
        assert found["minigpt4o_media_hits_total"] == 2
        assert found['minigpt4o_request_seconds_bucket{le="+Inf"}'] == found["minigpt4o_request_seconds_count"] == 4
        assert found["minigpt4o_first_token_seconds_count"] == 3
        assert found["minigpt4o_running"] == found["minigpt4o_waiting"] == 0
        edges = [value for name, value in found.items() if name.startswith("minigpt4o_request_seconds_bucket")]
        assert edges == sorted(edges)


def test_running_and_waiting_are_seen_while_they_last(make_session) -> None:
    with serving(make_session(max_new_tokens=200, min_new_tokens=200), max_batch=2) as api:
        threads = [threading.Thread(target=ask, args=(api.url, f"story {n}")) for n in range(5)]
        for thread in threads:
            thread.start()
        seen = {}
        end = time.monotonic() + 10
        while time.monotonic() < end and not seen.get("waiting"):
            seen = httpx.get(f"{api.url}/health").json()
        assert seen["waiting"] >= 1
        assert seen["running"] <= 2
        for thread in threads:
            thread.join()


def test_a_port_in_use_is_said(make_session) -> None:
    taken = listen(Options(port=0))
    taken.listen()
    with pytest.raises(ConfigError, match=r"cannot listen at 127\.0\.0\.1:\d+.*--port"):
        listen(Options(port=taken.getsockname()[1]))
    taken.close()


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [("output/toy/stage2", "stage2"), ("/a/b/checkpoint_3.pth", "checkpoint_3"), ("out/v1.5", "v1.5"), ("", "aligned")],
)
def test_the_model_is_called_after_its_checkpoint(checkpoint, name) -> None:
    model = SimpleNamespace(values={"ckpt": checkpoint}, name="aligned")
    assert name_of(SimpleNamespace(model=model)) == name


def test_the_body_is_held_only_while_it_is_read(make_session) -> None:
    with serving(make_session()) as api:
        assert said(ask(api.url, image(data_url()), "what?"))
        assert api.service.held == 0
        api.service.held = api.service.options.held_bytes
        refused = ask(api.url, "what?")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        api.service.held = 0
        assert user("x")["role"] == "user"
        assert said(ask(api.url, "what?"))


def test_the_command_serves_and_ends_in_good_order(demo_yaml) -> None:
    command = [sys.executable, "-m", "minigpt4o.cli", "serve", "--cfg-path", str(demo_yaml), "--port", "0"]
    command += ["--model-name", "mine", "--max-waiting", "3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"The model 'mine' answers at (http://127\.0\.0\.1:\d+)/v1 .*\n", line)
        assert found, line + process.stderr.read()
        assert said(ask(found[1], "what?", model="mine"))
        process.terminate()
        process.wait(20)
        assert process.returncode == 0, process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_the_command_refuses_to_be_open_to_all_before_it_loads_anything() -> None:
    with pytest.raises(ConfigError, match="MINIGPT4O_API_KEY"):
        api_package.main(None, SimpleNamespace(host="0.0.0.0"))


def test_a_short_answer_on_an_open_connection_does_not_wait_for_more_to_send(make_session) -> None:
    with serving(make_session()) as api, httpx.Client() as client:
        client.get(f"{api.url}/v1/models")
        began = time.monotonic()
        for _ in range(20):
            client.get(f"{api.url}/v1/models")
        assert (time.monotonic() - began) / 20 < 0.03, "seconds; held back it is 0.04"
