"""What callers hear while the model is being loaded: 503, and to come again."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any

from minigpt4o.serve.api.errors import loading

SECONDS = 5.0  # in which a caller must have said what it wants
_MOST = 1 << 20  # bytes of a body that are read and thrown away, so that its caller gets to hear the answer


class _Handler(BaseHTTPRequestHandler):
    """The same for everybody."""

    timeout = SECONDS
    server_version, sys_version = "minigpt4o", ""

    def _answer(self) -> None:
        error = loading()
        is_health = self.path.partition("?")[0] == "/health"
        body = json.dumps({"status": "loading"} if is_health else error.body()).encode()
        length = self.headers.get("content-length", "")
        self.rfile.read(min(int(length), _MOST) if length.isdigit() else 0)
        self.send_response(error.status)
        for name, value in {"content-type": "application/json", **error.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_OPTIONS = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: such callers are many, and they come again."""


class _Room(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, door: socket.socket) -> None:
        HTTPServer.__init__(self, ("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = door.dup()  # closed with the room, while the door stays open

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers who hang up are none."""


@contextmanager
def waiting_room(door: socket.socket) -> Iterator[None]:
    """Callers of a listening socket are told to come again, until this ends."""
    room = _Room(door)
    thread = threading.Thread(target=room.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        room.shutdown()
        thread.join()
        room.server_close()
