"""The routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from minigpt4o.serve.api.body import read_body
from minigpt4o.serve.api.door import CHAT, CallerLeft, Door
from minigpt4o.serve.api.errors import ApiError, closing, internal, of_failure, too_slow
from minigpt4o.serve.api.following import cancelled_when_gone, follow
from minigpt4o.serve.api.metrics import CONTENT_TYPE
from minigpt4o.serve.api.params import Asked
from minigpt4o.serve.api.replies import DONE, PING, Reply, event
from minigpt4o.serve.api.service import Service
from minigpt4o.serve.engine import Answering

log = logging.getLogger(__name__)

_WHAT_IS_THERE = f"there are POST {CHAT} and GET /v1/models, /health and /metrics"


def create_app(service: Service) -> FastAPI:
    """The application; the service is closed when it ends."""

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, ApiError):
            return _json(error.body(), error.status, error.headers)
        assert isinstance(error, AnyHTTPException)
        unknown = ApiError(
            error.status_code, f"There is no {request.method} {request.url.path[:80]}; {_WHAT_IS_THERE}."
        )
        return _json(unknown.body(), error.status_code, dict(error.headers or {}))

    app = FastAPI(
        title="minigpt4o", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    for kind in (ApiError, AnyHTTPException, HTTPException):
        app.add_exception_handler(kind, refuse)
    app.add_middleware(Door, service=service)
    if service.options.allow_origin:  # around the door: a browser asks for leave without the key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.options.allow_origin,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["retry-after", "x-request-id"],
        )
    routes = Routes(service)
    app.add_api_route(CHAT, routes.chat, methods=["POST"], response_model=None)
    for path, act in (
        ("/v1/models", routes.models),
        ("/v1/models/{name:path}", routes.model),
        ("/health", routes.health),
        ("/metrics", routes.metrics),
    ):
        app.add_api_route(path, act, methods=["GET", "HEAD"], response_model=None)
    return app


class Routes:
    """What is answered where."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def models(self) -> Response:
        """The one model there is."""
        return _json({"object": "list", "data": [self._model()]})

    async def model(self, name: str) -> Response:
        """The one model, by its name."""
        if name != self.service.name:
            raise ApiError(404, f"The model {name[:80]!r} does not exist.", param="model", code="model_not_found")
        return _json(self._model())

    async def health(self) -> Response:
        """Whether requests are taken, and how busy the model is."""
        stats = self.service.engine.stats()
        state = "closing" if self.service.closing else "ok"
        body = {"status": state, "running": stats.running, "waiting": stats.waiting}
        return _json(body, 503 if self.service.closing else 200)

    async def metrics(self) -> Response:
        """For Prometheus."""
        text = self.service.metrics.text(self.service.engine.stats())
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def chat(self, request: Request) -> Response:
        """An answer, whole or as a stream."""
        service, loop = self.service, asyncio.get_running_loop()
        end = loop.time() + service.options.timeout
        try:
            async with asyncio.timeout_at(end), read_body(request.scope, request.receive, service) as body:
                asked, answering = await service.begin(body)
        except TimeoutError as error:
            raise too_slow(service.options.timeout) from error
        reply = Reply(service.name, service.fingerprint)
        if asked.stream:
            return StreamingResponse(
                self._stream(request, asked, answering, reply, end),
                media_type="text/event-stream",
                headers={"x-accel-buffering": "no"},
            )
        async with cancelled_when_gone(answering, request.receive) as gone:
            async for _ in follow(answering, end, service.options.timeout, whole=True):
                pass
        if gone.is_set() and answering.finish_reason == "cancelled":
            raise CallerLeft
        self._ended(answering)
        return _json(reply.whole(answering, service.engine.clean(answering.text)))

    async def _stream(
        self, request: Request, asked: Asked, answering: Answering, reply: Reply, end: float
    ) -> AsyncIterator[bytes]:
        """Server-sent events; what goes wrong on the way is one of them, and the last."""
        counted = asked.include_usage
        try:
            yield reply.chunk({"role": "assistant", "content": ""}, with_usage=counted)
            async with cancelled_when_gone(answering, request.receive):
                async for piece in follow(answering, end, self.service.options.timeout):
                    yield reply.chunk({"content": piece}, with_usage=counted) if piece else PING
            self._ended(answering)
            yield reply.chunk({}, answering.finish_reason, with_usage=counted)
            if counted:
                yield reply.counts(answering)
            yield DONE
        except ApiError as error:
            yield event(error.body())
        except Exception:
            log.exception("a stream broke off")
            yield event(internal().body())
        finally:
            answering.cancel()

    def _ended(self, answering: Answering) -> None:
        """Raises ApiError if the answer was cancelled: by its caller, who has left, or because all is being closed."""
        if answering.first_token_s is not None:
            self.service.metrics.first_token.add(answering.first_token_s)
        if answering.finish_reason not in ("stop", "length"):
            raise closing() if self.service.closing else of_failure(None)

    def _model(self) -> dict[str, Any]:
        return {"id": self.service.name, "object": "model", "created": self.service.created, "owned_by": "minigpt4o"}


def _json(tree: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # a half character that a caller sent and an error repeats must not break the answer
    body = json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status, headers, media_type="application/json")
