"""What happens when a visitor draws boxes: clicks, another picture, other files in the message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from minigpt4o.serve.page.layout import Layout
from minigpt4o.serve.page.visitor import Visitor
from minigpt4o.serve.page.words import LANGUAGES, word


class BoardActs:
    """The board of the page; a visitor's own boxes lie in their `Visitor`."""

    def __init__(self, ui: Layout, visitor: gr.State, new_visitor: Callable[[str], Visitor]) -> None:
        self.ui, self.visitor, self.new_visitor = ui, visitor, new_visitor

    def wire(self) -> None:
        """Say what happens when the board is used."""
        ui, visitor = self.ui, self.visitor
        board = ui.drawn
        quick: dict[str, Any] = {"queue": False, "api_name": False, "show_progress": "hidden"}
        ui.box.change(self.attached, [ui.box, visitor, ui.language], [*board, visitor], **quick)
        ui.board.select(self.click, [visitor, ui.language], board, **quick)
        ui.which.input(self.choose, [ui.which, visitor, ui.language], board, **quick)
        ui.no_boxes.click(self.clear_boxes, [visitor, ui.language], board, **quick)

    def attached(self, message: dict[str, Any] | None, visitor: Visitor | None, language: str) -> tuple[Any, ...]:
        """The message being written has other files."""
        paths = list((message or {}).get("files") or [])
        if visitor is None and not paths:
            return *[gr.skip()] * len(self.ui.drawn), visitor
        visitor = visitor or self.new_visitor(language)
        if paths == visitor.attached:
            return *[gr.skip()] * len(self.ui.drawn), visitor
        return (*self.laid(visitor, paths, LANGUAGES.get(language, "en")), visitor)

    def click(self, visitor: Visitor | None, language: str, data: gr.SelectData) -> tuple[Any, ...]:
        place = data.index
        picture = visitor.board.shown() if visitor is not None else None
        if visitor is not None and picture is not None and isinstance(place, list | tuple) and len(place) == 2:
            visitor.board.click(float(place[0]) / picture.width, float(place[1]) / picture.height)
        return self._drawn(visitor, LANGUAGES.get(language, "en"))

    def choose(self, which: int | None, visitor: Visitor | None, language: str) -> tuple[Any, ...]:
        if visitor is not None and isinstance(which, int):
            visitor.board.choose(which)
        return self._drawn(visitor, LANGUAGES.get(language, "en"))

    def clear_boxes(self, visitor: Visitor | None, language: str) -> tuple[Any, ...]:
        if visitor is not None:
            visitor.board.clear()
        return self._drawn(visitor, LANGUAGES.get(language, "en"))

    def laid(self, visitor: Visitor | None, paths: list[str], language: str) -> tuple[Any, ...]:
        if visitor is not None:
            visitor.lay_board(paths)
        return self._drawn(visitor, language)

    def _drawn(self, visitor: Visitor | None, language: str) -> tuple[Any, ...]:
        board = visitor.board if visitor is not None else None
        if board is None or not board.pictures:
            nothing = gr.Image(value=None, visible=False), gr.Dropdown(choices=[], value=None, visible=False)
            return *nothing, word("how", language), gr.Button(visible=False)
        names = [(f"{number + 1}. {media}", number) for number, (_, media) in enumerate(board.pictures)]
        if board.corner is not None:
            told = word("corner", language)
        elif board.boxes:
            told = word("marked", language, n=len(board.boxes))
        else:
            told = word("draw", language)
        which = gr.Dropdown(choices=names, value=board.chosen, visible=len(names) > 1)
        started = bool(board.boxes) or board.corner is not None
        return gr.Image(value=board.shown(), visible=True), which, told, gr.Button(visible=started)
