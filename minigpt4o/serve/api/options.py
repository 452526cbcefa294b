"""How the server is to be reached, by whom, and what it takes; checked before minutes of loading."""

from __future__ import annotations

import argparse
import ipaddress
from dataclasses import dataclass, fields

from minigpt4o.common.errors import ConfigError

MIN_KEY = 16  # characters of a key that others than this machine may try to guess


@dataclass(frozen=True)
class Options:
    """The flags of `serve`, by their names."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0 = any free one
    api_key: str = ""  # "" = nobody is asked
    allow_urls: bool = False  # fetch pictures and sounds from public addresses
    model_name: str = ""  # "" = that of the checkpoint
    max_batch: int = 16  # answers at one time
    max_waiting: int = 64  # requests that wait beside them
    max_body_mb: float = 64  # of one request
    timeout: float = 300  # seconds one request may take

    @property
    def body_bytes(self) -> int:
        return round(self.max_body_mb * 2**20)

    @property
    def held_bytes(self) -> int:
        """Bytes of all requests together that are held at a time."""
        return max(4 * self.body_bytes, 512 * 2**20)


def options_of(args: argparse.Namespace) -> Options:
    """The options of a command line. Raises ConfigError if strangers could come in."""
    given = {f.name: getattr(args, f.name, None) for f in fields(Options)}
    options = Options(**{name: value for name, value in given.items() if value is not None})
    if is_loopback(options.host):
        return options
    if not options.api_key:
        raise ConfigError(
            f"--host {options.host!r} can be reached from other machines; set a key with MINIGPT4O_API_KEY (or"
            " --api-key), or listen at 127.0.0.1"
        )
    if len(options.api_key) < MIN_KEY:
        raise ConfigError(
            f"the API key has {len(options.api_key)} characters, and --host {options.host!r} can be reached from other"
            f" machines; take at least {MIN_KEY}, for example those of `openssl rand -hex 24`"
        )
    return options


def is_loopback(name: str) -> bool:
    """Whether an address, or a name, is this machine's own and cannot be reached from others."""
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name.lower() == "localhost"
