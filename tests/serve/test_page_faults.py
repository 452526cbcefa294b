"""What may happen to a visitor in a real browser: a lost server, a full queue, old files, a model that opens slowly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from page_visitor import CHROMIUM, Tab, sync_api
from small_media import png, wav

WORDS = "words that are being typed"


def served(model: Any, folder: Path, **values: Any) -> Any:
    """A page for one at a time and one who waits, with an example: `url`, `page`, `go`.

    The first of its two models opens when `go` is set.
    """
    from minigpt4o.common.registry import Part, registry
    from minigpt4o.serve.inference import open_chat
    from minigpt4o.serve.page.shelf import Shelf
    from minigpt4o.serve.web import build_app, open_page

    (folder / "example.png").write_bytes(png("blue"))
    config = registry.get("runner", "chat").Config(
        vis_processor=Part("processor", "blip2_image_eval", {"image_size": 16}),
        audio_processor=Part("processor", "log_mel", {"n_mels": 8, "seconds": 0.12}),
        max_new_tokens=16,
        min_new_tokens=4,
        concurrency=1,
        max_queue=1,
        examples=[f"{folder / 'example.png'}|what is on it?"],
        **{"server_port": 0, **values},
    )
    go = threading.Event()
    go.set()

    def first() -> Any:
        go.wait(60)
        return open_chat(model, config)

    page = build_app(None, config, Shelf({"first": first, "second": lambda: open_chat(model, config)}))
    return SimpleNamespace(url=open_page(page, config), page=page, go=go)


@pytest.fixture(scope="module")
def place(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    place = served(tiny_model, tmp_path_factory.mktemp("place"))
    yield place
    place.go.set()
    place.page.close()


@pytest.fixture
def tab(browser: Any, place: Any) -> Iterator[Tab]:
    place.go.set()
    tab = Tab(browser, place.url)
    yield tab
    tab.context.close()


def hear(tab: Tab, words: str) -> None:
    sync_api.expect(tab.page.locator(".toast-body").last).to_contain_text(words)


def written(tab: Tab) -> Any:
    return sync_api.expect(tab.page.locator("#message textarea"))


def clean_up(place: Any) -> None:
    """As gradio does it, as if an hour had gone."""
    from gradio.route_utils import delete_files_created_by_app

    delete_files_created_by_app(place.page, 0)


def test_stop_ends_the_wait_for_a_model_and_a_full_queue_is_told(browser, place, tab) -> None:
    waiting, late = Tab(browser, place.url), Tab(browser, place.url, locale="ja-JP")
    waiting.page.locator("#model input").first.click()
    waiting.page.get_by_role("option", name="second").click()
    sync_api.expect(waiting.page.locator("#hint")).to_contain_text("second")  # the first model is closed for it
    place.go.clear()
    tab.begin("hello")
    sync_api.expect(tab.page.locator("#chat [data-testid=bot]")).to_contain_text("is being opened")
    waiting.begin("and I")
    sync_api.expect(waiting.page.locator("#chat")).to_contain_text("queue: 1/1")
    late.begin("何?")
    hear(late, "多くの人が回答を待っています")
    hear(late, "エラー")
    written(late).to_have_value("何?")
    tab.page.click("#message .stop-button")
    assert "stopped before" in tab.settled()
    place.go.set()
    assert waiting.settled()
    tab.button("Retry")
    sync_api.expect(tab.page.locator("#chat [data-testid=bot]")).not_to_contain_text("stopped before")
    tab.settled()
    assert tab.said() == ["hello"]
    for other in (waiting, late):
        other.context.close()


def test_each_control_reaches_the_answer(tab, monkeypatch) -> None:
    from minigpt4o.serve.chat import ChatSession

    asked: list[Any] = []
    ask = ChatSession.ask
    monkeypatch.setattr(ChatSession, "ask", lambda self, *rest: (asked.append(self.decoding), ask(self, *rest))[1])
    tab.unfold("sampling")
    numbers = tab.page.locator("#sampling input[type=number]")
    for number, value in enumerate(("0.7", "0.9", "3", "5", "1.3")):
        numbers.nth(number).fill(value)
        numbers.nth(number).blur()
    assert tab.ask("hello")
    tab.page.locator("#sampling input[type=checkbox]").click()
    assert tab.ask("hello")
    tab.unfold("seen")
    assert "answer tokens\t5" in tab.page.inner_text("#numbers")
    beams, drawn = asked
    assert (beams.num_beams, beams.max_new_tokens, beams.do_sample) == (3, 5, False)
    assert (drawn.temperature, drawn.top_p, drawn.repetition_penalty, drawn.do_sample) == (0.7, 0.9, 1.3, True)
    tab.ensure_harmless()


def test_files_that_the_clean_up_removed_are_there_again_when_they_are_needed(place, tab, files) -> None:
    tab.ask("what is there?", files["red.png"])
    tab.ask("and now?")
    clean_up(place)
    tab.button("Retry")
    tab.settled()
    assert pixels(tab, "#chat [data-testid=user] img") > 0
    clean_up(place)
    for words in ("and now?", "what is there?"):
        tab.button("Undo")
        written(tab).to_have_value(words)
    sync_api.expect(tab.page.locator("#message .thumbnail-item")).to_have_count(1)
    tab.page.press("#message textarea", "Enter")
    tab.page.wait_for_selector("#chat [data-testid=bot]")
    assert not tab.settled().startswith("\u26a0")
    assert "\u27e8image:" in tab.prompt()


def pixels(tab: Tab, picture: str) -> int:
    """Width of a picture as the server now hands it out; 0 if it does not."""
    return int(
        tab.page.locator(picture).last.evaluate(
            "old => fetch(old.src, {cache: 'reload'}).then(r => r.blob()).then(createImageBitmap)"
            ".then(map => map.width, () => 0)"
        )
    )


def test_an_example_brings_its_file_also_after_the_clean_up(place, browser) -> None:
    clean_up(place)
    tab = Tab(browser, place.url)
    tab.page.locator("#chat .example").first.click()
    written(tab).to_have_value("what is on it?")
    sync_api.expect(tab.page.locator("#message .thumbnail-item")).to_have_count(1)
    assert pixels(tab, "#message .thumbnail-item img") == 20
    tab.page.press("#message textarea", "Enter")
    tab.page.wait_for_selector("#chat [data-testid=bot]")
    tab.settled()
    assert "\u27e8image:" in tab.prompt()
    tab.ensure_harmless()
    tab.context.close()


def test_one_file_can_be_attached_again_and_again(tab, files) -> None:
    def attach(count: int) -> None:
        with tab.page.expect_file_chooser() as chooser:
            tab.page.click("#message .upload-button")
        chooser.value.set_files(files["red.png"])
        sync_api.expect(tab.page.locator("#message .thumbnail-item")).to_have_count(count)

    attach(1)
    attach(2)
    tab.ask("the same?")
    assert tab.prompt().count("\u27e8image:") == 2
    attach(1)
    tab.page.click("#new")
    sync_api.expect(tab.page.locator("#message .thumbnail-item")).to_have_count(0)
    attach(1)
    tab.ensure_harmless()


def test_the_page_names_its_language_to_the_browser(tab) -> None:
    page = sync_api.expect(tab.page.locator("html"))
    page.to_have_attribute("lang", "en")
    tab.page.locator("#language label").last.click()
    page.to_have_attribute("lang", "ja")


def test_what_is_recorded_is_heard(browser, place, tmp_path) -> None:
    (tmp_path / "spoken.wav").write_bytes(wav(1.0))
    microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--no-sandbox"]
    spoken = f"--use-file-for-fake-audio-capture={tmp_path / 'spoken.wav'}"
    talker = browser.browser_type.launch(executable_path=CHROMIUM, args=[*microphone, spoken])
    tab = Tab(talker, place.url)
    tab.page.click("#message .microphone-button")
    tab.page.click("#message .record-button")
    tab.page.wait_for_timeout(700)
    tab.page.click("#message .stop-button")
    tab.page.click("#message .confirm-button")
    sync_api.expect(tab.page.locator("#message .thumbnail-item")).to_have_count(1)
    tab.ask("what is it?")
    assert "\u27e8audio:" in tab.prompt()
    assert "12 x 8 mel" in tab.page.inner_text("#seen")
    tab.ensure_harmless()
    talker.close()


def test_words_being_typed_outlive_the_server_and_a_chat_it_forgot_is_told(browser, tiny_model, tmp_path) -> None:
    before = served(tiny_model, tmp_path)
    port = int(before.url.split(":")[2].strip("/"))
    tab, idle = Tab(browser, before.url, locale="ja-JP"), Tab(browser, before.url)
    idle.ask("hello")
    tab.page.fill("#message textarea", WORDS)
    before.page.close()
    tab.page.press("#message textarea", "Enter")
    hear(tab, "サーバーとの接続が切れました")
    after = served(tiny_model, tmp_path, server_port=port)
    assert after.url == before.url
    tab.page.wait_for_selector(".toast-body", state="detached")  # the page has opened itself anew
    written(tab).to_have_value(WORDS)
    assert tab.ask(WORDS)
    assert tab.said() == [WORDS]
    written(tab).to_have_value("")
    idle.begin("and you?")
    hear(idle, "has forgotten this chat")
    assert idle.settled()
    assert idle.said() == ["and you?"]
    for one in (tab, idle):
        one.context.close()
    after.page.close()


def test_nothing_is_given_to_those_who_do_not_log_in(browser, tiny_model, tmp_path, files) -> None:
    place = served(tiny_model, tmp_path, auth=["me:a long:password"], title="a closed chat")
    api = place.url + "gradio_api/"
    with files["red.png"].open("rb") as file:
        assert httpx.post(api + "upload", files={"files": file}).status_code == 401
    for path in ("config", "gradio_api/info", "gradio_api/queue/data?session_hash=x", "gradio_api/queue/status"):
        assert httpx.get(place.url + path).status_code == 401, path
    for path in (f"file={tmp_path}/example.png", "startup", "stream/a/b/c", "upload_progress?upload_id=x"):
        assert httpx.get(api + path).status_code in (401, 404), path
    for path in ("queue/join", "call/chat", "run/chat", "component_server"):
        assert httpx.post(api + path, json={"data": [], "session_hash": "x"}).status_code in (401, 422), path
    assert httpx.get(place.url + "openapi.json").status_code == 404
    page = browser.new_context(locale="en-US").new_page()
    page.goto(place.url)
    for password, inside in (("wrong", False), ("a long:password", True)):
        page.locator("input").nth(0).fill("me")
        page.locator("input").nth(1).fill(password)
        page.get_by_role("button", name="Login").click()
        waited = "#message textarea" if inside else "text=Incorrect"
        page.wait_for_selector(waited)
    page.context.close()
    place.page.close()
