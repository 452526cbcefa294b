"""How fast the serving engine answers: many at once against one by one, later turns, pictures that were seen before.

    python benchmarks/serve.py                                   # the toy model of `make quickstart`, half a minute
    python benchmarks/serve.py --cfg-path my_demo.yaml --pictures my/folder --options run.device=cuda
    python benchmarks/serve.py --random                          # 30 M random weights, pictures of 224 x 224

Each case runs in turn with what it is compared to, `--repeats` times; given are medians. On a CPU the time is that of
the processor, so that other programs disturb little; times to the first token are those of a clock. Answers of the
compared ways are checked to be the same. A table goes to stderr, one JSON line to stdout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from minigpt4o.common.config import load_settings
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.serve.engine import Answering, Engine
from minigpt4o.serve.inference import load_chat

QUESTIONS = ("describe the picture.", "how many objects are there?", "絵を説明して。", "what colours are there?")
WORDS = "a small red circle is at the top left of the picture. what is there? 小さな赤い丸が左上にあります。\n"
SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>", "<Img>", "</Img>"]
Made = tuple[Any, Any]  # a model and its encoder


def opened(args: argparse.Namespace) -> Made:
    """The model of a YAML with its encoder."""
    session = load_chat(load_settings(args.cfg_path, args.options))
    return session.model, session.encoder


def drawn() -> Made:
    """A model of 30 M random weights: 49 places a picture, 8 layers of width 512."""
    from minigpt4o.models.llms.tokenizer import train_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "text.txt").write_text(WORDS * 40, encoding="utf-8")
        words = train_tokenizer([Path(folder) / "text.txt"], Path(folder) / "words", 400, special_tokens=SPECIALS)
        llama = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8}
        vit = {"image_size": 224, "patch_size": 16, "width": 192, "depth": 12, "heads": 3}
        values = {
            "llm": Part("llm", "causal_lm", {"tokenizer": str(words), "options": llama}),
            "encoders": {"image": Part("encoder", "timm_vit", vit)},
            "bridges": {"image": Part("bridge", "grouped", {"group": 4})},
            "template": "toy",
            "precision": "fp32",
        }
        model = registry.build(Part("model", "aligned", values)).eval()
    processors = {"image": registry.build(Part("processor", "blip2_image_eval", {"image_size": 224}))}
    return model, open_encoder(model.tokenizer, model.conversation, model.slots, processors)


def pictures(folder: Path, count: int) -> list[Media]:
    """Pictures of a folder; drawn ones if there are not enough."""
    import io

    import numpy as np
    from PIL import Image

    files = sorted(f for f in folder.glob("*") if f.suffix.lower() in (".png", ".jpg", ".jpeg"))[:count]
    found = [Media(data=file.read_bytes(), name=file.name) for file in files]
    draw = np.random.default_rng(0)
    while len(found) < count:
        file = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(file, "PNG")
        found.append(Media(data=file.getvalue(), name=f"{len(found)}.png"))
    return found


def clock(model: Any) -> Callable[[], float]:
    """The processor's time on a CPU, else a clock."""
    return time.process_time if model.device.type == "cpu" else time.perf_counter


def timed(model: Any, act: Callable[[], Any]) -> tuple[float, Any]:
    now = clock(model)
    start = now()
    result = act()
    return now() - start, result


def question(picture: Media, number: int) -> Sample:
    text = f"<image>{QUESTIONS[number % len(QUESTIONS)]}"
    return Sample(str(number), [Turn("user", text), Turn("assistant", "")], [picture])


def throughput(made: Made, seen: Sequence[Media], decoding: Decoding, at_once: int) -> dict[str, Any]:
    """Requests with a picture each: `at_once` in flight against one by one."""
    model = made[0]
    samples = [question(picture, i) for i, picture in enumerate(seen)]

    def run(most: int) -> list[Answering]:
        engine = Engine(*made, max_batch=most, max_waiting=len(samples), media_cache_mb=0)
        answers = []
        if most == 1:
            for sample in samples:
                answers.append(engine.submit(sample, decoding))
                answers[-1].result()
        else:
            answers = [engine.submit(sample, decoding) for sample in samples]
            for answering in answers:
                answering.result()
        engine.close()
        return answers

    alone_s, alone = timed(model, lambda: run(1))
    together_s, together = timed(model, lambda: run(at_once))
    assert [a.text for a in alone] == [a.text for a in together], "answers differ"
    tokens = sum(a.answer_tokens for a in alone)
    return {
        "requests": len(samples),
        "answer_tokens": tokens,
        "one_by_one_tokens_per_s": tokens / alone_s,
        "at_once_tokens_per_s": tokens / together_s,
        "ratio": alone_s / together_s,
        "first_token_ms_alone": 1e3 * statistics.median(a.first_token_s or 0 for a in alone),
        "first_token_ms_first_wave": 1e3 * statistics.median(a.first_token_s or 0 for a in together[:at_once]),
    }


