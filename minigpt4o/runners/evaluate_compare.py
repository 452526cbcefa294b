"""`eval.py --compare`: what two evaluations differ by, pair by pair of answers to the same prompts, and how surely."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from minigpt4o.common.errors import DataError
from minigpt4o.common.files import write_json
from minigpt4o.common.registry import Part, registry
from minigpt4o.metrics.intervals import mcnemar, paired, shared_groups
from minigpt4o.metrics.result import Measured
from minigpt4o.runners.evaluate_folder import RESULTS
from minigpt4o.runners.evaluate_items import CONDITIONS
from minigpt4o.runners.evaluate_journal import Row, whole_lines
from minigpt4o.runners.evaluate_results import Scored, Tree, scored
from minigpt4o.runners.report_compare import P_MEANS, write_comparison

COMPARED = "compare.json"


@dataclass(frozen=True)
class Run:
    """A finished evaluation, and which of its models is meant ("" = the only one, or those of the same name)."""

    folder: Path
    results: Tree
    label: str = ""

    @classmethod
    def open(cls, name: str) -> Run:
        """From `FOLDER` or `FOLDER:MODEL`; a job folder means its newest finished evaluation."""
        path, label = Path(name), ""
        if not path.exists() and ":" in name:
            head, label = name.rsplit(":", 1)
            path = Path(head)
        folder = path.parent if path.is_file() else path
        if not (folder / RESULTS).is_file():
            inner = sorted(folder.glob(f"*/{RESULTS}"), key=lambda file: (file.stat().st_mtime_ns, str(file)))
            if not inner:
                raise DataError(f"--compare {name}: no {RESULTS} in it; name the folder of a finished evaluation")
            folder = inner[-1].parent
        results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        if label and label not in results["variants"]:
            raise DataError(f"--compare {name}: no model {label!r} in it; there are: {', '.join(results['variants'])}")
        return cls(folder, results, label)

    def rows(self, dataset: str, label: str, condition: str) -> list[Row]:
        """The predictions of one file. Raises DataError if it is not the one that was scored."""
        told = self.results["datasets"][dataset]["variants"][label]["conditions"][condition]
        path = self.folder / told["predictions"]
        if not path.is_file():
            raise DataError(f"{path} is missing; it holds the answers of {dataset}")
        rows, _ = whole_lines(path.read_bytes())
        header = rows[0].get("header", {}) if rows else {}
        if header.get("data") != told["data_sha256"] or len(rows) - 1 != told["asked"]:
            raise DataError(f"{path} is not the file {RESULTS} was made from; score it again with --from {self.folder}")
        return rows[1:]


def compare(first: str, second: str, metric: str = "", out: str = "", rounds: int = 1000, seed: int = 0) -> Tree:
    """Paired differences, second minus first, for every data set, model and condition that both have.

    Raises DataError if they have nothing in common, or if one asked other questions than the other.
    """
    a, b = Run.open(first), Run.open(second)
    for name in dict.fromkeys([*a.results["run"].get("plugins", []), *b.results["run"].get("plugins", [])]):
        registry.add_plugin(name)
    pairs = list(_pairs(a, b))
    if not pairs:
        both = [", ".join(f"{d}" for d in run.results["datasets"]) for run in (a, b)]
        raise DataError(f"{a.folder} ({both[0]}) and {b.folder} ({both[1]}) have no data set and model in common")
    _ensure_same(a, b, pairs)
    rows = [row for pair in pairs for row in _compared(a, b, *pair, metric, rounds, seed)]
    if not rows:
        raise DataError(f"--metric {metric}: measured by neither; known: {', '.join(_metrics(a, pairs))}")
    tree = {
        "a": {"folder": str(a.folder), "run": a.results["run"], "variants": a.results["variants"]},
        "b": {"folder": str(b.folder), "run": b.results["run"], "variants": b.results["variants"]},
        "difference": "b minus a, on the same samples",
        "rounds": rounds,
        "seed": seed,
        "rows": rows,
    }
    path = Path(out) if out else b.folder / COMPARED
    path = path.with_suffix(".json") if path.suffix == ".html" else path  # the page lies beside it
    write_json(path, tree)
    write_comparison(path.with_suffix(".html"), tree)
    sys.stdout.write(table(tree) + f"compared: {path}, {path.with_suffix('.html').name}\n")
    return tree


Pair = tuple[str, str, str, str]  # data set, model of the first, model of the second, condition


def _pairs(a: Run, b: Run) -> Iterator[Pair]:
    for dataset, ours in a.results["datasets"].items():
        theirs = b.results["datasets"].get(dataset)
        if theirs is None:
            continue
        for label, other in _labels(a, b):
            for condition in CONDITIONS:
                if all(condition in one["variants"][of]["conditions"] for one, of in ((ours, label), (theirs, other))):
                    yield dataset, label, other, condition


def _labels(a: Run, b: Run) -> list[tuple[str, str]]:
    """Which model of the first stands against which of the second."""
    mine, theirs = ([run.label] if run.label else list(run.results["variants"]) for run in (a, b))
    if len(mine) == len(theirs) == 1:
        return [(mine[0], theirs[0])]
    return [(label, label) for label in mine if label in theirs]


def _ensure_same(a: Run, b: Run, pairs: Sequence[Pair]) -> None:
    """The same prompts and truths on both sides, or a DataError that names every data set where they differ."""
    differ = []
    for dataset, label, other, condition in pairs:
        one = a.results["datasets"][dataset]["variants"][label]["conditions"][condition]
        two = b.results["datasets"][dataset]["variants"][other]["conditions"][condition]
        if one["data_sha256"] != two["data_sha256"]:
            differ.append(
                f"{dataset} ({condition}): {one['asked']} prompts, data {one['data_sha256'][:12]}, against "
                f"{two['asked']} prompts, data {two['data_sha256'][:12]}"
            )
    if differ:
        raise DataError(
            "the two did not answer the same questions with the same truths, so they cannot be paired: "
            + "; ".join(dict.fromkeys(differ))
            + "; evaluate both on the same data, with the same limit and seed"
        )


def _measured(run: Run, dataset: str, label: str, condition: str) -> Scored:
    told = run.results["datasets"][dataset]
    task = registry.build(Part("task", told["task"], told["task_options"]))
    return scored(task, run.rows(dataset, label, condition), 0, 0)


def _compared(
    a: Run, b: Run, dataset: str, label: str, other: str, condition: str, metric: str, rounds: int, seed: int
) -> list[Tree]:
    one, two = _measured(a, dataset, label, condition), _measured(b, dataset, other, condition)
    if [p.id for p in one.predictions] != [p.id for p in two.predictions]:
        raise DataError(f"{dataset} ({condition}): the two files do not hold the same prompts in the same order")
    if any(p.truth != q.truth for p, q in zip(one.predictions, two.predictions, strict=True)):
        raise DataError(f"{dataset} ({condition}): the two files do not hold the same truths")
    names = [metric] if metric else list(one.measured)
    lead = {"dataset": dataset, "condition": condition, "a": label, "b": other}
    found = []
    for name in names:
        if name in one.measured and name in two.measured:
            pair = one.measured[name], two.measured[name]
            found.append({**lead, "metric": name, "headline": name == one.headline, **difference(*pair, rounds, seed)})
    return found


def difference(one: Measured, two: Measured, rounds: int, seed: int) -> Tree:
    """Second minus first with its 95 % interval; of right and wrong answers McNemar's exact test besides.

    Samples that share a picture or sound are no independent draws: both take them together.
    """
    if one.variant != two.variant:
        raise DataError(f"two definitions of one metric cannot be compared: {one.variant!r} and {two.variant!r}")
    found = paired(two, one, rounds, seed)
    better = "even" if found.low <= 0 <= found.high else "b" if (found.value > 0) == (two.better == "higher") else "a"
    tree: Tree = {
        "value_a": one.value,
        "value_b": two.value,
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "interval": found.method,
        "better": better,
        "lower_is_better": two.better == "lower",
        "variant": one.variant,
    }
    if one.corpus is None and {*one.each, *two.each} <= {0.0, 1.0}:
        tree["mcnemar"] = asdict(mcnemar(one.each, two.each, groups=shared_groups(one, two)))
    return tree


def _metrics(run: Run, pairs: Sequence[Pair]) -> list[str]:
    told = [run.results["datasets"][d]["variants"][label]["conditions"][c]["scores"] for d, label, _, c in pairs]
    return list(dict.fromkeys(name for scores in told for name in scores))


def table(tree: Tree) -> str:
    """The differences as aligned text."""
    several = len({(row["a"], row["b"]) for row in tree["rows"]}) > 1
    lines = [["data set", "condition", "metric", "n", "A", "B", "B - A [95 %]", "A only", "B only", "p", "better"]]
    for row in tree["rows"]:
        test = row.get("mcnemar")
        alone = [str(test["only_first"]), str(test["only_second"]), f"{test['p']:.3g}"] if test else ["-", "-", "-"]
        span = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        values = [f"{row[key]:.3f}" for key in ("value_a", "value_b")]
        better = {"a": "A", "b": "B"}.get(row["better"], "-")
        name = f"{row['dataset']} ({row['a']})" if several else row["dataset"]
        lines.append([name, row["condition"], row["metric"], str(row["n"]), *values, span, *alone, better])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(w.ljust(n) if i < 3 else w.rjust(n) for i, (w, n) in _places(line, widths)) for line in lines]
    text.insert(1, "-" * len(text[0]))
    clear, all_rows = sum(row["better"] != "even" for row in tree["rows"]), len(tree["rows"])
    names = [f"{side.upper()}: {tree[side]['folder']}{_model(tree, side, several)}" for side in ("a", "b")]
    notes = [
        f"{clear} of {all_rows} intervals leave 0 out; if nothing differed, about one in twenty would",
        f"A only, B only: right in that one alone; p: {P_MEANS}",
    ]
    return "\n".join([*names, *(line.rstrip() for line in text), *notes]) + "\n"


def _places(line: Sequence[str], widths: Sequence[int]) -> Iterator[tuple[int, tuple[str, int]]]:
    return enumerate(zip(line, widths, strict=True))


def _model(tree: Tree, side: str, several: bool) -> str:
    return "" if several else f", {tree['rows'][0][side]}"
