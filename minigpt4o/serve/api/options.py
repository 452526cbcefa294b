"""How the server is to be reached, by whom, and what it takes; checked before minutes of loading."""

from __future__ import annotations

import argparse
import ipaddress
import re
from dataclasses import dataclass, fields

from minigpt4o.common.errors import ConfigError

_KEY = re.compile(r"[!-~]*")
_ORIGIN = re.compile(r"https?://[^/?#@\s]+")
MIN_KEY = 16  # characters of a key that others than this machine may try to guess


@dataclass(frozen=True)
class Options:
    """The flags of `serve`, by their names."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0 = any free one
    api_key: str = ""  # "" = nobody is asked
    allow_urls: bool = False  # fetch pictures and sounds from public addresses
    model_name: str = ""  # "" = that of the checkpoint
    max_batch: int = 0  # answers at one time; 0 = as the YAML says
    max_waiting: int = 0  # requests that wait beside them; 0 = as the YAML says
    max_body_mb: float = 64  # of one request
    timeout: float = 300  # seconds one request may take
    allow_origin: tuple[str, ...] = ()  # pages of these origins may ask; "*" = of all
    threads: int = 0  # of torch; 0 = as the environment says, else all cores but one

    @property
    def sizes(self) -> dict[str, int]:
        """Of the engine, those that were given."""
        given = {"max_batch": self.max_batch, "max_waiting": self.max_waiting}
        return {name: value for name, value in given.items() if value}

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
    values = {name: value for name, value in given.items() if value is not None}
    values["api_key"] = str(values.get("api_key", "")).strip()  # a key read from a file may have brought its line end
    options = Options(**{**values, "allow_origin": tuple(values.get("allow_origin", ()))})
    if not _KEY.fullmatch(options.api_key):
        raise ConfigError(
            "the API key holds blanks or letters that a header cannot; take those of `openssl rand -hex 24`"
        )
    _check_origins(options)
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


def _check_origins(options: Options) -> None:
    for origin in options.allow_origin:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"--allow-origin {origin!r} is none; write it as browsers do: https://chat.example:8080")
    if "*" in options.allow_origin and not options.api_key:
        raise ConfigError(
            "--allow-origin '*' lets every page you open use this server; name the origins, or set a key with"
            " MINIGPT4O_API_KEY"
        )


def is_loopback(name: str) -> bool:
    """Whether an address, or a name, is this machine's own and cannot be reached from others."""
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name.lower() == "localhost"
