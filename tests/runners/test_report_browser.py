"""The report in a real browser: its filters, its baseline switch, its boxes, and that nothing harmful runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_world import EVIL, report

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright to look with (extra test)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium to look with")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path, _ = report(tmp_path_factory.mktemp("report"))
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield found
        found.close()


class Watched:
    """A page with all that it complains about and all that it asks for."""

    def __init__(self, browser: Any, file: str, size: dict[str, int], scheme: str = "light") -> None:
        self.context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url[:40]))
        self.page.goto(file)

    def status(self) -> str:
        return str(self.page.text_content("#status"))

    def shown(self) -> str:
        return str(self.page.text_content("#detail h3"))

    def until(self, expression: str) -> None:
        """Wait until it is true; the page's policy forbids playwright's own way, which evaluates text in the page."""
        for _ in range(200):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never true: {expression}")

    def ids(self) -> list[str]:
        """All examples that fit, by stepping through them from the first."""
        found: list[str] = []
        if self.page.locator("#list button").count():
            self.page.locator("#list button").first.click()
        while self.page.locator("#list button").count():
            found.append(self.shown())
            if self.page.is_disabled("#after"):
                break
            self.page.click("#after")
        return found


@pytest.fixture
def watched(browser: Any, file: str) -> Iterator[Watched]:
    found = Watched(browser, file, WIDE)
    yield found
    found.context.close()
    assert found.said == []  # whatever was done in the test: no error, no word in the console, no dialog
    assert [url for url in found.asked if not url.startswith(("file:", "data:"))] == []


def test_no_word_of_a_model_or_a_data_set_is_run_or_becomes_markup(watched: Watched) -> None:
    page = watched.page
    for step in range(9):
        assert page.title().startswith("Evaluation of job </script>")
        assert page.locator("script").count() == 2
        assert page.locator("img:not([src^='data:'])").count() == 0
        assert page.evaluate("document.querySelectorAll('[onerror]').length") == 0
        if step < 8:
            page.click("#after")
    assert watched.shown().startswith("</script><script>")
    assert "\\u202egnirts" in watched.shown()
    page.evaluate("const s = document.createElement('script'); s.text = 'window.ran = 1'; document.body.append(s)")
    assert page.evaluate("window.ran") is None  # the policy lets no other script run
    assert any("Content Security Policy" in one for one in watched.said)
    watched.said.clear()


def test_errors_are_filtered_by_set_model_verdict_and_words(watched: Watched) -> None:
    page = watched.page
    assert watched.status() == "example 1 of 9"
    page.select_option("#by-set", "boxes")
    page.select_option("#by-verdict", "wrong")
    assert watched.ids() == ["box 0"]
    page.select_option("#by-verdict", "unread")
    assert watched.ids() == ["box 2"]
    page.select_option("#by-verdict", "not-right")
    assert sorted(watched.ids()) == ["box 0", "box 2"]
    page.select_option("#by-model", index=0)
    assert len(watched.ids()) == 4  # the first model is right nowhere
    page.select_option("#by-set", "")
    page.select_option("#by-verdict", "")
    page.select_option("#by-model", "second")
    page.fill("#by-words", "THREE four")
    assert sorted(watched.ids()) == ["say 0", "say 1"]
    page.fill("#by-words", "nobody said this")
    assert watched.status().startswith("no example fits")
    assert page.locator("#detail").text_content() == ""


def test_the_worst_come_first_for_error_rates_too(watched: Watched) -> None:
    watched.page.select_option("#by-set", "speech")
    watched.page.select_option("#by-order", "low")
    assert watched.ids() == ["say 1", "say 0"]
    watched.page.select_option("#by-order", "high")
    watched.page.keyboard.press("k")
    assert watched.shown() in ("say 0", "say 1")


def test_the_baseline_switch_filters_and_shows_the_sample_under_each_condition(watched: Watched) -> None:
    page = watched.page
    page.select_option("#by-set", "choices")
    page.select_option("#by-verdict", "right")
    assert len(watched.ids()) == 2
    page.click("#by-condition label:has-text('blind')")
    assert len(watched.ids()) == 3  # right without having seen the picture
    page.click("#by-condition label:has-text('shuffled')")
    assert watched.status().startswith("no example fits")
    page.select_option("#by-verdict", "")
    columns = page.locator("#detail .under > div")
    assert [columns.nth(i).get_attribute("data-condition") for i in range(3)] == ["seen", "blind", "shuffled"]
    assert [columns.nth(i).locator("image").count() for i in range(3)] == [1, 0, 1]
    pictures = {columns.nth(i).locator("image").get_attribute("href") for i in (0, 2)}
    assert len(pictures) == 2  # its own, and that of another
    said = columns.nth(2).locator(".answer.main")
    assert (said.get_attribute("data-verdict"), said.locator("> .words-of").text_content()) == ("wrong", "blue")
    page.click("#beside")
    assert columns.count() == 1
    assert columns.first.get_attribute("data-condition") == "shuffled"


def test_examples_are_stepped_through_by_keyboard(watched: Watched) -> None:
    page = watched.page
    for key, place in (("ArrowRight", 2), ("j", 3), ("ArrowLeft", 2), ("k", 1), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        assert watched.status() == f"example {place} of 9", key
    page.keyboard.press("2")
    assert page.is_checked("#by-condition input[value=blind]")
    page.keyboard.press("b")
    assert not page.is_checked("#beside")
    page.keyboard.press("/")
    page.keyboard.type("jk box 1")
    assert page.input_value("#by-words") == "jk box 1"  # letters are words here, not commands
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    assert page.is_checked("#by-condition input[value=seen]")


def test_boxes_lie_where_they_belong_in_the_picture(watched: Watched) -> None:
    page = watched.page
    page.select_option("#by-set", "boxes")
    page.fill("#by-words", "{<50><50><100><100>}")
    assert watched.shown() == "box 0"
    frame = page.locator("#detail [data-condition=seen] svg image").bounding_box()
    for css, share in (("true", (0, 0, 0.5, 0.5)), ("said", (0.5, 0.5, 0.5, 0.5))):
        place = page.evaluate(
            "css => { const r = document.querySelector(`[data-condition=seen] rect.box.${css}`);"
            " const m = r.getScreenCTM(), b = r.getBBox();"
            " return [b.x * m.a + m.e + scrollX, b.y * m.d + m.f + scrollY, b.width * m.a, b.height * m.d]; }",
            css,
        )
        x, y, w, h = frame["x"], frame["y"], frame["width"], frame["height"]
        wanted = [x + share[0] * w, y + share[1] * h, share[2] * w, share[3] * h]
        scroll = page.evaluate("[scrollX, scrollY]")
        assert place == pytest.approx([wanted[0] + scroll[0], wanted[1] + scroll[1], *wanted[2:]], abs=1.5), css
    assert frame["width"] / frame["height"] == pytest.approx(400 / 300, abs=0.02)
    page.locator("#detail [data-condition=blind]").get_by_text("no picture was given").wait_for()


def test_sounds_can_be_played_and_choices_show_their_likelihoods(watched: Watched) -> None:
    page = watched.page
    page.select_option("#by-set", "speech")
    watched.until("document.querySelector('#detail audio').readyState > 0")
    assert page.evaluate("document.querySelector('#detail audio').duration") == pytest.approx(0.5, abs=0.02)
    page.select_option("#by-set", "choices")
    shown = page.locator("#detail [data-condition=seen] .choices")
    widths = [float(shown.locator("rect").nth(i).get_attribute("width") or 0) for i in range(3)]
    assert widths == pytest.approx([100, 36.79, 8.21], abs=0.01)  # exp of the difference per token
    assert shown.locator("b").all_text_contents() == ["red"]


def test_everything_that_can_be_used_has_a_name_and_links_open_their_fold(watched: Watched) -> None:
    page = watched.page
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select, audio, svg[role=img], table')].filter(e =>"
        " !(e.labels && e.labels.length && e.labels[0].textContent.trim()) && !e.getAttribute('aria-label')"
        " && !e.textContent.trim()).map(e => e.outerHTML.slice(0, 80))"
    )
    assert unnamed == []
    assert page.evaluate("[...document.querySelectorAll('img')].every(e => e.hasAttribute('alt'))")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert not page.evaluate("document.getElementById('set-1').open")
    page.click("a[href='#set-1']")
    watched.until("document.getElementById('set-1').open")


@pytest.mark.parametrize(
    ("name", "size", "scheme"), [("light", WIDE, "light"), ("dark", WIDE, "dark"), ("phone", PHONE, "light")]
)
def test_it_fits_its_window_in_both_schemes_and_on_a_phone(
    browser: Any, file: str, name: str, size: dict[str, int], scheme: str
) -> None:
    watched = Watched(browser, file, size, scheme)
    page = watched.page
    page.select_option("#by-set", "boxes")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(shade) < 60) == (scheme == "dark")
    if name == "phone":  # a thumb needs some room
        heights = page.evaluate("['#before', '#after', '#by-set'].map(q => document.querySelector(q).offsetHeight)")
        assert min(heights) >= 32
    folder = os.environ.get("MINIGPT4O_ARTIFACTS")
    if folder:
        for part in ("scores", "examples", "detail"):
            page.evaluate("id => document.getElementById(id).scrollIntoView()", part)
            page.screenshot(path=Path(folder) / f"report-{name}-{part}.png")
    watched.context.close()
    assert watched.said == []


def test_without_script_the_tables_are_there_and_the_browser_says_why_it_is_not(browser: Any, file: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file)
    assert page.locator("table.scores tr").count() > 6
    assert "need the page's own script" in str(page.locator("noscript").text_content())
    context.close()


def test_the_words_of_the_report_are_the_words_that_were_said(watched: Watched) -> None:
    watched.page.select_option("#by-set", "boxes")
    watched.page.select_option("#by-verdict", "unread")
    said = watched.page.locator("#detail [data-condition=seen] .answer.main > .words-of").first.text_content()
    assert said == EVIL.replace("\u202e", "\\u202e")
