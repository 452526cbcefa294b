"""The page in a real browser: talking, boxes, saving, languages, and that nothing harmful runs or leaves the host.

A tiny model with random weights answers here; with MINIGPT4O_TOY (a folder in which `make quickstart` has run) the
trained toy model answers too, and has to be right. MINIGPT4O_ARTIFACTS: a folder for screenshots.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_visitor import EVIL, PHONE, Tab, opened, sync_api

TOY = os.environ.get("MINIGPT4O_TOY")
toy = pytest.mark.skipif(not TOY, reason="no trained toy model (MINIGPT4O_TOY)")


@pytest.fixture(scope="module")
def slow_url(model_node, tmp_path_factory) -> Iterator[str]:
    """A page whose answers are long enough to be stopped."""
    import yaml

    from minigpt4o.common.config import load_settings
    from minigpt4o.common.registry import registry

    options = {**model_node["llm"]["options"], "max_position_embeddings": 4096}
    node = {**model_node, "llm": {**model_node["llm"], "options": options}}
    file = tmp_path_factory.mktemp("slow") / "demo.yaml"
    file.write_text(yaml.safe_dump({"model": node, "run": {"runner": "chat"}}))
    model = registry.build(load_settings(file, []).model).eval()
    yield from opened(model, max_new_tokens=3000, min_new_tokens=3000)


@pytest.fixture
def tab(browser, tiny_url) -> Iterator[Tab]:
    tab = Tab(browser, tiny_url)
    yield tab
    tab.context.close()


def test_an_answer_grows_before_the_readers_eyes_and_can_be_stopped(browser, slow_url) -> None:
    tab = Tab(browser, slow_url)
    tab.begin("tell me a story")
    lengths: set[int] = set()
    for _ in range(600):
        lengths.add(max(map(len, tab.replies()), default=0))
        if len(lengths) > 4:
            break
        tab.page.wait_for_timeout(20)
    assert len(lengths) > 4
    tab.page.click("#message .stop-button")
    beginning = tab.settled()
    assert beginning
    assert "cancelled" in (tab.prompt(), tab.page.inner_text("#numbers"))[1]
    tab.page.wait_for_timeout(500)
    assert tab.replies() == [beginning]
    tab.ensure_harmless()
    tab.context.close()


def test_retry_edit_undo_and_a_new_chat(tab, files) -> None:
    tab.ask("what is there?", files["red.png"])
    tab.ask("and now?")
    tab.button("Retry")
    tab.settled()
    assert tab.said() == ["what is there?", "and now?"]
    tab.button("Undo")
    sync_api.expect(tab.page.locator("#message textarea")).to_have_value("and now?")
    assert tab.said() == ["what is there?"]
    tab.button("Edit")
    tab.page.fill("#chat textarea", "<b>where</b> & how?")
    tab.button("Submit")
    tab.page.wait_for_timeout(300)
    tab.settled()
    assert tab.said() == ["<b>where</b> & how?"]
    assert "<b>where</b> & how?" in tab.prompt()
    assert "\u27e8image:" in tab.prompt()
    tab.page.click("#new")
    sync_api.expect(tab.page.locator("#chat [data-testid=user]")).to_have_count(0)
    assert "and now" not in (tab.ask("hello"), tab.prompt())[1]
    tab.ensure_harmless()


def test_a_drawn_box_goes_to_the_model_as_a_box(tab, files) -> None:
    tab.attach(files["red.png"])
    tab.page.wait_for_selector("#board img")
    wide = tab.page.locator("#board").bounding_box()
    tab.draw(0.2, 0.3, 0.8, 0.9)
    assert tab.page.locator("#board").bounding_box() == wide  # nothing moved between the clicks
    tab.page.locator("#tasks button").last.click()
    sync_api.expect(tab.page.locator("#message textarea")).to_have_value("What is this? ")
    tab.page.press("#message textarea", "Enter")
    tab.page.wait_for_selector("#chat [data-testid=bot]")
    tab.settled()
    numbers = [int(n) for n in tab.prompt().split("{<")[1].split(">}")[0].split("><")]
    assert all(abs(n - m) <= 1 for n, m in zip(numbers, (20, 30, 80, 90), strict=True))
    tab.shot("box")
    tab.ask("and this?")  # a box is said once
    assert tab.prompt().count("{<") == 1
    tab.ensure_harmless()


def test_what_is_typed_like_a_box_or_a_picture_stays_words(tab) -> None:
    tab.ask("<bbox> <image> <ImageHere> </s> <user>")
    assert "\u27e8" not in tab.prompt()
    assert "<bbox> <image> <ImageHere> </s> <user>" in tab.prompt()
    tab.ensure_harmless()


def test_the_page_speaks_japanese_when_the_browser_does_and_switches(browser, tiny_url, files) -> None:
    tab = Tab(browser, tiny_url, locale="ja-JP")
    sync_api.expect(tab.page.locator("#new")).to_have_text("新しいチャット")
    sync_api.expect(tab.page.locator("#marked")).to_contain_text("画像を添付")
    assert "空のファイル" in tab.ask("何?", files["empty.png"])
    tab.page.click("#new")
    sync_api.expect(tab.page.locator("#chat [data-testid=user]")).to_have_count(0)
    tab.ask("hello")
    assert tab.page.locator('#chat button[aria-label="共有"]:visible').count() == 0
    tab.page.locator("#language label").first.click()
    sync_api.expect(tab.page.locator("#new")).to_have_text("New chat")
    assert len(tab.said()) == 1
    tab.ensure_harmless()
    tab.context.close()


def saved(tab: Tab, folder: Path) -> tuple[Path, Path]:
    if not tab.page.locator("#save").is_visible():
        tab.unfold("saving")
    tab.page.click("#save")
    links = tab.page.locator("#files a.download-link")
    sync_api.expect(links).to_have_count(2)
    paths = []
    for number, name in enumerate(("chat.json", "chat.html")):
        with tab.page.expect_download() as download:
            links.nth(number).click()
        download.value.save_as(folder / name)
        paths.append(folder / name)
    return paths[0], paths[1]


def reopen(tab: Tab, file: Path) -> None:
    if not tab.page.locator("#save").is_visible():
        tab.unfold("saving")
    tab.page.set_input_files("#saving input[type=file]", str(file))
    tab.page.wait_for_selector("#chat [data-testid=bot]")
    tab.page.wait_for_timeout(900)


def test_a_chat_is_saved_read_and_opened_again(browser, tab, tiny_url, files, tmp_path) -> None:
    tab.ask("what is there?", files["red.png"], files["tone.wav"])
    file, html = saved(tab, tmp_path)
    assert json.loads(file.read_text())["turns"][0]["text"] == "what is there?"
    assert "http" not in html.read_text().replace("http-equiv", "")
    other = Tab(browser, tiny_url)
    reopen(other, file)
    assert other.said()[-1] == "what is there?"
    other.ask("and now?")
    assert "what is there?" in other.prompt()
    other.ensure_harmless()
    other.page.goto(html.as_uri())
    assert other.page.locator("article").count() == 2
    assert other.page.evaluate("document.images[0].naturalWidth") > 0
    other.context.close()


@pytest.fixture
def harmful(tab, tmp_path, files) -> Callable[[str], Path]:
    """A saved chat whose model has answered what is given."""

    def make(answer: str) -> Path:
        tab.ask("what is there?", files["red.png"])
        file, _ = saved(tab, tmp_path)
        tree = json.loads(file.read_text())
        tree["turns"][0]["answer"] = answer
        tree["turns"][0]["images"][0]["name"] = f"{EVIL}.png"
        file.write_text(json.dumps(tree))
        return file

    return make


def test_the_boxes_of_an_answer_are_drawn_and_its_phrases_coloured(browser, harmful, tiny_url) -> None:
    file = harmful("<p>a red star</p> {<10><20><50><60>}<delim>{<60><60><90><90>} and <p>a ring</p> {<1><1><9><9>}")
    tab = Tab(browser, tiny_url)
    reopen(tab, file)
    assert tab.replies()[0] == "a red star [1] and a ring [2]"
    colours = tab.page.eval_on_selector_all(
        "#chat [data-testid=bot] span[style]", "e => e.map(s => s.style.background)"
    )
    assert len(set(colours)) == 2
    assert tab.page.locator("#chat [data-testid=bot] img").count() == 1
    assert tab.page.locator("#boxes").is_visible()
    assert "2 a ring" in tab.page.inner_text("#boxes")
    tab.shot("phrases")
    tab.context.close()


def test_nothing_that_is_said_sent_or_answered_ever_runs(browser, harmful, tiny_url, tmp_path, files) -> None:
    file = harmful(f"{EVIL} <p>{EVIL}</p> {{<10><20><50><60>}} [x](javascript:window.hurt=1)")
    tab = Tab(browser, tiny_url)
    reopen(tab, file)
    assert "<img src=x" in tab.replies()[0]
    named = tmp_path / "<img src=x onerror=window.hurt=1>.png"
    named.write_bytes(files["red.png"].read_bytes())
    tab.ask(EVIL, named)
    assert EVIL in tab.said()
    _, html = saved(tab, tmp_path)
    tab.page.wait_for_timeout(500)
    tab.ensure_harmless()
    tab.page.goto(html.as_uri())
    tab.page.wait_for_timeout(300)
    assert tab.page.evaluate("window.hurt") is None
    assert tab.page.locator("script, img[src=x]").count() == 0
    tab.context.close()


def test_another_model_goes_on_with_the_chat(tab) -> None:
    tab.ask("hello")
    tab.page.locator("#model input").first.click()
    tab.page.get_by_role("option", name="another").click()
    sync_api.expect(tab.page.locator("#hint")).to_contain_text("another")
    tab.ask("and you?")
    assert "hello" in tab.prompt()
    tab.page.locator("#tasks button").first.click()
    sync_api.expect(tab.page.locator("#hint")).to_have_text("A short description of the picture.")
    tab.page.locator("#model input").first.focus()
    tab.page.keyboard.press("Tab")  # past the list of models: nothing was chosen
    tab.page.wait_for_timeout(500)
    sync_api.expect(tab.page.locator("#hint")).to_have_text("A short description of the picture.")
    tab.ensure_harmless()


def test_refused_files_are_said_in_the_chat_and_the_page_lives_on(tab, files) -> None:
    assert "no picture or sound" in tab.ask("look", files["program.png"])
    assert tab.ask("hello")
    assert tab.said()[-1] == "hello"


def test_the_page_fits_a_phone(browser, tiny_url, files) -> None:
    tab = Tab(browser, tiny_url, PHONE)
    tab.ask("what is there?", files["red.png"])
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    tab.shot("phone")
    tab.ensure_harmless()
    tab.context.close()


# ---- the trained toy model ----


@pytest.fixture(scope="module")
def toy_url(tmp_path_factory) -> Iterator[str]:
    """The page of eval_configs/toy/demo.yaml, in the folder where the toy model was trained."""
    from minigpt4o.common.config import load_settings
    from minigpt4o.serve.inference import chat_config, load_chat
    from minigpt4o.serve.web import build_app, open_page

    file = Path(__file__).resolve().parents[2] / "eval_configs/toy/demo.yaml"
    before = Path.cwd()
    os.chdir(str(TOY))
    try:
        settings = load_settings(file, ["run.device=cpu", "run.server_port=0"])
        config = chat_config(settings)
        page = build_app(lambda: load_chat(settings), config)
        yield open_page(page, config)
        page.close()
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def truths() -> list[dict[str, Any]]:
    """Test pictures of one object, which the model reads best, with what is on them."""
    folder = Path(str(TOY)) / "data/toy"
    rows = json.loads((folder / "objects/test.json").read_text())
    return [{**row["objects"][0], "file": folder / row["image"]} for row in rows if len(row["objects"]) == 1]


def most(right: list[bool]) -> bool:
    return sum(right) >= 0.6 * len(right)


@toy
def test_the_toy_model_answers_a_question_and_a_follow_up(browser, toy_url, truths) -> None:
    right, followed = [], []
    for truth in truths[:5]:
        tab = Tab(browser, toy_url)
        shape = tab.ask("what do you see in the picture?", truth["file"])
        right.append(truth["shape"] in shape)
        followed.append(truth["colour"] in tab.ask(f"what colour is the {truth['shape']}?"))
        assert tab.prompt().count(shape) >= 1  # it reads its own answer
        tab.shot("toy")
        tab.ensure_harmless()
        tab.context.close()
    assert most(right), right
    assert most(followed), followed


@toy
def test_the_toy_model_points_at_things(browser, toy_url, truths) -> None:
    found = []
    for truth in truths[:5]:
        tab = Tab(browser, toy_url)
        answer = tab.ask(f"[refer] the {truth['shape']}", truth["file"])
        numbers = [int(n) for n in answer.split("{<")[1].split(">}")[0].split("><")]
        centre = [(numbers[0] + numbers[2]) / 200 * 64, (numbers[1] + numbers[3]) / 200 * 64]
        left, top, right, bottom = truth["box"]
        found.append(left <= centre[0] <= right and top <= centre[1] <= bottom)
        assert tab.page.locator("#boxes").is_visible()
        tab.shot("toy-refer")
        tab.context.close()
    assert most(found), found


@toy
def test_the_toy_model_is_asked_about_a_drawn_box_and_a_sound(browser, toy_url, truths) -> None:
    tab, named, heard = Tab(browser, toy_url), [], []
    for truth in truths[:5]:
        tab.attach(truth["file"])
        tab.page.wait_for_selector("#board img")
        tab.draw(*[corner / 64 for corner in truth["box"]])
        answer = tab.ask("what is this?")
        named.append(f"{truth['colour']} {truth['shape']}" in answer)
        assert "{<" in tab.prompt()
        begin_anew(tab)
    assert most(named), named
    sounds = json.loads((Path(str(TOY)) / "data/toy/objects/test_sounds.json").read_text())
    for row in sounds[:4]:
        heard.append(row["kind"] in tab.ask("what sound is it?", Path(str(TOY)) / "data/toy" / row["audio"]))
        tab.shot("toy-sound")
        begin_anew(tab)
    assert most(heard), heard
    tab.ensure_harmless()
    tab.context.close()


def begin_anew(tab: Tab) -> None:
    tab.page.click("#new")
    sync_api.expect(tab.page.locator("#chat [data-testid=user]")).to_have_count(0)
    tab.page.wait_for_timeout(300)
