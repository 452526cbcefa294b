"""Let another model mend a description: one behind an OpenAI-compatible URL, or a local one."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from minigpt4o.common.errors import ConfigError, DataError

INSTRUCTION = (
    "The paragraph below describes a picture. Mend its errors: take out repeated sentences, words without meaning and "
    "text in other languages, and finish or remove sentences that break off. Add nothing that it does not say. "
    "Answer with the mended paragraph alone; if nothing has to be mended, answer with it as it is."
)
TRIES = 4
WAIT_S = 1.0  # before the second try; twice as long before each further one
TIMEOUT_S = 120.0
Refine = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class Endpoint:
    """A chat model behind an OpenAI-compatible address that the user names."""

    url: str  # the base, such as http://localhost:8000/v1
    model: str
    key_variable: str = "OPENAI_API_KEY"  # environment variable that holds the key, if one is needed
    parallel: int = 8  # requests at once
    instruction: str = INSTRUCTION

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The mended texts, in order. Raises DataError if the server refuses or cannot be reached."""
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(self._one, texts))

    def _one(self, text: str) -> str:
        body = {
            "model": self.model,
            "temperature": 0.0,
            "messages": [{"role": "system", "content": self.instruction}, {"role": "user", "content": text}],
        }
        headers = {"Content-Type": "application/json"}
        if os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        address = self.url.rstrip("/") + "/chat/completions"
        if not address.startswith(("http://", "https://")):
            raise ConfigError(f"{self.url!r} is no address of a chat server; write http://HOST:PORT/v1")
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        return _answer(_send(request, address), address)


def _send(request: urllib.request.Request, address: str) -> bytes:
    """The server's answer; what may pass by itself is tried again."""
    wait = WAIT_S
    for number in range(1, TRIES + 1):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                found: bytes = answer.read()
                return found
        except urllib.error.HTTPError as error:
            passing = error.code == 429 or error.code >= 500
            why = f"{error.code} {error.reason}: {error.read(500).decode('utf-8', 'replace')}"
        except OSError as error:  # no connection, a broken one, or none in time
            passing, why = True, str(error)
        if not passing or number == TRIES:
            raise DataError(f"{address}: {why} (tried {number} time(s)); what is done is kept, start again to go on")
        time.sleep(wait)
        wait *= 2
    raise AssertionError("the last try returns or raises")


def _answer(raw: bytes, address: str) -> str:
    try:
        text = json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{address}: the answer is no chat completion ({error}): {raw[:200]!r}") from error
    return str(text or "").strip()


class Local:
    """A chat model of transformers in a folder, with its own chat template."""

    def __init__(self, path: str, device: Any, instruction: str = INSTRUCTION, max_new_tokens: int = 512) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.instruction, self.max_new_tokens = instruction, max_new_tokens
        self.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, padding_side="left")
        if self.tokenizer.chat_template is None:
            raise ConfigError(f"{path}: its tokenizer has no chat template; name a model that was made for chat")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype="auto").to(device).eval()

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The mended texts, in order."""
        import torch

        chats = [[{"role": "system", "content": self.instruction}, {"role": "user", "content": text}] for text in texts]
        inputs = self.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        with torch.no_grad():
            ids = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        said = self.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in said]
