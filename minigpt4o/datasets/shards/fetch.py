"""Bring the bytes of a named source: a command's output, an http(s) address, or any URL that fsspec knows."""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from minigpt4o.common.errors import DataError

PIECE = 1 << 20  # bytes handed on at once
SILENCE = 300  # seconds without a byte after which a source is given up
_SHELL = re.compile(r"[|<>;&`$\n]")
# What fsspec needs for the usual addresses, told in place of an ImportError.
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}


class FetchError(OSError):
    """A source did not give its bytes; it may be worth another try."""


def hide_secrets(url: str) -> str:
    """The address for messages and logs: without password and query, where signatures stand."""
    if url.startswith("pipe:"):
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def check_source(url: str, where: str) -> None:
    """Raises DataError if it could never be fetched: a shell's language, an unknown protocol, a missing package."""
    if url.startswith("pipe:"):
        _command(url, where)
    elif urlsplit(url).scheme not in ("http", "https"):
        _file_system(url, where)


def fetch(url: str, where: str) -> Iterator[bytes]:
    """The bytes of a source piece by piece. Raises FetchError, or DataError if no second try could help."""
    if url.startswith("pipe:"):
        return _piped(_command(url, where), where)
    if urlsplit(url).scheme in ("http", "https"):
        return _downloaded(url, where)
    return _opened(url, where)


def _command(url: str, where: str) -> list[str]:
    text = url.removeprefix("pipe:").strip()
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise DataError(f"{where}: {url!r} cannot be divided into words ({error})") from error
    found = _SHELL.search(text)
    if found or not words:
        what = f"holds {found[0]!r}" if found else "names no command"
        raise DataError(
            f"{where}: {url!r} {what}; the command is started without a shell, so pipes and redirections do not work: "
            "put them into a script and name the script"
        )
    return words


def _piped(words: list[str], where: str) -> Iterator[bytes]:
    """A command's output; a command that fails or falls silent is an error, whatever it wrote before."""
    with tempfile.TemporaryFile() as told:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=told, bufsize=0, start_new_session=True
            )
        except OSError as error:
            raise DataError(f"{where}: the command {words[0]!r} cannot be started ({error.strerror})") from error
        assert process.stdout is not None
        try:
            while True:
                if not select.select([process.stdout], [], [], SILENCE)[0]:
                    raise FetchError(f"{where}: {words[0]} gave nothing for {SILENCE} s")
                piece = process.stdout.read(PIECE)
                if not piece:
                    break
                yield piece
            code = process.wait(timeout=SILENCE)
        except subprocess.TimeoutExpired:
            raise FetchError(f"{where}: {words[0]} closed its output but did not end for {SILENCE} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # and what it started itself: it is the first of its group
                process.wait()
            process.stdout.close()
        if code:
            told.seek(0)
            said = told.read()[-500:].decode("utf-8", "replace").strip()
            raise FetchError(f"{where}: {words[0]} ended with code {code}" + (f": {said}" if said else ""))


def _downloaded(url: str, where: str) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=SILENCE) as answer:
            expected, got = answer.headers.get("Content-Length"), 0
            while piece := answer.read(PIECE):
                got += len(piece)
                yield piece
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404, 410):
            raise DataError(f"{where}: {hide_secrets(url)} answers {error.code} {error.reason}") from error
        raise FetchError(f"{where}: {hide_secrets(url)} answers {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        raise FetchError(f"{where}: {hide_secrets(url)} cannot be read ({error})") from error
    if expected is not None and expected.isdigit() and got != int(expected):
        raise FetchError(f"{where}: {hide_secrets(url)} broke off after {got:,} of {int(expected):,} bytes")


def _opened(url: str, where: str) -> Iterator[bytes]:
    system, path = _file_system(url, where)
    try:
        with system.open(path, "rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except FileNotFoundError as error:
        raise DataError(f"{where}: {hide_secrets(url)} does not exist") from error
    except OSError as error:
        raise FetchError(f"{where}: {hide_secrets(url)} cannot be read ({error})") from error


def _file_system(url: str, where: str):  # type: ignore[no-untyped-def]
    """(fsspec file system, path in it)."""
    import fsspec

    scheme = url.partition("://")[0].lower()
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(scheme, "")
        mend = f"pip install {package}" if package else str(error)
        raise DataError(f"{where}: {scheme}:// needs a package that is not installed: {mend}") from error
    except ValueError as error:
        raise DataError(f"{where}: {hide_secrets(url)}: unknown kind of address ({error})") from error
