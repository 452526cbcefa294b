"""Bodies of requests: bounded in size, in time, and in what all of them hold together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from minigpt4o.serve.api.errors import ApiError, busy, invalid, too_large

if TYPE_CHECKING:
    from minigpt4o.serve.api.service import Service

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

FIRST_SECONDS = 20.0  # in which a body must have come, and
LEAST_RATE = 16 * 1024  # bytes of it buy one second more
_LINGER_SECONDS = 5.0  # for which a refused body is read and thrown away, and
_LINGER_TIMES = 4  # so many times the largest body that is taken


@asynccontextmanager
async def read_body(scope: Message, receive: Receive, service: Service) -> AsyncIterator[bytes]:
    """The body, while it is needed. Raises ApiError if it, or all bodies together, are too large, or it does not come.

    One that says it is too large is refused before anything of it is read.
    """
    options, held = service.options, 0
    most = options.body_bytes
    if announced(scope) > most:
        raise too_large(options.max_body_mb)
    parts: list[bytes] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + FIRST_SECONDS
    try:
        more = True
        while more:
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError as error:
                raise _too_slow() from error
            if message["type"] != "http.request":
                raise invalid("The request was broken off.")
            part, more = message.get("body", b""), bool(message.get("more_body"))
            if held + len(part) > most:
                raise too_large(options.max_body_mb)
            if service.held + len(part) > options.held_bytes:
                raise busy("Too much is being sent at the moment; please try again shortly.")
            service.held += len(part)
            held += len(part)
            end += len(part) / LEAST_RATE
            parts.append(part)
        yield b"".join(parts)
    finally:
        service.held -= held


def announced(scope: Message) -> int:
    """The length of a body as its caller says it; 0 if nothing is said."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length[:20]) if length.isdigit() else 0


class Tail:
    """What of a body was not read when the answer is sent.

    The answer goes out at once, and then the rest is read for a while and thrown away: a caller who is still sending
    would not get to hear it if the connection was just cut.
    """

    def __init__(self, scope: Message, receive: Receive, most: int) -> None:
        names = dict(scope["headers"])
        self.left = announced(scope) > 0 or b"transfer-encoding" in names
        self._asks_first = b"expect" in names  # and sends nothing before it is told to go on
        self._receive, self._most = receive, _LINGER_TIMES * most

    async def receive(self) -> Message:
        """As the server's, which is to be replaced by it."""
        self._asks_first = False
        message = await self._receive()
        self.left = message["type"] == "http.request" and bool(message.get("more_body"))
        return message

    async def throw_away(self) -> None:
        read = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while self.left and not self._asks_first and read <= self._most:
                    read += len((await self.receive()).get("body", b""))


def _too_slow() -> ApiError:
    return ApiError(408, "The request did not come in time; the connection is too slow.", code="request_timeout")
