"""What a million annotation rows cost: time and memory of building, iterating and sharing them with worker processes.

    python benchmarks/data_memory.py --rows 1000000

Writes a .jsonl, a .csv, a .json list and a COCO-like .json of so many rows, builds `pairs` on each, reads every sample
in this process and in forked workers, and tells the memory that is each process's own (anonymous pages, Pss_Anon of
/proc/self/smaps_rollup) over that of a process that has merely imported the package. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

FORMS = ("jsonl", "csv", "json", "coco")
STATES = ("cold", "warm")
TEXT = "a photograph of a {} cat that sits on the {} of a house in the evening"


def row(number: int) -> dict[str, object]:
    """An annotation like COCO's."""
    return {"image_id": number // 5, "image": f"{number // 5:012d}.jpg", "caption": TEXT.format(number, number % 97)}


def pieces(form: str, rows: int) -> Iterator[str]:
    """The text of a file with so many rows."""
    if form == "csv":
        yield "image_id,image,caption\n"
        yield from (f'{r["image_id"]},{r["image"]},"{r["caption"]}"\n' for r in map(row, range(rows)))
    elif form == "jsonl":
        yield from (json.dumps(row(number)) + "\n" for number in range(rows))
    else:
        if form == "coco":
            yield '{"info": {}, "images": ['
            yield from (
                ", " * (n > 0) + json.dumps({"id": n, "file_name": f"{n:012d}.jpg"}) for n in range(rows // 5 + 1)
            )
            yield '], "annotations": '
        yield "["
        yield from (", " * (number > 0) + json.dumps(row(number)) for number in range(rows))
        yield "]" + "}" * (form == "coco")


def own_bytes() -> int:
    """Memory that belongs to this process alone or its share of it, without files mapped into it."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))


def private_bytes() -> int:
    """Memory that is this process's and nobody else's: what a worker's reading has copied or made."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:"))


def in_child(work: Callable[[], dict[str, float]]) -> Callable[[], dict[str, float]]:
    """Run in a forked process; the answer is awaited by the call of what this returns."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        status = 1
        try:
            os.write(writer, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)

    def answer() -> dict[str, float]:
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read()
        if os.waitpid(child, 0)[1]:
            raise SystemExit("a process of the benchmark failed")
        return json.loads(said)

    return answer


def read_all(builder: object) -> int:
    """Read every row's text and id as `sample` does, without the pictures, which are not there."""
    table, seen = builder.table, 0  # type: ignore[attr-defined]
    for index in chain(range(0, len(table), 7), (i for i in range(len(table)) if i % 7)):
        row = table.row(index)
        seen += len(row.get("caption")) > 0 and len(table.ids[index]) > 0
    return seen


def measure(path: Path, form: str, workers: int) -> dict[str, float]:
    """Build, read all here, then in forked workers at the same time; bytes and seconds."""
    import minigpt4o.datasets.builders.pairs  # noqa: F401  # what is imported is not what rows cost
    from minigpt4o.common.registry import Part, registry

    media = {"text": "caption", "id": "image_id"}  # no picture column: there are no pictures to look for
    values = {"annotations": {"train": str(path)}, "fields": media, "layout": "coco" if form == "coco" else "rows"}
    before, start = own_bytes(), time.perf_counter()
    builder = registry.build(Part("builder", "pairs", values), name="memory", split="train")
    built, start_read = time.perf_counter(), time.perf_counter()
    after_build = own_bytes()
    seen = read_all(builder)
    found = {
        "rows": seen,
        "build_s": built - start,
        "read_s": time.perf_counter() - start_read,
        "after_build": after_build - before,
        "after_reading": own_bytes() - before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "sample": len(builder.sample(seen // 2, random.Random(0)).turns),
    }

    def work() -> dict[str, float]:
        first = private_bytes()
        read_all(builder)
        return {"private": private_bytes() - first}

    answers = [in_child(work) for _ in range(workers)]
    for number, answer in enumerate(answers):
        found[f"worker_{number}"] = answer()["private"]
    return found


def main() -> None:
    """Print a table; exit 1 if a process needs more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--states", nargs="+", choices=STATES, default=list(STATES), help="warm: with the places kept")
    parser.add_argument("--limit-mb", type=float, default=300.0)
    given = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINIGPT4O_CACHE"] = str(Path(folder) / "cache")
        for form in given.forms:
            path = Path(folder) / f"rows_{form}.{form.replace('coco', 'json')}"
            with path.open("w", encoding="utf-8") as file:
                file.writelines(pieces(form, given.rows))
            for state in given.states:
                found = in_child(lambda path=path, form=form: measure(path, form, given.workers))()
                workers = [found[f"worker_{n}"] / 1e6 for n in range(given.workers)]
                worst = max(worst, found["after_reading"] / 1e6, *workers)
                told = ", ".join(f"{mb:.0f}" for mb in workers)
                sys.stdout.write(
                    f"{form:5} {state}: {found['rows']:,.0f} rows, {path.stat().st_size / 1e6:.0f} MB; "
                    f"build {found['build_s']:.1f} s, read {found['read_s']:.1f} s; own memory "
                    f"{found['after_build'] / 1e6:.0f} MB built, {found['after_reading'] / 1e6:.0f} MB after reading; "
                    f"workers' own +{told} MB; peak {found['peak'] / 1e6:.0f} MB\n"
                )
            path.unlink()
    sys.stdout.write(f"the most that rows cost a process: {worst:.0f} MB (limit {given.limit_mb:.0f})\n")
    raise SystemExit(int(worst > given.limit_mb))


if __name__ == "__main__":
    main()
