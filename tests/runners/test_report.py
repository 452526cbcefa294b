"""The report is one safe file: nothing from outside, nothing a model wrote is more than text, media inside."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from minigpt4o.conversation.sample import Box, Media, Sample, Turn
from minigpt4o.metrics.result import Measured
from minigpt4o.runners.evaluate_items import SEEN
from minigpt4o.runners.evaluate_results import Scored, breakdown, gain, scored, table
from minigpt4o.runners.report import write_report
from minigpt4o.runners.report_charts import read_curves, thinned
from minigpt4o.runners.report_gallery import choose, draw
from minigpt4o.tasks.referring import Referring

EVIL = (
    '</script><script>document.title="owned"</script><img src="http://example.org/x.png" onerror=alert(1)> & "quotes"'
)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Two pictures with a box each, one of them too large, and a sound."""
    found = []
    for number, side in enumerate((64, 900)):
        Image.new("RGB", (side, side), (200, 30 * number, 30)).save(tmp_path / f"{number}.png")
        turns = [Turn("user", f"<image>{EVIL}"), Turn("assistant", "{<0><0><50><50>}")]
        box = Box((0, 0, side / 2, side / 2), (side, side))
        media = [Media(str(tmp_path / f"{number}.png"))]
        found.append(
            Sample(
                f"s{number}",
                turns,
                media,
                boxes=[box],
                dataset="set",
                language="en",
                meta={"question_type": f"t{number}"},
            )
        )
    wave = np.sin(np.arange(8000) / 5).astype(np.float32)
    out = io.BytesIO()
    soundfile.write(out, wave, 8000, format="WAV")
    turns = [Turn("user", "<audio>where?"), Turn("assistant", "x")]
    found.append(
        Sample("s2", turns, [], [Media(data=out.getvalue())], dataset="set", boxes=[Box((0, 0, 1, 1), (2, 2))])
    )
    return found


def evaluated(samples: list[Sample], answers: list[str]) -> tuple[dict[str, Any], Scored]:
    task = Referring(Referring.Config())
    rows = [task.prediction(s, "prompt " + EVIL, a).row() for s, a in zip(samples, answers, strict=True)]
    seen, blind = scored(task, rows, 50, 0), scored(task, [{**r, "answer": "no"} for r in rows], 50, 0)
    seen.result["by"] = breakdown(seen, ["question_type"], 50, 0)
    results = {
        "run": {"job_name": f"job {EVIL}", "split": "test", "seed": 0, "bootstrap": 50, "versions": {"torch": "2"}},
        "variants": {EVIL: {"checkpoint": EVIL, "weights_sha256": "0" * 64}},
        "datasets": {
            "set": {
                "headline": seen.headline,
                "n": 3,
                "skipped": {},
                "prompt_example": EVIL,
                "variants": {
                    EVIL: {
                        "conditions": {SEEN: seen.result, "blind": blind.result},
                        "gain": {"blind": gain(seen, blind, 50, 0)},
                    }
                },
            }
        },
    }
    return results, seen


@pytest.fixture
def page(samples: list[Sample], tmp_path: Path) -> Path:
    results, seen = evaluated(samples, ["{<0><0><50><50>}", EVIL, "{<60><60><99><99>}"])
    examples = choose({"set": {s.id: s for s in samples}}, {("set", EVIL): seen}, [EVIL], 8, 0)
    run = tmp_path / "job/run"
    run.mkdir(parents=True)
    rows = [
        {"step": i, "loss": 5.0 / i, "lr": 1e-3, **({"val": {EVIL: 4.0 / i}} if i % 50 == 0 else {})}
        for i in range(1, 901)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 901, "lo')
    write_report(tmp_path / "report.html", results, examples, [tmp_path / "job", tmp_path / "nowhere"])
    return tmp_path / "report.html"


class Page(HTMLParser):
    """Tags with their attributes; complains about tags that are not closed in order."""

    VOID = frozenset({"meta", "br", "img", "input", "link", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def test_the_page_asks_nothing_of_the_network_and_runs_no_word_of_a_model(page: Path) -> None:
    found = Page(page.read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in found.tags}
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, name)
    policy = next(a["content"] or "" for t, a in found.tags if t == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_pictures_boxes_sounds_and_curves_are_inside(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    rectangles = [a.get("class") for t, a in found.tags if t == "rect"]
    assert rectangles.count("true") == 2
    assert rectangles.count("said") == 1
    audio = [a["src"] or "" for t, a in found.tags if t == "audio"]
    assert [src[:22] for src in audio] == ["data:audio/wav;base64,"]
    assert len([t for t, a in found.tags if t == "polyline"]) == 3
    assert "holds no metrics.jsonl" in text
    assert "data:image/jpeg" in text  # the large picture was made small
    assert "prefers-color-scheme:dark" in text
    assert text.count('class="wrong"') == 2
    assert text.count('class="right"') == 1
    assert len(text) < 400_000


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to look with")
def test_a_browser_shows_the_page(page: Path, tmp_path: Path) -> None:
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path}/profile", "--window-size=1200,2000", f"--screenshot={tmp_path}/seen.png",
        page.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    colours = Image.open(tmp_path / "seen.png").convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 200


def test_the_draw_is_seeded_and_shows_mistakes_beside_the_rest() -> None:
    import random

    each = {f"s{i}": float(i % 3 > 0) for i in range(30)}
    first, again = draw(each, 8, random.Random(1)), draw(each, 8, random.Random(1))
    assert first == again
    assert [why for why, _ in first] == ["random"] * 4 + ["mistake"] * 4
    assert all(each[id] == 0 for why, id in first if why == "mistake")
    assert len({id for _, id in first}) == 8
    assert len(draw({"a": 1.0, "b": 1.0, "c": 0.0}, 8, random.Random(0))) == 3


def test_long_curves_are_averaged_and_keep_their_ends(tmp_path: Path) -> None:
    points = [(float(i), float(i % 2)) for i in range(10_000)]
    short = thinned(points, 300)
    assert len(short) <= 300
    assert short[-1] == points[-1]
    assert short[5][1] == pytest.approx(0.5, abs=0.02)
    assert read_curves(tmp_path).problem


def test_the_table_stays_aligned_whatever_the_names(samples: list[Sample]) -> None:
    results, _ = evaluated(samples, ["{<0><0><50><50>}", "", ""])
    lines = table(results).splitlines()
    assert re.search(r"set\s+acc@0.5\s+3\s+0\.333 \[0\.\d+, \d\.\d+\]\s+0\.000\s+-\s+\+0\.333$", lines[2])
    assert lines[-1].endswith("2 of 3 answers held nothing readable (wrong)")


def test_a_score_of_nothing_is_no_score() -> None:
    found = scored(Referring(Referring.Config()), [{"id": "a", "skipped": ["missing_file", "a.png"]}], 10, 0)
    assert found.result == {"n": 0, "asked": 1, "skipped": {"missing_file": 1}, "scores": {}}
    assert Measured(0.0, [], "x").subset([]).value == 0.0
