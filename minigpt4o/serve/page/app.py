"""The page itself: gradio's components, and what happens when they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import gradio as gr

from minigpt4o.serve.chat import ChatSession
from minigpt4o.serve.limits import ChatError, Limits
from minigpt4o.serve.page.board_acts import BoardActs
from minigpt4o.serve.page.controls import wished
from minigpt4o.serve.page.drawing import colour, enlarged, labelled
from minigpt4o.serve.page.layout import Layout
from minigpt4o.serve.page.said import literal, typed
from minigpt4o.serve.page.saving import page_of
from minigpt4o.serve.page.seen import media_seen, numbers, prompt_seen
from minigpt4o.serve.page.shelf import Shelf
from minigpt4o.serve.page.tasks import prompts_of, with_task
from minigpt4o.serve.page.told import told
from minigpt4o.serve.page.visitor import Visitor
from minigpt4o.serve.page.words import LANGUAGES, language_of, word

_CACHE_SECONDS = (600, 3600)  # how often uploads are looked through, and how old they may become


_QUICK: dict[str, Any] = {"queue": False, "api_name": False, "show_progress": "hidden"}


class Page:
    """One page for all visitors; what is a visitor's own lies in their `Visitor`."""

    def __init__(self, shelf: Shelf, config: Any) -> None:
        self.shelf, self.config = shelf, config
        with shelf.hold(shelf.labels[0]) as session:
            self.template = session.encoder.template.name
            self.kinds = [kind for kind in session.encoder.slots if kind in session.encoder.processors]

    def blocks(self) -> gr.Blocks:
        """The page, ready to be launched."""
        config = self.config
        how: dict[str, Any] = {"analytics_enabled": False, "fill_height": True, "delete_cache": _CACHE_SECONDS}
        with gr.Blocks(title=config.title, **how) as page:
            self.visitor = gr.State(None, delete_callback=_leave)
            self.ui = Layout(config, self.shelf.labels, self.kinds, "ja" if config.language == "ja" else "en")
            self._wire_chat()
            self.board = BoardActs(self.ui, self.visitor, self.new_visitor)
            self.board.wire()
            self._wire_rest()
            greeted = [self.visitor, self.ui.greeted, self.ui.language, *self.ui.worded]
            load = page.load(self.greet, [], greeted, queue=False, api_name=False)
            load.then(self.look, [self.visitor, self.ui.language], self.ui.looked, **_QUICK)
        page.queue(max_size=config.max_queue, default_concurrency_limit=config.concurrency, api_open=False)
        return page

    def new_visitor(self, language: str = "English") -> Visitor:
        """Someone who has said nothing yet; the first model answers them."""
        limits = Limits(**{each.name: getattr(self.config, each.name) for each in fields(Limits)})
        known = LANGUAGES.get(language, "en")
        visitor = Visitor(None, self.shelf, self.shelf.labels[0], known, limits=limits)
        self.shelf.know(visitor)
        return visitor

    # ---- the chat ----

    def _wire_chat(self) -> None:
        ui, visitor = self.ui, self.visitor
        shown = [ui.box, ui.chatbot, visitor]
        one = {"concurrency_id": "model"}
        known = [visitor, ui.language, ui.greeted, *ui.controls]
        sent = ui.box.submit(self.send, [ui.box, *known], shown, api_name="chat", **one)
        again = ui.chatbot.retry(self.retry, known, shown, api_name=False, **one)
        edited = ui.chatbot.edit(self.edit, known, shown, api_name=False, **one)
        undone = ui.chatbot.undo(self.undo, [visitor], shown, queue=False, api_name=False)
        ui.chatbot.example_select(self.example, [], [ui.box], queue=False, api_name=False)
        ui.box.stop(self.stop, [visitor], None, queue=False, api_name="stop")
        going = [sent, again, edited]
        cleared = [
            ui.new.click(self.reset, [visitor], shown, queue=False, cancels=going, api_name="reset"),
            ui.chatbot.clear(self.reset, [visitor], shown, queue=False, cancels=going, api_name=False),
        ]
        for event in [*going, undone, *cleared]:
            event.then(self.look, [visitor, ui.language], ui.looked, **_QUICK)

    def send(
        self, message: dict[str, Any], visitor: Visitor | None, language: str, greeted: str, *controls: Any
    ) -> Iterator[tuple[Any, ...]]:
        visitor = visitor or self._stranger(language, greeted)
        text, paths = message.get("text") or "", list(message.get("files") or [])
        yield from self._follow(visitor, visitor.answer(text, paths, self._wish(controls)))

    def retry(
        self, data: gr.RetryData, visitor: Visitor | None, language: str, greeted: str, *controls: Any
    ) -> Iterator[tuple[Any, ...]]:
        visitor = visitor or self._stranger(language, greeted)
        number = _number(visitor, data.index)
        if number is None:
            yield gr.skip(), visitor.shown, visitor
            return
        yield from self._follow(visitor, visitor.retry(number, self._wish(controls)))

    def edit(
        self, data: gr.EditData, visitor: Visitor | None, language: str, greeted: str, *controls: Any
    ) -> Iterator[tuple[Any, ...]]:
        visitor = visitor or self._stranger(language, greeted)
        number = _number(visitor, data.index)
        if number is None or not isinstance(data.value, str):
            yield gr.skip(), visitor.shown, visitor
            return
        yield from self._follow(visitor, visitor.edit(number, typed(data.value), self._wish(controls)))

    def _stranger(self, language: str, greeted: str) -> Visitor:
        """A visitor for a browser that this server does not know; one that was greeted hears that it is forgotten."""
        short = LANGUAGES.get(language, "en")
        if greeted:
            gr.Warning(word("forgotten", short), title=word("notice", short))
        return self.new_visitor(language)

    def undo(self, visitor: Visitor | None, data: gr.UndoData) -> tuple[Any, ...]:
        number = _number(visitor, data.index)
        said = visitor.undo(number) if visitor is not None and number is not None else None
        back = gr.skip() if said is None else gr.MultimodalTextbox(value={"text": said.text, "files": said.paths})
        return back, visitor.shown if visitor else gr.skip(), visitor

    def _wish(self, controls: Sequence[Any]) -> Callable[[ChatSession], None]:
        def wish(session: ChatSession) -> None:
            session.decoding = wished(session.decoding, controls, self.config)

        return wish

    def _follow(self, visitor: Visitor, updates: Iterator[None]) -> Iterator[tuple[Any, ...]]:
        """The page while an answer grows."""
        box = gr.MultimodalTextbox(value=None, submit_btn=False, stop_btn=True)
        try:
            for _ in updates:
                yield box, list(visitor.shown), visitor
                box = gr.skip()
        finally:
            updates.close()  # type: ignore[attr-defined]
        yield gr.MultimodalTextbox(submit_btn=True, stop_btn=False), list(visitor.shown), visitor

    def example(self, data: gr.SelectData) -> Any:
        """The example of this number in the message; what a browser says of its words and files is not read."""
        examples = self.ui.examples
        if not isinstance(data.index, int) or not 0 <= data.index < len(examples):
            return gr.skip()
        text, files = examples[data.index]
        return gr.MultimodalTextbox(value={"text": text, "files": list(files)})

    def stop(self, visitor: Visitor | None) -> None:
        if visitor is not None:
            visitor.stop()

    def reset(self, visitor: Visitor | None) -> tuple[Any, ...]:
        if visitor is not None:
            visitor.reset()
        return gr.MultimodalTextbox(value=None, submit_btn=True, stop_btn=False), [], visitor

    # ---- beside the chat ----

    def look(self, visitor: Visitor | None, language: str) -> tuple[Any, ...]:
        """Board, boxes of the answer, and what the model saw, after anything has changed."""
        tongue, paths = LANGUAGES.get(language, "en"), visitor.attached if visitor is not None else []
        if visitor is None or visitor.session is None:
            return (*self.board.laid(visitor, paths, tongue), None, [], numbers(None, tongue), "", "")
        session = visitor.session
        session_last = session.last if session.exchanges else None
        last = session.exchanges[-1] if session.exchanges else None
        return (
            *self.board.laid(visitor, paths, tongue),
            _annotated(visitor),
            media_seen(session),
            numbers(session_last, tongue),
            prompt_seen(session) if session_last else "",
            last.answer if last else "",
        )

    def _wire_rest(self) -> None:
        ui, visitor = self.ui, self.visitor
        spoken = ui.language.input(self.speak, [ui.language, visitor], [ui.hint, ui.saved, *ui.worded], **_QUICK)
        for task, button in ui.tasks.items():
            typed_so_far = [ui.box, ui.language, visitor]
            button.click(_later(self.task, task), typed_so_far, [ui.box, ui.hint], **_QUICK)
        ui.save.click(self.save, [visitor, ui.language], [ui.files, ui.saved], queue=False, api_name="save")
        opened = ui.open.upload(
            self.open, [ui.open, visitor, ui.language], [ui.chatbot, visitor, ui.saved], api_name=False
        )
        chosen, changed = [ui.model, visitor, ui.language], [ui.model, visitor, ui.hint]
        switched = ui.model.input(self.switch, chosen, changed, concurrency_id="model", api_name=False)
        for event in (opened, switched, spoken):
            event.then(self.look, [visitor, ui.language], ui.looked, **_QUICK)

    def greet(self, request: gr.Request) -> list[Any]:
        """The page in the language that the browser asks for."""
        language = language_of(self.config.language, request.headers.get("accept-language", ""))
        name = next(name for name, short in LANGUAGES.items() if short == language)
        return [self.new_visitor(name), "yes", name, *self.ui.in_language(language)]

    def speak(self, language: str, visitor: Visitor | None) -> list[Any]:
        short = LANGUAGES.get(language, "en")
        if visitor is not None:
            visitor.language = short
        return ["", "", *self.ui.in_language(short)]  # what was said in the other language goes

    def task(
        self, task: str, message: dict[str, Any] | None, language: str, visitor: Visitor | None
    ) -> tuple[Any, str]:
        """The message begins with the words of a task; its files stay."""
        short = LANGUAGES.get(language, "en")
        template = self.template
        if visitor is not None and visitor.session is not None:
            template = visitor.session.encoder.template.name
        prompts = prompts_of(self.config.tasks, template, short)
        message = message or {}
        text = with_task(message.get("text") or "", prompts.get(task, ""), prompts)
        files = list(message.get("files") or [])
        return gr.MultimodalTextbox(value={"text": text, "files": files}), word(f"hint_{task}", short)

    def save(self, visitor: Visitor | None, language: str) -> tuple[Any, str]:
        """The chat as two files."""
        short = LANGUAGES.get(language, "en")
        if visitor is None or not any(said.kept for said in visitor.said):
            return gr.File(value=None, visible=False), word("no_chat", short)
        saved, page = (visitor.files.folder() / name for name in ("chat.json", "chat.html"))
        try:
            with visitor.awake() as session:
                saved.write_text(session.to_json(), encoding="utf-8")
                page.write_text(page_of(session, self.config.title, short), encoding="utf-8")
        except ChatError as error:
            return gr.File(value=None, visible=False), literal(told(error, short))
        size = saved.stat().st_size / 2**20
        said = word("too_large", short, n=f"{size:.1f}") if size > self.config.max_file_mb else word("files", short)
        return gr.File(value=[str(saved), str(page)], visible=True), said

    def open(self, path: str | None, visitor: Visitor | None, language: str) -> tuple[Any, ...]:
        """Go on with a saved chat."""
        short = LANGUAGES.get(language, "en")
        visitor = visitor or self.new_visitor(language)
        try:
            if path is None or Path(path).stat().st_size > self.config.max_file_mb * 2**20:
                most = f"{self.config.max_file_mb:g}"
                raise ChatError(f"Saved chats are taken up to {most} MB.", "large_saved", most=most)
            with visitor.awake() as session:
                visitor.adopt(session.from_json(Path(path).read_bytes()))
                notes = [told(note, short) for note in session.notes]
                said = " ".join(notes) or word("opened", short)
        except ChatError as error:
            said = told(error, short)
        return visitor.shown, visitor, literal(said)

    def switch(self, label: str, visitor: Visitor | None, language: str) -> tuple[Any, ...]:
        """Let another model answer; the conversation stays."""
        visitor, short = visitor or self.new_visitor(language), LANGUAGES.get(language, "en")
        if label == visitor.label:  # gradio says so too when the list is only left with the keyboard
            return gr.skip(), visitor, gr.skip()
        try:
            visitor.switch(label)
            said = word("switched", short, name=label)
        except ChatError as error:
            said = f"\u26a0 {told(error, short)}"
        return visitor.label, visitor, literal(said)


def _leave(visitor: Visitor | None) -> None:
    if visitor is not None:
        visitor.leave()


def _number(visitor: Visitor | None, index: Any) -> int | None:
    """The exchange that a message of the page belongs to."""
    place = index[0] if isinstance(index, list | tuple) and index else index
    return visitor.of_message(place) if visitor is not None and isinstance(place, int) else None


def _annotated(visitor: Visitor) -> Any:
    """The newest answer's boxes for gr.AnnotatedImage; hidden if it has none."""
    said = visitor.said[-1] if visitor.said else None
    picture = visitor.picture_of(said) if said is not None and said.things else None
    if said is None or picture is None:
        return gr.AnnotatedImage(value=None, visible=False)
    large = enlarged(picture)
    found = labelled(said.things, large.size, word("box", visitor.language))
    shades = {name: colour(int(name.split()[0]) - 1) for _, name in found}
    return gr.AnnotatedImage(value=(large, found), color_map=shades, visible=True)


def _later(act: Callable[..., Any], first: Any) -> Callable[..., Any]:
    def run(message: Any, language: Any, visitor: Any) -> Any:
        return act(first, message, language, visitor)

    return run
