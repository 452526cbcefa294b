"""Pictures and clips per second and core from shards: ours, the plain pipeline a user would write, the raw read.

    python benchmarks/data.py                                # a minute or two on one core
    python benchmarks/data.py --seconds 20 --only jpeg --json out.json
    python benchmarks/data.py --only 256x340 --profile       # and where our time goes

The plain pipeline is webdataset + Pillow + torchvision as MiniGPT-4 reads its shards, or webdataset + soundfile +
torchaudio: decoded, changed, stacked into batches of 32. Ours is the `shards` builder, template, tokenizer, processor
and the training loader: whole batches, tokenised too. They run in turn in one process with one thread; samples are
counted per second of processor time, so that other programs disturb little. `ratio` is the median over the pairs, with
the middle half of the pairs behind it. `apart` is the largest difference between the media of the two for the same
samples: pictures in 1/255, sounds in units of the standardised log-mel. `of raw` is our rate beside reading the tars.
A table goes to stderr, one JSON line to stdout.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import torch
from data_cases import BATCH, VERSIONS, Batches, Case, picture_cases, sound_cases

COMPARED = 64  # samples whose media are compared
WARM = 12 * BATCH  # samples before the clock starts
PAIRS = 5  # of runs, at least
# What our time is told by: function of the profile, and the words for it.
ACTS = (
    ("decode_jpeg", "fast_image.py", "decode the JPEG (torchvision)"),
    ("resize", "fast_image.py", "resize (torch)"),
    ("resize", "Image.py", "resize (Pillow)"),
    ("_upright_rgb", "image.py", "decode the picture (Pillow)"),
    ("_header", "image.py", "read the picture's header"),
    ("_orientation", "image.py", "read the EXIF orientation"),
    ("_normalised", "image.py", "normalise"),
    ("read_media", "reading.py", "read the bytes"),
    ("open_clip", "audio.py", "open the sound (with reading)"),
    ("resample", "resampling.py", "resample"),
    ("tensor", "audio.py", "log-mel (with resampling)"),
    ("mel_power", "fast_mel.py", "log-mel: fast spectrum"),
    ("sample", "shards.py", "builder: texts of the sample"),
    ("_plain", "encode.py", "tokenise"),
    ("render", "template.py", "render the template"),
    ("collate", "collate.py", "collate"),
    ("at", "order.py", "order"),
    ("index", "order.py", "order: the permutation"),
)


@dataclass
class Row:
    """What a case gave, in samples per second of processor time."""

    case: str
    ours: float
    plain: float
    raw: float
    ratio: float
    low: float
    high: float
    of_raw: float
    apart: float
    unit: str
    bytes: int


class Way:
    """One way to read a case: batches without end, timed by the processor's clock."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def collect(self, samples: int) -> dict[str, torch.Tensor]:
        """The media of some samples by their captions; it warms up too."""
        found: dict[str, torch.Tensor] = {}
        for words, media in self._some(samples):
            found.update({w: m.clone() for w, m in zip(words, media, strict=True)})
        return found

    def seconds(self, samples: int) -> float:
        """Per sample."""
        start, count = time.process_time(), 0
        for words, _ in self._some(samples):
            count += len(words)
        return (time.process_time() - start) / count

    def _some(self, samples: int) -> Iterator[tuple[list[str], torch.Tensor]]:
        for _ in range(-(-samples // BATCH)):
            yield next(self.batches)


def raw(tars: list[Path], samples: int) -> float:
    """Seconds per sample of reading the tars and nothing else."""
    start = time.process_time()
    for tar in tars:
        with tar.open("rb") as file:
            while file.read(1 << 20):
                pass
    return (time.process_time() - start) / samples


def measure(case: Case, seconds: float, per_run: int) -> Row:
    """In turn; who goes first changes."""
    plain, ours = Way(case.plain(case.tars)), Way(case.ours(case.tars))
    theirs, mine = plain.collect(WARM), ours.collect(WARM)
    both = sorted(theirs.keys() & mine.keys())[:COMPARED]
    assert both, "the two pipelines read the same shards"
    apart = max(((theirs[word] - mine[word]) * case.unit).abs().max().item() for word in both)
    pairs: list[tuple[float, float]] = []
    reads = []
    end = time.monotonic() + seconds
    while len(pairs) < PAIRS or time.monotonic() < end:
        ways = (plain, ours) if len(pairs) % 2 else (ours, plain)
        taken = {way: way.seconds(per_run) for way in ways}
        pairs.append((taken[ours], taken[plain]))
        reads.append(raw(case.tars, case.samples))
    ratios = [theirs_s / ours_s for ours_s, theirs_s in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    ours_s, plain_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    raw_s = statistics.median(reads)
    return Row(
        case.name,
        round(1 / ours_s, 1),
        round(1 / plain_s, 1),
        round(1 / raw_s, 1),
        round(middle, 2),
        round(low, 2),
        round(high, 2),
        float(f"{raw_s / ours_s:.2g}"),
        float(f"{apart:.2g}"),
        case.notes,
        case.encoded,
    )


def profile(case: Case, samples: int) -> dict[str, float]:
    """Microseconds per sample of each act of ours, as the profiler sees it (it slows small functions down)."""
    way = Way(case.ours(case.tars))
    way.seconds(WARM)
    watch = cProfile.Profile()
    watch.enable()
    way.seconds(samples)
    watch.disable()
    count = -(-samples // BATCH) * BATCH
    stats = pstats.Stats(watch).stats  # type: ignore[attr-defined]
    found = {"all": sum(own for _, _, own, _, _ in stats.values()) / count * 1e6}
    for (file, _, name), (_, _, _, total, _) in stats.items():
        for wanted, module, words in ACTS:
            if (name, Path(file).name) == (wanted, module):
                found[words] = found.get(words, 0.0) + total / count * 1e6
    return {words: round(us, 1) for words, us in sorted(found.items(), key=lambda item: -item[1])}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--seconds", type=float, default=10.0, help="of measuring for each case, five pairs at least")
    words.add_argument("--pictures", type=int, default=2000, help="samples of each size of JPEG")
    words.add_argument("--clips", type=int, default=800, help="samples of each format of sound")
    words.add_argument("--only", default="", help="cases whose name holds this")
    words.add_argument("--profile", action="store_true", help="tell where our time goes, in microseconds per sample")
    words.add_argument("--json", type=Path, help="write the figures to this file too")
    args = words.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rows, profiles = [], {}
    say(
        f"{'case':<32}{'ours/s':>9}{'plain/s':>9}{'raw/s':>10}{'ratio':>7}{'middle half':>15}{'of raw':>9}{'apart':>12}"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("MINIGPT4O_CACHE", f"{folder}/cache")
        for case in chain(picture_cases(Path(folder), args.pictures), sound_cases(Path(folder), args.clips)):
            if args.only not in case.name:
                continue
            row = measure(case, args.seconds, 4 * BATCH if case.name.startswith("jpeg") else 2 * BATCH)
            rows.append(row)
            half = f"{row.low:.2f} ... {row.high:.2f}"
            say(
                f"{row.case:<32}{row.ours:>9.0f}{row.plain:>9.0f}{row.raw:>10.0f}{row.ratio:>7.2f}{half:>15}"
                f"{row.of_raw:>9.2g}{row.apart:>12.2g}"
            )
            if args.profile:
                profiles[case.name] = profile(case, 8 * BATCH)
                for act, us in profiles[case.name].items():
                    say(f"    {us:>8.0f} us  {act}")
    line = json.dumps({"threads": 1, **VERSIONS, "cases": [asdict(row) for row in rows], "profiles": profiles})
    if args.json:
        args.json.write_text(line + "\n", encoding="utf-8")
    sys.stdout.write(line + "\n")


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
