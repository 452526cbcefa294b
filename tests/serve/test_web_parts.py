"""Parts of the page without a browser: boxes, tasks, controls, the shelf of models, saved pages."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event

import pytest
from PIL import Image

from minigpt4o.conversation.sample import Box
from minigpt4o.serve.chat import ChatSession, Exchange
from minigpt4o.serve.limits import ChatError
from minigpt4o.serve.page.board import MAX_BOXES, Board
from minigpt4o.serve.page.controls import wished
from minigpt4o.serve.page.drawing import coloured, drawn, things_of
from minigpt4o.serve.page.saving import about, page_of
from minigpt4o.serve.page.seen import media_seen, numbers, prompt_seen
from minigpt4o.serve.page.shelf import Shelf
from minigpt4o.serve.page.tasks import prompts_of, with_task
from minigpt4o.serve.page.visitor import Visitor


def test_two_clicks_are_a_box_in_the_pixels_of_the_picture(picture) -> None:
    board = Board()
    board.lay([("red.png", picture)])
    board.click(0.75, 0.5)
    assert board.corner == (0.75, 0.5)
    board.click(0.25, 1.5)
    assert board.boxes == [("red.png", Box((5.0, 10.0, 15.0, 20.0), (20, 20)))]
    board.click(0.5, 0.5)
    board.click(0.5, 0.5)  # a double click is no box
    assert len(board.boxes) == 1
    for _ in range(3 * MAX_BOXES):
        board.click(0.1, 0.1)
        board.click(0.9, 0.9)
    assert len(board.boxes) == MAX_BOXES
    board.lay([])
    assert board.boxes == []


def test_boxes_go_to_the_model_in_the_words_of_training(make_session, picture) -> None:
    session = make_session()
    list(session.ask("what is this?", [picture], boxes=[Box((5.0, 10.0, 15.0, 20.0), (20, 20))]))
    assert "what is this? {<25><50><75><100>}" in prompt_seen(session)
    reopened = session.fresh().from_json(session.to_json())
    assert reopened.exchanges[0].boxes == session.exchanges[0].boxes
    with pytest.raises(ChatError, match="picture 2"):
        list(session.ask("and this?", boxes=[Box((1, 1, 2, 2), (20, 20), image=1)]))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("<p>a star</p> {<10><20><30><40>}<delim>{<50><50><60><60>}", [("a star", 2)]),
        ("{<10><20><30><40>}", [("", 1)]),
        ("at {<10><20><30><40>} and {<1><2><3><4>}", [("", 1), ("", 1)]),
        ("10 20 30 40", []),
        ("{<10><20><5><40>}", []),
        ("<p>a star</p> and {<10><20>}", []),
    ],
)
def test_only_well_formed_boxes_are_drawn(answer, found) -> None:
    things = things_of(answer, (200, 100))
    assert [(thing.words, len(thing.boxes)) for thing in things] == found


def test_boxes_are_drawn_where_they_are() -> None:
    grey = Image.new("RGB", (480, 480), "grey")
    shown = drawn(grey, things_of("{<25><25><75><75>}", grey.size))
    assert shown.getpixel((240, 240)) == grey.getpixel((0, 0))
    assert shown.getpixel((121, 240)) == (0xD6, 0x27, 0x28)
    assert shown.getpixel((60, 240)) == grey.getpixel((0, 0))


@pytest.mark.parametrize(("drawn_on", "picture_meant"), [([0], 0), ([0, 0], 0), ([0, 1], 2), ([], 2)])
def test_the_boxes_of_an_answer_lie_in_the_picture_that_was_pointed_at(picture, drawn_on, picture_meant) -> None:
    boxes = [Box((1.0, 1.0, 5.0, 5.0), (20, 20), image=number) for number in drawn_on]
    assert about(Exchange("what is it?", [], [], boxes=boxes), [picture] * 3) == picture_meant


def test_coloured_words_hold_no_tags_of_the_model() -> None:
    shown = coloured("<b>x</b> <p><script>1</script></p> {<1><2><3><4>}")
    assert "<script" not in shown
    assert "<b>x" not in shown
    assert "&lt;script&gt;1" in shown


def test_a_shortcut_takes_the_place_of_another_and_keeps_what_was_typed() -> None:
    tagged = prompts_of({}, "minigpt_v2", "ja")
    assert with_task("[refer] the dog", tagged["vqa"], tagged) == "[vqa] the dog"
    assert with_task("the dog", tagged["refer"], tagged) == "[refer] the dog"
    assert prompts_of({}, "vicuna_v0", "ja") != prompts_of({}, "vicuna_v0", "en")
    assert prompts_of({"refer": "find "}, "minigpt_v2", "en") == {"refer": "find "}


def test_controls_are_checked_in_python(make_session, make_config) -> None:
    config, base = make_config(), make_session().decoding
    assert wished(base, [False, 0.5, 0.9, 2, 20, 1.1], config).num_beams == 2
    assert wished(base, [True, 0.5, 0.9, 1, 20, 1.1], config).do_sample is False
    for bad in (
        [True, 0, 0.9, 1, 20, 1],
        [True, 1, 0.9, 99, 20, 1],
        [True, 1, 0.9, 1, 10**9, 1],
        [True, "1", 0.9, 1, 2, 1],
        [True, float("nan"), 0.9, 1, 2, 1],
    ):
        with pytest.raises(ChatError, match="must be a number"):
            wished(base, bad, config)


def test_a_model_makes_room_and_its_visitors_go_on_where_they_were(make_session, picture) -> None:
    made = []
    shelf = Shelf({name: lambda name=name: made.append(name) or make_session() for name in ("a", "b")}, most=1)
    visitor = Visitor(None, shelf, "a")
    shelf.know(visitor)
    assert made == []
    visitor_answers(visitor, "hello")
    engine = visitor.session.engine
    with shelf.hold("b"):
        assert visitor.session is None
    visitor_answers(visitor, "and now?")
    assert made == ["a", "b", "a"]
    assert visitor.session.engine is not engine
    assert [e.text for e in visitor.session.exchanges] == ["hello", "and now?"]
    with pytest.raises(ChatError, match="no such model"), shelf.hold("../c"):
        pass


def test_nobody_waits_while_another_model_is_opened(make_session) -> None:
    begun, go_on = Event(), Event()

    def slow() -> ChatSession:
        begun.set()
        assert go_on.wait(30)
        return make_session()

    shelf = Shelf({"quick": make_session, "slow": slow}, most=2)
    with shelf.hold("quick"):
        pass
    waiting, quick = Visitor(None, shelf, "slow"), Visitor(None, shelf, "quick")
    with closing(waiting.answer("hello", [])) as updates, ThreadPoolExecutor(2) as pool:
        next(updates)
        assert "being opened: slow" in waiting.shown[-1]["content"]
        opened = pool.submit(next, updates)
        assert begun.wait(30)
        try:
            assert pool.submit(visitor_answers, quick, "hello").result(timeout=20)
        finally:
            go_on.set()
        opened.result(timeout=30)
        assert waiting.shown[-1]["content"] == ""
        list(updates)
    assert len(waiting.session.exchanges) == 1


def test_a_model_that_cannot_be_opened_is_said_and_may_be_tried_again(make_session) -> None:
    tries = []

    def broken() -> ChatSession:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("/secret/path is not there")
        return make_session()

    visitor = Visitor(None, Shelf({"a": broken}), "a")
    assert visitor_answers(visitor, "hello") == (
        "\u26a0 The model a cannot be opened; the reason is in the log of the server."
    )
    assert not visitor.said[0].kept
    assert "secret" not in visitor_answers(visitor, "hello")
    assert len(visitor.session.exchanges) == 1


def visitor_answers(visitor, text) -> str:
    with closing(visitor.answer(text, [])) as updates:
        list(updates)
    return visitor.shown[-1]["content"]


def test_a_refused_edit_leaves_the_chat_as_it_was(make_session) -> None:
    visitor = Visitor(make_session(max_text_chars=50))
    visitor_answers(visitor, "hello")
    list(visitor.edit(0, "x" * 51))
    assert [e.text for e in visitor.session.exchanges] == ["hello"]
    assert "51 characters" in visitor.shown[-1]["content"]
    visitor_answers(visitor, "again")
    visitor.undo(0)
    assert visitor.session.exchanges == []
    assert visitor.shown == []


def test_what_the_model_saw_is_shown(make_session, picture, sound) -> None:
    session = make_session()
    list(session.ask("<image> what?", [picture], [sound]))
    (red, name), (mel, _) = media_seen(session)
    assert red.getpixel((5, 5))[0] > 240 and red.getpixel((5, 5))[1] < 15
    assert name == "red.png - 16 x 16"
    assert mel.width > mel.height
    assert "| tokens per second |" in numbers(session.last, "en")
    assert prompt_seen(session).count("\u27e8image:") == 1


def test_a_saved_page_holds_everything_and_runs_nothing(make_session, picture, sound) -> None:
    session = make_session()
    list(session.ask("<script>1</script>", [picture], [sound]))
    session.exchanges[0].answer = "<img src=x> {<10><10><50><50>}"
    html = page_of(session, "<b>title</b>", "ja")
    assert "<script" not in html and "<img src=x" not in html and "<b>title" not in html
    assert html.count("data:image/webp") == 2 and html.count("data:audio/wav") == 1
    assert "default-src 'none'" in html
