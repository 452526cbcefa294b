"""Minigpt4o against the installed Gemma3n of transformers: same weights, same inputs, one process, runs in turn.

    python benchmarks/minigpt4o.py --size tiny                     # on a CPU, about a minute
    python benchmarks/minigpt4o.py --size medium --repeats 9
    python benchmarks/minigpt4o.py --size e2b --device cuda --dtype bfloat16

Each case first compares the two outputs (`apart`, the relative distance) and stops if they differ. Then ours and theirs
run in turn; `ratio` is the median over the pairs of their time / our time, with the middle half of the pairs behind it.
On a CPU the time is that of the processor, so that other programs disturb little. A table goes to stderr, one JSON line
to stdout.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass

import torch
import transformers
from minigpt4o_cases import APART, SHAPES, Act, Case, feature_cases, media_cases, models, text_cases

MILLI = 1e3


@dataclass
class Row:
    """What a case took."""

    case: str
    ours_ms: float
    theirs_ms: float
    ratio: float
    low: float
    high: float
    tokens_per_s: float | None
    apart: float


def seconds(act: Act, device: torch.device) -> float:
    """One run: the processor's time on a CPU, else from an idle device to an idle device."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    act()
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    return clock() - start


def measure(case: Case, repeats: int, device: torch.device) -> Row:
    """In turn, the first pair left out; who goes first changes."""
    if not case.apart <= case.limit:
        raise SystemExit(f"{case.name}: the outputs are {case.apart:.2e} apart, at most {case.limit:.0e}; not timed")
    pairs = []
    for n in range(repeats + 1):
        acts = (case.ours, case.theirs) if n % 2 else (case.theirs, case.ours)
        taken = {act: seconds(act, device) for act in acts}
        pairs.append((taken[case.ours], taken[case.theirs]))
    ours, theirs = zip(*pairs[1:], strict=True)
    ratios = sorted(b / a for a, b in pairs[1:])
    quarter = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    middle = statistics.median(ours)
    return Row(
        case.name,
        round(middle * MILLI, 2),
        round(statistics.median(theirs) * MILLI, 2),
        round(statistics.median(ratios), 2),
        round(quarter[0], 2),
        round(quarter[2], 2),
        round(case.tokens / middle) if case.tokens else None,
        float(f"{case.apart:.1e}"),
    )


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--size", choices=SHAPES, default="tiny")
    words.add_argument("--device", default="cpu")
    words.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    words.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    words.add_argument("--repeats", type=int, default=7, help="pairs of runs of each case")
    words.add_argument("--threads", type=int, default=1, help="of the CPU")
    words.add_argument("--only", default="", help="cases whose name holds this")
    args = words.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    made, limit = models(args.size, device, dtype, args.attention), APART[dtype]
    rows = []
    say(f"{'case':<32}{'ours ms':>10}{'theirs ms':>11}{'ratio':>7}{'middle half':>15}{'tokens/s':>10}{'apart':>10}")
    for cases in (text_cases(made, args.size, limit), media_cases(made, args.size, limit), feature_cases()):
        for case in cases:
            if args.only not in case.name:
                continue
            row = measure(case, args.repeats, torch.device("cpu") if "features" in case.name else device)
            gc.collect()
            rows.append(row)
            made_s = "" if row.tokens_per_s is None else f"{row.tokens_per_s:,}"
            half = f"{row.low:.2f} ... {row.high:.2f}"
            say(
                f"{row.case:<32}{row.ours_ms:>10.1f}{row.theirs_ms:>11.1f}{row.ratio:>7.2f}{half:>15}{made_s:>10}"
                f"{row.apart:>10.0e}"
            )
    where = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    sys.stdout.write(json.dumps({**vars(args), "on": where, **versions, "cases": [asdict(row) for row in rows]}) + "\n")


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
