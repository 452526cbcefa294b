"""The HTTP API: OpenAI's chat completions in front of one engine, `python -m minigpt4o.cli serve --cfg-path FILE`."""

from minigpt4o.serve.api.running import main

__all__ = ["main"]
