"""Memory and time of the loss over a 200,000-word head: ours, in chunks at learned positions, against plain logits.

    python benchmarks/minigpt4o_loss.py
    python benchmarks/minigpt4o_loss.py --tokens 1024 --words 200000 --width 512 --chunk 256

Each form runs in a process of its own; the peak is what the process held at most, less what it held before. Both give
the same loss and gradients (largest differences are shown). "plain" is what transformers does: logits of all learned
positions in one tensor, soft cap, cross entropy in float32.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
# (minigpt4o.py of this folder would stand before the package)

FORMS = ("plain", "ours")
CAP = 30.0


def parts(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """States (n, D) that need a gradient, the head's weight (V, D), and the ids (n,) to predict."""
    import torch

    draw = torch.Generator().manual_seed(0)
    states = torch.randn(args.tokens, args.width, generator=draw).requires_grad_()
    weight = (torch.randn(args.words, args.width, generator=draw) * args.width**-0.5).requires_grad_(args.head)
    return states, weight, torch.randint(args.words, (args.tokens,), generator=draw)


def loss_of(form: str, args: argparse.Namespace, states: Any, weight: Any, targets: Any) -> Any:
    import torch
    import torch.nn.functional as F

    from minigpt4o.models.loss import Head, summed_loss

    if form == "ours":
        return summed_loss(states, targets, Head(weight, None, 1.0, CAP), args.chunk).loss_sum
    logits = torch.tanh(F.linear(states, weight) / CAP) * CAP
    return F.cross_entropy(logits.float(), targets, reduction="sum")


def measure(form: str, args: argparse.Namespace) -> dict[str, Any]:
    """One forward and backward: bytes at the peak, seconds, and numbers to compare."""
    import torch

    states, weight, targets = parts(args)
    few = [states[:4].detach(), weight[:8].detach(), targets[:4] % 8]  # imports and threads come before the measuring
    loss_of(form, args, few[0].requires_grad_(), few[1].requires_grad_(args.head), few[2]).backward()
    before = forget_peak()
    start = time.process_time()
    loss = loss_of(form, args, states, weight, targets)
    loss.backward()
    seconds, most = time.process_time() - start, held("VmHWM") - before
    gradients = [p.grad for p in (states, weight) if p.grad is not None]
    sums = [float(g.double().pow(2).sum()) ** 0.5 for g in gradients]
    sample = torch.cat([g.flatten()[:: max(g.numel() // 1000, 1)] for g in gradients]).tolist()
    return {"bytes": most, "seconds": seconds, "loss": float(loss.detach()), "norms": sums, "sample": sample}


def held(key: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def forget_peak() -> int:
    """Begin the peak anew; returns what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return held("VmRSS")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024, help="learned positions")
    parser.add_argument("--words", type=int, default=200_000, help="rows of the head")
    parser.add_argument("--width", type=int, default=512, help="of a hidden state")
    parser.add_argument("--chunk", type=int, default=64, help="model.loss_chunk of ours")
    parser.add_argument("--head", action="store_true", help="let the head learn too")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.form:
        sys.stdout.write(json.dumps(measure(args.form, args)))
        return 0
    found = {form: run(form) for form in FORMS}
    plain, ours = (found[form] for form in FORMS)
    logits = args.tokens * args.words * 4
    sys.stdout.write(
        f"{args.tokens} learned tokens x {args.words} words x width {args.width}, head "
        f"{'learns' if args.head else 'frozen'}; one tensor of logits: {logits / 2**20:.0f} MiB\n"
    )
    for form in FORMS:
        got = found[form]
        sys.stdout.write(
            f"{form:<6} peak {got['bytes'] / 2**20:7.0f} MiB   CPU {got['seconds']:6.2f} s   loss {got['loss']:.4f}\n"
        )
    worst = max(abs(a - b) / (abs(a) + 1e-6) for a, b in zip(plain["norms"], ours["norms"], strict=True))
    apart = max(abs(a - b) for a, b in zip(plain["sample"], ours["sample"], strict=True))
    sys.stdout.write(
        f"ratio  memory {ours['bytes'] / plain['bytes']:.3f}   time {ours['seconds'] / plain['seconds']:.2f}   "
        f"gradients: norms differ by {worst:.1e}, entries by at most {apart:.1e}\n"
    )
    return 0


def run(form: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--form", form]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
