"""Open the port and serve until told to stop; answers that are being given are finished first."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.serve.api.options import Options, options_of
from minigpt4o.serve.api.waiting_room import waiting_room

if TYPE_CHECKING:
    import uvicorn

    from minigpt4o.common.config import Settings
    from minigpt4o.serve.api.service import Service

log = logging.getLogger(__name__)

BACKLOG = 512  # connections that the system holds until they are taken
# For the answers that are being given when the server is told to stop, and then to tell those who are still waiting;
# together less than the 30 seconds after which container systems kill.
GRACE_SECONDS, TELL_SECONDS = 25, 3


def main(settings: Settings, args: argparse.Namespace) -> int:
    """Serve the model of a YAML. Returns the exit code."""
    options = options_of(args)
    need_server()
    door = listen(options)  # a wrong setting is told before minutes of loading
    try:
        door.listen(BACKLOG)
        with waiting_room(door):
            server, service = load(settings, options)
        _stop_in_good_order()
        sys.stdout.write(f"The model {service.name!r} answers at {address_of(door)}/v1 (Ctrl-C ends it)\n")
        sys.stdout.flush()
        server.run(sockets=[door])
    finally:
        door.close()
    return 0


def load(settings: Settings, options: Options) -> tuple[uvicorn.Server, Service]:
    """The model of a YAML, and the server that answers with it."""
    from minigpt4o.serve.api.service import Service, name_of
    from minigpt4o.serve.inference import load_chat
    from minigpt4o.serve.threads import share_cores

    log.info("answers are computed by %d threads (--threads)", share_cores(options.threads))
    service = Service(load_chat(settings), options, name_of(settings))
    return server_of(service), service


def need_server() -> None:
    """Raises ConfigError if the packages of the extra `serve` are not there."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"serve needs {error.name}: pip install 'minigpt4o[serve]'") from error


def server_of(service: Service) -> uvicorn.Server:
    """A server for `run(sockets=[...])`."""
    import uvicorn

    from minigpt4o.serve.api.app import create_app
    from minigpt4o.serve.api.patience import PatientProtocol

    class Server(uvicorn.Server):
        """Callers whose answers are not ready in time when the server is told to stop are told so."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            loop = asyncio.get_running_loop()
            late = loop.call_later(GRACE_SECONDS, lambda: loop.run_in_executor(None, service.close))
            await super().shutdown(sockets)
            late.cancel()

    config = uvicorn.Config(
        create_app(service),
        http=PatientProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_SECONDS + TELL_SECONDS,
        backlog=BACKLOG,
    )
    return Server(config)


def listen(options: Options) -> socket.socket:
    """The port, taken but not yet answering. Raises ConfigError if it cannot be had."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # named as TCP, so that the event loop sends what is small at once instead of waiting for more (40 ms)
    door = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((options.host.strip("[]"), options.port))
    except OSError as error:
        door.close()
        raise ConfigError(
            f"cannot listen at {options.host}:{options.port}: {error.strerror}; choose another with --port (0 = any"
            " free one)"
        ) from error
    return door


def address_of(door: socket.socket) -> str:
    """`http://127.0.0.1:8000`"""
    host, port, *_ = door.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _stop_in_good_order() -> None:
    """The server takes both signals itself and afterwards sends them on to these, which end nothing."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _told)


def _told(number: int, frame: Any) -> None:
    log.info("closed by signal %d", number)
