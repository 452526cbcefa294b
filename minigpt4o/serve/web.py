"""Chat in the browser: one page, one conversation per visitor, answers as they are generated."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.serve.chat import ChatSession
from minigpt4o.serve.limits import ChatError, sort_media

if TYPE_CHECKING:
    import gradio

    from minigpt4o.common.config import Settings

_SECONDS_BETWEEN_UPDATES = 0.1  # of the page while an answer grows
# Pictures and players are laid out as usual though words keep their blanks; nothing is shared with other sites.
_STYLE = """
.message.component, .message.component > div { white-space: normal !important; }
button[aria-label="Share"] { display: none; }
"""
_CACHE_SECONDS = (600, 3600)  # how often uploads are looked through, and how old they may become


def main(settings: Settings, args: argparse.Namespace) -> int:
    """Open the page and serve it until interrupted. Returns the exit code."""
    from minigpt4o.serve.inference import chat_config, load_chat

    config = with_arguments(chat_config(settings), args)
    credentials(config)  # a wrong setting is told before minutes of loading
    page = build_app(load_chat(settings).fresh, config)
    url = open_page(page, config)
    sys.stdout.write(f"The chat is open at {url} (Ctrl-C closes it)\n")
    sys.stdout.flush()
    page.block_thread()
    return 0


def with_arguments(config: Any, args: argparse.Namespace) -> Any:
    """The configuration with what the command line says laid over it."""
    given = {name: getattr(args, name, None) for name in ("share", "server_name", "server_port")}
    return replace(config, **{name: value for name, value in given.items() if value is not None})


@dataclass
class Visitor:
    """One browser tab: its conversation, and what its page shows."""

    session: ChatSession
    shown: list[dict[str, Any]] = field(default_factory=list)

    def say(self, role: str, content: Any) -> None:
        self.shown.append({"role": role, "content": literal(content) if isinstance(content, str) else content})

    def answer(self, text: str, paths: list[str]) -> Iterator[None]:
        """Send a message; yields whenever there is something new to show. What goes wrong is said in the chat."""
        for path in paths:
            self.say("user", {"path": path})
        if text:
            self.say("user", text)
        self.say("assistant", "")
        reply, note, answer = self.shown[-1], "", ""
        yield
        try:
            already = sum(len(e.images) + len(e.audios) for e in self.session.exchanges)
            images, audios = sort_media(paths, self.session.limits, already)
            with contextlib.closing(self.session.ask(text, images, audios)) as pieces:
                updated = 0.0
                for piece in pieces:
                    if not note and self.session.note:
                        note = self.session.note
                        self.shown.insert(-1, {"role": "assistant", "content": f"({note})"})
                    answer += piece
                    reply["content"] = literal(answer)
                    if time.monotonic() - updated > _SECONDS_BETWEEN_UPDATES:
                        updated = time.monotonic()
                        yield
        except ChatError as error:
            reply["content"] = literal(f"\u26a0 {error}")
        else:
            reply["content"] = reply["content"] or "(no words)"
        yield


_HTML = re.compile(r"<(?=[A-Za-z/!?])|&(?=[#A-Za-z])")


def literal(text: str) -> str:
    """The text with what a browser would take for a tag or an entity made harmless: words stay words on the page."""
    return _HTML.sub(lambda sign: "&lt;" if sign.group() == "<" else "&amp;", text)


def build_app(new_session: Callable[[], ChatSession], config: Any) -> gradio.Blocks:
    """The page; `new_session` is called once per visitor. `config` is that of the runner `chat`."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    def send(message: dict[str, Any], visitor: Visitor | None) -> Iterator[tuple[Any, Any, Visitor]]:
        visitor = visitor or Visitor(new_session())
        text, paths = message.get("text") or "", list(message.get("files") or [])
        busy = gr.MultimodalTextbox(value=None, submit_btn=False, stop_btn=True)
        for _ in visitor.answer(text, paths):
            yield busy, list(visitor.shown), visitor
            busy = gr.skip()
        yield gr.MultimodalTextbox(submit_btn=True, stop_btn=False), list(visitor.shown), visitor

    def stop(visitor: Visitor | None) -> Any:
        if visitor is not None:
            visitor.session.stop()
        return gr.MultimodalTextbox(submit_btn=True, stop_btn=False)

    def reset(visitor: Visitor | None) -> tuple[Any, list[Any], None]:
        stop(visitor)
        return gr.MultimodalTextbox(value=None, submit_btn=True, stop_btn=False), [], None

    def forget(visitor: Visitor | None) -> None:
        stop(visitor)

    with gr.Blocks(title=config.title, analytics_enabled=False, fill_height=True, delete_cache=_CACHE_SECONDS) as page:
        visitor = gr.State(None, delete_callback=forget)
        gr.Markdown(f"# {config.title}" + (f"\n{config.description}" if config.description else ""))
        chatbot = _conversation(config)
        box = _message_box(new_session(), config)
        if shown := _examples(config.examples):
            gr.Examples(shown, inputs=[box], cache_examples=False)
        clear = gr.Button("New chat", size="sm")
        sent = box.submit(send, [box, visitor], [box, chatbot, visitor], concurrency_id="model", api_name="chat")
        box.stop(stop, [visitor], [box], queue=False, cancels=[sent], api_name="stop")
        clear.click(reset, [visitor], [box, chatbot, visitor], queue=False, cancels=[sent], api_name="reset")
        chatbot.clear(reset, [visitor], [box, chatbot, visitor], queue=False, cancels=[sent], api_name=False)
    page.queue(max_size=config.max_queue, default_concurrency_limit=config.concurrency, api_open=False)
    return page


