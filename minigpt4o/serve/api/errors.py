"""What went wrong, as OpenAI's clients understand it: a status and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigpt4o.serve.limits import ChatError, EngineBusy

NO_RETRY = {"x-should-retry": "false"}  # OpenAI's clients try again after a 5xx unless told not to


class ApiError(Exception):
    """A request that is not answered. The message is meant for the caller: no paths, no insides."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Status 400: the caller must send something else."""
    return ApiError(400, message, param=param, code=code)


def of_refusal(error: ChatError, param: str | None = "messages") -> ApiError:
    """Of what the engine does not take."""
    if isinstance(error, EngineBusy):
        return busy(str(error))
    if error.kind == "closing":
        return closing()
    return invalid(str(error), param, "context_length_exceeded" if error.kind == "long_prompt" else None)


def busy(message: str) -> ApiError:
    """Status 429: the same request may be taken a little later."""
    return ApiError(429, message, kind="rate_limit_error", code="rate_limit_exceeded", headers={"retry-after": "1"})


def too_large(megabytes: float) -> ApiError:
    """Status 413: of a body."""
    return ApiError(413, f"This request is too large; at most {megabytes:g} MB are taken.", code="request_too_large")


def of_failure(error: BaseException | None) -> ApiError:
    """Of an answer that was begun and could not be given."""
    told = str(error) if isinstance(error, ChatError) else "The answer could not be given."
    return ApiError(500, told, kind="server_error", code="generation_failed", headers=NO_RETRY)


def too_slow(seconds: float) -> ApiError:
    """Status 504: the answer took longer than a request may."""
    return ApiError(
        504,
        f"The answer was not ready within {seconds:g} seconds; ask for fewer tokens (max_tokens), or stream it.",
        kind="server_error",
        code="timeout",
        headers=NO_RETRY,
    )


def closing() -> ApiError:
    """Status 503: the server is being shut down."""
    return ApiError(503, "The server is being shut down.", kind="server_error", code="shutting_down")


def loading() -> ApiError:
    """Status 503: the server is not ready yet."""
    said = "The model is being loaded; please try again shortly."
    return ApiError(503, said, kind="server_error", code="model_loading", headers={"retry-after": "2"})


def internal() -> ApiError:
    """Status 500 for what nobody has foreseen; the reason stands in the server's log."""
    return ApiError(
        500,
        "The server failed; the reason is in its log.",
        kind="server_error",
        code="internal_error",
        headers=NO_RETRY,
    )
