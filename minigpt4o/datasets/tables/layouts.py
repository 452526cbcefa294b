"""Files that are not simply lists of rows: COCO's, RefCOCO's refs beside instances.json, Visual Genome's regions.

Their parts are joined when a row is asked for; nothing but the places of the parts is held.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minigpt4o.common.errors import DataError
from minigpt4o.datasets.base import sha256
from minigpt4o.datasets.tables.cache import KEPT_FROM, derived
from minigpt4o.datasets.tables.files import file_rows
from minigpt4o.datasets.tables.layouts_audio import annotators, located, transcripts
from minigpt4o.datasets.tables.layouts_benchmarks import lines, llava_bench
from minigpt4o.datasets.tables.plain_pickle import read_plain_pickle
from minigpt4o.datasets.tables.rows import Row, read_rows
from minigpt4o.datasets.tables.store import Chained, Changed, KeyIndex, Listed, Parted, Rows

PICTURE = ("width", "height", "file_name", "domain")  # what a row takes over from its picture (domain: NoCaps)


def coco(files: Sequence[Path], list_key: str) -> tuple[Rows, str]:
    """One row for each of COCO's `annotations`, with `file_name`, `width`, `height` of its picture.

    Where the file has `categories`, `category` is the name of the annotation's.
    """
    parts: list[Rows] = []
    digests = []
    for file in files:
        annotations, digest = read_rows([file], list_key or "annotations")
        images, _ = read_rows([file], "images")
        try:
            kinds = {_key(("id",), row): row.values.get("name") for row in read_rows([file], "categories")[0]}
        except DataError:  # captions have none
            kinds = {}
        index = _index(images, digest, "images", "id")
        parts.append(Changed(annotations, partial(_of_picture, index, kinds, file.name)))
        digests.append(digest)
    return Chained(parts), digests[0] if len(digests) == 1 else sha256(*digests)


def _of_picture(images: KeyIndex, kinds: dict[str | None, Any], file: str, row: Row) -> Row:
    if row.problem:
        return row
    image = images.find(_key(("image_id",), row) or "")
    if image is None:
        lost = f"image_id {row.values.get('image_id')!r} is not among the images of {file}"
        return Row(row.values, row.file, row.number, lost)
    values = {**row.values, **{key: image.values[key] for key in PICTURE if key in image.values}}
    kind = kinds.get(_key(("category_id",), row))
    return Row(values if kind is None else {**values, "category": kind}, row.file, row.number)


def refer(files: Sequence[Path], list_key: str) -> tuple[Rows, str]:
    """One row for each ref of `refs(unc).p` (or the same as .json), with `bbox`, `width`, `height`, `file_name`.

    Box and picture come from `instances.json` in the same folder.
    """
    parts: list[Rows] = []
    digests = []
    for file in files:
        beside = _beside(file, "instances.json")
        (boxes, raw), (images, _) = (file_rows(beside, key) for key in ("annotations", "images"))
        digest = raw.hex()
        if file.suffix == ".p":
            refs, refs_digest = read_plain_pickle(file)
            if not isinstance(refs, list):
                raise DataError(f"{file}: holds a {type(refs).__name__}, not a list of refs")
            listed = [Row(ref if isinstance(ref, dict) else {}, str(file), n) for n, ref in enumerate(refs, start=1)]
            found: Rows = Listed(listed)
        else:
            found, refs_digest = read_rows([file], list_key)
        digests += [digest, refs_digest]
        join = partial(_with_box, _index(boxes, digest, "boxes", "id"), _index(images, digest, "images", "id"))
        parts.append(Changed(found, join))
    return Chained(parts), sha256(*digests)


def _with_box(boxes: KeyIndex, images: KeyIndex, row: Row) -> Row:
    if row.problem:
        return row
    box, image = boxes.find(_key(("ann_id",), row) or ""), images.find(_key(("image_id",), row) or "")
    if box is None or image is None:
        lost = f"ann_id {row.values.get('ann_id')!r}" if box is None else f"image_id {row.values.get('image_id')!r}"
        return Row(row.values, row.file, row.number, f"{lost} is not in instances.json")
    size: dict[str, Any] = {key: image.values[key] for key in PICTURE if key in image.values}
    return Row({**row.values, "bbox": box.values.get("bbox"), **size}, row.file, row.number)


def visual_genome(files: Sequence[Path], list_key: str) -> tuple[Rows, str]:
    """One row for each region of `region_descriptions.json`, with `bbox`, and `url`, `width`, `height` of its picture.

    The pictures are told by `image_data.json` in the same folder.
    """
    parts: list[Rows] = []
    digests = []
    for file in files:
        images, raw = file_rows(_beside(file, "image_data.json"))
        groups, groups_digest = read_rows([file], list_key)
        digests += [raw.hex(), groups_digest]
        found = derived(("regions", groups_digest), (), partial(_counted, groups), len(groups) >= KEPT_FROM)
        index = _index(images, raw.hex(), "pictures", "image_id", "id")
        parts.append(Parted(groups, found["counts"], partial(_region, index)))
    return Chained(parts), sha256(*digests)


def _counted(groups: Rows) -> dict[str, np.ndarray]:
    """`counts`: regions of each picture; a picture without a list of them counts as one, which tells what is wrong."""
    lists = (row.values.get("regions", [row.values]) for row in groups)
    return {"counts": np.fromiter((len(one) if isinstance(one, list) else 1 for one in lists), np.int32, len(groups))}


def _region(images: KeyIndex, group: Row, place: int) -> Row:
    regions = group.values.get("regions", [group.values])
    if group.problem or not isinstance(regions, list) or not isinstance(regions[place], dict):
        problem = group.problem or f"region {place + 1} is not an object with named fields"
        return Row({}, group.file, group.number, problem, group.reason)
    region = regions[place]
    number_of = region.get("image_id", group.values.get("id", group.values.get("image_id")))
    image = images.find(json.dumps(number_of))
    if image is None:
        return Row(region, group.file, group.number, f"image {number_of!r} is not in image_data.json")
    values = {
        "region_id": region.get("region_id", region.get("id")),
        "image_id": number_of,
        "phrase": region.get("phrase"),
        "bbox": [region.get(key) for key in ("x", "y", "width", "height")],
        "url": image.values.get("url"),
        "width": image.values.get("width"),
        "height": image.values.get("height"),
    }
    return Row(values, group.file, group.number)


def _index(rows: Rows, digest: str, what: str, *columns: str) -> KeyIndex:
    """Find rows by the first of the columns that they have."""
    return KeyIndex(rows, digest, partial(_key, columns), f"{what} {columns}")


def _key(columns: Sequence[str], row: Row) -> str | None:
    """The first column that is there as a key: 7 and "7" are two."""
    return next((json.dumps(row.values[c], default=str) for c in columns if c in row.values), None)


def _beside(file: Path, name: str) -> Path:
    path = file.parent / name
    if not path.is_file():
        raise DataError(f"{file}: needs {name} in the same folder ({file.parent}), and there is none")
    return path


LAYOUTS: dict[str, Callable[[Sequence[Path], str], tuple[Rows, str]]] = {
    "rows": read_rows,
    "coco": coco,
    "located": located,
    "annotators": annotators,
    "transcripts": transcripts,
    "lines": lines,
    "llava_bench": llava_bench,
    "refer": refer,
    "visual_genome": visual_genome,
}
