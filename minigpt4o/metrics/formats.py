"""Predictions in the formats leaderboards and official scorers take, and back: text in, text out, no files opened."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from minigpt4o.common.errors import DataError
from minigpt4o.metrics.text import said


@dataclass(frozen=True)
class Said:
    """One answer to hand in: the sample's official id, the answer, and what some formats name besides."""

    id: str  # empty where a file names none (POPE): then the order counts
    answer: str
    question: str = ""  # POPE
    choice: str = ""  # A-OKVQA: the answer among its choices
    box: tuple[float, float, float, float] | None = None  # referring expressions: x1, y1, x2, y2 in pixels


@dataclass(frozen=True)
class Format:
    """A list of JSON objects, one per answer."""

    id: str  # name of the id's field
    answer: str  # name of the answer's field
    source: str
    lines: bool = False  # JSON lines instead of one list
    number: bool = False  # the id is written as a number where it is one
    question: str = ""  # name of the question's field, where the format has one
    box: str = ""
    also: tuple[str, ...] = field(default=())  # other names of the answer's field that are read


FORMATS: dict[str, Format] = {
    "coco_caption": Format("image_id", "caption", "COCO caption server, pycocoevalcap", number=True),
    "nocaps": Format("image_id", "caption", "NoCaps server (EvalAI)", number=True),
    "pope": Format(
        "question_id", "answer", "POPE's evaluate.py", lines=True, number=True, question="question", also=("text",)
    ),
    "vqa": Format("question_id", "answer", "VQA v2, OK-VQA, TextVQA servers (EvalAI)", number=True, also=("text",)),
    "gqa": Format("questionId", "prediction", "GQA's eval.py"),
    "vizwiz": Format("image", "answer", "VizWiz VQA server (EvalAI)"),
    "refcoco": Format("id", "answer", "boxes in pixels, x1 y1 x2 y2; there is no server", lines=True, box="bbox"),
}
_RESULTS = "results"
_FARTHEST = 1e9  # no picture has a side of so many pixels
NAMES = (*FORMATS, "scienceqa", "aokvqa", "refcoco_minigpt4")


def written(name: str, answers: Iterable[Said]) -> str:
    """The answers as the text of a file in that format.

    One object keyed by id: `scienceqa` {"results": {id: index of the choice}}, the index being the answer ("2");
    `aokvqa` {id: {"direct_answer", "multiple_choice"}}; `refcoco_minigpt4`, as MiniGPT-4 saves it, {img_id: [answer,
    ...]}, in which the sentences about one picture share a key.
    """
    all_said = list(answers)
    if name == "scienceqa":
        return _dump({_RESULTS: {one.id: _number(one.answer) for one in all_said}})
    if name == "aokvqa":
        return _dump({one.id: {"direct_answer": one.answer, "multiple_choice": one.choice} for one in all_said})
    if name == "refcoco_minigpt4":
        grouped: dict[str, list[str]] = {}
        for one in all_said:
            grouped.setdefault(one.id, []).append(one.answer)
        return _dump(grouped)
    form = _form(name)
    rows = [_row(form, one) for one in all_said]
    if form.lines:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return _dump(rows)


def read(name: str, text: str, where: str = "predictions", malformed: list[str] | None = None) -> list[Said]:
    """The answers in a file of that format; a DataError names the row and field that do not fit.

    With a list `malformed` such rows are named there ("row 3") and left out. A file keyed by id has no rows.
    """
    if name in NAMES and name not in FORMATS:
        return _keyed(name, _objects(text, where), where)
    form = _form(name)
    found = []
    for number, row in enumerate(_objects(text, where), start=1):
        try:
            found.append(_said(form, row, f"{where}: row {number}"))
        except DataError:
            if malformed is None:
                raise
            malformed.append(f"row {number}")
    return found


