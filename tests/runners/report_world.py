"""A small evaluation that is already answered, with harmful words in every place that holds words."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Box, Media, Sample, Turn
from minigpt4o.runners.evaluate import Evaluate
from minigpt4o.runners.evaluate_items import BLIND, SEEN, SHUFFLED, Asked, Data, Item, under
from minigpt4o.runners.evaluate_journal import Journal
from minigpt4o.runners.evaluate_summary import Answers, results
from minigpt4o.runners.report import write_report
from minigpt4o.runners.report_examples import Browsed, choose

EVIL = (
    '</script><script>document.title="owned"</script><img src="http://example.org/x.png" onerror="document.title=1">'
    '<!-- ]]> ${1} & "quotes" \u202egnirts'
)
TASKS = {"boxes": "referring", "speech": "speech_recognition", "choices": "choice"}


def picture(path: Path, size: tuple[int, int], orientation: int = 1) -> Media:
    """White, its left upper quarter red; with an EXIF orientation the pixels lie as that says."""
    image = Image.new("RGB", size, (255, 255, 255))
    image.paste((220, 20, 20), (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    if orientation == 6:  # to be turned clockwise when shown: stored turned the other way
        image = image.transpose(Image.Transpose.ROTATE_90)
    image.save(path, "JPEG", quality=95, exif=exif)
    return Media(str(path))


def tone(hertz: float, seconds: float = 0.5, rate: int = 8000) -> Media:
    """A tone in noise, which no format makes small."""
    out = io.BytesIO()
    count = int(seconds * rate)
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, count)
    soundfile.write(out, np.sin(np.arange(count) * 2 * np.pi * hertz / rate) / 2 + noise, rate, format="WAV")
    return Media(data=out.getvalue(), name=f"tone {hertz}")


def samples(folder: Path) -> dict[str, list[Sample]]:
    """Three data sets: boxes (one picture lies on its side in the file), speech and questions with choices."""
    boxes = []
    for number, (size, orientation) in enumerate((((400, 300), 1), ((300, 200), 6), ((64, 64), 1), ((60, 60), 1))):
        media = picture(folder / f"{number}.jpg", size, orientation)
        box = Box((0, 0, size[0] / 2, size[1] / 2), size, label=EVIL)
        turns = [Turn("user", f"<image>where is it? {EVIL}"), Turn("assistant", "<bbox>")]
        boxes.append(Sample(f"box {number}", turns, [media], boxes=[box], meta={"question_type": f"type {number % 2}"}))
    speech = []
    for number in range(2):
        turns = [Turn("user", "<audio>write it down"), Turn("assistant", "one two three four")]
        speech.append(Sample(f"say {number}", turns, [], [tone(300 + 300 * number)], language="en"))
    choices = []
    for number in range(3):
        turns = [Turn("user", f"<image>which? {number}"), Turn("assistant", "red")]
        media = picture(folder / f"c{number}.jpg", (40 + number, 40))
        meta = {"choices": ["red", "blue", EVIL]}
        choices.append(Sample(f"{EVIL}{number}", turns, [media], answers=["red"], language="en", meta=meta))
    return {"boxes": boxes, "speech": speech, "choices": choices}


SAID: dict[str, dict[str, list[str]]] = {  # what the second model says to each sample, by condition
    "boxes": {
        SEEN: ["{<50><50><100><100>}", "{<0><0><50><50>}", EVIL, "{<0><0><50><50>}"],
        BLIND: ["{<25><25><75><75>}"] * 4,
        SHUFFLED: ["{<0><0><50><50>}"] * 4,
    },
    "speech": {SEEN: ["one two three four", "one two"], BLIND: ["", EVIL], SHUFFLED: ["one", "two"]},
    "choices": {SEEN: ["red", "blue", "red"], BLIND: ["red"] * 3, SHUFFLED: ["blue"] * 3},
}
MODELS = (f"first {EVIL}", "second")


def answered(folder: Path, skip: str = "") -> tuple[dict[str, Any], Answers, dict[Any, Any]]:
    """(results, answers, measured answers); the sample `skip` could not be asked."""
    data, journals = {}, {}
    for name, known in samples(folder).items():
        task = registry.build(Part("task", TASKS[name]))
        items = [Item(sample) for sample in known]
        data[name] = Data(
            name, task, Asked(items), {c: under(c, items, name, None, 0) for c in (SEEN, BLIND, SHUFFLED)}
        )
        for label in MODELS:
            for condition, asked in data[name].conditions.items():
                path = folder / "predictions" / f"{MODELS.index(label)}.{name}.{condition}.jsonl"
                journal = Journal(
                    path, {"data": "d" * 64, "prompts": "p" * 64, "template": "toy", "profile": "default"}
                )
                journal.open()
                for place, item in enumerate(asked):
                    said = SAID[name][condition][place] if label == MODELS[1] else "no"
                    row = task.prediction(item.sample, f"<user>{condition} {EVIL}<assistant>", said, item.donor).row()
                    if name == "choices":
                        row["meta"]["likelihoods"] = {"red": [-1.0, 2], "blue": [-3.0, 2], EVIL: [-9.0, 3]}
                    if item.sample.id == skip:
                        row |= {"answer": "", "skipped": ["missing_file", f"{skip}: not there"]}
                    journal.write(row)
                journal.close()
                journal.finish([item.sample.id for item in asked])
                journals[label, name, condition] = journal
    told = {label: {"checkpoint": EVIL, "checkpoint_sha256": "", "weights_sha256": "0" * 64} for label in MODELS}
    answers = Answers(data, journals, told)
    config = Evaluate.Config(job_name=f"job {EVIL}", bootstrap=50, device="cpu", max_bad_fraction=1.0)
    specs = {
        name: SimpleNamespace(
            task=Part("task", task, asdict(data[name].task.config)),
            vis_processor={"eval": Part("processor", "blip2_image_eval", {"image_size": 64})},
            audio_processor={},
        )
        for name, task in TASKS.items()
    }
    tree, found = results(answers, config, SimpleNamespace(datasets=specs, plugins=[]), folder)
    return tree, answers, found


def report(folder: Path, runs: tuple[Path, ...] = (), skip: str = "", size: int = 20_000_000) -> tuple[Path, Browsed]:
    """Write the report of that evaluation."""
    tree, answers, found = answered(folder, skip)
    chosen: list[Browsed] = []

    def examples(room: int) -> Browsed:
        chosen.append(choose(answers, found, 8, 0, room, ["question_type", "box_size", "answer_length"]))
        return chosen[-1]

    write_report(folder / "report.html", tree, examples, runs, size)
    return folder / "report.html", chosen[-1]
