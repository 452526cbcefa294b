"""Plain text for the data commands: aligned columns, numbers, and bad samples by reason."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from minigpt4o.cli.listing import say

LONGEST = 300  # characters of a detail that are shown


def width_of(text: str) -> int:
    """Columns of a terminal that a text takes; wide letters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def aligned(rows: Sequence[Sequence[str]], right: bool = True) -> list[str]:
    """Lines of cells below each other; the first column to the left, the others to the right (or all to the left)."""
    if not rows:
        return []
    widths = [max(width_of(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        cells = []
        for i, cell in enumerate(row):
            blank = " " * (widths[i] - width_of(cell))
            cells.append(blank + cell if i and right else cell + blank)
        lines.append("  ".join(cells).rstrip())
    return lines


def told_losses(lost: Mapping[str, int], first: Mapping[str, Sequence[str]], indent: str = "") -> None:
    """What could not be used, the most frequent reason first, with the first of each."""
    if not lost:
        return
    say(f"{indent}left out: {sum(lost.values()):,}")
    for reason, count in sorted(lost.items(), key=lambda pair: (-pair[1], pair[0])):
        say(f"{indent}  {reason} {count:,}")
        for detail in first.get(reason, ()):
            say(f"{indent}    {cut(detail)}")


def cut(text: str, limit: int = LONGEST) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def number(value: float) -> str:
    """Whole numbers with commas, others with two places."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def size_words(count: int) -> str:
    """Bytes as a person reads them."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")