def _keyed(name: str, rows: list[dict[str, Any]], where: str) -> list[Said]:
    """Files of one object keyed by id."""
    body = rows[0].get(_RESULTS) if name == "scienceqa" and rows else rows[0] if rows else {}
    if len(rows) > 1 or not isinstance(body, dict) or (name == "refcoco_minigpt4" and not _all(list, body)):
        raise DataError(f"{where}: not one object keyed by id, as {name} has it")
    if name == "refcoco_minigpt4":
        return [Said(key, said(one)) for key, value in body.items() for one in value]
    if name == "aokvqa":
        pairs = {key: value if isinstance(value, dict) else {"direct_answer": value} for key, value in body.items()}
        fields = ("direct_answer", "multiple_choice")
        return [Said(key, said(v.get(fields[0])), choice=said(v.get(fields[1]))) for key, v in pairs.items()]
    return [Said(key, said(value)) for key, value in body.items()]


def _all(kind: type, body: Mapping[str, Any]) -> bool:
    return bool(body) and all(isinstance(value, kind) for value in body.values())


def recognised(text: str, where: str = "predictions") -> str:
    """Which format a file is in, by the fields of its first row; a DataError lists the known ones."""
    rows = _objects(text, where)
    first: Mapping[str, Any] = rows[0] if rows else {}
    if len(rows) == 1 and isinstance(first.get(_RESULTS), dict):
        return "scienceqa"
    for name, form in FORMATS.items():
        if (form.question or form.id) in first and _answer_field(form, first) and (not form.box or form.box in first):
            return name
    if len(rows) == 1 and _all(list, first):
        return "refcoco_minigpt4"
    if len(rows) == 1 and _all(dict, first):
        return "aokvqa"
    fields = ", ".join(sorted(first)) or "none"
    raise DataError(f"{where}: rows with the fields {fields} fit none of the formats {', '.join(NAMES)}")


def _form(name: str) -> Format:
    if name in FORMATS:
        return FORMATS[name]
    near = get_close_matches(name, NAMES, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise DataError(f"no prediction format {name!r}{hint} Known: {', '.join(NAMES)}")


def _row(form: Format, one: Said) -> dict[str, Any]:
    row: dict[str, Any] = {form.id: _number(one.id) if form.number else one.id} if one.id else {}
    if form.question:
        row[form.question] = one.question
    if form.box:
        row[form.box] = list(one.box) if one.box is not None else None
    return {**row, form.answer: one.answer}


def _said(form: Format, row: Mapping[str, Any], where: str) -> Said:
    key, answer = row.get(form.id), _answer_field(form, row)
    if not answer or (key is None and form.question not in row):
        missing = form.answer if not answer else form.id
        raise DataError(f"{where}: no field {missing!r}; it has {', '.join(sorted(row)) or 'none'}")
    box = row.get(form.box) if form.box else None
    corners = tuple(map(float, box)) if isinstance(box, list) and len(box) == 4 and all(map(_pixels, box)) else None
    question = said(row.get(form.question)) if form.question else ""
    return Said(said(key), said(row[answer]), question, box=corners)  # type: ignore[arg-type]


def _pixels(number: object) -> bool:
    return isinstance(number, int | float) and abs(number) < _FARTHEST  # false of NaN


def _answer_field(form: Format, row: Mapping[str, Any]) -> str:
    return next((name for name in (form.answer, *form.also) if name in row), "")


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and str(int(text)) == text else text


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _objects(text: str, where: str) -> list[dict[str, Any]]:
    """JSON objects of one list, of one object, or of JSON lines."""
    body = text.lstrip("\ufeff").strip()

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Of a key that stands there twice, a reader of JSON keeps the last and says nothing."""
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if twice:
            raise DataError(f"{where}: {twice[0]!r} stands twice in one object; leave one of them")
        return dict(pairs)

    try:
        found = json.loads(body, object_pairs_hook=once) if body else []
    except json.JSONDecodeError:
        found = [_line(line, f"{where}: line {n}") for n, line in enumerate(body.split("\n"), start=1) if line.strip()]
    rows = found if isinstance(found, list) else [found]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{where}: row {number} is {type(row).__name__}, not an object with fields")
    return rows


def _line(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is neither JSON nor a JSON line: {error.msg} at letter {error.pos}") from None


def duplicates(answers: Sequence[Said], key: Callable[[Said], str] = lambda one: one.id) -> list[str]:
    """Ids that more than one answer has, in order: a leaderboard refuses them."""
    counts = Counter(key(one) for one in answers if key(one))
    return [name for name, count in counts.items() if count > 1]
