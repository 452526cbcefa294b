"""Chat in the terminal: words are sent as they are, lines that begin with a slash are commands."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from minigpt4o.common.files import write_bytes
from minigpt4o.conversation.sample import Media
from minigpt4o.serve.chat import ChatSession
from minigpt4o.serve.limits import ChatError, read_media

if TYPE_CHECKING:
    from minigpt4o.common.config import Settings

HELP = """\
  /image FILE   attach a picture to the next message      /undo        forget the last question and its answer
  /audio FILE   attach a sound to the next message        /retry       ask the last question again
  /save FILE    write the chat with its files             /edit WORDS  ask it in other words, with its files
  /open FILE    go on with a chat that was saved          /reset       forget the whole chat
  /help         this list                                 /quit        leave (or Ctrl-D)
  Several files may be attached, in any mix. Ctrl-C stops an answer."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # would move the cursor, or set a title, or worse
FILES = ("image", "audio", "save", "open")  # commands that need a file name


def main(settings: Settings, args: argparse.Namespace) -> int:
    """Talk until the person leaves; with `--text`, give one answer and end. Returns the exit code."""
    from minigpt4o.serve.inference import load_chat

    terminal = Terminal(load_chat(settings))
    images, audios = _paths(args, "image"), _paths(args, "audio")
    text = getattr(args, "text", None)
    if text is None and not images and not audios:
        return terminal.talk()
    try:
        for path in [*images, *audios]:
            terminal.attach(path)
        terminal.answer(text or "")
    except ChatError as error:
        sys.stderr.write(f"chat: {error}\n")
        return error.exit_code
    return 0


def _paths(args: argparse.Namespace, name: str) -> list[str]:
    given = getattr(args, name, None) or []
    return [given] if isinstance(given, str) else list(given)


