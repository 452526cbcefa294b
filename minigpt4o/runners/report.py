"""report.html: scores beside baselines, breakdowns, a browser of examples, curves and how it was measured, in one file.

The page carries all it shows and asks nothing of the network; what a model or a data set wrote is text in it, never
markup and never script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common.files import write_bytes
from minigpt4o.runners.report_charts import RunCurves, legend, line_chart, read_curves
from minigpt4o.runners.report_examples import Browsed
from minigpt4o.runners.report_facts import measured
from minigpt4o.runners.report_html import data_block, framed, text
from minigpt4o.runners.report_tables import breakdowns, lower, scores

_BROWSER = Path(__file__).with_name("report_browser.html")

Tree = Mapping[str, Any]


def write_report(
    path: Path, results: Tree, choose: Callable[[int], Browsed], runs: Sequence[Path] = (), size: int = 20_000_000
) -> None:
    """Write the page as a whole, of at most `size` bytes if its tables and curves leave room for any example.

    `choose` gives the examples that fit into so many bytes.
    """
    curves = [read_curves(run) for run in runs]
    rest = len(_encoded(page(results, Browsed(), curves)))
    write_bytes(path, _encoded(page(results, choose(max(size - rest, 0)), curves)))


def _encoded(words: str) -> bytes:
    return words.encode("utf-8", "xmlcharrefreplace")


def page(results: Tree, browsed: Browsed, curves: Sequence[RunCurves]) -> str:
    """The whole page."""
    sections = [("scores", "Scores", scores(results)), ("breakdown", "By type", breakdowns(results))]
    sections.append(("examples", "Examples", _examples(browsed)))
    if curves:
        sections.append(("curves", "Training curves", f'<div class="curves">{"".join(map(_run, curves))}</div>'))
    sections.append(("facts", "How this was measured", measured(results)))
    return framed(f"Evaluation of {results['run']['job_name']}", _subtitle(results), sections, _data(results, browsed))


def _subtitle(results: Tree) -> str:
    run = results["run"]
    versions = run.get("versions", {})
    words = [f"split {run['split']}", f"{sum(d['n'] for d in results['datasets'].values()):,} prompts"]
    words += [f"{len(results['datasets'])} data sets", f"{len(results['variants'])} models"]
    words += [f"{run['seconds']:.0f} s"] if "seconds" in run else []
    words += [f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions]
    return f'<p class="soft">{text(" · ".join(words))}</p>'


def _examples(browsed: Browsed) -> str:
    there = len(browsed.examples)
    words = [f"{there:,} examples: of each data set half drawn at random, half mistakes of the last model, if so many."]
    if there < browsed.wanted:
        words.append(f"{browsed.wanted - there:,} more were drawn but left out to keep the page small.")
    if browsed.unshown:
        words.append(f"{browsed.unshown:,} pictures and sounds are left out to keep the page small (run.report_mb).")
    return f'<p class="soft">{text(" ".join(words))}</p>{_BROWSER.read_text(encoding="utf-8")}'


def _data(results: Tree, browsed: Browsed) -> str:
    """What the page's script reads."""
    sets = {
        name: {"metric": dataset["headline"], "answered": dataset.get("answered", ""), "lower": lower(dataset)}
        for name, dataset in results["datasets"].items()
    }
    told = {"variants": list(results["variants"]), "sets": sets, "examples": browsed.examples, "media": browsed.media}
    return data_block("data", told)


def _run(run: RunCurves) -> str:
    if run.problem:
        return f'<div class="panel"><h3>{text(run.title)}</h3><p class="problem">{text(run.problem)}</p></div>'
    inner = line_chart(run.losses, f"loss of {run.title}") + legend(run.losses)
    if run.rates:
        inner += line_chart(run.rates, f"learning rate of {run.title}", 110) + legend(run.rates)
    return f'<div class="panel"><h3>{text(run.title)}</h3>{inner}</div>'
