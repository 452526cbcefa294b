"""The commands that fetch a published set: img2dataset in an environment of its own for lists of URLs, curl for files.

Nothing here runs anything; a command is a list of words, as `subprocess` takes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from minigpt4o.common.errors import ConfigError
from minigpt4o.datasets.known import KnownSet

BLIP = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/datasets"
# Sets that are published as a list of picture URLs: where the list lies ("" = only a person can fetch it), its name.
URL_LISTS = {
    "cc_sbu": (f"{BLIP}/ccs_synthetic_filtered_large.json", "ccs_synthetic_filtered_large.json"),
    "laion": (f"{BLIP}/laion_synthetic_filtered_large.json", "laion_synthetic_filtered_large.json"),
    "cc12m": ("https://storage.googleapis.com/conceptual_12m/cc12m.tsv", "cc12m.tsv"),
    "cc3m": ("", "Train_GCC-training.tsv"),
}
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_FILES = (*_ARCHIVES, ".json", ".jsonl", ".csv", ".tsv", ".p", ".parquet", ".7z")
# A URL of a file, and the names that follow it: "http://x/train2014.zip and val2014.zip", "x/a_train.json, _val.json".
_ENDING = "(?:" + "|".join(re.escape(ending) for ending in sorted(_FILES, key=len, reverse=True)) + r")(?![\w/.-]*\w)"
_NAMED = re.compile(rf"(https?://\S+?{_ENDING})((?:(?:,|,? and)\s+[\w.-]+?{_ENDING})*)")
_NAME = re.compile(rf"[\w.-]+?{_ENDING}")


@dataclass(frozen=True)
class Resize:
    """What img2dataset does with each picture, and how many it fetches at once."""

    image_size: int = 224
    mode: str = "border"
    processes: int = 16
    threads: int = 128


def img2dataset(url_list: Path, folder: Path, resize: Resize) -> list[str]:
    """The command of MiniGPT-4's README: WebDataset tars of pictures resized on the way."""
    endings = {".tsv": "tsv", ".csv": "csv", ".json": "json", ".parquet": "parquet", ".txt": "txt"}
    form = endings.get(url_list.suffix)
    if form is None:
        raise ConfigError(f"--url-list {url_list}: img2dataset reads {', '.join(endings)}")
    words = ["uvx", "img2dataset", "--url_list", str(url_list), "--input_format", form]
    words += ["--url_col", "url", "--caption_col", "caption"] if form != "txt" else []
    words += ["--output_format", "webdataset", "--output_folder", str(folder)]
    words += ["--processes_count", str(resize.processes), "--thread_count", str(resize.threads)]
    words += ["--image_size", str(resize.image_size), "--resize_mode", resize.mode]
    return [*words, "--incremental_mode", "incremental"]


def curl(url: str, target: Path) -> list[str]:
    """A command that fetches one file and, started again, goes on where it stopped."""
    return ["curl", "--fail", "-L", "-C", "-", "--create-dirs", "-o", str(target), url]


def steps_of(one: KnownSet, resize: Resize, url_list: Path | None = None) -> list[list[str]]:
    """The commands for a known set, in order; none if its files can only be fetched by hand."""
    if one.name in URL_LISTS or url_list is not None:
        first = next(iter(one.annotations.values()), "")
        return url_list_steps(Path(first).parent, URL_LISTS.get(one.name), resize, url_list)
    steps: list[list[str]] = []
    told = one.about.get("download", "")
    if "of the source" in told:
        steps += _files(one, one.about.get("source", ""))
    return steps + _files(one, told)


def url_list_steps(
    folder: Path, published: tuple[str, str] | None, resize: Resize, url_list: Path | None
) -> list[list[str]]:
    """From a list of URLs to tars in `folder`: fetch the list, make a table of it, fetch the pictures."""
    if url_list is not None:
        return [img2dataset(url_list, folder, resize)]
    assert published is not None
    url, name = published
    raw = folder.parent / name
    table = raw.with_name(f"{raw.stem}_urls.tsv")
    convert = ["python", "-m", "minigpt4o.cli", "data", "convert", str(raw), "--to", "tsv", "--out", str(table)]
    fetched = [curl(url, raw)] if url else []
    return [*fetched, convert, img2dataset(table, folder, resize)]


def file_urls(text: str) -> list[tuple[str, bool]]:
    """(URL, whether it is of pictures or sounds) of all files that a text names."""
    found: list[tuple[str, bool]] = []
    for match in _NAMED.finditer(text):
        media = bool(re.search(r"pictures|sounds|clips", text[: match.start()]))
        found.append((match[1], media))
        folder, _, name = match[1].rpartition("/")
        for other in _NAME.findall(match[2]):
            whole = name.rpartition("_")[0] + other if other.startswith("_") else other
            found.append((f"{folder}/{whole}", media))
    return list(dict.fromkeys(found))


def _files(one: KnownSet, text: str) -> list[list[str]]:
    steps = []
    for url, media in file_urls(text):
        name = unquote(PurePosixPath(urlsplit(url).path).name)
        folder = _folder(one, name, media)
        steps.append(curl(url, folder / name))
        steps += _unpack(folder / name, folder)
    return steps


def _folder(one: KnownSet, name: str, media: bool) -> Path:
    """Where the set looks for what this file holds."""
    wanted = [Path(pattern) for pattern in dict.fromkeys(one.annotations.values())]
    for path in wanted:
        if path.name == name:
            return path.parent
    if media and one.media_root:
        return Path(one.media_root)
    first = wanted[0].parent if wanted else Path(one.media_root or one.name)
    return first.parent if first.name == name.partition(".")[0] else first  # refcoco.zip holds a folder refcoco


def _unpack(file: Path, folder: Path) -> Sequence[list[str]]:
    if file.name.endswith(".zip"):
        return [["unzip", "-n", "-q", str(file), "-d", str(folder)]]
    return [["tar", "-xf", str(file), "-C", str(folder)]] if file.name.endswith(_ARCHIVES) else []
