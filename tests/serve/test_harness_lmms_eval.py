"""Claims about the adapter for lmms-eval: its requests as it makes them, and its own evaluator where it is installed.

Without lmms-eval two stand-ins for its base class and its result wrapper let the adapter's own logic run; whatever
concerns its registry, its tasks and its evaluator is tested against the real package only.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.batch import Decoding
from minigpt4o.serve.harness.answering import Answerer
from minigpt4o.serve.harness.requests import parts_of_context, sample_of

HOME = "minigpt4o.serve.harness.lmms_eval"
REAL = importlib.util.find_spec("lmms_eval") is not None
needs_lmms_eval = pytest.mark.skipif(not REAL, reason="lmms-eval is not installed (pip install '.[eval-harness]')")
SET_BY_LMMS_EVAL = ("batch_size", "max_batch_size")  # by its own flags
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: {kind}
doc_to_visual: !function own.visual
doc_to_text: question
doc_to_target: {target}
"""
GENERATED = """
generation_kwargs: {max_new_tokens: 6, temperature: 0, until: ["zz"]}
process_results: !function own.same
metric_list: [{metric: same, aggregation: mean, higher_is_better: true}]
"""
CHOSEN = """
doc_to_choice: choices
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
OWN = """
from PIL import Image
def visual(doc):
    return [Image.new("RGB", (9, 9), colour) for colour in doc["colours"]]
def same(doc, results):
    return {"same": float(results[0] == doc["said"])}