def joining(made: Made, seen: Sequence[Media], decoding: Decoding, at_once: int) -> dict[str, Any]:
    """How long a request waits for its first token while others are being answered."""
    engine = Engine(*made, max_batch=at_once)
    long = Decoding(400, min_new_tokens=400)
    others = [engine.submit(Sample(f"o{i}", [Turn("user", "tell me a story")]), long) for i in range(at_once - 1)]
    next(iter(others[-1]), None)
    waits = []
    for number, picture in enumerate(seen):
        answering = engine.submit(question(picture, number), decoding)
        answering.result()
        waits.append(1e3 * (answering.first_token_s or 0))
    engine.close()
    return {"first_token_ms_beside_others": statistics.median(waits)}


def turns(made: Made, picture: Media, decoding: Decoding, count: int = 6) -> dict[str, Any]:
    """A conversation whose history is kept, against one that is read again at every turn."""
    model = made[0]

    def talk(session: str) -> list[Answering]:
        engine = Engine(*made)
        said: list[Turn] = []
        answers = []
        for number in range(count):
            said.append(Turn("user", ("" if number else "<image>") + QUESTIONS[number % len(QUESTIONS)]))
            asked = Sample("talk", [*said, Turn("assistant", "")], [picture])
            answers.append(engine.submit(asked, decoding, session=session))
            said.append(Turn("assistant", answers[-1].result()))
        engine.close()
        return answers

    read_s, read = timed(model, lambda: talk(""))
    kept_s, kept = timed(model, lambda: talk("s"))
    assert [a.text for a in read] == [a.text for a in kept], "answers differ"
    places = sum(len(a.prompt_ids) for a in kept)
    return {
        "reuse_ratio": read_s / kept_s,
        "reuse_share_of_places": sum(a.reused_tokens for a in kept) / places,
        "reuse_first_token_ratio": _first(read[1:]) / _first(kept[1:]),
    }


def media(made: Made, picture: Media, decoding: Decoding, count: int = 8) -> dict[str, Any]:
    """Several questions about one picture: its features kept, against encoded each time."""
    model = made[0]

    def ask(megabytes: int) -> list[Answering]:
        engine = Engine(*made, media_cache_mb=megabytes)
        answers = []
        for number in range(count):
            answers.append(engine.submit(question(picture, number), decoding))
            answers[-1].result()
        engine.close()
        return answers

    anew_s, anew = timed(model, lambda: ask(0))
    kept_s, kept = timed(model, lambda: ask(256))
    assert [a.text for a in anew] == [a.text for a in kept], "answers differ"
    return {"media_ratio": anew_s / kept_s, "media_first_token_ratio": _first(anew[1:]) / _first(kept[1:])}


def _first(answers: Sequence[Answering]) -> float:
    return statistics.median(answering.first_token_s or 0 for answering in answers)


def measured(made: Made, args: argparse.Namespace) -> dict[str, Any]:
    """The medians of all cases over the repeats; the first run of all is left out."""
    seen = pictures(Path(args.pictures), args.requests)
    decoding = Decoding(args.tokens, min_new_tokens=args.tokens if args.random else 0)
    rows: list[dict[str, Any]] = []
    for repeat in range(args.repeats + 1):
        row = {
            **throughput(made, seen, decoding, args.at_once),
            **joining(made, seen[:8], decoding, args.at_once),
            **turns(made, seen[0], decoding),
            **media(made, seen[0], decoding),
        }
        if repeat:
            rows.append(row)
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg-path", default="eval_configs/toy/demo.yaml", help="YAML of a chat")
    parser.add_argument("--options", nargs="*", default=[], help="key=value over the YAML")
    parser.add_argument("--random", action="store_true", help="a larger model with random weights instead")
    parser.add_argument("--pictures", default="data/toy/pictures/test", help="folder of pictures to ask about")
    parser.add_argument("--requests", type=int, default=48, help="requests of a run")
    parser.add_argument("--at-once", type=int, default=16, help="requests in flight")
    parser.add_argument("--tokens", type=int, default=48, help="longest answer")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    made = drawn() if args.random else opened(args)
    found = measured(made, args)
    found["device"], found["torch"] = str(made[0].device), torch.__version__
    width = max(map(len, found))
    for name, value in found.items():
        sys.stderr.write(
            f"{name:<{width}}  {value:.2f}\n" if isinstance(value, float) else f"{name:<{width}}  {value}\n"
        )
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