@dataclass
class Terminal:
    """One person at a keyboard."""

    session: ChatSession
    source: TextIO = field(default_factory=lambda: sys.stdin)
    target: TextIO = field(default_factory=lambda: sys.stdout)
    images: list[Media] = field(default_factory=list)  # attached to the next message
    audios: list[Media] = field(default_factory=list)

    def talk(self) -> int:
        """Read lines until the end. Returns 0."""
        self._say(f"{HELP}\n")
        if self._is_keyboard:
            _edit_lines()
        while (line := self._read()) is not None:
            try:
                if line.startswith("/"):
                    if not self._command(line):
                        break
                elif line.strip() or self.images or self.audios:
                    self.answer(line)
            except ChatError as error:
                self._say(f"! {error}\n")
        return 0

    def answer(self, text: str) -> None:
        """Send a message with what is attached, and write the answer as it comes. Raises ChatError."""
        self._write(self.session.ask(text, self.images, self.audios))
        self.images, self.audios = [], []

    def _write(self, pieces: Iterable[str]) -> None:
        begun = False
        try:
            with _interrupt_stops(self.session):
                for piece in pieces:
                    if not begun and self.session.note:
                        self._say(f"({self.session.note})\n")
                    begun = True
                    self._say(piece)
        finally:
            if begun:
                self._say("\n")
        if not begun:
            self._say("(no words)\n")

    def attach(self, path: str) -> None:
        """Add a file to the next message. Raises ChatError if it cannot be taken."""
        kind, media = read_media(Path(path).expanduser(), self.session.limits)
        if kind not in self.session.encoder.slots:
            raise ChatError(f"This model does not take this kind of file ({kind}).")
        (self.images if kind == "image" else self.audios).append(media)

    def _command(self, line: str) -> bool:
        """Do what a slash line says; False = leave."""
        word, _, rest = line[1:].strip().partition(" ")
        rest = rest.strip()
        if word in ("quit", "exit", "q"):
            return False
        if word in FILES and not rest.strip("'\""):
            raise ChatError(f"/{word} needs a file name.")
        commands: dict[str, Callable[[str], None]] = {
            **dict.fromkeys(("image", "audio"), self._attach),
            "save": self._save,
            "open": self._open,
            "undo": self._undo,
            "retry": lambda rest: self._write(self.session.retry()),
            "edit": self._edit,
            "reset": self._reset,
            "help": lambda rest: self._say(f"{HELP}\n"),
        }
        if word not in commands:
            raise ChatError(
                f"There is no command /{word}; /help lists them. To send words that begin with /, add a space."
            )
        commands[word](rest)
        return True

    def _attach(self, rest: str) -> None:
        self.attach(rest.strip("'\""))
        self._say(f"(attached: {self._attached()})\n")

    def _reset(self, rest: str) -> None:
        self.session.reset()
        self.images, self.audios = [], []
        self._say("(new conversation)\n")

    def _undo(self, rest: str) -> None:
        gone = self.session.undo()
        if gone is None:
            raise ChatError("Nothing was asked yet.")
        self._say(f"(forgotten: {gone.text or 'what was attached'})\n")

    def _edit(self, rest: str) -> None:
        if not rest:
            raise ChatError("/edit needs the words to ask in place of the last ones.")
        self._write(self.session.edit(len(self.session.exchanges) - 1, rest))

    def _save(self, rest: str) -> None:
        path = Path(rest.strip("'\"")).expanduser()
        try:
            write_bytes(path, self.session.to_json().encode("utf-8", "surrogatepass"))
        except OSError as error:
            raise ChatError(f"{path} cannot be written: {error.strerror}.") from error
        self._say(f"(written: {path})\n")

    def _open(self, rest: str) -> None:
        path = Path(rest.strip("'\"")).expanduser()
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ChatError(f"{path} cannot be read: {error.strerror}.") from error
        self.session.from_json(text)
        self.images, self.audios = [], []
        for exchange in self.session.exchanges:
            files = ", ".join(str(media) for media in [*exchange.images, *exchange.audios])
            self._say(f"you{f' [{files}]' if files else ''}> {exchange.text}\n{exchange.answer}\n")
        if self.session.note:
            self._say(f"({self.session.note})\n")

    def _attached(self) -> str:
        return ", ".join(str(media) for media in [*self.images, *self.audios])

    def _read(self) -> str | None:
        """The next line without its end; None at the end of input."""
        files = f" [{self._attached()}]" if self.images or self.audios else ""
        while self._is_keyboard:
            try:
                return input(f"you{files}> ")
            except EOFError:
                self._say("\n")
                return None
            except KeyboardInterrupt:  # the answer may have ended just before: the chat must not go with it
                self._say("\n(Ctrl-D or /quit leaves)\n")
        return line.rstrip("\n") if (line := self.source.readline()) else None

    @property
    def _is_keyboard(self) -> bool:
        return self.source is sys.stdin and sys.stdin.isatty()

    def _say(self, text: str) -> None:
        self.target.write(printable(text))
        self.target.flush()


def _edit_lines() -> None:
    """Arrow keys, a history, and Tab for commands and file names, where the system has them."""
    try:
        import readline
    except ImportError:  # not on Windows
        return
    readline.set_completer_delims("")
    readline.set_completer(lambda text, number: next(iter(completions(text)[number:]), None))
    readline.parse_and_bind("tab: complete")


def printable(text: str) -> str:
    """The text without what a terminal would obey."""
    return _CONTROL.sub("\ufffd", text)


def completions(line: str) -> list[str]:
    """How a line that begins with a command may go on."""
    if not line.startswith("/"):
        return []
    command, blank, name = line.partition(" ")
    if not blank:
        return [word for word in re.findall(r"/[a-z]+", HELP) if word.startswith(command)]
    if command[1:] not in FILES:
        return []
    place = Path(name).expanduser()
    folder, begun = (place, "") if not name or name.endswith("/") else (place.parent, place.name)
    try:
        files = sorted(file for file in folder.iterdir() if file.name.startswith(begun))
    except OSError:
        return []
    shown = [file for file in files if begun.startswith(".") or not file.name.startswith(".")]
    return [f"{command} {file}{'/' if file.is_dir() else ''}" for file in shown]


@contextmanager
def _interrupt_stops(session: ChatSession) -> Iterator[None]:
    """Ctrl-C ends the answer and not the program."""

    def stop(signum: int, frame: FrameType | None) -> None:
        session.stop()

    try:
        before = signal.signal(signal.SIGINT, stop)
    except ValueError:  # not in the main thread: nobody can press Ctrl-C here
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
