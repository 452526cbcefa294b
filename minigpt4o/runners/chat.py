"""The `run` node of a demo YAML: how a chat opens media, answers, and shows itself. `serve` does the talking."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, part, registry


@registry.register("runner", "chat")
class ChatSettings:
    """Settings of a chat in the browser or the terminal."""

    @dataclass
    class Config:
        vis_processor: Part | None = part("processor", default=None)  # opens pictures; the eval processor of training
        audio_processor: Part | None = part("processor", default=None)  # opens sounds; the eval processor of training
        device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
        # answers
        system: str = ""  # said before everything, by the template's system role
        separator: str = ""  # between the media and the words of a turn, as in the training data (LLaVA: a line end)
        max_new_tokens: int = 128  # longest answer, in tokens
        min_new_tokens: int = 0  # shortest answer
        do_sample: bool = False  # draw words at random instead of always taking the likeliest
        temperature: float = 1.0  # of drawing
        top_p: float = 1.0  # of drawing: only the likeliest words of this total share
        num_beams: int = 1  # beam search if above 1 (no streaming then)
        repetition_penalty: float = 1.0  # above 1.0: words that were said become less likely
        length_penalty: float = 1.0  # of beam search
        seed: int = 0  # of drawing
        context: int = 0  # places a conversation may take, answer included; 0 = the positions of the language model
        # the engine, which answers all conversations of the page, the terminal and `serve`
        max_batch: int = 16  # answers generated together, token by token
        max_waiting: int = 64  # requests that may wait beside them; the next one is asked to come back later
        media_cache_mb: int = 256  # features of pictures and sounds that are kept, so that none is encoded twice
        reuse_mb: int = 512  # keys and values of the last turns of conversations that are kept; 0 = read all anew
        # limits, checked in Python for every message
        max_text_chars: int = 20000  # of one message
        max_files: int = 8  # pictures and sounds of one message
        max_chat_files: int = 32  # pictures and sounds of one conversation
        max_file_mb: float = 20.0  # of one file
        max_image_pixels: int = 25_000_000  # of one picture, read before it is decoded
        max_audio_seconds: float = 60.0  # of one sound, read before it is decoded
        # the page
        title: str = "minigpt4o"  # above the chat
        description: str = ""  # below the title, plain text
        language: Literal["auto", "en", "ja"] = "auto"  # of the page; auto = what the browser asks for
        examples: list[str] = field(default_factory=list)  # questions to click; `file.png|question` attaches a file
        tasks: dict[str, str] = field(
            default_factory=dict
        )  # shortcuts: task -> words of its message; empty = MiniGPT-v2's with its template, plain words elsewhere
        models: dict[str, str] = field(
            default_factory=dict
        )  # others to switch to: label -> run folder, YAML, or checkpoint for this model; opened when first chosen
        models_open: int = 1  # models in memory at one time; the one not used for longest makes room
        markdown: bool = False  # show messages as formatted text; false = letter by letter as they are
        server_name: str = "127.0.0.1"  # address to listen at; anything but this machine itself needs auth
        server_port: int = 7860  # a free one is taken (and named) if it is in use; 0 = any free one
        auth: list[str] = field(default_factory=list)  # `name:password` of those who may come in; empty = everyone
        share: bool = False  # open a public tunnel through gradio's servers
        concurrency: int = 8  # people who are answered at the same time; no more than max_batch go on together
        max_queue: int = 32  # people who may wait for their answer

    def __init__(self, config: Config, *, settings: Any = None) -> None:
        self.config = config

    def run(self) -> None:
        """A chat is not run by train or eval. Raises ConfigError that says what opens it."""
        raise ConfigError(
            "run.runner: this YAML describes a chat; open it with `python demo.py --cfg-path FILE` (browser) or"
            " `python -m minigpt4o.cli chat --cfg-path FILE` (terminal)"
        )

    def dry_run(self) -> None:
        """See `run`."""
        self.run()
