"""One browser tab: its conversation, and what its page shows of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from minigpt4o.conversation.sample import Box, Media
from minigpt4o.serve.chat import ChatSession, Exchange
from minigpt4o.serve.limits import ChatError, Limits, ensure_count, read_media
from minigpt4o.serve.page.board import Board, upright
from minigpt4o.serve.page.drawing import coloured, drawn, marked, things_of
from minigpt4o.serve.page.files import Files
from minigpt4o.serve.page.said import Said, literal, restore
from minigpt4o.serve.page.saving import about
from minigpt4o.serve.page.shelf import Shelf
from minigpt4o.serve.page.told import told
from minigpt4o.serve.page.words import word

_SECONDS_BETWEEN_UPDATES = 0.1  # of the page while an answer grows


@dataclass(eq=False)
class Visitor:
    """See the module. Only one answer is given at a time."""

    session: ChatSession | None
    shelf: Shelf | None = None
    label: str = ""
    language: str = "en"
    said: list[Said] = field(default_factory=list)
    board: Board = field(default_factory=Board)
    attached: list[str] = field(default_factory=list)  # files of the message being written
    rested: list[Exchange] = field(default_factory=list)  # the conversation while its model is closed
    limits: Limits = field(default_factory=Limits)
    files: Files = field(default_factory=Files)
    stopped: bool = False  # the answer that is being given, or waits for its model

    # ---- what the page shows ----

    @property
    def shown(self) -> list[dict[str, Any]]:
        """Messages as gradio's Chatbot takes them."""
        return [message for said in self.said for message in said.messages()]

    def of_message(self, index: int) -> int | None:
        """Which of `said` the message of this number belongs to."""
        owners = [number for number, said in enumerate(self.said) for _ in said.messages()]
        return owners[index] if 0 <= index < len(owners) else None

    def picture_of(self, said: Said) -> Image.Image | None:
        """The picture that the boxes of an answer lie in."""
        pictures = self._pictures(len(self.said))
        return upright(pictures[said.picture]) if 0 <= said.picture < len(pictures) else None

    # ---- what the visitor does ----

    def answer(self, text: str, paths: list[str], wish: Callable[[ChatSession], Any] | None = None) -> Iterator[None]:
        """Send a message; yields whenever there is something new to show. What goes wrong is said in the chat."""
        said = Said(
            text, paths, [(key, box) for key, box in self.board.boxes if key in paths or _chat_number(key) >= 0]
        )
        self.said.append(said)
        self.board.clear()
        self.attached = []
        yield from self._let(said, wish, lambda session: self._asked(session, said))

    def retry(self, number: int, wish: Callable[[ChatSession], Any] | None = None) -> Iterator[None]:
        """Ask message `number` again; what was said after it is forgotten."""
        if 0 <= number < len(self.said):
            yield from self._again(number, self.said[number].text, wish)

    def edit(self, number: int, text: str, wish: Callable[[ChatSession], Any] | None = None) -> Iterator[None]:
        """Ask message `number` in other words; what was said after it is forgotten."""
        if 0 <= number < len(self.said):
            yield from self._again(number, text, wish)

    def undo(self, number: int) -> Said | None:
        """Forget message `number` and all after it, and give it back."""
        self.stop()
        if not 0 <= number < len(self.said):
            return None
        restore(self.said)
        gone = self.said[number:]
        self.said = self.said[:number]
        for said in gone:
            if said.kept and self.session is not None:
                self.session.undo()
            elif said.kept:
                self.rested.pop()
        if self.session is not None:
            self.session.last = None
        return gone[0]

    def stop(self) -> None:
        self.stopped = True
        if self.session is not None:
            self.session.stop()
        if self.shelf is not None:
            self.shelf.wake()

    def reset(self) -> None:
        """Forget everything that was said and sent."""
        self.stop()
        if self.session is not None:
            self.session.reset()
        self.said, self.rested, self.board, self.attached = [], [], Board(), []

    def leave(self) -> None:
        """The tab is closed."""
        self.stop()
        self.files.clean()

    # ---- models ----

    def sleep(self) -> None:
        if self.session is not None:
            self.rested, self.session = self.session.exchanges, None

    @contextlib.contextmanager
    def awake(self, given_up: Callable[[], bool] = lambda: False) -> Iterator[ChatSession]:
        """The session, its model held open. Raises ChatError if it cannot be opened, or is no longer waited for."""
        if self.shelf is None:
            assert self.session is not None
            yield self.session
            return
        with self.shelf.hold(self.label, given_up) as first:
            if self.session is None:
                self.session = first.fresh()
                self.session.exchanges, self.rested = self.rested, []
            yield self.session

    def switch(self, label: str) -> None:
        """Go on with another model, which reads the whole conversation. Raises ChatError if it cannot."""
        assert self.shelf is not None
        with self.shelf.hold(label) as first:
            fresh = first.fresh()
            old = self.session.exchanges if self.session is not None else self.rested
            for kind in ("image", "audio"):
                fresh.ensure_kind(kind, [media for e in old for media in (e.images if kind == "image" else e.audios)])
            fresh.exchanges = list(old)
            self.stop()
            self.session, self.rested, self.label = fresh, [], label

    def adopt(self, session: ChatSession) -> None:
        """Show the conversation of a session as if it had been held here."""
        self.session, self.said, self.board = session, [], Board()
        for number, exchange in enumerate(session.exchanges):
            paths = [self.files.keep(media) for media in [*exchange.images, *exchange.audios]]
            pictures = self._pictures(number)
            said = Said(exchange.text, paths, kept=True)
            said.boxes = [(f"chat:{box.image}", box) for box in exchange.boxes]
            self.said.append(said)
            first = len(pictures) - len(exchange.images)
            keys = {first + i: path for i, path in enumerate(paths[: len(exchange.images)])}
            self._marks(said, exchange.boxes, pictures, keys)
            self._finish(said, exchange.answer, number)

    # ---- answering ----

    def _again(self, number: int, text: str, wish: Callable[[ChatSession], Any] | None) -> Iterator[None]:
        old = self.said[number]
        said = Said(text, old.paths, old.boxes, old.marks, sent=old.sent)
        place = sum(one.kept for one in self.said[:number])
        kept = old.kept
        before = self.said
        self.said = [*self.said[:number], said]

        def ask(session: ChatSession) -> Generator[str, None, None]:
            if not kept:
                del session.exchanges[place:]
                return self._asked(session, said)
            said.kept = True
            if text == old.text and place == len(session.exchanges) - 1:
                return session.retry()
            return session.edit(place, text)

        yield from self._let(said, wish, ask)
        if not said.kept and kept:  # refused: the history is unchanged, and so is the page but for the reason
            refused = said.reply
            self.said = before
            before[-1].note = ""
            self.said = [*before, Said(text, reply=refused)]
            yield

    def _let(
        self,
        said: Said,
        wish: Callable[[ChatSession], Any] | None,
        ask: Callable[[ChatSession], Generator[str, None, None]],
    ) -> Iterator[None]:
        answer = ""
        said.over, self.stopped = False, False
        restore(self.said)
        if self.shelf is not None and not self.shelf.is_open(self.label):
            said.reply = word("loading", self.language, name=self.label)
        yield
        try:
            with self.awake(lambda: self.stopped) as session:
                if said.reply:  # it is open now
                    said.reply = ""
                    yield
                if wish is not None:
                    wish(session)
                session.notes = []
                with contextlib.closing(ask(session)) as pieces:
                    updated = 0.0
                    for piece in pieces:
                        said.kept, said.note = True, self._noted(session)
                        answer += piece
                        said.reply = literal(answer)
                        if time.monotonic() - updated > _SECONDS_BETWEEN_UPDATES:
                            updated = time.monotonic()
                            yield
                said.kept, said.note = True, self._noted(session)
                self._finish(said, session.exchanges[-1].answer, len(session.exchanges) - 1)
        except ChatError as error:
            said.kept, said.over = False, True
            said.reply = literal(f"\u26a0 {told(error, self.language)}")
        yield

    def _noted(self, session: ChatSession) -> str:
        return " ".join(told(note, self.language) for note in session.notes)

    def _asked(self, session: ChatSession, said: Said) -> Generator[str, None, None]:
        """Read what was sent, and ask."""
        already = [media for e in session.exchanges for media in e.images]
        files = len(already) + sum(len(e.audios) for e in session.exchanges)
        ensure_count(len(said.paths), files, session.limits)
        found = [(path, *read_media(path, session.limits)) for path in said.paths]
        said.sent = {path: media for path, _, media in found}
        images = [(path, media) for path, kind, media in found if kind == "image"]
        audios = [media for _, kind, media in found if kind == "audio"]
        numbers = {path: len(already) + i for i, (path, _) in enumerate(images)}
        boxes = [replace(box, image=numbers.get(key, _chat_number(key))) for key, box in said.boxes]
        said.boxes = [(f"chat:{box.image}", box) for box in boxes]
        exchange = Exchange(said.text, [media for _, media in images], audios, boxes=boxes)
        keys = {number: path for path, number in numbers.items()}
        self._marks(said, boxes, [*already, *exchange.images], keys)
        return session.ask(said.text, exchange.images, audios, boxes)

    def _pictures(self, number: int) -> list[Media]:
        """Those of the chat up to exchange `number`."""
        exchanges = self.session.exchanges if self.session is not None else self.rested
        return [media for e in exchanges[: number + 1] for media in e.images]

    def _marks(self, said: Said, boxes: Sequence[Box], pictures: Sequence[Media], keys: Mapping[int, str]) -> None:
        """Files of the pictures with the boxes that were drawn on them."""
        said.marks = {}
        for image in sorted({box.image for box in boxes}):
            picture = upright(pictures[image]) if 0 <= image < len(pictures) else None
            if picture is not None:
                shown = marked(picture, [box for box in boxes if box.image == image])
                said.marks[keys.get(image, f"chat:{image}")] = self.files.picture(shown)

    def _finish(self, said: Said, answer: str, number: int) -> None:
        """Show the whole answer, its boxes drawn on the picture that they are about."""
        said.over = True
        session = self.session
        assert session is not None
        said.reply = literal(answer) or word("no_words", self.language)
        pictures = self._pictures(number)
        image = about(session.exchanges[number], pictures)
        picture = upright(pictures[image]) if image is not None else None
        if picture is None:
            return
        said.things = things_of(answer, picture.size, image or 0)
        if said.things and image is not None:
            said.picture = image
            said.reply = coloured(answer)
            said.drawn = self.files.picture(drawn(picture, said.things))

    # ---- the board ----

    def lay_board(self, paths: list[str]) -> None:
        """The pictures of the message being written, or of the chat if it has none, for drawing on."""
        self.attached, new = list(paths), []
        for path in paths:
            try:
                kind, media = read_media(path, self.limits)
            except ChatError:  # said when it is sent
                continue
            if kind == "image":
                new.append((path, media))
        exchanges = self.session.exchanges if self.session is not None else self.rested
        old = [(f"chat:{i}", media) for i, media in enumerate(m for e in exchanges for m in e.images)]
        self.board.lay([*old, *new])


def _chat_number(key: str) -> int:
    """The number of a picture of the chat; -1 for the key of another."""
    return int(key[5:]) if key.startswith("chat:") and key[5:].isdigit() else -1
