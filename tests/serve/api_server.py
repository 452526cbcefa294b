"""The API as it is served: a real server on a free port in a thread of the tests."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from small_media import png, wav


@contextmanager
def serving(session: Any, **values: Any) -> Iterator[Any]:
    """`url`, `service` of a server with the model of a chat; `fetcher` and options by name."""
    from minigpt4o.serve.api.options import Options
    from minigpt4o.serve.api.running import address_of, listen, server_of
    from minigpt4o.serve.api.service import Service

    fetcher = values.pop("fetcher", None)
    options = Options(port=0, **values)
    service = Service(session, options, "tiny", fetcher)
    door = listen(options)
    server = server_of(service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield SimpleNamespace(url=address_of(door), service=service, server=server, thread=thread)
    finally:
        server.should_exit = True
        thread.join(20)
        door.close()
        assert not thread.is_alive(), "the server did not end"


def until(true: Any, seconds: float = 10.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to be in time"
        time.sleep(0.005)


def data_url(data: bytes | None = None, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(png() if data is None else data).decode()}"


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def audio(data: bytes | None = None, kind: str = "wav") -> dict[str, Any]:
    text = base64.b64encode(wav() if data is None else data).decode()
    return {"type": "input_audio", "input_audio": {"data": text, "format": kind}}


def user(*content: Any) -> dict[str, Any]:
    """A message; words among the parts may be plain strings."""
    return {"role": "user", "content": [{"type": "text", "text": c} if isinstance(c, str) else c for c in content]}


def ask(url: str, *content: Any, headers: dict[str, str] | None = None, **values: Any) -> Any:
    """The response to a request with one message."""
    import httpx

    body = {"model": "tiny", "messages": [user(*content)], **values}
    given = {"content-type": "application/json", **(headers or {})}
    return httpx.post(f"{url}/v1/chat/completions", content=json.dumps(body), headers=given, timeout=60)


def said(response: Any) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]
