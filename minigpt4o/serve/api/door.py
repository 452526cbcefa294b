"""What every request passes: who may come in, how large it may be, headers of the answer, and the counts."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from minigpt4o.serve.api.body import Message, Receive, Send, Tail
from minigpt4o.serve.api.errors import ApiError, internal
from minigpt4o.serve.api.options import Options, is_loopback

if TYPE_CHECKING:
    from minigpt4o.serve.api.service import Service

log = logging.getLogger(__name__)

App = Callable[[Message, Receive, Send], Awaitable[None]]

HEADERS = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; sandbox",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}
CHAT = "/v1/chat/completions"
HEALTH = "/health"  # open to all: it tells nothing about anybody
_NAMES = {CHAT: "chat", "/v1/models": "models", HEALTH: "health", "/metrics": "metrics"}
LEFT = 499  # status in the counts of a caller who left before the answer


class CallerLeft(Exception):
    """Nobody is there to be answered."""


class Door:
    """ASGI middleware: see the module."""

    def __init__(self, app: App, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, name, status = time.monotonic(), f"req_{uuid.uuid4().hex[:16]}", 0
        tail = Tail(scope, receive, self.service.options.body_bytes)
        scope["path"] = scope["path"].rstrip("/") or "/"

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                mine = {**HEADERS, b"x-request-id": name.encode(), **({b"connection": b"close"} if tail.left else {})}
                message["headers"] = [*(h for h in message.get("headers", []) if h[0].lower() not in mine)]
                message["headers"] += mine.items()
            elif tail.left and not message.get("more_body"):
                await send({**message, "more_body": True})
                await tail.throw_away()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            check(scope, self.service.options)
            await self.app(scope, tail.receive, guarded)
        except CallerLeft:
            status = LEFT
        except ApiError as error:
            await send_error(guarded, error)
        except Exception:
            log.exception("a request could not be served (%s)", name)
            if not status:
                await send_error(guarded, internal())
        finally:
            self._count(scope["path"], status or LEFT, time.monotonic() - began, name)

    def _count(self, path: str, status: int, seconds: float, request: str) -> None:
        name = _NAMES.get(path, "models" if path.startswith("/v1/models/") else "other")
        self.service.metrics.requests[name, status] += 1
        if name == "chat":
            self.service.metrics.seconds.add(seconds)
        log.log(logging.INFO if name == "chat" else logging.DEBUG, "%s %d %.3f s %s", name, status, seconds, request)


def check(scope: Message, options: Options) -> None:
    """Raises ApiError for who may not come in, before anything of the body is read."""
    headers = {name.lower(): value for name, value in scope["headers"]}
    if options.api_key:
        if scope["path"] != HEALTH and not _has_key(headers.get(b"authorization", b""), options.api_key):
            raise ApiError(
                401,
                "The API key is missing or wrong; send it as `Authorization: Bearer KEY`.",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
    elif not _is_own(headers.get(b"host", b""), options):
        # a page in a browser may have given its own name our address, to read what only this machine should
        raise ApiError(403, "This server is only for the machine it runs on.", code="host_not_allowed")
    if scope["method"] == "POST":
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":  # what a form of another site can send without asking first is not taken
            raise ApiError(415, "Send JSON, with the header `Content-Type: application/json`.", code="unsupported_type")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise ApiError(415, "Send the body as it is: compressed ones are not taken.", code="unsupported_encoding")


def _has_key(header: bytes, key: str) -> bool:
    """Compared as digests, in the same time whatever is sent."""
    scheme, _, given = header.partition(b" ")
    mine, theirs = hashlib.sha256(key.encode()).digest(), hashlib.sha256(given.strip()).digest()
    return hmac.compare_digest(mine, theirs) and scheme.lower() == b"bearer"


def _is_own(host: bytes, options: Options) -> bool:
    name = host.decode("latin-1")
    name = name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]
    return is_loopback(name) or name == options.host


async def send_error(send: Send, error: ApiError) -> None:
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
