"""The page's words in both languages: labels, and every sentence about what went wrong or is noted."""

import ast
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from string import Formatter

import pytest

import minigpt4o.serve
from minigpt4o.serve.limits import _REASONS, ChatError, Note
from minigpt4o.serve.page.told import JAPANESE, told
from minigpt4o.serve.page.visitor import Visitor
from minigpt4o.serve.page.words import _WORDS, language_of, word

SERVE = Path(minigpt4o.serve.__file__).parent
# What a visitor of the page may meet; the terminal and the API speak English alone.
FILES = [f for f in [*SERVE.glob("*.py"), *SERVE.glob("page/*.py")] if f.name != "terminal.py"]


def kinds_of(node: ast.expr) -> list[str]:
    """The kinds that an argument may stand for."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.IfExp):
        return [*kinds_of(node.body), *kinds_of(node.orelse)]
    if isinstance(node, ast.JoinedStr):  # f"model_no_{kind}"
        start = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        return [start + kind for kind in ("image", "audio")]
    assert ast.unparse(node) == "problem.reason"
    return list(_REASONS)


def raised() -> Iterator[tuple[str, str, set[str]]]:
    """Where, kind and names of the values of all sentences."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("ChatError", "EngineBusy", "Note"):
                continue
            where = f"{file.name}:{node.lineno}"
            assert len(node.args) > 1, f"{where}: a sentence without a kind is English on a Japanese page"
            names = {str(keyword.arg) for keyword in node.keywords}
            if len(node.args) > 2 and isinstance(node.args[2], ast.Dict):
                names = {ast.literal_eval(key) for key in node.args[2].keys if key is not None}
            for kind in kinds_of(node.args[1]):
                yield where, kind, names


def test_every_sentence_a_visitor_may_read_is_there_in_japanese() -> None:
    found = list(raised())
    assert len(found) > 40
    for where, kind, names in found:
        assert kind in JAPANESE, f"{where}: {kind}"
        assert {name for _, name, _, _ in Formatter().parse(JAPANESE[kind]) if name} <= names, f"{where}: {kind}"
    assert set(JAPANESE) == {kind for _, kind, _ in found}


def test_what_goes_wrong_is_said_in_the_language_of_the_page_and_english_in_logs(make_session, files) -> None:
    visitor = Visitor(make_session(max_text_chars=50), language="ja")
    for text, paths, said in (
        ("x" * 51, [], "51 文字"),
        ("絵", [str(files["program.png"])], "program.png は読み込める画像や音声ではありません"),
        ("絵", [str(files["cut.png"])], "画像を読み込めません"),
        (" ", [], "メッセージを書くか"),
    ):
        with closing(visitor.answer(text, paths)) as updates:
            list(updates)
        assert said in visitor.shown[-1]["content"]
    assert str(ChatError("English.", "no_json")) == "English."
    assert told(ChatError("English.", "unknown"), "ja") == "English."


def test_notes_are_said_in_the_language_of_the_page(make_session, files) -> None:
    visitor = Visitor(make_session(), language="ja")
    with closing(visitor.answer("何?", [str(files["tone.wav"])])) as updates:
        list(updates)
    assert "秒分の音声を省きました" in visitor.said[0].note
    assert "seconds were cut" in visitor.session.note


@pytest.mark.parametrize(("language", "said"), [("en", "Two left."), ("ja", "やり取り 2 回分")])
def test_a_note_carries_its_values(language, said) -> None:
    assert said in told(Note("Two left.", "left_out", {"n": 2}), language)


def test_every_word_has_both_languages() -> None:
    assert all(en and ja for en, ja in _WORDS.values())
    assert language_of("auto", "ja-JP,en;q=0.5") == "ja"
    assert language_of("auto", "") == "en"
    assert language_of("ja", "en") == "ja"
    assert word("marked", "en", n=2).startswith("2")
