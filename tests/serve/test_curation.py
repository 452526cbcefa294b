"""Claims about making stage 2 data: rules that can be read, every picture asked once, files that train as they are."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.processors.image import Blip2ImageEval, open_image
from minigpt4o.serve.curation import refine as refining
from minigpt4o.serve.curation.curate import Curation, Plan
from minigpt4o.serve.curation.describe import Asking, Describer
from minigpt4o.serve.curation.refine import Endpoint, Local
from minigpt4o.serve.curation.rules import Rules, clean, size_of, unfinished, verdict

GOOD = "A wooden boat number {n} lies on a quiet lake. Two people in red coats row it towards a small white house."
LOOSE = Rules(min_words=5)


# ---- rules ----


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("A dog runs. A dog runs. It is brown.", "A dog runs. It is brown."),
        ("A dog runs. The picture also sho", "A dog runs."),
        ("A dog. ###Human: what is it? ###Assistant: a cat.", "A dog."),
        ("I'm sorry, I made a mistake. A dog runs.", "A dog runs."),
        ("A dog\n\n  runs.  See www.dogs.example for more.", "A dog runs. See for more."),
        ("<Img><ImageHere></Img> A dog.", "A dog."),
        ("犬が走っています。犬が走っています。空は青", "犬が走っています。"),
        ("", ""),
        ("no end mark at all", ""),
    ],
)
def test_what_is_cleaned_away(raw, cleaned):
    assert clean(raw) == cleaned
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, ""),
        ("", "nothing_left"),
        ("A dog runs.", "too_short"),
        ("A dog runs. " + "word " * 500, "too_long"),
        ("the dog and " * 12, "repetitive"),
        ("☃☂☁ ♞♜♛ ★☆☇ ♠♣♥ ♦♧♨ ♩♪♫ abc.", "odd_characters"),
    ],
)
def test_why_a_text_is_not_kept(text, reason):
    assert verdict(text, LOOSE) == reason


def test_japanese_is_counted_in_characters():
    assert size_of("犬が走る。") == 5
    assert size_of("a dog runs") == 3
    assert unfinished("犬が走る")
    assert not unfinished("犬が走る。")


# ---- the whole tool ----


class Pictures:
    """Twelve pictures: the third file is broken, the sixth is a PNG, the ninth lies on its side."""

    def __init__(self, folder: Path) -> None:
        from minigpt4o.datasets.builders.pairs import Pairs

        rows = []
        for number in range(12):
            name = f"{number}.png" if number == 5 else f"{number}.jpg"
            picture = Image.new("RGB", (20, 12), (20 * number, 90, 60))
            exif = Image.Exif()
            exif[0x0112] = 6 if number == 8 else 1
            picture.save(folder / name, exif=exif)
            rows.append({"image": name, "caption": "x"})
        (folder / "2.jpg").write_bytes(b"broken")
        (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
        config = Pairs.Config(annotations={"train": str(folder / "rows.json")}, media_root=str(folder))
        self.builder = Pairs(config, name="pictures", split="train")


@pytest.fixture
def builder(tmp_path: Path) -> Any:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return Pictures(folder).builder


@pytest.fixture
def describer(tiny_model: Any) -> Describer:
    processor = Blip2ImageEval(Blip2ImageEval.Config(image_size=16))
    encoder = open_encoder(tiny_model.tokenizer, tiny_model.conversation, tiny_model.slots, {"image": processor}, 160)
    return Describer(tiny_model, encoder, Asking(prompt="what is there?", short=4, times=1, max_new_tokens=8))


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]], list[int]]]:
    """(address, requests seen, statuses to answer with first): a chat server that says one good paragraph a request."""
    seen: list[dict[str, Any]] = []
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = statuses.pop(0) if statuses else 200
            seen.append({"path": self.path, "auth": self.headers.get("Authorization"), **body})
            text = GOOD.format(n=len(seen))
            answer = {"choices": [{"message": {"content": text}}]} if status == 200 else {"error": "no"}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args: Any) -> None:
            pass

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{service.server_port}/v1", seen, statuses
    service.shutdown()
    service.server_close()


def numbered(texts: list[str]) -> list[str]:
    """A refiner whose answer depends on the text alone."""
    return [GOOD.format(n=sum(map(ord, text)) % 1000) for text in texts]


def curation(builder: Any, describer: Describer, out: Path, refine: Any, **values: Any) -> Curation:
    plan = Plan(out=out, batch_size=3, rules=LOOSE, asking=describer.asking, refiner="test", **values)
    return Curation(plan, builder, describer, "weights", refine)


def test_what_is_written_is_read_as_cc_sbu_align(builder, describer, server, tmp_path):
    from minigpt4o.common.config import load_settings
    from minigpt4o.runners.build import build_builders

    address, seen, _ = server
    out = tmp_path / "made"
    made = curation(builder, describer, out, Endpoint(address, "mender"))
    report, chosen = made.run(), dict(made._chosen())
    assert report["described"] == 12
    assert report["kept"] + sum(report["dropped"].values()) == 12
    assert report["dropped"].pop("unreadable_image") == 1
    assert set(report["dropped"]) <= {"nothing_left"}  # a model without training says nothing worth keeping
    assert report["kept"] > 0
    assert {request["path"] for request in seen} == {"/v1/chat/completions"}
    assert {request["model"] for request in seen} == {"mender"}

    file = tmp_path / "stage2.yaml"
    node = {"annotations": {"train": str(out / "filter_cap.json")}, "media_root": str(out / "image")}
    file.write_text(json.dumps({"datasets": {"cc_sbu_align": node}}), encoding="utf-8")
    learned = build_builders(load_settings(file, [], needs=["datasets"]), "train")["cc_sbu_align"]
    assert len(learned) == report["kept"]
    for index in range(len(learned)):
        sample = learned.sample(index, random.Random(0))
        assert sample.turns[-1].text.startswith("A wooden boat number")
        picture = open_image(sample.images[0])
        number = int(Path(sample.images[0].path).stem)
        source = builder.sample(chosen[number], random.Random(0))
        assert picture.size == open_image(source.images[0]).size


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_files(builder, describer, tmp_path):
    whole = curation(builder, describer, tmp_path / "whole", numbered)
    whole.run()
    asked: list[int] = []

    def failing(texts: list[str]) -> list[str]:
        asked.append(len(texts))
        if len(asked) in (2, 3):
            raise DataError("the server is away")
        return numbered(texts)

    for _ in range(2):
        with pytest.raises(DataError, match="away"):
            curation(builder, describer, tmp_path / "cut", failing).run()
    curation(builder, describer, tmp_path / "cut", failing).run()
    for name in ("filter_cap.json", "curation.json", "curation.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "whole" / "image").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "cut" / "image").iterdir()} == pictures


def test_another_prompt_does_not_continue_an_old_run(builder, describer, tmp_path):
    from minigpt4o.common.errors import CheckpointError

    curation(builder, describer, tmp_path / "made", numbered).run()
    with pytest.raises(CheckpointError, match="seed"):
        curation(builder, describer, tmp_path / "made", numbered, seed=1).run()


def test_if_nothing_is_good_enough_the_reasons_are_told(builder, describer, tmp_path):
    with pytest.raises(DataError, match="no description was good enough.*nothing_left"):
        curation(builder, describer, tmp_path / "made", lambda texts: ["no end"] * len(texts)).run()


# ---- refining ----


def test_a_busy_server_is_asked_again_and_a_refusal_is_told(server, monkeypatch):
    address, seen, statuses = server
    monkeypatch.setattr(refining, "WAIT_S", 0.01)
    monkeypatch.setenv("MY_KEY", "secret")
    statuses += [503, 429]
    assert Endpoint(address, "m", "MY_KEY", parallel=1)(["x"])[0].startswith("A wooden boat")
    assert [request["auth"] for request in seen] == ["Bearer secret"] * 3
    statuses.append(401)
    with pytest.raises(DataError, match="401"):
        Endpoint(address, "m")(["x"])
    with pytest.raises(DataError, match="tried 4"):
        Endpoint("http://127.0.0.1:9/v1", "m")(["x"])


def test_a_local_chat_model_refines_by_its_own_template(words, tmp_path):
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(words)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}:"
    tokenizer.save_pretrained(tmp_path / "chat")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "chat")
    local = Local(str(tmp_path / "chat"), "cpu", instruction="mend", max_new_tokens=4)
    together = local(["a red circle", "a small green circle is there"])
    assert together == [local(["a red circle"])[0], local(["a small green circle is there"])[0]]
