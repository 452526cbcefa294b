"""Write a toy world to disk in the formats of the real sets, the same bytes for the same seed.

Under OUT, for SPLIT in train, val, test and LANG in en, ja; all paths inside files are relative to OUT:

    pictures/SPLIT/NNNNN.png                64x64 RGB
    sounds/SPLIT/NNNNN.wav | .flac          16 kHz mono, 1.2 s (every fourth is FLAC)
    laion/NNNNN.tar                         WebDataset shards of the English train captions: KEY.png, KEY.json, KEY.txt
    captions/LANG_SPLIT.json                [{image, caption, attributes: [[..], ..], image_id, language}]
    vqa/LANG_SPLIT.json                     [{question, question_id, answer: [..], image, dataset, question_type, ..}]
    grounded/LANG_SPLIT.json                [{image_id, image, grounded_caption, language}]
    refer/LANG_SPLIT.json                   [{img_id, image, sents, bbox [x, y, w, h], height, width, language}]
    identify/LANG_SPLIT.json                the same rows; the box is drawn loosely, sents says what is in it in full
    llava/LANG_SPLIT.json                   [{id, image, conversations: [{from, value}], language}]
    audiocaps/LANG_SPLIT.csv                audiocap_id,file_name,caption,language,attributes (a|b|c)
    audio_qa/LANG_SPLIT.jsonl               {question_id, audio, question, answer: [..], question_type, language}
    messages/LANG_SPLIT.jsonl               {id, messages: [{role, content}], images, audios, language}
    language/SPLIT.jsonl                    {messages, language, task}: scenes told in words; train and val only
    objects/SPLIT.json, SPLIT_sounds.json   the exact truth of each picture and sound
    tokenizer_text.txt, prompts.json        lines to train a tokenizer on; the instructions used
    README.txt                              what this is
    manifest.json                           seed, size, level and counts; written last: where it is, all is complete
"""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError
from minigpt4o.datasets.toy_world import rows as one
from minigpt4o.datasets.toy_world.dialogue import corpus_row
from minigpt4o.datasets.toy_world.shards import write_shards
from minigpt4o.datasets.toy_world.words import PROMPTS
from minigpt4o.datasets.toy_world.world import LEVELS, SPLITS, item_rng

README = """Toy world: pictures, sounds and texts made by a program (minigpt4o toy-world), seed {seed}.
No picture, sound or text comes from anywhere else. Dedicated to the public domain (CC0 1.0).
The test split shows only combinations of shape, colour and size, and of kind, pitch and number, that train and val
never do.
"""
CHUNK = 250  # items that one worker makes at a time; does not change what is written
TOKENIZER_LINES = 12_000
FOLDERS = (
    *(f"{kind}/{split}" for kind in ("pictures", "sounds") for split in SPLITS),
    *("laion", "captions", "grounded", "vqa", "refer", "identify", "llava"),
    *("audiocaps", "audio_qa", "messages", "language", "objects"),
)


@dataclass(frozen=True)
class Size:
    """How many items each split holds: train, val, test."""

    pictures: tuple[int, int, int]
    sounds: tuple[int, int, int]
    corpus: tuple[int, int, int]  # rows of the language corpus; test has none


SIZES = {
    "tiny": Size((60, 16, 16), (30, 8, 8), (200, 20, 0)),
    "small": Size((8000, 400, 400), (2400, 200, 200), (30_000, 400, 0)),
    "medium": Size((32_000, 1600, 1600), (9600, 800, 800), (120_000, 1600, 0)),
}


def write_toy_world(out: Path, size: str = "small", seed: int = 0, level: str = "pair", workers: int = 1) -> dict:
    """Write everything under `out`, which must be empty or a toy world; returns counts by name.

    The bytes depend on size, seed and level alone, not on `workers` (processes). Raises DataError.
    """
    out = Path(out)
    for what, word, known in (("size", size, SIZES), ("level", level, LEVELS)):
        if word not in known:
            raise DataError(f"toy world: no {what} {word!r}; it is one of {', '.join(known)}")
    _prepare(out, seed)
    world, plan = one.World(seed, level), SIZES[size]
    with _pool(workers) as pool:
        counts = _write_items(out, world, plan, pool)
        counts.update(_write_corpus(out, world, plan, pool))
    counts["laion"] = write_shards(out / "laion", out, _load(out / "captions/en_train.json"))
    _write_tokenizer_text(out, seed)
    _write_json(out / "prompts.json", PROMPTS)
    _write_json(out / "manifest.json", {"seed": seed, "size": size, "level": level, "counts": counts})
    return counts


