"""One visitor and a model that was trained for this, from the first picture to the saved chat; and callers of its API.

The answers have to be right. MINIGPT4O_ARTIFACTS: a folder for screenshots.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small_world
from api_server import serving
from page_visitor import Tab, sync_api


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Any:
    """`folder` of the trained model, `config` and `settings` of its chat, `pictures` and `sounds` with their truth."""
    from minigpt4o.common.config import load_settings
    from minigpt4o.serve.inference import chat_config

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "small_world"
    settings = load_settings(small_world.made(folder), [])
    return SimpleNamespace(
        folder=folder,
        settings=settings,
        config=chat_config(settings),
        pictures=small_world.pictures(folder),
        sounds=small_world.sounds(folder),
    )


@pytest.fixture(scope="module")
def url(world: Any) -> Iterator[str]:
    from minigpt4o.serve.inference import load_chat
    from minigpt4o.serve.web import build_app, open_page

    page = build_app(lambda: load_chat(world.settings), world.config)
    yield open_page(page, world.config)
    page.close()


def test_a_visitor_sees_hears_points_and_goes_back(browser, url, world, tmp_path) -> None:
    from minigpt4o.serve.inference import load_chat

    tab = Tab(browser, url)
    red = next(row for row in world.pictures if row["colour"] == "red" and row["place"] == "left")
    blue = next(row for row in world.pictures if row["colour"] == "blue" and row["place"] == "right")

    # a picture, and a question that needs what was said before
    name = f"big red {red['shape']}"
    assert name in tab.ask("describe the picture.", red["file"])
    assert tab.ask(f"what colour is the {red['shape']}?") == "red"
    assert name in tab.prompt()  # it read its own answer
    tab.shot("story-1-asked")

    # go back, ask otherwise, ask again
    tab.button("Undo")
    sync_api.expect(tab.page.locator("#message textarea")).to_have_value(f"what colour is the {red['shape']}?")
    assert tab.ask("how many objects are there?") == "one"
    tab.button("Retry")
    assert tab.settled() == "one"

    # point at a thing, and have a thing pointed out
    begin_anew(tab)
    tab.attach(blue["file"])
    tab.page.wait_for_selector("#board img")
    tab.draw(*[corner / 64 for corner in blue["box"]])
    assert tab.ask("what is this?") == f"a big blue {blue['shape']}"
    tab.shot("story-2-drawn")
    begin_anew(tab)
    answer = tab.ask(f"[refer] the {red['shape']}", red["file"])
    assert overlap(numbers_of(answer), [corner / 0.64 for corner in red["box"]]) > 0.5
    assert tab.page.locator("#boxes").is_visible()
    tab.shot("story-3-referred")

    # sounds, each in a chat of its own
    heard = []
    for row in world.sounds[:3]:
        begin_anew(tab)
        heard.append(tab.ask("what sound is it?", row["file"]) == row["kind"])
    assert all(heard), heard

    # another language, and the chat to take home
    tab.page.locator("#language label").last.click()
    sync_api.expect(tab.page.locator("#new")).to_have_text("新しいチャット")
    sync_api.expect(tab.page.locator("#chat [data-testid=bot]")).to_have_count(1)
    tab.unfold("saving")
    tab.page.click("#save")
    links = tab.page.locator("#files a.download-link")
    sync_api.expect(links).to_have_count(2)
    with tab.page.expect_download() as download:
        links.first.click()
    download.value.save_as(tmp_path / "chat.json")
    tab.shot("story-4-saved")
    tab.ensure_harmless()
    tab.context.close()

    # which a program goes on with
    chat = load_chat(world.settings)
    chat.from_json((tmp_path / "chat.json").read_text(encoding="utf-8"))
    last = world.sounds[2]
    assert [exchange.answer for exchange in chat.exchanges] == [last["kind"]]
    assert "".join(chat.retry()) == last["kind"]


def begin_anew(tab: Tab) -> None:
    tab.page.click("#new")
    sync_api.expect(tab.page.locator("#chat [data-testid=user]")).to_have_count(0)
    tab.page.wait_for_timeout(300)


def numbers_of(answer: str) -> list[int]:
    """The hundredths of the first box of an answer."""
    return [int(number) for number in answer.split("{<")[1].split(">}")[0].split("><")]


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(wide, 0.0) * max(high, 0.0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_thirty_two_callers_at_once_get_each_their_own_right_answer(world) -> None:
    openai = pytest.importorskip("openai")
    from minigpt4o.serve.inference import load_chat

    with serving(load_chat(world.settings)) as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)

        def ask(row: dict[str, Any]) -> str:
            parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + encoded(row["file"])}}]
            if "kind" in row:
                parts = [{"type": "input_audio", "input_audio": {"data": encoded(row["file"]), "format": suffix(row)}}]
            question = "what sound is it?" if "kind" in row else "describe the picture."
            messages: Any = [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
            done = client.chat.completions.create(model=server.service.name, messages=messages)
            return str(done.choices[0].message.content)

        rows = [*world.pictures[:24], *world.sounds[:8]]
        with ThreadPoolExecutor(32) as crowd:
            answers = list(crowd.map(ask, rows))
    right = [row["kind"] in a if "kind" in row else truth(row) in a for row, a in zip(rows, answers, strict=True)]
    assert sum(right) >= 0.9 * len(right), [pair for pair in zip(rows, answers, right, strict=True) if not pair[2]]


def truth(row: dict[str, Any]) -> str:
    return f"{row['size']} {row['colour']} {row['shape']}"


def encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def suffix(row: dict[str, Any]) -> str:
    return str(row["file"].suffix[1:])
