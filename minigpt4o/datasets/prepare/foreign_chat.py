"""LLaVA's, ShareGPT's and OpenAI's dialogues as canonical items, and how a file tells which form it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.conversation.sample import MARKS, Media, MediaKind
from minigpt4o.datasets.prepare.canonical import Found, Item
from minigpt4o.datasets.prepare.foreign import Source, each, folder, stream_rows, table
from minigpt4o.datasets.prepare.foreign_boxes import coco, refcoco
from minigpt4o.datasets.prepare.url_lists import is_url_table
from minigpt4o.datasets.speakers import spoken

TURNS = ("messages", "conversations", "conversation")
MEDIA: dict[MediaKind, tuple[str, ...]] = {"image": ("images", "image"), "audio": ("audios", "audio", "sound")}
PARTS: dict[str, MediaKind] = {"image": "image", "image_url": "image", "audio": "audio", "input_audio": "audio"}


def chat(source: Source) -> Iterator[Found]:
    """Rows of `conversations` ({from, value}) or `messages` ({role, content}) with the media they name."""

    def make(values: dict[str, Any], where: str, number: int) -> list[Item]:
        media: dict[MediaKind, list[Media]] = {}
        for kind, columns in MEDIA.items():
            listed: Any = next((values[c] for c in columns if values.get(c)), [])
            media[kind] = source.media(listed if isinstance(listed, list) else [listed], where)
        key = next((k for k in TURNS if isinstance(values.get(k), list)), "")
        if not key:
            raise SkipSample("missing_field", f"{where}: no list of turns in {' or '.join(TURNS)}")
        turns = [{"role": "system", "content": str(values["system"])}] if values.get("system") else []
        turns += [_turn(said, media, source, where) for said in values[key]]
        for kind in media:
            _place_single(turns, kind, media[kind])
        language, split = str(values.get("language", source.language)), str(values.get("split", ""))
        name = str(values.get("id", number))
        item = Item(name, turns, media, language=language, split=split, where=where)
        _lay_boxes(item, values.get("objects"))
        return [item]

    return each(source, make)


def _turn(said: Any, media: dict[MediaKind, list[Media]], source: Source, where: str) -> dict[str, str]:
    role, content = spoken(said, where)
    if isinstance(content, str):
        return {"role": role, "content": content}
    if not isinstance(content, list):
        raise SkipSample("bad_text", f"{where}: a turn's words are a {type(content).__name__}")
    words = []
    for part in content:
        kind = str(part.get("type", "")) if isinstance(part, dict) else ""
        if kind == "text":
            words.append(str(part.get("text", "")))
        elif kind in PARTS:
            media[PARTS[kind]] += source.media([part.get(kind, part.get("path", part.get("url")))], where)
            words.append(MARKS[PARTS[kind]])
        else:
            raise SkipSample("bad_json", f"{where}: unknown part {kind or part!r}; known: text, {', '.join(PARTS)}")
    return {"role": role, "content": "".join(words)}


def _place_single(turns: list[dict[str, str]], kind: MediaKind, media: list[Media]) -> None:
    """LLaVA's habit: one medium and no mark means that it stands before the first question."""
    asked = [t for t in turns if t["role"] == "user"]
    if len(media) == 1 and asked and not any(MARKS[kind] in t["content"] for t in asked):
        asked[0]["content"] = MARKS[kind] + asked[0]["content"]


def _lay_boxes(item: Item, objects: Any) -> None:
    """ms-swift's `objects`, whose boxes are in pixels."""
    if not objects:
        return
    if not isinstance(objects, dict) or objects.get("bbox_type", "real") != "real":
        raise SkipSample("bad_box", f"{item.where}: only `objects` with bbox_type real (pixels) are converted")
    boxes = objects.get("bbox") or []
    if not all(isinstance(box, list) and len(box) == 4 for box in boxes):
        raise SkipSample("bad_box", f"{item.where}: a box of `objects` is not four numbers")
    item.boxes, item.refs = boxes, [str(ref) for ref in objects.get("ref") or []]
    item.pictures = list(objects.get("image_id") or [])


FORMS: dict[str, Callable[[Source], Iterator[Found]]] = {
    "table": table,
    "folder": folder,
    "coco": coco,
    "refcoco": refcoco,
    "llava": chat,
    "messages": chat,
}
# Other words for the same forms.
ALSO = {"csv": "table", "tsv": "table", "json": "table", "jsonl": "table", "sharegpt": "messages", "openai": "messages"}
_PEEKED = 5


def form_of(path: Path) -> str:
    """`blip` or one of FORMS, by what the file holds. Raises DataError if it cannot be told."""
    if path.is_dir():
        return "refcoco" if list(path.glob("refs*.p")) else "folder"
    if path.suffix.lower() in (".p", ".pickle"):
        return "refcoco"
    if is_url_table(path):
        return "blip"
    if path.suffix.lower() == ".json" and _is_coco(path):
        return "coco"
    for _, row in islice(stream_rows(path), _PEEKED):
        if isinstance(row, SkipSample):
            continue
        if any(isinstance(row.get(key), list) for key in TURNS):
            return "llava" if "conversations" in row else "messages"
        if "sentences" in row and "ann_id" in row:
            return "refcoco"
        if set(row) >= {"url", "caption"} and not {"image", "image_id"} & set(row):
            return "blip"
        return "table"
    raise DataError(f"{path}: none of its first rows can be read; say what it is: --from {', '.join(FORMS)}")


def _is_coco(path: Path) -> bool:
    """A JSON object that names `images` and `annotations`; only files that are no list are opened whole."""
    with path.open("rb") as file:
        head = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head.startswith(b"{"):
        return False
    from minigpt4o.datasets.prepare.foreign import read_json

    tree = read_json(path)
    return isinstance(tree.get("images"), list) and isinstance(tree.get("annotations"), list)
