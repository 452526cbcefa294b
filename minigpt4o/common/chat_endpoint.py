"""Ask a chat model behind an OpenAI-compatible address that the user names; what may pass by itself is tried again."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minigpt4o.common.errors import ConfigError, DataError

TRIES = 4
WAIT_S = 1.0  # before the second try; twice as long before each further one
TIMEOUT_S = 120.0

Message = Mapping[str, str]  # role, content


@dataclass(frozen=True)
class ChatEndpoint:
    """A chat model behind a URL; ConfigError if it is no web address. Nothing is sent before it is called."""

    url: str  # the base, such as http://localhost:8000/v1
    model: str
    key_variable: str = "OPENAI_API_KEY"  # environment variable that holds the key, if one is needed
    temperature: float = 0.0
    max_tokens: int | None = None  # longest answer; None: the server's own limit
    wait_s: float = WAIT_S
    timeout_s: float = TIMEOUT_S

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"{self.url!r} is no address of a chat server; write http://HOST:PORT/v1")

    @property
    def address(self) -> str:
        """Where questions go."""
        return self.url.rstrip("/") + "/chat/completions"

    def __call__(self, messages: Sequence[Message]) -> str:
        """The model's words, stripped. Raises DataError if the server refuses or cannot be reached."""
        body: dict[str, Any] = {"model": self.model, "temperature": self.temperature, "messages": list(messages)}
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        headers = {"Content-Type": "application/json"}
        if os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        return _words(
            self._send(urllib.request.Request(self.address, json.dumps(body).encode(), headers)), self.address
        )

    def _send(self, request: urllib.request.Request) -> bytes:
        wait = self.wait_s
        for number in range(1, TRIES + 1):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                    found: bytes = answer.read()
                    return found
            except urllib.error.HTTPError as error:
                passing = error.code == 429 or error.code >= 500
                why = f"{error.code} {error.reason}: {error.read(500).decode('utf-8', 'replace')}"
            except OSError as error:  # no connection, a broken one, or none in time
                passing, why = True, str(error)
            if not passing or number == TRIES:
                raise DataError(
                    f"{self.address}: {why} (tried {number} time(s)); what is done is kept, start again to go on"
                )
            time.sleep(wait)
            wait *= 2
        raise AssertionError("the last try returns or raises")


def _words(raw: bytes, address: str) -> str:
    try:
        text = json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{address}: the answer is no chat completion ({error}): {raw[:200]!r}") from error
    return str(text or "").strip()
