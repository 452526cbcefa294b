"""Strangers at the page, in a real browser: bad files, markup, paths, endless words. Nothing runs, all live on."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from bad_files import HTML, MARKUP, SVG, Upload, uploads
from page_visitor import Tab, opened, sync_api

MARKUPS = (
    MARKUP,
    "<script>window.hurt=1</script>",
    "<svg/onload=window.hurt=1>",
    "<iframe srcdoc='<script>parent.hurt=1</script>'></iframe>",
    "<math><mi//xlink:href='data:x,<script>window.hurt=1</script>'>",
    "<style>@import 'http://192.0.2.7/x.css';</style>",
    "<form action=http://192.0.2.7/><button autofocus onfocus=window.hurt=1>",
    "[x](javascript:window.hurt=1) ![x](http://192.0.2.7/x.png)",
    "$\\href{javascript:window.hurt=1}{x}$ <think>x</think> {{constructor.constructor('window.hurt=1')()}}",
    "&lt;script&gt;window.hurt=1&lt;/script&gt; &#60;img src=x onerror=window.hurt=1&#62;",
)


@pytest.fixture(scope="module")
def url(tiny_model: Any) -> Iterator[str]:
    yield from opened(tiny_model, max_new_tokens=4, min_new_tokens=2, max_file_mb=1.0, max_audio_seconds=600)


@pytest.fixture(scope="module")
def bystander(browser: Any, url: str) -> Iterator[Tab]:
    """Somebody who was here before, whose conversation goes on after everything."""
    tab = Tab(browser, url)
    tab.ask("I was here before")
    yield tab
    tab.context.close()


@pytest.fixture
def tab(browser: Any, url: str, bystander: Tab) -> Iterator[Tab]:
    tab = Tab(browser, url)
    yield tab
    tab.ensure_harmless()
    tab.context.close()


def send(tab: Tab, *files: Upload) -> str:
    """The first words of the reply to files in a chat of their own; nothing is awaited beyond it."""
    page, bots = tab.page, tab.page.locator("#chat [data-testid=bot]")
    page.click("#new")
    sync_api.expect(bots).to_have_count(0)
    sent: Any = [{"name": file.name, "mimeType": file.kind, "buffer": file.data} for file in files]
    page.set_input_files("#message input[type=file]", sent)
    sync_api.expect(page.locator("#message .thumbnail-item")).to_have_count(len(files))
    page.click("#message .submit-button")
    sync_api.expect(bots.last).not_to_have_text("")
    return str(bots.last.inner_text()).strip()


@pytest.mark.timeout(600)  # of a busy machine; it takes half a minute on a free one
def test_forty_bad_files_are_refused_and_harm_nobody(tab, bystander) -> None:
    bad = [upload for upload in uploads() if not upload.taken and len(upload.data) <= 1 << 20]
    named = [upload for upload in uploads() if upload.taken]
    assert len(bad) + len(named) >= 40
    replies = {upload.what: send(tab, upload) for upload in bad}
    wrong = {what: reply for what, reply in replies.items() if not reply.startswith("\u26a0") or "/tmp" in reply}
    assert not wrong, wrong
    for some in (named[:5], named[5:]):  # only their names are bad
        assert not send(tab, *some).startswith("\u26a0")
    assert not Path("/tmp/hurt.png").exists() and not Path("/tmp/hurt").exists()
    assert tab.page.evaluate("document.querySelectorAll('img[src=x], #chat script').length") == 0
    bystander.ask("and I am here still")
    assert bystander.said() == ["I was here before", "and I am here still"]
    bystander.ensure_harmless()
    broken_sounds = ("RANGE_NOT_SATISFIABLE", "decode audio")  # the browser's own players say so of them
    tab.complaints = [line for line in tab.complaints if not any(word in line for word in broken_sounds)]


def test_a_file_over_the_limit_is_not_stored_and_the_page_says_so(tab) -> None:
    file: Any = {"name": "large.png", "mimeType": "image/png", "buffer": bytes((1 << 20) + 1)}
    tab.page.set_input_files("#message input[type=file]", file)
    sync_api.expect(tab.page.locator(".toast-body").first).to_contain_text("size")
    assert tab.ask("hello")
    tab.complaints = [line for line in tab.complaints if "413" not in line]  # the browser's own note on the refusal


def test_markup_in_words_names_and_answers_is_only_letters(tab, tmp_path) -> None:
    every = " ".join(MARKUPS)
    tab.ask(every)
    assert tab.said()[-1] == every
    tab.page.click("#new")  # these words are more than the tiny model reads
    sync_api.expect(tab.page.locator("#chat [data-testid=bot]")).to_have_count(0)
    tab.ask("hello")
    tab.unfold("saving")
    tab.page.click("#save")
    with tab.page.expect_download() as download:
        tab.page.locator("#files a.download-link").first.click()
    tree = json.loads(Path(download.value.path()).read_text())
    tree["turns"][0] |= {"text": every, "answer": every}
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(tree))
    tab.page.set_input_files("#saving input[type=file]", str(file))
    sync_api.expect(tab.page.locator("#chat [data-testid=bot]").first).to_contain_text(MARKUP)
    assert (tab.said()[0], tab.replies()[0]) == (every, every)
    tab.page.wait_for_timeout(300)  # whatever would run has the time to


def test_a_hundred_thousand_letters_are_refused(tab) -> None:
    tab.page.fill("#message textarea", "x" * 100_000)
    tab.page.click("#message .submit-button")
    sync_api.expect(tab.page.locator("#chat [data-testid=bot]")).to_contain_text("100000 characters")
    tab.settled()
    assert tab.ask("hello")


@pytest.mark.parametrize(("name", "data"), [("page.html", HTML), ("drawing.svg", SVG), ("page.png", HTML)])
def test_a_harmful_file_that_is_stored_cannot_be_opened_as_a_page(tab, url, name, data) -> None:
    form = {"files": {"name": name, "mimeType": "text/html", "buffer": data}}
    (place,) = tab.context.request.post(f"{url}gradio_api/upload", multipart=form).json()
    tab.page.evaluate(
        "src => document.body.append(Object.assign(document.createElement('iframe'), {src}))",
        f"{url}gradio_api/file={place}",
    )
    tab.page.wait_for_timeout(300)
    assert tab.page.evaluate("window.hurt") is None
    tab.complaints.clear()  # of the frame that was refused


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../../../etc/passwd",
        "/gradio_api/file=..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/gradio_api/file=%2Fproc%2Fself%2Fenviron",
        "/gradio_api/file=/tmp/gradio/../../etc/passwd",
        "/gradio_api/file=setup.py",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/file=http://127.0.0.1/",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/stream/../../../etc/passwd",
        "/gradio_api/custom_component/../../../../etc/client/passwd",
        "/static/../../../../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd",
        "/svelte/../../../../../../etc/passwd",
        "//etc/passwd",
    ],
)
def test_no_path_leads_to_a_file_of_the_server(url, path) -> None:
    place = urlsplit(url)
    line = http.client.HTTPConnection(str(place.hostname), place.port or 80, timeout=10)
    line.request("GET", path)  # as it stands: no client tidies the dots
    answer = line.getresponse()
    assert answer.status in (400, 403, 404, 405, 500)
    assert b"root:" not in answer.read()
