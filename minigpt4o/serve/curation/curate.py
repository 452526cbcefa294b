"""Make stage 2 data as MiniGPT-4's was made: describe, go on when short, clean, refine, keep the good ones.

The recipe is that of the MiniGPT-4 paper (arXiv 2304.10592, section 3.2); prompts, rules and the refining model are
choices. What is written is `cc_sbu_align`'s format: `filter_cap.json` beside `image/<number>.jpg`.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.files import write_bytes, write_json
from minigpt4o.conversation.sample import Media, Sample
from minigpt4o.datasets.order import permute
from minigpt4o.processors.image import open_image
from minigpt4o.runners.evaluate_journal import Journal
from minigpt4o.serve.curation.describe import Asking, Describer
from minigpt4o.serve.curation.refine import Refine
from minigpt4o.serve.curation.rules import Rules, clean, verdict

log = logging.getLogger(__name__)

CAPTIONS, IMAGES, JOURNAL, REPORT = "filter_cap.json", "image", "curation.jsonl", "curation.json"
SHOWN = 3  # of each reason, in the report
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Plan:
    """What is made."""

    out: Path
    limit: int = 5000  # pictures described
    seed: int = 0
    batch_size: int = 8
    asking: Asking = field(default_factory=Asking)
    rules: Rules = field(default_factory=Rules)
    refiner: str = ""  # who refines, for the header; "" = nobody


class Curation:
    """A resumable run over one data set: every picture is asked once, whatever kills the process meanwhile."""

    def __init__(self, plan: Plan, builder: Any, describer: Describer, weights: str, refine: Refine | None) -> None:
        self.plan, self.builder, self.describer, self.refine = plan, builder, describer, refine
        header = {
            "asking": asdict(plan.asking),
            "rules": asdict(plan.rules),
            "seed": plan.seed,
            "limit": plan.limit,
            "refiner": plan.refiner,
            "weights": weights,
            "samples": len(builder),
        }
        self.journal = Journal(plan.out / JOURNAL, json.loads(json.dumps(header)))

    def run(self) -> dict[str, Any]:
        """Ask what is open, then write captions, pictures and report; returns the report."""
        if not self.journal.complete:
            self.journal.open()
            try:
                self._describe_all()
            finally:
                self.journal.close()
            self.journal.finish([str(number) for number, _ in self._chosen()])
        return self._write()

    def _chosen(self) -> Iterator[tuple[int, int]]:
        """(number, index) of the pictures: a seeded choice without repetition."""
        count = min(self.plan.limit or len(self.builder), len(self.builder))
        order = permute(f"curate/{self.plan.seed}", 0, len(self.builder))
        return ((number, order(number)) for number in range(count))

    def _describe_all(self) -> None:
        todo = [(number, index) for number, index in self._chosen() if str(number) not in self.journal.rows]
        began = time.monotonic()
        for start in range(0, len(todo), self.plan.batch_size):
            part = todo[start : start + self.plan.batch_size]
            for row in self._rows(part):
                self.journal.write(row)
            done = start + len(part)
            left = (time.monotonic() - began) / done * (len(todo) - done)
            log.info("%d of %d pictures described, about %.0f s left", done, len(todo), left)

    def _rows(self, part: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """One row for each picture: the raw text, the cleaned one, the refined one, or why there is none."""
        rows: dict[int, dict[str, Any]] = {}
        samples: dict[int, Sample] = {}
        for number, index in part:
            rows[number] = {"id": str(number), "index": index}
            try:
                sample = self.builder.sample(index, random.Random(f"{self.plan.seed}/{index}"))
                if not sample.images:
                    raise SkipSample("media_mismatch", f"{sample.where or sample.id}: holds no picture to describe")
                samples[number] = sample
            except SkipSample as skip:
                rows[number] |= {"dropped": skip.reason, "detail": skip.detail}
        for number, text in zip(samples, self.describer.describe(list(samples.values())), strict=True):
            rows[number]["source"] = samples[number].id
            if isinstance(text, SkipSample):
                rows[number] |= {"dropped": text.reason, "detail": text.detail}
            else:
                rows[number] |= {"raw": text, "text": clean(text)}
        self._refine([row for row in rows.values() if row.get("text")])
        for row in rows.values():
            if "text" in row:
                row["dropped"] = verdict(row["text"], self.plan.rules)
        return list(rows.values())

    def _refine(self, rows: Sequence[dict[str, Any]]) -> None:
        if self.refine is None or not rows:
            return
        for row, text in zip(rows, self.refine([row["text"] for row in rows]), strict=True):
            row["refined"] = text
            row["text"] = clean(text)

    # ---- what is written ----

    def _write(self) -> dict[str, Any]:
        """Pictures first, then the captions that name them, then the report."""
        annotations, reasons, shown = [], Counter[str](), dict[str, list[dict[str, Any]]]()
        for row in self.journal.reread():
            reason = row["dropped"]
            if not reason:
                reason = self._write_picture(row)
            if reason:
                reasons[reason] += 1
                kept = {k: v for k, v in row.items() if k in ("index", "source", "raw", "text", "detail")}
                shown.setdefault(reason, []).append(kept)
                continue
            annotations.append({"image_id": row["id"], "caption": row["text"]})
        if not annotations:
            told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            raise DataError(f"{self.plan.out}: no description was good enough ({told}); see {JOURNAL} for the texts")
        write_json(self.plan.out / CAPTIONS, {"annotations": annotations})
        report = {
            "described": sum(reasons.values()) + len(annotations),
            "kept": len(annotations),
            "dropped": dict(reasons.most_common()),
            "examples": {reason: rows[:SHOWN] for reason, rows in shown.items()},
            "captions_sha256": hashlib.sha256((self.plan.out / CAPTIONS).read_bytes()).hexdigest(),
            "how": self.journal.header["header"],
        }
        write_json(self.plan.out / REPORT, report)
        return report

    def _write_picture(self, row: dict[str, Any]) -> str:
        """The picture as image/<number>.jpg; the reason if it cannot be read any more."""
        path = self.plan.out / IMAGES / f"{row['id']}.jpg"
        if path.is_file():
            return ""
        sample = self.builder.sample(row["index"], random.Random(f"{self.plan.seed}/{row['index']}"))
        try:
            data = _jpeg(sample.images[0])
        except SkipSample as skip:
            row["detail"] = skip.detail
            return skip.reason
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
        return ""


def _jpeg(media: Media) -> bytes:
    """The file itself if it is a JPEG that stands upright, else its pixels as one."""
    picture = open_image(media)
    data = media.read()
    if data[:3] == b"\xff\xd8\xff" and _is_plain(data):
        return data
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def _is_plain(data: bytes) -> bool:
    """Whether any reader sees the picture as it is: RGB or grey, not turned by its metadata."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return picture.mode in ("RGB", "L") and picture.getexif().get(0x0112, 1) == 1
