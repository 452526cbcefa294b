"""Files that are not simply lists of rows: RefCOCO's refs beside instances.json, Visual Genome's regions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError
from minigpt4o.datasets.base import sha256
from minigpt4o.datasets.plain_pickle import read_plain_pickle
from minigpt4o.datasets.rows import Row, read_rows

Rows = tuple[list[Row], str]


def refer(files: Sequence[Path], list_key: str) -> Rows:
    """One row for each ref of `refs(unc).p` (or the same as .json), with `bbox`, `width`, `height`, `file_name`.

    Box and picture come from `instances.json` in the same folder.
    """
    rows: list[Row] = []
    digests = []
    for file in files:
        instances, digest = _beside(file, "instances.json")
        boxes = {one.get("id"): one for one in _list(instances, "annotations", file)}
        images = {one.get("id"): one for one in _list(instances, "images", file)}
        if file.suffix == ".p":
            refs, refs_digest = read_plain_pickle(file)
            if not isinstance(refs, list):
                raise DataError(f"{file}: holds a {type(refs).__name__}, not a list of refs")
            found = [Row(ref if isinstance(ref, dict) else {}, str(file), n) for n, ref in enumerate(refs, start=1)]
        else:
            found, refs_digest = read_rows([file], list_key)
        digests += [digest, refs_digest]
        rows += [row if row.problem else _with_box(row, boxes, images) for row in found]
    return rows, sha256(*digests)


def _with_box(row: Row, boxes: dict[Any, dict[str, Any]], images: dict[Any, dict[str, Any]]) -> Row:
    box, image = boxes.get(row.values.get("ann_id")), images.get(row.values.get("image_id"))
    if box is None or image is None:
        lost = f"ann_id {row.values.get('ann_id')!r}" if box is None else f"image_id {row.values.get('image_id')!r}"
        return Row(row.values, row.file, row.number, f"{lost} is not in instances.json")
    size: dict[str, Any] = {key: image[key] for key in ("width", "height", "file_name") if key in image}
    return Row({**row.values, "bbox": box.get("bbox"), **size}, row.file, row.number)


def visual_genome(files: Sequence[Path], list_key: str) -> Rows:
    """One row for each region of `region_descriptions.json`, with `bbox`, and `url`, `width`, `height` of its picture.

    The pictures are told by `image_data.json` in the same folder.
    """
    rows: list[Row] = []
    digests = []
    for file in files:
        data, digest = _beside(file, "image_data.json")
        images = {one.get("image_id", one.get("id")): one for one in _list({"": data}, "", file)}
        groups, groups_digest = read_rows([file], list_key)
        digests += [digest, groups_digest]
        for group in groups:
            regions = group.values.get("regions", [group.values])
            rows += [_region(region, group, images, len(rows) + n) for n, region in enumerate(regions, start=1)]
    return rows, sha256(*digests)


def _region(region: dict[str, Any], group: Row, images: dict[Any, dict[str, Any]], number: int) -> Row:
    number_of = region.get("image_id", group.values.get("id", group.values.get("image_id")))
    image = images.get(number_of)
    if image is None:
        return Row(region, group.file, number, f"image {number_of!r} is not in image_data.json")
    values = {
        "region_id": region.get("region_id", region.get("id")),
        "image_id": number_of,
        "phrase": region.get("phrase"),
        "bbox": [region.get(key) for key in ("x", "y", "width", "height")],
        "url": image.get("url"),
        "width": image.get("width"),
        "height": image.get("height"),
    }
    return Row(values, group.file, number)


def _beside(file: Path, name: str) -> tuple[Any, str]:
    path = file.parent / name
    if not path.is_file():
        raise DataError(f"{file}: needs {name} in the same folder ({file.parent}), and there is none")
    raw = path.read_bytes()
    try:
        return json.loads(raw), hashlib.sha256(raw).hexdigest()
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error


def _list(tree: Any, key: str, file: Path) -> list[dict[str, Any]]:
    found = tree.get(key) if isinstance(tree, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DataError(f"{file}: the file beside it holds no list of objects{f' {key!r}' if key else ''}")
    return found


LAYOUTS: dict[str, Callable[[Sequence[Path], str], Rows]] = {
    "rows": read_rows,
    "refer": refer,
    "visual_genome": visual_genome,
}