"""


def stand_ins() -> dict[str, ModuleType]:
    """What the adapter imports of lmms-eval, in its documented shape (lmms_eval/api/model.py, api/instance.py)."""

    class Base:
        is_simple = True

        def __init__(self) -> None:
            self._rank, self._world_size, self.task_dict = 0, 1, {}
            self.cache_hook = SimpleNamespace(add_partial=lambda attr, req, res: None)

        rank = property(lambda self: self._rank)
        world_size = property(lambda self: self._world_size)

        def clean(self) -> None:
            pass

    @dataclass
    class Result:
        text: Any
        token_counts: Any = None

    modules = {name: ModuleType(name) for name in ("lmms_eval", "lmms_eval.api")}
    modules["lmms_eval.api.model"] = ModuleType("lmms_eval.api.model")
    modules["lmms_eval.api.instance"] = ModuleType("lmms_eval.api.instance")
    modules["lmms_eval.api.model"].lmms = Base  # type: ignore[attr-defined]
    modules["lmms_eval.api.instance"].GenerationResult = Result  # type: ignore[attr-defined]
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
    """An adapter around the tiny model; what `Answerer.open` is told is kept in `opened`."""
    told: dict[str, Any] = {}

    def opened(path: str, checkpoint: Any = None, **more: Any) -> Answerer:
        told.update(more, path=path, checkpoint=checkpoint)
        return answerer

    monkeypatch.setattr(Answerer, "open", opened)

    def build(kind: str = "Minigpt4o", **given: Any) -> Any:
        model = getattr(adapter, kind)(path="run", device="cpu", **given)
        model.opened = told
        return model

    return build


DOCS = [
    {"question": "what is there?", "colours": ["red"]},
    {"question": "what is there at the top left? 0123", "colours": []},
    {"question": "a <image> b <image>", "colours": ["blue", "green"]},
    {"question": "red?", "colours": ["blue"]},
    {"question": "a small red circle is at the top left.", "colours": ["red", "white"]},
]


def visual(doc: dict) -> list:
    return [Image.new("RGB", (9, 9), colour) for colour in doc["colours"]]


def requests_of(kind: str, *, kwargs: dict | None = None, target: Any = None, repeats: int = 1) -> list[Any]:
    """As `ConfigurableTask.construct_requests` makes them, `repeats` times each."""
    made = []
    for number, doc in enumerate(DOCS):
        place = (number, "toy", "test")
        args: tuple = (doc["question"], dict(kwargs or {}), visual, *place)
        if kind == "chat":
            args = (doc["question"], messages, dict(kwargs or {}), *place)
        elif kind == "weigh":
            args = (doc["question"], target, visual, *place)
        request = SimpleNamespace(args=args, task_name="toy", doc_id=number, idx=0)
        made += [request] * repeats
    return made


def messages(doc: dict) -> list[dict]:
    content = [{"type": "image", "url": picture} for picture in visual(doc)]
    return [{"role": "user", "content": [*content, {"type": "text", "text": doc["question"]}]}]


def own_samples() -> list:
    parts = [parts_of_context(d["question"], [("image", p) for p in visual(d)]) for d in DOCS]
    return [sample_of(f"own/{i}", [("user", given)]) for i, given in enumerate(parts)]


def known(model: Any) -> Any:
    model.task_dict["toy"] = {"test": DOCS}
    return model


@pytest.mark.parametrize("kind", ["Minigpt4o", "Minigpt4oChat"])
@pytest.mark.parametrize("batch_size", [1, "3", 16])
def test_answers_are_our_own_answers_in_the_order_of_the_requests(make, answerer, kind, batch_size):
    model = known(make(kind, batch_size=batch_size))
    asked = requests_of("chat" if kind.endswith("Chat") else "ask", kwargs={"max_new_tokens": 6, "until": ["zz"]})
    assert model.generate_until(asked) == answerer.answer(own_samples(), Decoding(max_new_tokens=6))


def test_every_request_is_answered_as_its_own_task_wants(make, answerer):
    model = known(make(batch_size=4))
    asked = requests_of("ask")
    for number, request in enumerate(asked):
        request.args[1].update(max_new_tokens=number + 1)
    alone = [answerer.answer([s], Decoding(max_new_tokens=i + 1))[0] for i, s in enumerate(own_samples())]
    assert model.generate_until(asked) == alone


def test_repeats_of_a_question_are_drawn_anew(make):
    model = known(make(batch_size=2))
    drawn = {"max_new_tokens": 8, "do_sample": True, "temperature": 2.0}
    said = model.generate_until(requests_of("ask", kwargs=drawn, repeats=4))
    assert len(set(said[:4])) > 1
    assert said == known(make(batch_size=16)).generate_until(requests_of("ask", kwargs=drawn, repeats=4))


@pytest.mark.parametrize(("by", "of"), [("mean", "mean"), ("sum", "total")])
def test_a_given_answer_is_weighed_by_its_loss_without_the_blank_before_it(make, answerer, by, of):
    model = known(make(batch_size=2, likelihood=by))
    red, top = requests_of("weigh", target=" red"), requests_of("weigh", target=" at the top")
    asked = [request for pair in zip(red, top, strict=True) for request in pair]
    own = answerer.likelihoods(own_samples(), [["red", "at the top"]] * len(DOCS))
    found = [tuple(result) for result in model.loglikelihood(asked)]
    assert [loss for loss, _ in found] == pytest.approx([-getattr(o, of) for row in own for o in row], abs=1e-4)
    assert [greedy for _, greedy in found] == [o.greedy for row in own for o in row]


def test_the_choices_of_a_question_share_one_run_of_its_prompt(make, answerer, monkeypatch):
    model, runs = known(make(batch_size=16)), []
    plain = Answerer.likelihoods
    monkeypatch.setattr(
        Answerer, "likelihoods", lambda self, samples, given: runs.append(len(samples)) or plain(self, samples, given)
    )
    model.loglikelihood([*requests_of("weigh", target=" red"), *requests_of("weigh", target="blue")])
    assert runs == [len(DOCS)]


def test_a_request_without_a_document_is_weighed_as_text(make):
    model = known(make())
    plain = SimpleNamespace(args=("", "red"), task_name="toy", doc_id=0, idx=0)  # what acc_mutual_info asks beside
    (loss, greedy), *_ = map(tuple, model.loglikelihood([plain]))
    assert loss > 0
    assert greedy in (True, False)


@pytest.mark.parametrize("kind", ["Minigpt4o", "Minigpt4oChat"])
def test_rounds_go_on_until_the_task_says_so(make, kind):
    told: list[Any] = []

    def later(doc: dict, round_idx: int | None = None, previous_output: Any = None, previous_round_info: Any = None):
        if round_idx is None:
            return messages(doc)
        told.append((round_idx, list(previous_output), previous_round_info))
        turn = messages(doc) if kind.endswith("Chat") else "and then?"
        state = (round_idx == 3, previous_output, {"seen": round_idx})
        return (turn, *state) if kind.endswith("Chat") else (visual(doc), turn, *state)

    model = known(make(kind))
    wish = {"max_new_tokens": 4}
    simple = ("what is there?", wish, visual, later, 0, "toy", "test")
    chat = ("what is there?", later, wish, 0, "toy", "test")
    args = chat if kind.endswith("Chat") else simple
    (answers,) = model.generate_until_multi_round([SimpleNamespace(args=args, task_name="toy", doc_id=0, idx=0)])
    assert len(answers) == 3
    assert [number for number, _, _ in told] == [1, 2, 3]
    assert [info for _, _, info in told] == [None, {"seen": 1}, {"seen": 2}]
    assert told[-1][1] == answers


def test_system_words_and_earlier_turns_of_messages_are_kept(adapter):
    turns = adapter.turns_of_messages(
        [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": [{"type": "image", "url": "a.png"}, {"type": "text", "text": "what?"}]},
            {"role": "assistant", "content": "red"},
            {"role": "user", "content": [{"type": "text", "text": "sure?"}]},
        ]
    )
    assert [(role, [kind for kind, _ in parts]) for role, parts in turns] == [
        ("system", ["text"]), ("user", ["image", "text"]), ("assistant", ["text"]), ("user", ["text"])
    ]  # fmt: skip


def test_the_rank_and_the_device_are_those_of_the_launcher(make, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    model = make(checkpoint="step", profile="compat", options="a.b=1 c.d=2", batch_size="2")
    assert (model.rank, model.world_size, str(model.device)) == (3, 4, "cpu")
    assert model.opened == {
        "path": "run", "checkpoint": "step", "profile": "compat", "device": "cpu", "options": ["a.b=1", "c.d=2"]
    }  # fmt: skip


@pytest.mark.parametrize("given", [{"batch_size": "auto"}, {"likelihood": "best"}])
def test_wrong_arguments_are_refused_in_words(make, given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        make(**given)


def test_the_model_is_freed_when_lmms_eval_says_so(make):
    model = known(make())
    model.clean()
    assert model.answerer is None
    with pytest.raises(ConfigError, match="freed"):
        model.generate_until(requests_of("ask"))


def test_the_page_names_every_argument_of_the_model_and_its_default(adapter):
    page = (Path(__file__).parents[2] / "docs/harnesses.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) *\|", page, re.M))
    takes = {n: p for n, p in inspect.signature(adapter.Minigpt4o).parameters.items() if n not in SET_BY_LMMS_EVAL}
    assert {name for name in told if not name.startswith("minigpt4o")} == set(takes)
    for name in ("max_new_tokens", "likelihood", "device"):
        assert told[name].strip("`") == str(takes[name].default)


# ---- the real package ----


@pytest.fixture
def tasks(tmp_path: Path, answerer) -> Any:
    """Two tasks as a user of lmms-eval writes them, over rows in a local file; the truth is what our model says."""
    import json

    from lmms_eval.tasks import TaskManager

    samples = own_samples()
    said = answerer.answer(samples, Decoding(max_new_tokens=6))
    choices = ["red", "at the top left", "0123 zz"]
    rows = []
    for doc, answer, row in zip(DOCS, said, answerer.likelihoods(samples, [choices] * len(DOCS)), strict=True):
        best = max(range(len(choices)), key=lambda i: row[i].mean)
        rows.append({**doc, "said": answer, "choices": choices, "best": best})
    (tmp_path / "rows.json").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    for name, kind, target, rest in (
        ("toy_said", "generate_until", "said", GENERATED),
        ("toy_best", "multiple_choice", "best", CHOSEN),
    ):
        text = TASK.format(name=name, rows=tmp_path / "rows.json", kind=kind, target=target) + rest
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return TaskManager("WARNING", include_path=str(tmp_path), include_defaults=False, model_name="minigpt4o")


@needs_lmms_eval
@pytest.mark.parametrize("kind", ["Minigpt4o", "Minigpt4oChat"])
def test_lmms_evals_own_evaluator_gets_our_own_answers(make, tasks, kind, monkeypatch, tmp_path):
    from lmms_eval.evaluator import simple_evaluate

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    wanted = {"toy_said": "same,none", **({} if kind.endswith("Chat") else {"toy_best": "acc,none"})}
    found = simple_evaluate(make(kind, batch_size=2), tasks=list(wanted), task_manager=tasks, batch_size=2)
    assert {name: found["results"][name][metric] for name, metric in wanted.items()} == dict.fromkeys(wanted, 1.0)
    assert [s["filtered_resps"][0] for s in found["samples"]["toy_said"]] == [
        s["doc"]["said"] for s in found["samples"]["toy_said"]
    ]


@needs_lmms_eval
def test_lmms_eval_finds_both_models_by_the_entry_point_of_setup_py(tmp_path, monkeypatch, adapter):
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    setup = Path(__file__).parents[2] / "setup.py"
    spec = importlib.util.spec_from_file_location("setup_of_harness", setup)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path / "minigpt4o_test-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: minigpt4o-test\nVersion: 0\n")
    lines = "\n".join(module.ENTRY_POINTS["lmms_eval.models"])
    (folder / "entry_points.txt").write_text(f"[lmms_eval.models]\n{lines}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = ModelRegistryV2()
    registry.load_entrypoint_manifests()
    assert registry.get_model_class("minigpt4o") is adapter.Minigpt4o
    assert registry.get_model_class("minigpt4o", force_simple=True) is adapter.Minigpt4o
    assert registry.get_model_class("minigpt4o_chat") is adapter.Minigpt4oChat


@needs_lmms_eval
def test_the_arguments_of_lmms_evals_command_line_reach_the_model(make, adapter):
    told = make().opened
    words = 'path=run,checkpoint=x/y,max_new_tokens=9,likelihood=sum,options="a.b=1 c.d=2",system="Be brief, please."'
    model = adapter.Minigpt4o.create_from_arg_string(
        words, {"batch_size": "4", "device": "cpu", "max_batch_size": None}
    )
    assert (model.batch_size, model.defaults.max_new_tokens, model.likelihood) == (4, 9, "sum")
    assert (model.system, told["options"]) == ("Be brief, please.", ["a.b=1", "c.d=2"])
