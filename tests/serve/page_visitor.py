"""A visitor of the page: a tab of a real browser that remembers what it complained about and asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright to look with (extra test)")
sync_api.expect.set_options(timeout=30_000)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HERE = "http://127.0.0.1:"
EVIL = "<img src=x onerror=\"window.hurt=1;fetch('http://192.0.2.7/')\"><script>window.hurt=1</script>"


class Tab:
    """A visitor's browser, with all that the page complains about and all that it asks for."""

    def __init__(self, browser: Any, url: str, size: dict[str, int] = WIDE, locale: str = "en-US") -> None:
        self.context = browser.new_context(viewport=size, locale=locale, reduced_motion="reduce")
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)
        self.page.wait_for_selector("#message textarea")

    def attach(self, *files: Path) -> None:
        before = self.page.locator("#message .thumbnail-item").count()
        self.page.set_input_files("#message input[type=file]", [str(file) for file in files])
        sync_api.expect(self.page.locator("#message .thumbnail-item")).to_have_count(before + len(files))

    def begin(self, text: str, *files: Path) -> None:
        if files:
            self.attach(*files)
        self.page.fill("#message textarea", text)
        self.page.press("#message textarea", "Enter")

    def ask(self, text: str, *files: Path) -> str:
        """The answer once it is there."""
        before = len(self.replies())
        self.begin(text, *files)
        self.page.wait_for_function("n => document.querySelectorAll('#chat [data-testid=bot]').length > n", arg=before)
        return self.settled()

    def settled(self) -> str:
        """The last words of the model, when it has ended."""
        self.page.wait_for_selector("#message .submit-button")
        self.page.wait_for_timeout(900)  # the panels follow
        return next(reply for reply in reversed(self.replies()) if reply)

    def replies(self) -> list[str]:
        return [str(text).strip() for text in self.page.locator("#chat [data-testid=bot]").all_inner_texts()]

    def said(self) -> list[str]:
        texts = self.page.locator("#chat [data-testid=user]").all_inner_texts()
        return [text.strip() for text in texts if text.strip()]

    def button(self, name: str) -> None:
        self.page.locator(f'#chat button[aria-label="{name}"]').last.click()

    def unfold(self, part: str) -> None:
        self.page.locator(f"#{part} button").first.click()

    def prompt(self) -> str:
        """What the model read."""
        if not self.page.locator("#prompt textarea").is_visible():
            self.unfold("seen")
        return str(self.page.input_value("#prompt textarea"))

    def draw(self, left: float, top: float, right: float, bottom: float) -> None:
        """Click two corners, in shares of the sides of the (square) picture on the board."""
        image = self.page.locator("#board img")
        image.scroll_into_view_if_needed()
        frame = image.bounding_box()
        side = min(frame["width"], frame["height"])
        x, y = frame["x"] + (frame["width"] - side) / 2, frame["y"] + (frame["height"] - side) / 2
        self.page.mouse.click(x + left * side, y + top * side)
        sync_api.expect(self.page.locator("#marked")).to_contain_text("Now click")
        self.page.wait_for_timeout(500)  # the picture with the first corner arrives
        self.page.mouse.click(x + right * side, y + bottom * side)
        sync_api.expect(self.page.locator("#marked")).to_contain_text("next message")

    def shot(self, name: str) -> None:
        folder = os.environ.get("MINIGPT4O_ARTIFACTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(folder) / f"demo-{name}.png"), full_page=True)

    def ensure_harmless(self) -> None:
        assert self.page.evaluate("window.hurt") is None
        assert not [url for url in self.asked if not url.startswith((HERE, "data:", "blob:"))]
        assert not self.complaints, self.complaints


def opened(tiny_model: Any, **values: Any) -> Iterator[str]:
    """The page of the tiny model under two labels."""
    from minigpt4o.common.registry import Part, registry
    from minigpt4o.serve.inference import open_chat
    from minigpt4o.serve.page.shelf import Shelf
    from minigpt4o.serve.web import build_app, open_page

    config = registry.get("runner", "chat").Config(
        vis_processor=Part("processor", "blip2_image_eval", {"image_size": 16}),
        audio_processor=Part("processor", "log_mel", {"n_mels": 8, "seconds": 0.12}),
        server_port=0,
        title="a tiny chat",
        **values,
    )
    makers = {"a tiny chat": lambda: open_chat(tiny_model, config), "another": lambda: open_chat(tiny_model, config)}
    page = build_app(None, config, Shelf(makers))
    yield open_page(page, config)
    page.close()
