"""Chat in the browser: one page, one conversation per visitor, answers as they are generated."""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.serve.chat import ChatSession
from minigpt4o.serve.page.said import literal
from minigpt4o.serve.page.script import head
from minigpt4o.serve.page.shelf import Shelf, makers_of
from minigpt4o.serve.page.style import STYLE, theme
from minigpt4o.serve.page.visitor import Visitor

__all__ = ["Visitor", "build_app", "credentials", "free_port", "literal", "main", "open_page", "with_arguments"]

if TYPE_CHECKING:
    import gradio

    from minigpt4o.common.config import Settings


def main(settings: Settings, args: argparse.Namespace) -> int:
    """Open the page and serve it until interrupted. Returns the exit code."""
    from minigpt4o.serve.inference import chat_config, load_chat
    from minigpt4o.serve.threads import share_cores

    config = with_arguments(chat_config(settings), args)
    credentials(config)  # a wrong setting is told before minutes of loading
    share_cores()
    shelf = Shelf(makers_of(settings, config), config.models_open)
    shelf.put(config.title, load_chat(settings))  # a wrong setting ends the program here, not at the first question
    page = build_app(None, config, shelf)
    url = open_page(page, config)
    sys.stdout.write(f"The chat is open at {url} (Ctrl-C closes it)\n")
    sys.stdout.flush()
    page.block_thread()
    return 0


def with_arguments(config: Any, args: argparse.Namespace) -> Any:
    """The configuration with what the command line says laid over it."""
    given = {name: getattr(args, name, None) for name in ("share", "auth", "server_name", "server_port")}
    return replace(config, **{name: value for name, value in given.items() if value is not None})


def build_app(new_session: Callable[[], ChatSession] | None, config: Any, shelf: Shelf | None = None) -> gradio.Blocks:
    """The page of one model, or of those on a shelf, the first of which is shown first.

    `new_session` is called once, and each visitor has a `fresh()` one. `config` is that of the runner `chat`.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from minigpt4o.serve.page.app import Page

    if shelf is None:
        assert new_session is not None, "give a session or a shelf"
        shelf = Shelf({config.title: new_session})
    return Page(shelf, config).blocks()


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
        css=STYLE,
        head=head(),
        theme=theme(),
        state_session_capacity=1000,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        run_history=False,
        app_kwargs={"middleware": [Middleware(Guard)], "openapi_url": None},
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
