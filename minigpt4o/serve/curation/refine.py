"""Let another model mend a description: one behind an OpenAI-compatible URL, or a local one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from minigpt4o.common.chat_endpoint import ChatEndpoint
from minigpt4o.common.errors import ConfigError

INSTRUCTION = (
    "The paragraph below describes a picture. Mend its errors: take out repeated sentences, words without meaning and "
    "text in other languages, and finish or remove sentences that break off. Add nothing that it does not say. "
    "Answer with the mended paragraph alone; if nothing has to be mended, answer with it as it is."
)
WAIT_S = 1.0  # before the second try of a request; twice as long before each further one
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
        ask = ChatEndpoint(self.url, self.model, self.key_variable, wait_s=WAIT_S)
        return ask([{"role": "system", "content": self.instruction}, {"role": "user", "content": text}])


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