def _prepare(out: Path, seed: int) -> None:
    """An empty toy world; an earlier one is taken away, anything else is left alone."""
    readme = out / "README.txt"
    if out.exists() and any(out.iterdir()):
        if not readme.is_file() or not readme.read_text(encoding="utf-8").startswith(README[:20]):
            raise DataError(f"toy world: {out} holds something else; name a new or empty folder")
        (out / "manifest.json").unlink(missing_ok=True)
        for folder in FOLDERS:
            shutil.rmtree(out / folder, ignore_errors=True)
    for folder in FOLDERS:
        (out / folder).mkdir(parents=True, exist_ok=True)
    readme.write_text(README.format(seed=seed), encoding="utf-8")


def _pool(workers: int) -> Any:
    """Fresh processes: a fork could copy a lock that one of the caller's threads holds."""
    return ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else nullcontext()


def _map(pool: Executor | None, make: Any, total: int) -> Iterator[Any]:
    """`make(start, stop)` over chunks of range(total), in order."""
    starts = range(0, total, CHUNK)
    stops = [min(start + CHUNK, total) for start in starts]
    return pool.map(make, starts, stops) if pool is not None else map(make, starts, stops)


# --- pictures and sounds with their rows ---------------------------------------------------------------------------


def _write_items(out: Path, world: one.World, plan: Size, pool: Executor | None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for split, pictures, sounds in zip(SPLITS, plan.pictures, plan.sounds, strict=True):
        parts = chain(
            _map(pool, partial(_picture_chunk, out, world, split), pictures),
            _map(pool, partial(_sound_chunk, out, world, split, pictures), sounds),
        )
        merged: one.Rows = {}
        for part in parts:
            for name, found in part.items():
                merged.setdefault(name, []).extend(found)
        for name, found in merged.items():
            _write_rows(out, name, found)
            counts[name] = len(found)
        counts[f"pictures/{split}"], counts[f"sounds/{split}"] = pictures, sounds
    return counts


def _picture_chunk(out: Path, world: one.World, split: str, start: int, stop: int) -> one.Rows:
    merged: one.Rows = {}
    for index in range(start, stop):
        (out / one.picture_name(split, index)).write_bytes(one.picture_file(world, split, index))
        for name, found in one.picture_rows(world, split, index).items():
            merged.setdefault(name, []).extend(found)
    return merged


def _sound_chunk(out: Path, world: one.World, split: str, pictures: int, start: int, stop: int) -> one.Rows:
    merged: one.Rows = {}
    for index in range(start, stop):
        (out / one.sound_name(split, index)).write_bytes(one.sound_file(world, split, index))
        for name, found in one.sound_rows(world, split, index, pictures).items():
            merged.setdefault(name, []).extend(found)
    return merged


def _write_rows(out: Path, name: str, found: list) -> None:
    kind = name.split("/")[0]
    if kind == "audiocaps":
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["audiocap_id", "file_name", "caption", "language", "attributes"])
        writer.writerows(found)
        (out / f"{name}.csv").write_text(file.getvalue(), encoding="utf-8")
    elif kind in ("audio_qa", "messages"):
        _write_lines(out / f"{name}.jsonl", [_dump(row) for row in found])
    else:
        body = ",\n".join(_dump(row) for row in found)
        (out / f"{name}.json").write_text(f"[\n{body}\n]\n", encoding="utf-8")


# --- the language corpus -----------------------------------------------------------------------------------------


def _write_corpus(out: Path, world: one.World, plan: Size, pool: Executor | None) -> dict[str, int]:
    counts = {}
    for split, total in zip(SPLITS, plan.corpus, strict=True):
        if total:
            lines = list(chain.from_iterable(_map(pool, partial(_corpus_chunk, world, split), total)))
            _write_lines(out / f"language/{split}.jsonl", lines)
            counts[f"language/{split}"] = total
    return counts


def _corpus_chunk(world: one.World, split: str, start: int, stop: int) -> list[str]:
    keys = (item_rng(world.seed, "corpus", world.level, split, index) for index in range(start, stop))
    return [_dump(corpus_row(split, world.level, rng)) for rng in keys]


def _write_tokenizer_text(out: Path, seed: int) -> None:
    """Conversations of the corpus as plain lines; no test text is seen."""
    with (out / "language/train.jsonl").open(encoding="utf-8") as file:
        talks = [json.loads(line)["messages"] for line in file]
    lines = [message["content"] for talk in talks for message in talk]
    if len(lines) > TOKENIZER_LINES:
        lines = random.Random(seed).sample(lines, TOKENIZER_LINES)
    _write_lines(out / "tokenizer_text.txt", lines)


def _dump(row: Any) -> str:
    return json.dumps(row, ensure_ascii=False)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
