"""A stand-in for the model that answers from a table, so that everything behind the answers can be tried alone.

`truth` answers every benchmark rightly, `empty` says nothing, `garbage` says what no metric can read. Choices are
ranked by the same table: the right one first, or the first wrong one.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "datasets"))

GARBAGE = "zzz \x00 {<1>} ￼ 💥 qqq"
WAYS = ("truth", "empty", "garbage")


class StandIn:
    """What the runner needs of a model: tokenizer, slots, template, and answers."""

    def __init__(self, tasks: dict[str, Any], way: str, template: Any) -> None:
        self.tasks, self.way, self.conversation = tasks, way, template
        self.tokenizer = byte_tokenizer()
        self.slots, self.max_txt_len = {"image": 3, "audio": 2}, 4000
        self.config = SimpleNamespace()
        self.asked: Counter[str] = Counter()
        self.begins: set[tuple[int, ...]] = set()  # the first two ids of the prompts

    def generate(self, batch: Any, decoding: Any, on_text: Any = None, stop: Any = ()) -> list[str]:
        assert len(batch.samples) == len(batch), "every row says which sample it is"
        self.asked.update(sample.dataset for sample in batch.samples)
        for ids, real in zip(batch.input_ids, batch.attention_mask, strict=True):
            self.begins.add(tuple(ids[real.bool()][:2].tolist()))
        return [self.says(sample) for sample in batch.samples]

    def says(self, sample: Any) -> str:
        """The generated answer."""
        if self.way != "truth":
            return GARBAGE if self.way == "garbage" else ""
        task = self.tasks[sample.dataset]
        metric = getattr(task.config, "metric", "")
        truth: list[str] = task.truth(sample)
        return Counter(truth).most_common(1)[0][0] if metric in ("majority", "vizwiz", "official") else truth[0]

    def rank(self, _model: Any, batch: Any, answers: Any) -> list[list[Any]]:
        """In place of `rank_batch`: the answer that the table names is the likeliest."""
        from minigpt4o.models.ranking import Likelihood

        found = []
        for sample, ids in zip(batch.samples, answers, strict=True):
            texts = [self.tokenizer.decode(one).replace("</s>", "") for one in ids]
            assert texts == list(dict.fromkeys(self.tasks[sample.dataset].choices(sample))), "answers with their end"
            right = self.right(sample)
            wanted = right if self.way == "truth" else next(text for text in texts if text != right)
            found.append(
                [
                    Likelihood(-1.0 if t == wanted else -50.0, len(i), greedy=t == wanted)
                    for t, i in zip(texts, ids, strict=True)
                ]
            )
        return found

    def right(self, sample: Any) -> str:
        """The right one of the choices, as it is ranked."""
        task = self.tasks[sample.dataset]
        place = sample.meta["choices"].index(sample.answers[0]) if getattr(task.config, "rank", "") == "letter" else 0
        return chr(ord("A") + place) if getattr(task.config, "rank", "") == "letter" else str(sample.answers[0])


def byte_tokenizer() -> Any:
    """Bytes as tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate([*alphabet, "<s>", "</s>"])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")


@contextmanager
def judge() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address, questions seen) of a judge who gives 10 to an answer that equals the reference, else 0."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(body)
            asked = body["messages"][-1]["content"]
            one, two = (asked.split(f"[Assistant {n}]\n")[1].split("\n\n[End of")[0] for n in (1, 2))
            words = f"10 {10 if one == two else 0}\nThe first is the reference."
            reply = json.dumps({"choices": [{"message": {"content": words}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
