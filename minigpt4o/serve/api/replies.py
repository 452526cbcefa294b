"""Answers in the shapes of OpenAI's API: `chat.completion`, its chunks, its counts of tokens."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from minigpt4o.serve.engine import Answering

DONE = b"data: [DONE]\n\n"
PING = b": waiting\n\n"  # a comment: it keeps the connection open


@dataclass(frozen=True)
class Reply:
    """What stands in everything that is sent for one request."""

    model: str
    fingerprint: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answering: Answering, text: str) -> dict[str, Any]:
        """The answer in one piece."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answering.finish_reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(answering)}

    def chunk(self, delta: dict[str, Any], finish: str | None = None, with_usage: bool = False) -> bytes:
        """A piece of a streamed answer."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        empty: dict[str, Any] = {"usage": None} if with_usage else {}
        return event({**self._head("chat.completion.chunk"), "choices": [choice], **empty})

    def counts(self, answering: Answering) -> bytes:
        """The last chunk of a stream whose caller wants to know."""
        return event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(answering)})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def usage(answering: Answering) -> dict[str, Any]:
    """Places of the model's row: those of pictures and sounds are part of the prompt's."""
    prompt = answering.prompt_tokens + answering.media_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answering.answer_tokens,
        "total_tokens": prompt + answering.answer_tokens,
        "prompt_tokens_details": {
            "cached_tokens": answering.reused_tokens,
            "media_tokens": answering.media_tokens,
        },
    }


def event(tree: dict[str, Any]) -> bytes:
    """One server-sent event; ASCII only, so that no reader takes a rare blank for a line end."""
    return b"data: " + json.dumps(tree, separators=(",", ":")).encode("ascii") + b"\n\n"
