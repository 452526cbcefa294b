"""Charts as inline SVG: training curves read from a run's metrics.jsonl, and bars with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minigpt4o.runners.report_html import text
from minigpt4o.runners.rundir import METRICS

POINTS = 300  # of one curve; longer ones are averaged down to it
_WIDTH, _HEIGHT = 560, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 12, 30
LOG_FROM = 8.0  # ratio of largest to smallest value above which the axis is logarithmic


@dataclass
class Curve:
    """A line of a chart."""

    name: str
    points: list[tuple[float, float]]  # (step, value)
    dots: bool = False  # few measured points: show them


@dataclass
class RunCurves:
    """The curves of one training run."""

    title: str
    losses: list[Curve] = field(default_factory=list)
    rates: list[Curve] = field(default_factory=list)
    problem: str = ""


def find_metrics(path: Path) -> Path | None:
    """metrics.jsonl of a run folder, or of the youngest run of a job folder."""
    if (path / METRICS).is_file():
        return path / METRICS
    found = list(path.glob(f"*/{METRICS}"))
    return max(found, key=lambda f: (f.stat().st_mtime_ns, str(f)), default=None)


def read_curves(path: Path) -> RunCurves:
    """Training loss, validation losses and learning rate by step."""
    file = find_metrics(path)
    if file is None:
        return RunCurves(str(path), problem=f"{path} holds no {METRICS}")
    loss: list[tuple[float, float]] = []
    rate: list[tuple[float, float]] = []
    val: dict[str, list[tuple[float, float]]] = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            step = float(row["step"])
        except (ValueError, KeyError, TypeError):
            continue  # a line that is being written
        _take(loss, step, row.get("loss"))
        _take(rate, step, row.get("lr"))
        for name, value in (row.get("val") or {}).items():
            _take(val.setdefault(name, []), step, value)
    title = f"{file.parent.parent.name} / {file.parent.name}"
    curves = [Curve("training", thinned(loss)), *(Curve(f"val {n}", thinned(p), len(p) < 40) for n, p in val.items())]
    return RunCurves(title, [c for c in curves if c.points], [Curve("learning rate", thinned(rate))] if rate else [])


def _take(points: list[tuple[float, float]], step: float, value: object) -> None:
    if isinstance(value, int | float) and math.isfinite(value):
        points.append((step, float(value)))


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most so many points, each the mean of its neighbours; the last one as it is."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / most)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    means = [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
    return [*means[:-1], points[-1]]


class _Axis:
    """Values to pixels, linear or logarithmic."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False) -> None:
        self.log = log
        self.low, self.high = (math.log10(low), math.log10(high)) if log else (low, high)
        if self.high <= self.low:
            self.high = self.low + 1
        self.start, self.end = start, end

    def at(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.floor(self.low), math.ceil(self.high)
            marks = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
            inside = [t for t in marks if self.low - 1e-9 <= math.log10(t) <= self.high + 1e-9]
            return inside if len(inside) <= 7 else [t for t in inside if f"{t:e}"[0] == "1"]
        step = nice((self.high - self.low) / 5)
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)]


def nice(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step - 1e-12)


def line_chart(curves: Sequence[Curve], label: str, height: int = _HEIGHT) -> str:
    """Curves over steps, with axes and legend."""
    values = [y for c in curves for _, y in c.points]
    steps = [x for c in curves for x, _ in c.points]
    if not values:
        return ""
    log = min(values) > 0 and max(values) / min(values) > LOG_FROM
    low = min(values) if log else min(0.0, *values) if len(values) > 1 else min(0.0, values[0])
    x = _Axis(min(steps), max(steps), _LEFT, _WIDTH - _RIGHT)
    y = _Axis(low, max(values), height - _BOTTOM, _TOP, log)
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{text(label)}">']
    for tick in y.ticks():
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y.at(tick):.1f}" y2="{y.at(tick):.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{y.at(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x.ticks():
        parts.append(f'<text x="{x.at(tick):.1f}" y="{height - 10}" text-anchor="middle">{tick:g}</text>')
    for number, curve in enumerate(curves):
        path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in curve.points)
        colour = f"c{number % 6}"
        parts.append(f'<polyline class="line {colour}" points="{path}"/>')
        if curve.dots:
            parts += [
                f'<circle class="dot {colour}" cx="{x.at(a):.1f}" cy="{y.at(b):.1f}" r="2.6"/>' for a, b in curve.points
            ]
    parts.append("</svg>")
    return "".join(parts)


def legend(curves: Sequence[Curve]) -> str:
    """Names of the curves with their last values."""
    items = [
        f'<span><i class="key c{n % 6}"></i>{text(c.name)} <b>{c.points[-1][1]:.4g}</b></span>'
        for n, c in enumerate(curves)
    ]
    return f'<p class="legend">{"".join(items)}</p>'


def interval_bar(
    value: float, low: float, high: float, top: float, colour: int, marks: Sequence[tuple[str, float]] = ()
) -> str:
    """A bar from 0 to the value with its interval; `marks` are named values, drawn as ticks (the baselines)."""
    width, height = 220, 22
    scale = width / max(top, 1e-9)
    parts = [f'<svg class="bar" viewBox="0 0 {width} {height}" role="img" aria-label="{value:.3f}">']
    parts.append(f'<rect class="track" x="0" y="7" width="{width}" height="8" rx="4"/>')
    parts.append(
        f'<rect class="fill c{colour % 6}" x="0" y="7" width="{max(value, 0) * scale:.1f}" height="8" rx="4"/>'
    )
    for name, at in marks:
        cx = min(max(at * scale, 1.5), width - 1.5)
        title = f"<title>{text(name)} {at:.3f}</title>"
        parts.append(f'<line class="mark" x1="{cx:.1f}" x2="{cx:.1f}" y1="3" y2="19">{title}</line>')
    a, b = low * scale, min(high * scale, width - 1)
    parts.append(f'<path class="whisker" d="M{a:.1f} 11H{b:.1f}M{a:.1f} 7V15M{b:.1f} 7V15"/></svg>')
    return "".join(parts)


def difference_bar(value: float, low: float, high: float, widest: float, better: str) -> str:
    """A difference and its interval around nought; `widest` is the largest distance drawn, `better` a, b or even."""
    width, height = 220, 22
    middle, scale = width / 2, (width / 2 - 3) / max(widest, 1e-9)
    a, b, at = (middle + v * scale for v in (low, high, value))
    return (
        f'<svg class="bar" viewBox="0 0 {width} {height}" role="img" aria-label="{value:+.3f}">'
        f'<line class="nought" x1="{middle}" x2="{middle}" y1="1" y2="21"/>'
        f'<path class="whisker {better}" d="M{a:.1f} 11H{b:.1f}M{a:.1f} 7V15M{b:.1f} 7V15"/>'
        f'<circle class="point {better}" cx="{at:.1f}" cy="11" r="4"/></svg>'
    )
