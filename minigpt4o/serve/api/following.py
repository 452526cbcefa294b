"""An answer of the engine's thread, followed in the event loop: its pieces, its end, its time, its caller's leaving."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from minigpt4o.serve.api.errors import of_failure, too_slow
from minigpt4o.serve.engine import Answering

PING_SECONDS = 15.0
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def follow(answering: Answering, end: float, seconds: float, *, whole: bool = False) -> AsyncIterator[str]:
    """The pieces as they come; "" every now and then while nothing comes. The rest is cancelled if nobody listens.

    `whole`: the pieces come at the end; the loop, which shares the interpreter with the model, is not woken for each.
    `end`: when the time is over, of the loop's clock; `seconds`: what the caller is told about it. Raises ApiError if
    the answer fails or takes too long.
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        if whole and not answering.ended:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(changed.set)

    answering.listen(wake)
    given = 0
    try:
        while True:
            changed.clear()
            ended = answering.ended  # read before the pieces: none comes after it
            pieces = answering.pieces
            for piece in pieces[given:]:
                yield piece
            given = len(pieces)
            if ended:
                break
            if (left := end - loop.time()) <= 0:
                raise too_slow(seconds)
            try:
                await asyncio.wait_for(changed.wait(), min(PING_SECONDS, left))
            except TimeoutError:
                yield ""
        if answering.error is not None:
            raise of_failure(answering.error)
    finally:
        answering.cancel()


@contextlib.asynccontextmanager
async def cancelled_when_gone(answering: Answering, receive: Receive) -> AsyncIterator[asyncio.Event]:
    """Give the answer up, and set the event, as soon as the caller has hung up. The body must have been read."""
    gone = asyncio.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()
        answering.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
