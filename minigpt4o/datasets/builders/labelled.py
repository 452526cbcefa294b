"""Builder `labelled`: media files whose label stands in their name, and MNIST's IDX files; no annotations needed."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Media, Sample
from minigpt4o.datasets.base import TEXT_LIMIT, clean_text, one_round, sha256, unique_ids
from minigpt4o.datasets.idx import is_idx, png_of, read_idx
from minigpt4o.datasets.media import EXTENSIONS, extension
from minigpt4o.datasets.prompts import Prompts
from minigpt4o.datasets.shards.index import open_tars
from minigpt4o.datasets.splits import carve, split_files, split_files_of


@dataclass(frozen=True, slots=True)
class Item:
    """One medium and what its name says."""

    name: str  # path inside its folder or tar
    groups: dict[str, str] | None  # the named groups of the pattern; None if it did not match
    open: Callable[[], Media]
    where: str
    path: str = ""  # of the file, if it is one of its own


@registry.register("builder", "labelled")
class Labelled:
    """Pictures or sounds with one label each: from file names (folder, glob, tars) or from IDX files."""

    @dataclass
    class Config:
        annotations: dict[
            str, str
        ]  # split -> folder, pattern of files, tar(s) or idx3 file; `all:` + folds carves splits out
        kind: Literal["image", "audio"] = "image"  # what the files are
        pattern: str = (
            r"(?P<label>[^/]+)/[^/]+$"  # searched in the path: group `label`, others are kept; default: folder
        )
        beside: str = ""  # ".txt": what is learned stands in a file of the same name with this ending, not in the name
        label_files: dict[str, str] = field(default_factory=dict)  # IDX only: split -> the idx1 file of labels
        labels: dict[str, str] = field(default_factory=dict)  # label as written -> word to learn ("0": zero)
        prompts: str | list[str] = field(default_factory=list)  # what is asked, or the name of a pool; none = the label
        language: str = ""  # of the words
        damaged: Literal["refuse", "keep"] = "refuse"  # a damaged tar: stop, or use what lies before
        folds: int = 0  # divide the files into so many folds by a stable hash; 0 = the sources are the splits
        val_folds: list[int] = field(default_factory=list)  # folds that are the val split
        test_folds: list[int] = field(default_factory=list)  # folds that are the test split
        fold_by: str = ""  # named group that must not be divided between splits (speaker); "" = the file
        max_samples: int = 0  # take only so many, evenly spaced; 0 = all

    def __init__(self, config: Config, *, name: str, split: str) -> None:
        self.config, self.name, self.split = config, name, split
        self.prompts = Prompts(config.prompts, name, ())
        self._pattern = _compiled(config, name)
        self._digests: list[str] = []
        sources = split_files(config, split, name)
        if any(is_idx(path) for path in sources):
            items = self._idx_items(sources)
        else:
            items = self._file_items(sources)
        self.items = carve(items, self._fold_key, config, split, name)
        self.ids = unique_ids([item.name for item in self.items])

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """The medium, a question drawn from the prompts, and the label's word."""
        item = self.items[index]
        label, media = self.label(index), [item.open()]
        images, audios = (media, []) if self.config.kind == "image" else ([], media)
        return Sample(
            id=self.ids[index],
            turns=one_round(self.prompts.draw(rng), label, images, audios, item.where),
            images=images,
            audios=audios,
            answers=[label],
            language=self.config.language,
            dataset=self.name,
            where=item.where,
            meta=dict(item.groups or {}),
        )

    def label(self, index: int) -> str:
        """The label's word, without opening anything. Raises SkipSample if the name does not tell it."""
        item = self.items[index]
        if self.config.beside:
            return self._beside(item)
        if item.groups is None:
            raise SkipSample("missing_field", f"{item.where}: {item.name!r} does not match {self.config.pattern!r}")
        written = item.groups["label"]
        if self.config.labels and written not in self.config.labels:
            known = ", ".join(self.config.labels)
            raise SkipSample("no_target", f"{item.where}: label {written!r} has no word in `labels`; known: {known}")
        return self.config.labels.get(written, written)

    def size_hint(self, index: int) -> int:
        """Bytes of what is learned, in its file beside the medium or in the name."""
        return self._text_size(self.items[index])

    def _text_size(self, item: Item) -> int:
        try:
            return os.stat(self._text_file(item)).st_size if self.config.beside else len(item.name)
        except OSError:
            return 0

    def modality(self, index: int) -> str:
        """`image` or `audio`: all media are of one kind."""
        return self.config.kind

    def _text_file(self, item: Item) -> str:
        return os.path.splitext(item.path)[0] + self.config.beside

    def _beside(self, item: Item) -> str:
        """What the file of the same name says. Raises SkipSample if there is none, or no text in it."""
        if not item.path:
            raise SkipSample("missing_file", f"{item.where}: `beside` serves files in folders; read tars with `shards`")
        path = self._text_file(item)
        try:
            with open(path, encoding="utf-8-sig") as file:
                return clean_text(file.read(4 * TEXT_LIMIT), item.where, path)
        except UnicodeDecodeError as error:
            raise SkipSample("bad_text", f"{path}: byte {error.start} is not UTF-8") from None
        except OSError as error:
            raise SkipSample("missing_file", f"{item.where}: {path} cannot be read ({error.strerror})") from None

    def fingerprint(self) -> str:
        """SHA-256 of names and sizes (files, tars) or of the whole content (IDX), and of the choice of files."""
        return sha256(*self._digests, self.split, self.config.pattern, len(self), *self.ids)

    def _fold_key(self, item: Item) -> object:
        if not self.config.fold_by or item.groups is None:
            return item.name
        return item.groups[self.config.fold_by]

    # --- files in folders and tars

    def _file_items(self, sources: list[Path]) -> list[Item]:
        tars = [p for p in sources if p.is_file() and re.search(r"\.(tar|tar\.gz|tgz)$", p.name.lower())]
        items: list[Item] = []
        for tar in open_tars(tars, self.name, self.config.damaged):
            for member in tar.members:
                self._add(items, member.name.removeprefix("./"), member.size, partial(tar.media, member), str(tar.path))
        roots = [p for p in sources if p.is_dir()]
        files = [(root, file) for root in roots for file in sorted(root.rglob("*")) if file.is_file()]
        files += [(file.parent.parent, file) for file in sources if file.is_file() and file not in tars]
        for root, file in files:
            opener = partial(Media, path=str(file), name=file.name)
            self._add(items, file.relative_to(root).as_posix(), file.stat().st_size, opener, str(root), str(file))
        if not items:
            known = ", ".join(sorted(EXTENSIONS[self.config.kind]))
            places = ", ".join(map(str, sources))
            raise DataError(f"datasets.{self.name}: no {self.config.kind} file in {places} ({known})")
        return items

    def _add(
        self, items: list[Item], name: str, size: int, opener: Callable[[], Media], source: str, path: str = ""
    ) -> None:
        """Take a file if it is of the wanted kind; other files of the folder are none of ours."""
        if extension(name) in EXTENSIONS[self.config.kind]:
            found = self._pattern.search(name)
            items.append(Item(name, found.groupdict() if found else None, opener, f"{source}:{name}", path))
            self._digests.append(f"{name}:{size}")
            if self.config.beside:
                self._digests.append(str(self._text_size(items[-1])))

    # --- IDX

    def _idx_items(self, sources: list[Path]) -> list[Item]:
        if not self.config.label_files:
            raise DataError(
                f"datasets.{self.name}: {sources[0].name} holds pictures only; name its labels with "
                f"`label_files: {{{self.split}: ...-labels-idx1-ubyte.gz}}`"
            )
        label_files = [p for _, p in split_files_of(self.config.label_files, self.config, self.split, self.name)]
        if len(label_files) != len(sources):
            raise DataError(f"datasets.{self.name}: {len(sources)} IDX file(s) but {len(label_files)} of labels")
        items: list[Item] = []
        for pictures_file, labels_file in zip(sources, label_files, strict=True):
            pictures, labels = read_idx(pictures_file, 3), read_idx(labels_file, 1)
            if len(pictures.array) != len(labels.array):
                counts = f"{len(pictures.array)} pictures, {len(labels.array)} labels"
                raise DataError(f"datasets.{self.name}: {pictures_file.name} and {labels_file.name}: {counts}")
            self._digests += [pictures.digest, labels.digest]
            stem = pictures_file.name.partition("-images")[0].partition(".")[0]
            for number, label in enumerate(labels.array.tolist()):
                name = f"{stem}:{number:05d}"
                opener = partial(_png_media, pictures.array[number], name)
                items.append(Item(name, {"label": str(label)}, opener, f"{pictures_file}[{number}]"))
        return items


def _png_media(picture: np.ndarray, name: str) -> Media:
    return Media(data=png_of(picture), name=name)


def _compiled(config: Labelled.Config, name: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(config.pattern)
    except re.error as error:
        raise DataError(f"datasets.{name}.pattern: {config.pattern!r} is no regular expression: {error}") from error
    for group in ("label", config.fold_by):
        idx = bool(config.label_files)
        if group and group not in pattern.groupindex and not (idx and group == "label"):
            known = ", ".join(pattern.groupindex) or "none"
            raise DataError(f"datasets.{name}.pattern: has no group (?P<{group}>...); its groups: {known}")
    return pattern
