"""COCO's and RefCOCO's files as canonical items: captions, all objects of a picture, an expression and its box."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.conversation.sample import BOX_MARK, Media
from minigpt4o.datasets.prepare.canonical import REF_MARK, Found, Item, one_round
from minigpt4o.datasets.prepare.foreign import Source, read_json
from minigpt4o.datasets.tables.plain_pickle import read_plain_pickle

DETECT = "[detection] all objects"
REFER = "[refer] give me the location of {expression}"
OVERHANG = 0.02  # of the picture's side that a box may reach outside; it is cut off at the border


def coco(source: Source) -> Iterator[Found]:
    """`captions_*.json`: one item for each caption; `instances_*.json`: one for each picture with all its boxes."""
    tree = read_json(source.path)
    images = {one["id"]: one for one in _listed(tree, "images", source.path) if "id" in one}
    rows = _listed(tree, "annotations", source.path)
    if any("caption" in row for row in rows[:1]):
        return _captions(source, rows, images)
    if any("bbox" in row for row in rows[:1]):
        names = {one.get("id"): str(one.get("name", "")) for one in tree.get("categories", [])}
        return _instances(source, rows, images, names)
    raise DataError(f"{source.path}: its annotations hold neither `caption` nor `bbox`")


def _captions(source: Source, rows: list[dict[str, Any]], images: dict[Any, dict[str, Any]]) -> Iterator[Found]:
    for number, row in enumerate(rows, start=1):
        where = f"{source.path} annotation {number}"
        try:
            media = _picture(source, images, row.get("image_id"), where)
            text = str(row.get("caption", "")).strip()
            if not text:
                raise SkipSample("bad_text", f"{where}: the caption is empty")
        except SkipSample as skip:
            yield skip
            continue
        turns = one_round(source.prompt, text, {"image": media})
        yield Item(str(row.get("id", number)), turns, {"image": media}, language=source.language, where=where)


def _instances(
    source: Source, rows: list[dict[str, Any]], images: dict[Any, dict[str, Any]], names: dict[Any, str]
) -> Iterator[Found]:
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_image[row.get("image_id")].append(row)
    for image_id, found in by_image.items():
        where = f"{source.path} image {image_id}"
        try:
            media = _picture(source, images, image_id, where)
            image = images[image_id]
            boxes = [(names.get(one.get("category_id"), ""), _corners(one.get("bbox"), image, where)) for one in found]
        except SkipSample as skip:
            yield skip
            continue
        of_name: dict[str, list[Sequence[float]]] = defaultdict(list)
        for name, box in sorted(boxes, key=lambda pair: pair[0]):
            of_name[name].append(box)
        answer = " ".join(REF_MARK + BOX_MARK * len(group) for group in of_name.values())
        item = Item(str(image_id), one_round(source.prompt or DETECT, answer, {"image": media}), {"image": media})
        item.refs, item.boxes = list(of_name), [box for group in of_name.values() for box in group]
        item.language, item.where = source.language, where
        yield item


def refcoco(source: Source) -> Iterator[Found]:
    """`refs(unc).p` (read as data, never run) or .json beside `instances.json`: one item for each expression."""
    file = _refs(source.path)
    instances = read_json(file.parent / "instances.json")
    boxes = {one.get("id"): one.get("bbox") for one in _listed(instances, "annotations", file.parent)}
    images = {one.get("id"): one for one in _listed(instances, "images", file.parent)}
    refs = read_json(file) if file.suffix == ".json" else read_plain_pickle(file)[0]
    if not isinstance(refs, list):
        raise DataError(f"{file}: holds a {type(refs).__name__}, not a list of refs")
    for number, ref in enumerate(refs, start=1):
        where = f"{file} ref {number}"
        try:
            if not isinstance(ref, dict) or ref.get("ann_id") not in boxes:
                raise SkipSample("missing_field", f"{where}: no ann_id that is in instances.json")
            media = _picture(source, images, ref.get("image_id"), where)
            box = _corners(boxes[ref["ann_id"]], images[ref["image_id"]], where)
            said = [s.get("raw", s.get("sent")) if isinstance(s, dict) else s for s in ref.get("sentences") or []]
            if not said:
                raise SkipSample("missing_field", f"{where}: no sentences")
        except SkipSample as skip:
            yield skip
            continue
        for n, text in enumerate(str(one).strip() for one in said):
            asked = (source.prompt or REFER).replace("{expression}", text)
            turns = one_round(asked, BOX_MARK, {"image": media})
            name, split = f"{ref.get('ref_id', number)}:{n}", str(ref.get("split", ""))
            yield Item(name, turns, {"image": media}, [box], language=source.language, split=split, where=where)


def _refs(path: Path) -> Path:
    """The refs file itself, or the one in a folder."""
    if path.is_file():
        return path
    found = sorted([*path.glob("refs*.p"), *path.glob("refs*.json")])
    if len(found) != 1:
        inside = ", ".join(p.name for p in found) or "none"
        raise DataError(f"{path}: name one refs file (refs(unc).p, refs(google).p, ...); the folder holds: {inside}")
    return found[0]


def _listed(tree: Any, key: str, path: Path) -> list[dict[str, Any]]:
    found = tree.get(key) if isinstance(tree, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DataError(f"{path}: COCO files hold a list of objects {key!r}, and there is none")
    return found


def _picture(source: Source, images: dict[Any, dict[str, Any]], image_id: Any, where: str) -> list[Media]:
    """The picture under its own name or under the name COCO gave it in one of its years."""
    image = images.get(image_id)
    if image is None:
        raise SkipSample("missing_field", f"{where}: image {image_id!r} is not in the file's `images`")
    names = [str(image["file_name"])] if image.get("file_name") else []
    if str(image_id).isdigit():
        number = f"{int(image_id):012d}.jpg"
        names += [f"{prefix}{number}" for prefix in ("COCO_train2014_", "COCO_val2014_", "")]
    if names and "COCO_" in names[0]:  # RefCOCO names regions: COCO_train2014_000000000009_7.jpg
        names.append("_".join(names[0].split("_")[:3]).removesuffix(".jpg") + ".jpg")
    here = next((name for name in names if (source.media_root / name).is_file()), None)
    if here is None and not names:
        raise SkipSample("missing_field", f"{where}: image {image_id!r} has no file_name")
    return source.media([here or names[0]], where)


def _corners(box: Any, image: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    """x1 y1 x2 y2 of [x, y, width, height], cut off at the border. Raises SkipSample for what is no box."""
    try:
        x, y, width, height = (float(v) for v in box)
        across, down = float(image["width"]), float(image["height"])
    except (TypeError, ValueError, KeyError):
        raise SkipSample("bad_box", f"{where}: {box!r} in a picture without size, or not four numbers") from None
    inside = x >= -OVERHANG * across and y >= -OVERHANG * down
    inside &= x + width <= (1 + OVERHANG) * across and y + height <= (1 + OVERHANG) * down
    if not all(map(math.isfinite, (x, y, width, height))) or width <= 0 or height <= 0 or not inside:
        detail = f"{where}: box {box} (x, y, width, height) has no area or reaches out of {across:g}x{down:g}"
        raise SkipSample("bad_box", detail)
    return max(x, 0.0), max(y, 0.0), min(x + width, across), min(y + height, down)
