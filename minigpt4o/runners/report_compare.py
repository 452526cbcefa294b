"""compare.html: what two evaluations differ by, every difference with its interval on one line around nought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common.files import write_bytes
from minigpt4o.runners.evaluate_items import SEEN
from minigpt4o.runners.report_charts import difference_bar
from minigpt4o.runners.report_html import facts, framed, table, text
from minigpt4o.runners.report_tables import LOWER, number

Tree = Mapping[str, Any]
P_MEANS = "McNemar's exact test; answers about one picture or sound are tossed together"
_BETTER = {"a": "A", "b": "B"}


def write_comparison(path: Path, tree: Tree) -> None:
    """Write the page of a compare.json as a whole."""
    write_bytes(path, comparison(tree).encode("utf-8", "xmlcharrefreplace"))


def comparison(tree: Tree) -> str:
    """The whole page."""
    main = [row for row in tree["rows"] if row["headline"] and row["condition"] == SEEN]
    rest = [row for row in tree["rows"] if row not in main]
    clear = sum(row["better"] != "even" for row in tree["rows"])
    note = (
        f"{clear} of {len(tree['rows'])} intervals leave 0 out; if nothing differed, about one in twenty would. "
        f"Only A, only B: answers right in that one alone; p: {P_MEANS}."
    )
    sections = [("differences", "B minus A", _rows(main) + f'<p class="soft">{text(note)}</p>')]
    if rest:
        sections.append(("others", "Other metrics and baselines", _rows(rest)))
    sections.append(("facts", "What was compared", _facts(tree)))
    pairs = {(row["a"], row["b"]) for row in tree["rows"]}
    told = {"a": "", "b": ""}
    if len(pairs) == 1:
        told = dict(zip(told, (f" {label}" for label in pairs.pop()), strict=True))
    names = " against ".join(f"{Path(tree[side]['folder']).name}{told[side]}" for side in ("b", "a"))
    subtitle = f'<p class="soft">A: {text(tree["a"]["folder"])}<br>B: {text(tree["b"]["folder"])}</p>'
    return framed(f"Comparison of {names}", subtitle, sections)


def _rows(rows: Sequence[Tree]) -> str:
    # Differences of unlike metrics have unlike sizes: shares are drawn to one scale, each of the others to its own.
    shares = [row for row in rows if _is_share(row)]
    widest = max((abs(v) for row in shares for v in (row["low"], row["high"])), default=1.0)
    lines = [_row(row, widest if _is_share(row) else max(abs(row["low"]), abs(row["high"]))) for row in rows]
    heads = ("data set", "metric", ">n", ">A", ">B", "B − A [95 %]", "", ">only A", ">only B", ">p", "better")
    return table("".join(lines), *heads, name="Differences", css="compared")


def _is_share(row: Tree) -> bool:
    return max(row["value_a"], row["value_b"]) <= 1


def _row(row: Tree, widest: float) -> str:
    test = row.get("mcnemar")
    how = f' title="{text(test["method"])}"' if test and "method" in test else ""
    alone = [str(test["only_first"]), str(test["only_second"]), f"{test['p']:.2g}"] if test else ["–"] * 3
    span = f"[{number(row['low'], '+.3f')}, {number(row['high'], '+.3f')}]"
    bar = difference_bar(row["difference"], row["low"], row["high"], widest, row["better"])
    better = _BETTER.get(row["better"])
    models = row["a"] if row["a"] == row["b"] else f"{row['a']} / {row['b']}"
    about = f"{models} · {row['condition']}"
    cells = [
        f'<th scope="row" class="stick">{text(row["dataset"])}<br><small>{text(about)}</small></th>',
        f'<td title="{text(row["variant"])}">{text(row["metric"])}{f" {LOWER}" if row["lower_is_better"] else ""}</td>',
        *(f'<td class="n">{one}</td>' for one in (f"{row['n']:,}", number(row["value_a"]), number(row["value_b"]))),
        f"<td><b>{number(row['difference'], '+.3f')}</b> <small>{span}</small></td><td>{bar}</td>",
        *(f'<td class="n"{how}>{one}</td>' for one in alone),
        f"<td><b>{better}</b></td>" if better else '<td class="soft">–</td>',
    ]
    return f'<tr class="first">{"".join(cells)}</tr>'


def _facts(tree: Tree) -> str:
    parts = []
    for side in ("a", "b"):
        run = tree[side]["run"]
        weights = {label: told.get("weights_sha256", "")[:16] for label, told in tree[side]["variants"].items()}
        parts.append(f"<h3>{side.upper()}</h3>")
        parts.append(
            facts(
                [
                    ("folder", tree[side]["folder"]),
                    ("weights", weights),
                    ("split", run.get("split", "")),
                    ("samples per data set", run.get("limit") or "all"),
                    ("seed", run.get("seed", "")),
                    ("versions", run.get("versions", {})),
                    ("commit", run.get("git", "")),
                ]
            )
        )
    how = f"paired bootstrap, {tree['rounds']} rounds, seed {tree['seed']}, on the same samples with the same truths"
    return facts([("intervals", how)]) + "".join(parts)