def _conversation(config: Any) -> Any:
    """What was said. It shows what the server remembers: what a browser sends as history is never read."""
    import gradio as gr

    return gr.Chatbot(
        show_label=False,
        scale=1,
        render_markdown=config.markdown,
        sanitize_html=True,
        allow_tags=False,
        latex_delimiters=[],
        allow_file_downloads=False,
        buttons=["copy"],
    )


def _message_box(session: ChatSession, config: Any) -> Any:
    """The place to type, attach and record, for the media this model takes."""
    import gradio as gr

    kinds = [kind for kind in session.encoder.slots if kind in session.encoder.processors]
    sources: list[Any] = (["upload"] if kinds else []) + (["microphone"] if "audio" in kinds else [])
    return gr.MultimodalTextbox(
        show_label=False,
        placeholder="Ask something" + (f", with {' or '.join(_NOUNS[kind] for kind in kinds)}" if kinds else ""),
        file_count="multiple",
        file_types=kinds or None,
        sources=sources,
        max_plain_text_length=config.max_text_chars,
        autofocus=True,
    )


_NOUNS = {"image": "a picture", "audio": "a sound"}


def _examples(lines: list[str]) -> list[list[dict[str, Any]]]:
    """`file|file|question` lines whose files exist."""
    found = []
    for line in lines:
        *files, text = line.split("|")
        if all(Path(file).is_file() for file in files):
            found.append([{"text": text, "files": files}])
    return found


def open_page(page: gradio.Blocks, config: Any) -> str:
    """Serve the page in the background; returns its address. Raises ConfigError for settings that are not safe."""
    from fastapi.middleware import Middleware

    from minigpt4o.serve.guard import Guard

    auth = credentials(config)
    port = free_port(config.server_name, config.server_port)
    if config.server_port and port != config.server_port:
        sys.stderr.write(f"port {config.server_port} is in use; taking {port}\n")
    _, url, public = page.launch(
        server_name=config.server_name,
        server_port=port,
        share=config.share,
        auth=auth or None,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        inbrowser=False,
        max_file_size=round(config.max_file_mb * 2**20),
        footer_links=[],
        css=_STYLE,
        state_session_capacity=1000,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        app_kwargs={"middleware": [Middleware(Guard)]},
    )
    return public or url


def credentials(config: Any) -> list[tuple[str, str]]:
    """Names and passwords. Raises ConfigError if they are malformed, or missing where others can reach the page."""
    pairs = []
    for number, line in enumerate(config.auth):
        name, _, password = line.partition(":")
        if not name or not password:
            raise ConfigError(f"run.auth[{number}] is not of the form name:password")
        pairs.append((name, password))
    if not pairs and not _is_loopback(config.server_name):
        raise ConfigError(
            f"run.server_name {config.server_name!r} can be reached from other machines; set run.auth, for example"
            " ['me:a long password'], or listen at 127.0.0.1"
        )
    if not pairs and config.share:
        raise ConfigError("run.share opens the chat to everyone; set run.auth, for example ['me:a long password']")
    return pairs


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def free_port(server_name: str, wanted: int) -> int:
    """The wanted port if it is free, else some free one."""
    family = socket.AF_INET6 if ":" in server_name else socket.AF_INET
    for port in (wanted, 0):
        with socket.socket(family, socket.SOCK_STREAM) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                door.bind((server_name, port))
            except OSError as error:
                if port == 0:
                    raise ConfigError(f"run.server_name: cannot listen at {server_name!r}: {error.strerror}") from error
                continue
            return int(door.getsockname()[1])
    raise AssertionError("a port of 0 always gives a free one or an error")
