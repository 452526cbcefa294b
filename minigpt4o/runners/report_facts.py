"""How an evaluation was measured, for its report: models, prompts, decoding, definitions, hashes, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigpt4o.runners.evaluate_items import SEEN
from minigpt4o.runners.report_html import facts, table, text
from minigpt4o.runners.report_tables import LOWER, interval, key

Tree = Mapping[str, Any]


def measured(results: Tree) -> str:
    """The section as HTML: the models, the run, and one fold for every data set."""
    run = results["run"]
    how = f"{run['bootstrap']} bootstrap resamplings, seed {run['seed']}; Wilson's interval where all samples agree"
    about = facts(
        [
            ("intervals", how),
            ("split", run["split"]),
            ("samples per data set", run.get("limit") or "all"),
            ("prompts per baseline", run.get("baseline_limit") or "all"),
            ("batch size", run.get("batch_size", "")),
            ("scored again from", run.get("from", {})),
            ("plugins", run.get("plugins", [])),
            ("versions", run.get("versions", {})),
            ("commit", run.get("git", "")),
            ("hardware", run.get("hardware", {})),
            ("run", run.get("run_id", "")),
        ]
    )
    sets = "".join(_dataset(place, *pair) for place, pair in enumerate(results["datasets"].items()))
    return f"{_models(results['variants'])}{about}<h3>Every data set</h3>{sets}"


def _models(variants: Mapping[str, Tree]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{key(place, label)}</th><td>{_code(v.get("checkpoint") or "as configured")}</td>'
        + "".join(_hash(v.get(kind, "")) for kind in ("weights_sha256", "checkpoint_sha256"))
        + "</tr>"
        for place, (label, v) in enumerate(variants.items())
    )
    heads = ("model", "checkpoint", "SHA-256 of the weights", "SHA-256 of the checkpoint")
    return table(rows, *heads, name="Models")


def _code(value: str) -> str:
    return f"<code>{text(value)}</code>"


def _hash(value: str) -> str:
    return f'<td><code title="{text(value)}">{text(value[:16])}</code></td>'


def _dataset(place: int, name: str, dataset: Tree) -> str:
    asked = dataset.get("prompt", {})
    repeated = dataset.get("repeated_ids", {})
    seen = next(iter(dataset["variants"].values()))["conditions"][SEEN]
    about = facts(
        [
            ("task", dataset.get("task", "")),
            ("its options", dataset.get("task_options", {})),
            ("answered", dataset.get("answered", "")),
            ("decoding", dataset.get("decoding", {})),
            *((f"{kind} processor", told) for kind, told in dataset.get("processors", {}).items()),
            ("template", _pair(asked.get("template", ""), asked.get("profile", ""))),
            ("first prompt", dataset.get("prompt_example", "")),
            ("SHA-256 of the prompts", asked.get("sha256", "")),
            ("SHA-256 of the data", seen.get("data_sha256", "")),
            ("left out before asking", dict(dataset.get("skipped", {}))),
            ("of them", list(dataset.get("skipped_examples", []))),
            ("ids given twice", _pair(repeated.get("count", ""), ", ".join(repeated.get("first", [])))),
        ]
    )
    rows = "".join(
        _metric_rows(number, label, variant) for number, (label, variant) in enumerate(dataset["variants"].items())
    )
    heads = ("model", "condition", "metric", ">n", ">unparsable", "score [95 %]", "definition")
    inner = f"{about}{table(rows, *heads, name=f'All metrics of {name}', css='all')}{_files(dataset)}"
    return f'<details id="set-{place}"><summary>{text(name)}</summary>{inner}</details>'


def _pair(first: Any, second: Any) -> str:
    if not first:
        return ""
    return f"{first} ({second})" if second else str(first)


def _metric_rows(number: int, label: str, variant: Tree) -> str:
    rows = []
    for condition, told in variant["conditions"].items():
        for name, score in told["scores"].items():
            lower = f" {LOWER}" if score.get("better") == "lower" else ""
            rows.append(
                f"<tr><td>{key(number, label)}</td><td>{text(condition)}</td><td>{text(name)}{lower}</td>"
                f'<td class="n">{score["n"]:,}</td><td class="n">{score["unparsable"]}</td><td>{interval(score)}</td>'
                f'<td class="about">{text(score["variant"])}<br><small>{text(score.get("interval", ""))}</small></td>'
                "</tr>"
            )
    return "".join(rows)


def _files(dataset: Tree) -> str:
    """Where the answers lie, beside this page."""
    names = []
    for variant in dataset["variants"].values():
        names += [told["predictions"] for told in variant["conditions"].values() if "predictions" in told]
        if "official" in variant:
            names.append(f"{variant['official']['file']} (format {variant['official']['format']})")
    if not names:
        return ""
    return f"<p class='soft'>Answers: {', '.join(f'<code>{text(name)}</code>' for name in names)}</p>"
