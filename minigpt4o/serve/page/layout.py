"""Where everything stands on the page, and how it is called in each language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from minigpt4o.serve.page.controls import bounds
from minigpt4o.serve.page.tasks import TASKS
from minigpt4o.serve.page.words import LANGUAGES, word

_STEPS = {"temperature": 0.05, "top_p": 0.05, "num_beams": 1, "max_new_tokens": 1, "repetition_penalty": 0.05}
_NAMES = {
    "temperature": "temperature",
    "top_p": "top_p",
    "num_beams": "beams",
    "max_new_tokens": "tokens",
    "repetition_penalty": "repetition",
}


class Layout:
    """Gradio's components, made inside an open gr.Blocks."""

    def __init__(self, config: Any, labels: Sequence[str], kinds: Sequence[str], language: str) -> None:
        self.config, self.kinds = config, list(kinds)
        self._named: list[tuple[Any, Callable[[str], Any]]] = []  # what changes with the language, and how
        self._start = language
        self.greeted = gr.Textbox("", visible=False)  # whether this browser was given a visitor once
        self._top(labels)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                self._chat()
            with gr.Column(scale=2, min_width=300):
                self._beside()

    @property
    def worded(self) -> list[Any]:
        """Components with words on them."""
        return [component for component, _ in self._named]

    def in_language(self, language: str) -> list[Any]:
        """Their updates, in the order of `worded`."""
        return [update(language) for _, update in self._named]

    @property
    def controls(self) -> list[Any]:
        """How to answer, in the order `controls.wished` takes it."""
        return [self.greedy, *self.sliders.values()]

    @property
    def looked(self) -> list[Any]:
        """What `Page.look` fills."""
        return [*self.drawn, self.boxes, self.media, self.numbers, self.prompt, self.raw]

    @property
    def drawn(self) -> list[Any]:
        """What `BoardActs.laid` fills."""
        return [self.board, self.which, self.marked, self.no_boxes]

    # ---- parts ----

    def _add(self, kind: Any, key: str, what: str = "label", **how: Any) -> Any:
        """A component whose label (or value, or placeholder) is a word of the page."""
        component = kind(**{what: word(key, self._start)}, **how)
        self._named.append((component, lambda language: kind(**{what: word(key, language)})))
        return component

    def _top(self, labels: Sequence[str]) -> None:
        config = self.config
        with gr.Row(elem_id="top", equal_height=False):
            with gr.Column(scale=3, min_width=240):
                gr.Markdown(f"# {config.title}" + (f"\n{config.description}" if config.description else ""))
            self.model = self._add(
                gr.Dropdown,
                "model",
                choices=list(labels),
                value=labels[0],
                visible=len(labels) > 1,
                scale=2,
                min_width=160,
                elem_id="model",
            )
            named = next(name for name, short in LANGUAGES.items() if short == self._start)
            self.language = gr.Radio(
                list(LANGUAGES),
                value=named,
                label=" / ".join(word("language", short) for short in LANGUAGES.values()),
                show_label=False,
                container=False,
                scale=1,
                min_width=190,
                elem_id="language",
            )

    def _chat(self) -> None:
        config = self.config
        self.examples = _examples(config.examples)
        # It shows what the server remembers: what a browser sends as history is never read.
        self.chatbot = self._add(
            gr.Chatbot,
            "empty",
            "placeholder",
            show_label=False,
            elem_id="chat",
            height="56vh",
            editable="user",
            render_markdown=config.markdown,
            sanitize_html=True,
            allow_tags=False,
            latex_delimiters=[],
            allow_file_downloads=False,
            feedback_options=None,
            group_consecutive_messages=False,  # in a group, gradio 6.31 cannot edit words that follow a file
            buttons=["copy"],
            examples=[{"text": text, "files": list(files)} for text, files in self.examples],
        )
        for example in self.chatbot.examples or []:  # not removed with the uploads that have become old
            self.chatbot.keep_in_cache.update(file["path"] for file in example["files"])
        with gr.Row(elem_id="under"):
            shown = (
                [task for task in TASKS if not config.tasks or task in config.tasks] if "image" in self.kinds else []
            )
            with gr.Row(elem_id="tasks"):
                self.tasks = {task: self._add(gr.Button, f"task_{task}", "value", size="sm") for task in shown}
            self.new = self._add(gr.Button, "new", "value", size="sm", elem_id="new")
        self.hint = gr.Markdown("", elem_id="hint")
        self.box = self._message_box()

    def _message_box(self) -> Any:
        """The place to type, attach and record, for the media this model takes."""
        kinds = self.kinds
        sources: list[Any] = (["upload"] if kinds else []) + (["microphone"] if "audio" in kinds else [])
        box = gr.MultimodalTextbox(
            label=word("message", self._start),
            show_label=False,
            placeholder=self._ask(self._start),
            file_count="multiple",
            file_types=None,  # judged by content, and refused in the chat; gradio would refuse by name, in silence
            sources=sources,
            max_plain_text_length=self.config.max_text_chars,
            autofocus=True,
            elem_id="message",
        )

        def update(language: str) -> Any:
            return gr.MultimodalTextbox(label=word("message", language), placeholder=self._ask(language))

        self._named.append((box, update))
        return box

    def _ask(self, language: str) -> str:
        media = word("or", language).join(word(kind, language) for kind in self.kinds)
        return word("ask", language) + (word("with", language, media=media) if media else "")

    def _beside(self) -> None:
        pictures = "image" in self.kinds
        with self._add(gr.Accordion, "picture", open=pictures, visible=pictures):
            self.which = self._add(gr.Dropdown, "which", choices=[], visible=False, elem_id="which")
            plain: dict[str, Any] = {"type": "pil", "interactive": False, "buttons": [], "height": 300}
            self.board = self._add(gr.Image, "board", elem_id="board", show_label=False, visible=False, **plain)
            # Below the picture: it does not move between two clicks, however long the sentence is.
            self.marked = gr.Markdown(word("how", self._start), elem_id="marked")
            self.no_boxes = self._add(gr.Button, "no_boxes", "value", size="sm", visible=False, elem_id="no-boxes")
            self.boxes = self._add(gr.AnnotatedImage, "answered", visible=False, height=320, elem_id="boxes")
        self._sampling()
        with self._add(gr.Accordion, "seen", open=False, elem_id="seen"):
            self.numbers = gr.Markdown(word("nothing", self._start), elem_id="numbers")
            self.media = self._add(
                gr.Gallery,
                "media",
                columns=2,
                height=240,
                object_fit="contain",
                interactive=False,
                buttons=[],
                type="pil",
            )
            text: dict[str, Any] = {"interactive": False, "lines": 2, "max_lines": 12}
            self.prompt = self._add(gr.Textbox, "prompt", elem_id="prompt", **text)
            self.raw = self._add(gr.Textbox, "raw", elem_id="raw", **text)
        with self._add(gr.Accordion, "saving", open=False, elem_id="saving"):
            self.save = self._add(gr.Button, "save", "value", size="sm", elem_id="save")
            self.files = gr.File(
                visible=False, file_count="multiple", show_label=False, interactive=False, elem_id="files"
            )
            self.saved = gr.Markdown("", elem_id="saved")
            self.open = self._add(gr.UploadButton, "open", size="sm", file_types=[".json"], elem_id="open")

    def _sampling(self) -> None:
        config = self.config
        with self._add(gr.Accordion, "sampling", open=False, elem_id="sampling"):
            self.greedy = self._add(gr.Checkbox, "greedy", value=not config.do_sample)
            self.sliders: dict[str, Any] = {}
            for name, key in _NAMES.items():
                least, most = bounds(name, config)
                self.sliders[name] = self._add(
                    gr.Slider, key, minimum=least, maximum=most, step=_STEPS[name], value=getattr(config, name)
                )


def _examples(lines: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Words and files of `file|file|question` lines whose files exist."""
    found = []
    for line in lines:
        *files, text = line.split("|")
        if all(Path(file).is_file() for file in files):
            found.append((text, files))
    return found
