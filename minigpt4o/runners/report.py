"""report.html: scores beside their baselines, training curves, and examples to look at and listen to, in one file."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from minigpt4o.common.files import write_bytes
from minigpt4o.conversation.marks import unescape_marks
from minigpt4o.conversation.sample import MARKS
from minigpt4o.runners.evaluate_items import SEEN
from minigpt4o.runners.evaluate_results import Cell, cell
from minigpt4o.runners.report_charts import RunCurves, interval_bar, legend, line_chart, read_curves
from minigpt4o.runners.report_gallery import Shown
from minigpt4o.runners.report_media import box_rectangles

_MARK = re.compile("|".join(re.escape(html.escape(mark)) for mark in MARKS.values()))
_TEMPLATE = Path(__file__).with_name("report.html")


def write_report(path: Path, results: Mapping[str, Any], examples: Sequence[Shown], runs: Sequence[Path] = ()) -> None:
    """Write the page as a whole."""
    write_bytes(path, page(results, examples, [read_curves(run) for run in runs]).encode("utf-8", "xmlcharrefreplace"))


def page(results: Mapping[str, Any], examples: Sequence[Shown], curves: Sequence[RunCurves]) -> str:
    """The whole page."""
    title = f"Evaluation of {results['run']['job_name']}"
    sections = [("scores", "Scores", _scores(results))]
    if curves:
        sections.append(("curves", "Training curves", f'<div class="curves">{"".join(map(_run, curves))}</div>'))
    sections.append(("breakdown", "By language and type", _breakdowns(results)))
    sections.append(("examples", "Examples", _gallery(examples)))
    sections.append(("facts", "How this was measured", _facts(results)))
    links = "".join(f'<a href="#{id}">{name}</a>' for id, name, _ in sections)
    body = "".join(f'<section id="{id}"><h2>{name}</h2>{inner}</section>' for id, name, inner in sections)
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=_text(title), subtitle=_subtitle(results), links=links, sections=body)


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _table(rows: str, *heads: str) -> str:
    """A table that scrolls by itself when it is too wide; a head that begins with > stands on the right."""
    cells = "".join(f'<th class="n">{_text(h[1:])}</th>' if h[:1] == ">" else f"<th>{_text(h)}</th>" for h in heads)
    head = f"<thead><tr>{cells}</tr></thead>" if heads else ""
    return f'<div class="wide"><table>{head}<tbody>{rows}</tbody></table></div>'


def _interval(score: Mapping[str, float]) -> str:
    return f"<b>{score['value']:.3f}</b> <small>[{score['low']:.3f}, {score['high']:.3f}]</small>"


def _subtitle(results: Mapping[str, Any]) -> str:
    run = results["run"]
    versions = run.get("versions", {})
    words = [f"split {run['split']}", f"{sum(d['n'] for d in results['datasets'].values()):,} prompts"]
    words += [f"{len(results['datasets'])} data sets"] + ([f"{run['seconds']:.0f} s"] if "seconds" in run else [])
    words += [f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions]
    return f'<p class="soft">{_text(" · ".join(words))}</p>'


# ---- scores ----


def _scores(results: Mapping[str, Any]) -> str:
    labels = list(results["variants"])
    rows = []
    for name, dataset in results["datasets"].items():
        top = _top(cell(dataset, label) for label in labels)
        for number, label in enumerate(labels):
            rows.append(_score_row(name, dataset, label, number, cell(dataset, label), top))
    notes = (
        '<p class="soft">Dashed ticks are the baselines: <b>blind</b> gets no picture and no sound, <b>shuffled</b> '
        "gets those of another sample. The gain is the score minus the better baseline on the same samples.</p>"
    )
    heads = ("data set", "metric", ">n", "model", "score [95 %]", "", ">blind", ">shuffled", ">gain")
    return _table("".join(rows), *heads) + notes


def _top(cells: Any) -> float:
    """The right end of the bars: 1 for shares, else the largest upper bound."""
    highest = max((c.high for c in cells if c is not None), default=1.0)
    return 1.0 if highest <= 1.0 else highest


def _score_row(name: str, dataset: Mapping[str, Any], label: str, number: int, found: Cell | None, top: float) -> str:
    lead = "<tr><td></td><td></td>"
    if number == 0:
        lead = f'<tr class="first"><td>{_text(name)}</td><td>{_text(dataset["headline"])}</td>'
    key = f'<i class="key c{number % 6}"></i>{_text(label)}'
    if found is None:
        return f'{lead}<td></td><td>{key}</td><td colspan="5">no answers</td></tr>'
    marks = [(n, v) for n, v in (("blind", found.blind), ("shuffled", found.shuffled)) if v is not None]
    bar = interval_bar(found.value, found.low, found.high, top, number, marks)
    score = _interval(vars(found))
    unread = f"<br><small>{found.unparsable} unreadable</small>" if found.unparsable else ""
    numbers = "".join(
        f'<td class="n">{"–" if v is None else format(v, form)}</td>'
        for v, form in ((found.blind, ".3f"), (found.shuffled, ".3f"), (found.gain, "+.3f"))
    )
    return f'{lead}<td class="n">{found.n}</td><td>{key}</td><td>{score}{unread}</td><td>{bar}</td>{numbers}</tr>'


# ---- curves ----


def _run(run: RunCurves) -> str:
    if run.problem:
        return f'<div class="panel"><h3>{_text(run.title)}</h3><p class="problem">{_text(run.problem)}</p></div>'
    inner = line_chart(run.losses, f"loss of {run.title}") + legend(run.losses)
    if run.rates:
        inner += line_chart(run.rates, f"learning rate of {run.title}", 110) + legend(run.rates)
    return f'<div class="panel"><h3>{_text(run.title)}</h3>{inner}</div>'


# ---- breakdowns ----


def _breakdowns(results: Mapping[str, Any]) -> str:
    parts: list[str] = []
    for name, dataset in results["datasets"].items():
        labels = list(dataset["variants"])
        keys = {k: None for label in labels for k in dataset["variants"][label]["conditions"][SEEN]["by"]}
        rows = "".join(_breakdown_rows(dataset, labels, key) for key in keys)
        if rows:
            metric = _text(dataset["headline"])
            parts.append(
                f"<details{' open' if not parts else ''}><summary>{_text(name)} <small>{metric}</small></summary>"
                f"{_table(rows)}</details>"
            )
    return "".join(parts) or '<p class="soft">No data set is divided by language or type.</p>'


def _breakdown_rows(dataset: Mapping[str, Any], labels: Sequence[str], key: str) -> str:
    metric = dataset["headline"]
    trees = [dataset["variants"][label]["conditions"][SEEN]["by"].get(key, {}) for label in labels]
    groups = sorted({group for tree in trees for group in tree})
    tops = [t[g][metric]["high"] for t in trees for g in t]
    top = 1.0 if max(tops, default=1.0) <= 1.0 else max(tops)
    rows: list[str] = []
    if len(groups) < 2:
        return ""  # one group is the whole
    for group in groups:
        for number, (label, tree) in enumerate(zip(labels, trees, strict=True)):
            if group not in tree:
                continue
            score = tree[group][metric]
            bar = interval_bar(score["value"], score["low"], score["high"], top, number)
            lead = "<tr><td></td><td></td>"
            if number == 0:
                lead = f'<tr class="first"><td>{_text(key.replace("_", " "))}</td><td>{_text(group or "(none)")}</td>'
            rows.append(
                f'{lead}<td class="n">{score["n"]}</td><td><i class="key c{number % 6}"></i>{_text(label)}</td>'
                f"<td>{_interval(score)}</td><td>{bar}</td></tr>"
            )
    return "".join(rows)


# ---- examples ----


def _gallery(examples: Sequence[Shown]) -> str:
    names = list(dict.fromkeys(e.dataset for e in examples))
    parts = [
        '<p class="soft">Half of each row is drawn at random, half are mistakes of the last model if it made so many. '
        'In pictures the <span style="color:#18a34a">true box is green</span>, the '
        '<span style="color:#e5342e">answered one red and dashed</span>.</p>'
    ]
    for name in names:
        cards = "".join(_card(e) for e in examples if e.dataset == name)
        parts.append(f'<h3>{_text(name)}</h3><div class="gallery">{cards}</div>')
    return "".join(parts)


def _card(example: Shown) -> str:
    last = example.answers[-1] if example.answers else None
    media = []
    for number, shown in enumerate(example.pictures):
        if shown.problem:
            media.append(f'<div class="problem">{_text(shown.problem)}</div>')
            continue
        own = [b for b in example.boxes if b.image == number]
        said = [b for b in last.boxes if b.image == number] if last else []
        boxes = box_rectangles(shown, own, "true") + box_rectangles(shown, said, "said")
        media.append(
            f'<div class="shot"><svg viewBox="0 0 {shown.width} {shown.height}"><image href="{shown.uri}" '
            f'width="{shown.width}" height="{shown.height}" preserveAspectRatio="none"/>{boxes}</svg></div>'
        )
    for heard in example.sounds:
        if heard.problem:
            media.append(f'<div class="problem">{_text(heard.problem)}</div>')
        else:
            media.append(
                f'<div class="sound"><img src="{heard.spectrum}" alt="spectrogram, {heard.seconds:.1f} s">'
                f'<audio controls preload="metadata" src="{heard.uri}"></audio></div>'
            )
    turns = "".join(f'<div class="turn"><b>{_text(role)}</b>{_words(text)}</div>' for role, text in example.turns)
    truth = f'<div><span class="who">truth</span><span>{_text(" | ".join(example.truth[:3]))}</span></div>'
    answers = "".join(
        f'<div><span class="who" title="{_text(a.variant)}">{_text(a.variant)}</span>'
        f'<span class="{a.verdict}">{_text(a.text) or "<em>nothing</em>"}</span></div>'
        for a in example.answers
    )
    why = " · ".join(word for word in (example.language, example.drawn) if word)
    head = f"<header><span>{_text(example.id)}</span><span>{_text(why)}</span></header>"
    lang = f' lang="{_text(example.language)}"' if example.language else ""
    return (
        f'<article class="card"{lang}>{head}{"".join(media)}{turns}<div class="said">{truth}{answers}</div></article>'
    )


def _words(text: str) -> str:
    """A turn's words, escaped, with chips where media stand."""
    escaped = _MARK.sub(lambda m: f'<span class="chip">{html.unescape(m.group())[1:-1]}</span>', _text(text))
    return unescape_marks(escaped)


