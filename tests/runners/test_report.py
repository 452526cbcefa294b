"""The report is one safe file: nothing from outside, nothing a model wrote is more than text, media inside."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import soundfile
from PIL import Image
from report_world import EVIL, answered, picture, report, tone

from minigpt4o.conversation.sample import Media
from minigpt4o.metrics.result import Measured
from minigpt4o.runners.evaluate_items import SEEN
from minigpt4o.runners.evaluate_results import scored
from minigpt4o.runners.evaluate_table import table
from minigpt4o.runners.report import page as whole_page
from minigpt4o.runners.report_charts import read_curves, thinned
from minigpt4o.runners.report_compare import comparison
from minigpt4o.runners.report_examples import Browsed, draw, verdict
from minigpt4o.runners.report_media import Shelf
from minigpt4o.runners.report_tables import breakdowns, scores
from minigpt4o.tasks.referring import Referring


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    run = folder / "job/run"
    run.mkdir(parents=True)
    rows = [
        {"step": i, "loss": 5.0 / i, "lr": 1e-3, **({"val": {EVIL: 4.0 / i}} if i % 50 == 0 else {})}
        for i in range(1, 901)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 901, "lo')
    path, _ = report(folder, (folder / "job", folder / "nowhere"))
    return path


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


def data_of(page: Path) -> dict[str, Any]:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found
    data: dict[str, Any] = json.loads(found.group(1))
    return data


def example(page: Path, id: str) -> dict[str, Any]:
    return next(e for e in data_of(page)["examples"] if e["id"] == id)


def test_the_page_asks_nothing_of_the_network_and_runs_no_word_of_a_model(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    assert not {"link", "iframe", "object", "form", "base", "embed"} & {tag for tag, _ in found.tags}
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, name)
    policy = next(a["content"] or "" for t, a in found.tags if t == "meta" and a.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "data:"
    scripts = [attributes for tag, attributes in found.tags if tag == "script"]
    assert [one.get("type") for one in scripts] == ["application/json", None]
    script = text[text.rindex("<script>") + len("<script>") : text.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"  # that one script and no other
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(|XMLHttp", script)


def test_words_that_turn_the_line_around_are_shown_as_their_numbers(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "\u202e" not in text
    assert "\\u202egnirts" in text


def test_curves_and_both_colour_schemes_are_inside(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len([t for t, a in Page(text).tags if t == "polyline"]) == 3
    assert "holds no metrics.jsonl" in text
    assert "prefers-color-scheme:dark" in text


def test_an_example_has_its_answers_under_every_condition_with_verdict_and_scores(page: Path) -> None:
    found = example(page, "box 0")
    assert {c: found["under"][c]["said"]["second"]["verdict"] for c in ("seen", "blind", "shuffled")} == {
        "seen": "wrong",
        "blind": "wrong",
        "shuffled": "right",
    }
    assert found["under"]["seen"]["said"]["second"]["scores"]["acc@0.5"] == 0
    assert found["under"]["shuffled"]["donor"].startswith("box")
    assert found["truth"] == ["{<0><0><50><50>}"]
    assert found["facts"] == {"question_type": "type 0", "box_size": "large"}
    assert example(page, "box 2")["under"]["seen"]["said"]["second"]["verdict"] == "unread"
    speech = example(page, "say 1")["under"]["seen"]["said"]["second"]
    assert (speech["verdict"], speech["scores"]["wer"]) == ("partly", 0.5)  # an error rate: lower is better
    choices = example(page, f"{EVIL}0")["under"]["seen"]["said"]["second"]
    assert choices["likelihoods"] == {"red": [-1.0, 2], "blue": [-3.0, 2], EVIL: [-9.0, 3]}


def test_boxes_are_shares_of_the_picture_as_it_is_seen_upright(page: Path) -> None:
    data, found = data_of(page), example(page, "box 1")
    shown = data["media"][found["under"]["seen"]["pictures"][0]]
    assert (shown["width"], shown["height"]) == (300, 200)  # stored as 200 x 300 with an EXIF orientation
    assert found["boxes"][0]["at"] == found["under"]["seen"]["said"]["second"]["boxes"]["at"][0] == [0, 0, 0.5, 0.5]
    image = Image.open(io.BytesIO(base64.b64decode(shown["uri"].split(",")[1])))
    assert image.size == (300, 200)
    assert image.getpixel((75, 50))[0] > 200 > 60 > image.getpixel((75, 50))[1]  # red where the box is
    assert min(image.getpixel((225, 150))) > 200


def test_media_stand_once_whatever_shows_them_and_the_sound_is_the_sound(page: Path) -> None:
    data = data_of(page)
    uris = [one["uri"] for one in data["media"]]
    assert len(uris) == len(set(uris)) == 9  # four pictures, two sounds, three pictures; lent ones are among them
    for one in data["examples"]:
        assert one["under"]["blind"]["pictures"] == one["under"]["blind"]["sounds"] == []
        assert one["under"]["shuffled"]["pictures"] != one["under"]["seen"]["pictures"] or one["set"] == "speech"
    sounds = [one for one in data["media"] if one["kind"] == "audio"]
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0]["uri"].split(",")[1])))
    assert (rate, len(wave)) == (8000, 4000)


def test_long_loud_and_broken_media_are_bounded(tmp_path: Path) -> None:
    shelf = Shelf(5_000_000)
    place = shelf.place(tone(440, seconds=9.0, rate=48_000), "audio")
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(shelf.items[place]["uri"].split(",")[1])))
    assert (rate, len(wave), round(shelf.items[place]["seconds"])) == (16_000, 96_000, 9)
    large = shelf.items[shelf.place(picture(tmp_path / "large.jpg", (2000, 1000)), "image")]
    assert (large["width"], large["height"]) == (2000, 1000)
    assert Image.open(io.BytesIO(base64.b64decode(large["uri"].split(",")[1]))).size == (320, 160)
    assert "missing_file" in shelf.items[shelf.place(Media(str(tmp_path / "nowhere.png")), "image")]["problem"]


@pytest.mark.parametrize("room", [55_000, 60_000, 90_000])
def test_the_page_keeps_its_size_and_says_what_it_left_out(tmp_path: Path, room: int) -> None:
    without, _ = report(tmp_path, size=0)
    assert data_of(without)["examples"] == []
    size = without.stat().st_size + room
    path, browsed = report(tmp_path, size=size)
    assert path.stat().st_size <= size
    text = path.read_text(encoding="utf-8")
    missing = browsed.wanted - len(browsed.examples)
    assert browsed.wanted == 9
    assert browsed.unshown or room > 60_000
    assert missing or room > 60_000
    assert (f"{missing} more were drawn but left out" in text) == bool(missing)
    assert (f"{browsed.unshown} pictures and sounds are left out" in text) == bool(browsed.unshown)


def test_a_sample_that_could_not_be_asked_says_so_and_stays(tmp_path: Path) -> None:
    path, _ = report(tmp_path, skip="box 1")
    said = example(path, "box 1")["under"]["seen"]["said"]["second"]
    assert (said["verdict"], said["why"]) == ("unasked", "missing_file: box 1: not there")
    assert "3 of 4 asked, counted as wrong" in path.read_text(encoding="utf-8")


def test_the_scores_show_intervals_counts_baselines_gains_and_which_way_is_better(tmp_path: Path) -> None:
    tree, _, _ = answered(tmp_path)
    html = scores(tree)
    rows = re.findall(r"<tr.*?</tr>", html)
    boxes = next(row for row in rows if "second" in row and "unparsable" in row)
    assert "<b>0.500</b>" in boxes
    assert "1 unparsable, counted as wrong" in boxes
    speech = next(row for row in rows if "speech" in row)
    assert "lower is better" in speech
    assert "WER" in html  # the definition, on hover
    assert html.count('class="unsure"') >= 1  # a gain whose interval holds 0
    assert "<b>−0.500</b>" in boxes  # shuffled was better than seen: no gain, and it says so


def test_groups_are_sorted_small_ones_are_grey_and_sizes_keep_their_order(tmp_path: Path) -> None:
    tree, _, _ = answered(tmp_path)
    seen = tree["datasets"]["boxes"]["variants"]["second"]["conditions"][SEEN]
    score = seen["scores"]["acc@0.5"]
    seen["by"] = {
        "question_type": {
            name: {"acc@0.5": {**score, "value": value, "n": n}}
            for name, value, n in (("middling", 0.5, 40), ("best", 0.9, 40), ("worst", 0.1, 3))
        },
        "box_size": {
            name: {"acc@0.5": {**score, "value": value, "n": 40}}
            for name, value in (("large", 0.1), ("small", 0.9), ("medium", 0.5))
        },
    }
    html = breakdowns(tree)
    names = [name for name in re.findall(r'stick group">(\w+)<', html) if name not in ("type", "1")]
    assert names[:6] == ["best", "middling", "worst", "small", "medium", "large"]
    grey = re.findall(r'<tr class="(?:first few|few)">.*?</tr>', html)
    assert any("worst" in row for row in grey)
    assert not any("best" in row for row in grey)


def test_how_it_was_measured_is_there_whole(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for word in ("d" * 64, "toy (default)", "blip2_image_eval", "image_size=64", "max_new_tokens=", "torch=", "0" * 16):
        assert word in text, word
    assert "&lt;user&gt;seen &lt;/script&gt;" in text  # the prompt, as words
    assert "predictions/1.boxes.seen.jsonl" in text


def test_a_results_file_of_the_first_format_still_makes_a_page(tmp_path: Path) -> None:
    tree, _, _ = answered(tmp_path)
    for dataset in tree["datasets"].values():
        for key in ("prompt", "processors", "task_options", "answered", "skipped_examples", "repeated_ids"):
            del dataset[key]
    assert "Scores" in whole_page(tree, Browsed(), [])


def test_a_comparison_draws_each_difference_and_marks_what_is_clear() -> None:
    side = {"folder": f"out/{EVIL}", "run": {"split": "test", "seed": 0}, "variants": {EVIL: {"weights_sha256": "0"}}}
    row = {"dataset": EVIL, "condition": "seen", "a": EVIL, "b": "b", "metric": "acc", "headline": True, "n": 40}
    row |= {"value_a": 0.4, "value_b": 0.6, "difference": 0.2, "low": 0.1, "high": 0.3, "better": "b", "variant": EVIL}
    row |= {"lower_is_better": False, "mcnemar": {"only_first": 1, "only_second": 9, "p": 0.0215}}
    even = {**row, "metric": "wer", "headline": False, "low": -0.1, "better": "even", "lower_is_better": True}
    del even["mcnemar"]
    html = comparison({"a": side, "b": side, "rounds": 100, "seed": 0, "rows": [row, even]})
    found = Page(html)
    assert not [tag for tag, _ in found.tags if tag in ("script", "img")]
    assert [a["class"] for t, a in found.tags if t == "circle"] == ["point b", "point even"]
    assert "1 of 2 intervals leave 0 out" in html
    assert "lower is better" in html


def test_the_draw_is_seeded_and_shows_mistakes_beside_the_rest() -> None:
    each = {f"s{i}": float(i % 3 > 0) for i in range(30)}
    first, again = draw(each, 8, random.Random(1)), draw(each, 8, random.Random(1))
    assert first == again
    assert [why for why, _ in first] == ["random"] * 4 + ["mistake"] * 4
    assert all(each[id] == 0 for why, id in first if why == "mistake")
    assert len({id for _, id in first}) == 8
    assert len(draw({"a": 1.0, "b": 1.0, "c": 0.0}, 8, random.Random(0))) == 3


def test_a_verdict_knows_error_rates_and_metrics_without_a_top() -> None:
    rate = Measured(0.5, [0.0, 0.3, 2.0], "WER", better="lower")
    assert [verdict(rate, i, 1.0) for i in range(3)] == ["right", "partly", "wrong"]
    cider = Measured(1.0, [0.0, 1.0, 7.0], "CIDEr-D")
    assert [verdict(cider, i, 7.0) for i in range(3)] == ["wrong", "partly", "partly"]
    assert verdict(Measured(0.0, [0.0], "x", unread=[True]), 0, 1.0) == "unread"


def test_long_curves_are_averaged_and_keep_their_ends(tmp_path: Path) -> None:
    points = [(float(i), float(i % 2)) for i in range(10_000)]
    short = thinned(points, 300)
    assert len(short) <= 300
    assert short[-1] == points[-1]
    assert short[5][1] == pytest.approx(0.5, abs=0.02)
    assert read_curves(tmp_path).problem


def test_the_table_stays_aligned_whatever_the_names(tmp_path: Path) -> None:
    tree, _, _ = answered(tmp_path)
    lines = table(tree).splitlines()
    found = next(line for line in lines if line.startswith("boxes"))
    assert re.search(r"acc@0.5\s+4 .*0\.500 \[0\.\d+, \d\.\d+\]\s+0\.000\s+1\.000\s+-0\.500$", found)
    assert len(found) == len(lines[0].rstrip()) or len(found) <= len(lines[1])
    assert any(line.endswith("1 of 4 answers held nothing readable (wrong)") for line in lines)


def test_a_score_of_nothing_is_no_score() -> None:
    found = scored(Referring(Referring.Config()), [{"id": "a", "skipped": ["missing_file", "a.png"]}], 10, 0)
    assert found.result == {"n": 0, "asked": 1, "skipped": {"missing_file": 1}, "scores": {}}
    assert Measured(0.0, [], "x").subset([]).value == 0.0
