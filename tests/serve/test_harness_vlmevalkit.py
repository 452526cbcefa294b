"""Claims about the adapter for VLMEvalKit: its messages, its prompts, its way to find the model.

Where VLMEvalKit is installed its own `BaseModel` is used, else a stand-in with the part of it that an adapter meets.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.conversation.batch import Decoding
from minigpt4o.serve.harness.answering import Answerer
from minigpt4o.serve.harness.requests import sample_of
from minigpt4o.serve.harness.run_vlmevalkit import main, read

HOME = "minigpt4o.serve.harness.vlmevalkit"
REAL = importlib.util.find_spec("vlmeval") is not None


def stand_ins() -> dict[str, ModuleType]:
    """`BaseModel` as vlmeval/vlm/base.py has it, without its look at files; the modules a run touches."""

    class BaseModel:
        INTERLEAVE = False

        def __init__(self) -> None:
            self.dump_image_func: Any = None

        def set_dump_image(self, func: Any) -> None:
            self.dump_image_func = func

        def dump_image(self, line: Any, dataset: str) -> Any:
            return self.dump_image_func(line)

        def generate(self, message: Any, dataset: str | None = None) -> str:
            return self.generate_inner(message, dataset)

    names = ("vlmeval", "vlmeval.vlm", "vlmeval.vlm.base", "vlmeval.config", "vlmeval.run")
    modules: dict[str, Any] = {name: ModuleType(name) for name in names}
    for name in names[1:]:
        parent, child = name.rsplit(".", 1)
        setattr(modules[parent], child, modules[name])
    modules["vlmeval.vlm.base"].BaseModel = BaseModel
    modules["vlmeval.config"].supported_VLM = {}
    modules["vlmeval.run"].__file__ = "run.py"
    modules["vlmeval.run"].main = lambda: None
    return modules


@pytest.fixture(scope="module")
def adapter() -> Iterator[ModuleType]:
    given = {} if REAL else stand_ins()
    sys.modules.update(given)
    yield importlib.import_module(HOME)
    for name in (*given, HOME):
        sys.modules.pop(name, None)


@pytest.fixture
def make(adapter, answerer, monkeypatch) -> Callable[..., Any]:
    monkeypatch.setattr(Answerer, "open", lambda *given, **more: answerer)
    return lambda **given: adapter.Minigpt4o(path="run", device="cpu", **given)


@pytest.fixture
def picture_file(tmp_path: Path) -> str:
    Image.new("RGB", (9, 9), "red").save(tmp_path / "red.png")
    return str(tmp_path / "red.png")


def own_answer(answerer: Answerer, parts: list, tokens: int, until: tuple[str, ...] = ()) -> str:
    return answerer.answer([sample_of("own", [("user", parts)])], Decoding(max_new_tokens=tokens), until)[0]


def test_a_message_is_answered_in_its_own_order(make, answerer, picture_file):
    model = make(max_new_tokens=7)
    message = [
        {"type": "text", "value": "what is"},
        {"type": "image", "value": picture_file},
        {"type": "text", "value": "there?"},
    ]
    own = [("text", "what is"), ("image", picture_file), ("text", "there?")]
    assert model.generate(message, dataset="MMBench") == own_answer(answerer, own, 7)
    assert model.INTERLEAVE


def test_words_alone_are_answered_and_the_wishes_are_kept(make, answerer):
    whole = own_answer(answerer, [("text", "what is there?")], 12)
    stop = whole[len(whole) // 2]
    said = make(max_new_tokens=12, until=stop).generate([{"type": "text", "value": "what is there?"}])
    assert said == whole.split(stop)[0].strip()


def test_a_conversation_keeps_its_turns(make, answerer, picture_file):
    told = [
        {"role": "user", "content": [{"type": "image", "value": picture_file}, {"type": "text", "value": "what?"}]},
        {"role": "assistant", "content": [{"type": "text", "value": "red"}]},
        {"role": "user", "content": [{"type": "text", "value": "sure?"}]},
    ]
    own = [
        ("user", [("image", picture_file), ("text", "what?")]),
        ("assistant", [("text", "red")]),
        ("user", [("text", "sure?")]),
    ]
    expected = answerer.answer([sample_of("own", own)], Decoding(max_new_tokens=6))
    assert [make(max_new_tokens=6).chat_inner(told, dataset="MMDU")] == expected


def test_a_data_set_may_be_worded_anew(make, picture_file):
    model = make(prompts={"VizWiz": "[vqa] {question} ({hint})"})
    model.set_dump_image(lambda line: [picture_file, picture_file])
    assert model.use_custom_prompt("VizWiz")
    assert not model.use_custom_prompt("MMBench")
    message = model.build_prompt({"question": "what?", "hint": "a can"}, dataset="VizWiz")
    assert [item["type"] for item in message] == ["image", "image", "text"]
    assert message[-1]["value"] == "[vqa] what? (a can)"
    with pytest.raises(ConfigError, match="columns: question"):
        model.build_prompt({"question": "what?"}, dataset="VizWiz")


def test_a_film_is_refused_in_words(make):
    with pytest.raises(DataError, match="Films are not supported"):
        make().generate_inner([{"type": "video", "value": "clip.mp4"}])


def test_our_words_and_vlmevalkits_are_told_apart():
    ours, theirs = read(
        [
            "--path",
            "run",
            "--data",
            "MME",
            "--prompt",
            "MME=[vqa] {question}",
            "--max-new-tokens",
            "9",
            "--mode",
            "infer",
        ]
    )
    assert theirs == ["--data", "MME", "--mode", "infer"]
    assert (ours["path"], ours["max_new_tokens"], ours["prompts"]) == ("run", 9, {"MME": "[vqa] {question}"})
    assert "checkpoint" not in ours
    with pytest.raises(ConfigError, match="DATASET=wording"):
        read(["--prompt", "words without a data set"])


@pytest.mark.parametrize(
    ("words", "end"), [([], ["--model", "mine"]), (["--config", "a.json"], ["--config", "a.json"])]
)
def test_a_run_makes_our_model_known_before_vlmevalkit_reads_its_words(make, adapter, monkeypatch, words, end):
    import vlmeval.config
    import vlmeval.run
    import vlmeval.vlm

    seen: list[Any] = []
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(vlmeval.config, "supported_VLM", {})
    monkeypatch.setattr(vlmeval.vlm, "Minigpt4o", None, raising=False)
    monkeypatch.setattr(vlmeval.run, "main", lambda: seen.extend(sys.argv[1:]))
    main(["--path", "run", "--name", "mine", "--data", "MME", *words])
    assert seen == ["--data", "MME", *end]
    assert isinstance(vlmeval.config.supported_VLM["mine"](), adapter.Minigpt4o)
    assert vlmeval.vlm.Minigpt4o is adapter.Minigpt4o


def test_the_commands_of_the_page_can_be_typed():
    page = (Path(__file__).parents[2] / "docs/harnesses.md").read_text(encoding="utf-8")
    typed = [
        shlex.split(line) for line in re.findall(r"^.*-m minigpt4o\.serve\.harness\.run_vlmevalkit .*$", page, re.M)
    ]
    assert len(typed) == 2
    for words in typed:
        ours, theirs = read(words[words.index("-m") + 2 :])
        assert ours["path"]
        assert theirs[0] == "--data"
