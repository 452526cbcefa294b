"""What stands before the page: security headers on every answer, limits on every request, no addresses to fetch."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# Everything comes from this server, whatever an answer or a file name may hold: no picture, style, form or frame
# can call another host. Inline scripts and styles are the page's own; the sanitizer keeps others out.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "connect-src 'self'",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        "base-uri 'self'",
    ]
)
FILE_POLICY = (
    "default-src 'none'; sandbox"  # of a file that is opened by its own address: it shows nothing, runs nothing
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
MAX_JSON_BYTES = 2 * 2**20  # of a request that is no upload
_UPLOAD = "/gradio_api/upload"
_FILE = "/gradio_api/file"


class Guard:
    """ASGI middleware: see the module."""

    def __init__(self, app: App, max_json_bytes: int = MAX_JSON_BYTES) -> None:
        self.app = app
        self.max_json_bytes = max_json_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        policy = FILE_POLICY if scope["path"].startswith(_FILE) else POLICY
        ours = ((b"content-security-policy", policy.encode()), *HEADERS)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in dict(ours)]
                message["headers"] = [*kept, *ours]
            await send(message)

        if "://" in scope["path"]:  # gradio would fetch it and hand it on
            await _refuse(send_guarded, 400, "Addresses are not fetched.")
            return
        if scope["method"] == "POST" and not scope["path"].rstrip("/").endswith(_UPLOAD):
            body = await self._body(receive)
            if body is None:
                await _refuse(send_guarded, 413, "This request is too large.")
                return
            if names_address(body):
                await _refuse(send_guarded, 400, "Files are uploaded here; addresses are not fetched.")
                return
            receive = _replay(body, receive)
        await self.app(scope, receive, send_guarded)

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body, or None if it is larger than allowed."""
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self.max_json_bytes:
                return None
            if message["type"] != "http.request" or not message.get("more_body"):
                return bytes(body)


def names_address(body: bytes) -> bool:
    """Whether a JSON body has a file whose path is an address: the server would fetch it."""
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):  # not JSON: a form, or something the app refuses itself
        return False
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            path = node.get("path")
            if isinstance(path, str) and "://" in path:
                return True
            stack += node.values()
        elif isinstance(node, list):
            stack += node
    return False


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then whatever comes after it (a disconnect)."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(send: Send, status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
