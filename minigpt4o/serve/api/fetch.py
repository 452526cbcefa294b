"""Pictures from public addresses. Nothing of this machine's own network can be reached through it.

A name is resolved once, every address it has must be public, and the connection goes to the address that was checked;
the same for each redirect. Sizes and times are bounded. Proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from minigpt4o.serve.limits import ChatError

MAX_REDIRECTS = 3
MAX_URL = 4096  # characters
_MOVED = (301, 302, 303, 307, 308)
_CHUNK = 1 << 16
# Addresses for special use that not every version of `ipaddress` knows as such, and the one at which Azure's machines
# reach their host (its own metadata are at 169.254.169.254; those of Oracle's cloud also at 192.0.0.192).
_SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "3fff::/20")))
_UNICAST = ipaddress.ip_network("2000::/3")  # all that IPv6 has given to the open internet so far
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def addresses_of(host: str, port: int) -> list[str]:
    """All addresses a name has, numbers in any spelling included. Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Whether it can only be a machine of the open internet: not this one, not its network, not a group of machines."""
    try:
        found: Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped or found.sixtofour or found.teredo or any(found in net for net in _NAT64):
            return False  # other addresses are hidden in these; no public server is found by one
        if found not in _UNICAST:
            return False
    if any(found in net for net in _SPECIAL if net.version == found.version):
        return False
    return found.is_global and not (
        found.is_multicast or found.is_reserved or found.is_loopback or found.is_link_local or found.is_unspecified
    )


class Fetcher:
    """Downloads of at most `max_bytes` within `seconds`."""

    def __init__(
        self,
        max_bytes: int,
        seconds: float = 10.0,
        resolve: Callable[[str, int], list[str]] = addresses_of,
        connect: Callable[[tuple[str, int], float], socket.socket] = socket.create_connection,
    ) -> None:
        self.max_bytes, self.seconds = max_bytes, seconds
        self.resolve, self.connect = resolve, connect

    def fetch(self, url: str) -> bytes:
        """The bytes at an address. Raises ChatError, meant for the caller."""
        end = time.monotonic() + self.seconds
        for _ in range(MAX_REDIRECTS + 1):
            found = self._get(_parsed(url), end)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise ChatError(f"This address leads on to others more than {MAX_REDIRECTS} times.")

    def _get(self, url: SplitResult, end: float) -> bytes | str:
        """The content, or the address it has moved to."""
        try:
            with self._connection(url, end) as connection:
                target = (url.path or "/") + (f"?{url.query}" if url.query else "")
                headers = {"Accept": "image/*, audio/*", "Accept-Encoding": "identity", "User-Agent": "minigpt4o"}
                connection.request("GET", target, headers=headers)
                answer = connection.getresponse()
                if answer.status in _MOVED and answer.headers.get("Location"):
                    return str(answer.headers["Location"])
                if answer.status != 200:
                    raise ChatError(f"The address answers with status {answer.status}.")
                return self._content(answer, end)
        except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
            if isinstance(error, ChatError):
                raise
            slow = isinstance(error, TimeoutError) or time.monotonic() >= end
            what = f"did not answer within {self.seconds:g} seconds" if slow else "could not be read"
            raise ChatError(f"The address {what}.") from error

    def _content(self, answer: http.client.HTTPResponse, end: float) -> bytes:
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise ChatError("The address sends compressed content, which was not asked for.")
        held = bytearray()
        while chunk := answer.read1(_CHUNK):
            held += chunk
            if len(held) > self.max_bytes:
                raise ChatError(f"The file at this address has more than {self.max_bytes / 2**20:.3g} MB.")
        if time.monotonic() >= end:  # it was cut, which looks like the end of a file of unknown length
            raise TimeoutError
        if answer.length:  # bytes that were promised and did not come
            raise ChatError("The address did not send the whole file.")
        return bytes(held)

    @contextmanager
    def _connection(self, url: SplitResult, end: float) -> Iterator[http.client.HTTPConnection]:
        """To an address that was checked; it is cut when the time is over, whatever the other side does."""
        host = (url.hostname or "").encode("idna").decode("ascii") if ":" not in (url.hostname or "") else url.hostname
        secure = url.scheme == "https"
        port = url.port or (443 if secure else 80)
        address = self._checked(str(host), port)
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        held: list[Any] = [self.connect((address, port), left)]
        cut = threading.Timer(max(end - time.monotonic(), 0.0), lambda: _shut(held[-1]))
        cut.daemon = True
        cut.start()
        connection = http.client.HTTPConnection(str(host), port)
        connection.auto_open = 0  # never to another address
        try:
            if secure:
                held.append(ssl.create_default_context().wrap_socket(held[0], server_hostname=str(host)))
            connection.sock = held[-1]
            yield connection
        finally:
            cut.cancel()
            connection.close()
            held[-1].close()

    def _checked(self, host: str, port: int) -> str:
        try:
            found = self.resolve(host, port)
        except (OSError, UnicodeError):
            found = []
        if not found or not all(is_public(address) for address in found):
            raise ChatError("This does not lead to a public address; pictures can also be sent as data URLs.")
        return found[0]


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ChatError("This is no valid address.") from error
    if len(url) > MAX_URL or any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise ChatError("This is no valid address.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ChatError("Only http:// and https:// addresses can be fetched.")
    if parts.username is not None or parts.password is not None:
        raise ChatError("An address with a user name or password is not fetched.")
    return parts


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
