"""Throughput of the HTTP API: 16 callers at once against the same questions one by one.

    python benchmarks/serve_http.py --cfg-path eval_configs/toy/demo.yaml

starts `minigpt4o serve` in a process of its own (after `make quickstart` for the toy model), or asks a server that runs
already (`--url`). Rounds of both ways alternate, the figure is the ratio of the medians. All pictures were seen before:
what is measured is the answering, and that both ways give the same answers.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUESTIONS = ("describe the picture.", "how many objects are there?", "絵を説明して。")  # those of the demo's examples
START_SECONDS = 180


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write one JSON object to stdout."""
    args = arguments().parse_args(argv)
    pictures = sorted(Path(args.pictures).glob("*.png"))[: args.requests] if args.pictures else []
    with nothing(args.url) if args.url else server(args) as url:
        model = get(f"{url}/v1/models", args.key)["data"][0]["id"]
        bodies = [body(model, number, pictures, args.tokens) for number in range(args.requests)]
        run(url, bodies, args.concurrent, args.key)  # neither way is to encode the pictures for the other
        rounds = [[run(url, bodies, at_once, args.key) for at_once in (1, args.concurrent)] for _ in range(args.rounds)]
        answers = {tuple(texts) for pair in rounds for _, texts in pair}
    alone, together = ([pair[way][0] for pair in rounds] for way in (0, 1))
    found = {
        "model": model,
        "requests": args.requests,
        "concurrent": args.concurrent,
        "rounds": args.rounds,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "one_by_one_per_s": round(args.requests / statistics.median(alone), 2),
        "together_per_s": round(args.requests / statistics.median(together), 2),
        "ratio": round(statistics.median(alone) / statistics.median(together), 2),
        "ratios": [round(one / many, 2) for one, many in zip(alone, together, strict=True)],
        "same_answers": len(answers) == 1,
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if not found["same_answers"]:
        sys.stderr.write("the answers differ between the two ways\n")
    return 0 if found["same_answers"] and found["ratio"] >= args.least else 1


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg-path", default="eval_configs/toy/demo.yaml", help="YAML of the model to serve")
    parser.add_argument("--options", nargs="*", default=[], help="laid over the YAML")
    parser.add_argument("--url", help="a server that runs already, e.g. http://127.0.0.1:8000")
    parser.add_argument("--key", default=os.environ.get("MINIGPT4O_API_KEY", ""), help="its API key")
    parser.add_argument("--pictures", default="data/toy/pictures/test", help="folder of PNGs; '' = words only")
    parser.add_argument("--requests", type=int, default=64, help="of one round")
    parser.add_argument("--concurrent", type=int, default=16, help="callers at once")
    parser.add_argument("--rounds", type=int, default=3, help="of each way")
    parser.add_argument("--tokens", type=int, default=48, help="longest answer")
    parser.add_argument("--least", type=float, default=0.0, help="exit with 1 below this ratio")
    return parser


def body(model: str, number: int, pictures: Sequence[Path], tokens: int) -> bytes:
    """A request with a picture of its own."""
    content: list[dict[str, Any]] = [{"type": "text", "text": QUESTIONS[number % len(QUESTIONS)]}]
    if pictures:
        data = base64.b64encode(pictures[number % len(pictures)].read_bytes()).decode()
        content.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
    tree = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": tokens, "temperature": 0}
    return json.dumps(tree).encode()


def run(url: str, bodies: Sequence[bytes], at_once: int, key: str) -> tuple[float, list[str]]:
    """(seconds, answers) of all requests; each caller keeps its connection, as clients do."""
    own = threading.local()
    headers = {"Content-Type": "application/json", **auth(key)}

    def post(data: bytes) -> str:
        if not hasattr(own, "line"):
            own.line = http.client.HTTPConnection(url.removeprefix("http://"), timeout=300)
        own.line.request("POST", "/v1/chat/completions", data, headers)
        answer = json.load(own.line.getresponse())
        if "error" in answer:
            raise SystemExit(f"the server refuses: {answer['error']['message']}")
        return str(answer["choices"][0]["message"]["content"])

    began = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(post, bodies))
    return time.perf_counter() - began, answers


def get(url: str, key: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=auth(key)), timeout=30) as answer:
        return json.load(answer)


def auth(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


@contextmanager
def nothing(url: str) -> Iterator[str]:
    yield url.rstrip("/").removesuffix("/v1")


@contextmanager
def server(args: argparse.Namespace) -> Iterator[str]:
    """The address of a server that is started here and ended afterwards."""
    command = [sys.executable, "-m", "minigpt4o.cli", "serve", "--cfg-path", args.cfg_path, "--port", "0"]
    command += ["--max-batch", str(args.concurrent), "--options", *args.options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    late = threading.Timer(START_SECONDS, process.kill)
    late.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        late.cancel()
        if "http://" not in line:
            raise SystemExit("the server did not start; what it says stands above")
        yield "http://" + line.split("http://", 1)[1].split("/")[0]
    finally:
        late.cancel()
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    raise SystemExit(main())
