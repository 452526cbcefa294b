"""Predictions as the benchmarks' own servers and scripts take them, written beside ours."""

from __future__ import annotations

from pathlib import Path

from minigpt4o.common.files import write_bytes
from minigpt4o.metrics import formats
from minigpt4o.runners.evaluate_folder import PREDICTIONS, file_name
from minigpt4o.runners.evaluate_items import Data
from minigpt4o.runners.evaluate_results import Scored, Tree

OFFICIAL = "official"  # folder below the predictions


def write_official(folder: Path, one: Data, label: str, seen: Scored, several: bool) -> Tree:
    """Where one data set's answers to hand in were written, if its task names a form; {} if it names none.

    A sample without an answer is handed in with an empty one: a server wants every id. Of several variants each
    has its own file.
    """
    name = one.task.official_format
    if not name or not seen.predictions:
        return {}
    said = [one.task.to_official(prediction) for prediction in seen.predictions]
    words = [label, one.name] if several else [one.name]
    lines = name in formats.FORMATS and formats.FORMATS[name].lines
    path = folder / PREDICTIONS / OFFICIAL / (file_name(*words) + (".jsonl" if lines else ".json"))
    write_bytes(path, formats.written(name, said).encode("utf-8", "backslashreplace"))
    return {"official": {"format": name, "file": str(path.relative_to(folder)), "repeated": formats.duplicates(said)}}