# ---- facts ----


def _facts(results: Mapping[str, Any]) -> str:
    run = results["run"]
    rows = "".join(
        f"<tr><td><b>{_text(label)}</b></td><td><code>{_text(v['checkpoint'] or 'as configured')}</code></td>"
        f"<td><code>{_text(v['weights_sha256'][:16])}</code></td></tr>"
        for label, v in results["variants"].items()
    )
    metrics = "".join(_metric_rows(name, dataset) for name, dataset in results["datasets"].items())
    prompts = "".join(
        f'<tr><td>{_text(n)}</td><td class="about"><code>{_text(d["prompt_example"])}</code></td></tr>'
        for n, d in results["datasets"].items()
    )
    how = f"Intervals: {run['bootstrap']} bootstrap resamplings, seed {run['seed']}; Wilson's where all samples agree."
    models = _table(rows, "model", "checkpoint", "SHA-256 of the weights")
    all_metrics = _table(metrics, "data set", "model", "metric", "score [95 %]", "definition")
    return (
        f'{models}<p class="soft">{_text(how)}</p>'
        f"<details><summary>All metrics</summary>{all_metrics}</details>"
        f"<details><summary>A prompt of each data set</summary>{_table(prompts, 'data set', 'prompt')}</details>"
    )


def _metric_rows(name: str, dataset: Mapping[str, Any]) -> str:
    return "".join(
        f"<tr><td>{_text(name)}</td><td>{_text(label)}</td><td>{_text(metric)}</td><td>{_interval(score)}</td>"
        f'<td class="about">{_text(score["variant"])}</td></tr>'
        for label, variant in dataset["variants"].items()
        for metric, score in variant["conditions"][SEEN]["scores"].items()
    )
