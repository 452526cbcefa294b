"""`predict`: every row of a file answered in batches; a stopped run goes on where it was, bad rows are told."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import ConfigError, DataError, SkipSample
from minigpt4o.common.files import sha256_of
from minigpt4o.conversation.answers import ANSWER_RULES
from minigpt4o.conversation.batch import Decoding, Example
from minigpt4o.conversation.objects import in_original_frame
from minigpt4o.runners.progress import clock
from minigpt4o.serve.predict_file import Output, Stream, is_stream, rows_file
from minigpt4o.serve.predict_rows import Asked, RowReader, ensure_lines, lines_of

if TYPE_CHECKING:
    from minigpt4o.conversation.encode import SampleEncoder

log = logging.getLogger(__name__)

WINDOW = 4  # batches read ahead: rows of like length are answered together, and written in the file's order
READERS = 4  # threads that open media
LINE_S, REDRAW_S = 30.0, 0.5  # between lines of progress in a log, and on a terminal


@dataclass
class Counts:
    """What became of the rows."""

    answered: int = 0
    before: int = 0  # rows that stood in the file already
    skipped: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def told(self) -> str:
        """One line for the person."""
        done = self.answered + sum(self.skipped.values())
        words = [f"{self.answered} answered in {clock(self.seconds)}"]
        if done and self.seconds:
            words[0] += f" ({done / self.seconds:.1f} rows/s)"
        if self.skipped:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.skipped.most_common())
            words.append(f"{sum(self.skipped.values())} could not be asked: {reasons}")
        if self.before:
            words.append(f"{self.before} stood there already")
        return "; ".join(words)


class Predictor:
    """A model that answers rows: prompts go the way those of a chat go."""

    def __init__(self, model: Any, encoder: SampleEncoder, decoding: Decoding, batch_size: int) -> None:
        self.model, self.encoder, self.decoding, self.batch_size = model, encoder, decoding, batch_size

    def answers(self, rows: Sequence[Asked], pool: ThreadPoolExecutor) -> list[dict[str, Any]]:
        """One row to write for each row asked, in order."""
        prompts: dict[int, Example] = {}
        for row, found in zip(rows, pool.map(self._prompt, rows), strict=True):
            if found is not None:
                prompts[row.number] = found
        said: dict[int, str] = {}
        ordered = sorted(prompts, key=lambda number: len(prompts[number].input_ids))
        for start in range(0, len(ordered), self.batch_size):
            numbers = ordered[start : start + self.batch_size]
            said.update(zip(numbers, self._generate([prompts[n] for n in numbers]), strict=True))
        return [_written(row, said.get(row.number)) for row in rows]

    def _prompt(self, row: Asked) -> Example | None:
        if row.sample is None:
            return None
        try:
            return self.encoder.prompt(row.sample, random.Random(0))
        except SkipSample as skip:
            row.skip = skip
            return None

    def _generate(self, prompts: list[Example]) -> list[str]:
        import torch

        from minigpt4o.datasets.collate import collate

        batch = collate(prompts, self.model.tokenizer.pad_token_id or 0, side="left").to(self.model.device)
        serving = self.encoder.template.serving
        try:
            texts = self.model.generate(batch, self.decoding, None, serving.stop)
        except torch.OutOfMemoryError as error:
            told = f"{len(prompts)} rows at once do not fit into the GPU's memory"
            raise ConfigError(f"{told}; start again with a smaller --batch-size, it goes on from here") from error
        clean = ANSWER_RULES[serving.answer]
        return [in_original_frame(clean(text), prompt.frame) for text, prompt in zip(texts, prompts, strict=True)]


def _written(row: Asked, answer: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"id": row.id, "row": row.number}
    if answer is None:
        skip = row.skip or SkipSample("missing_field", "nothing was asked")
        return {**found, "skipped": [skip.reason, skip.detail]}
    found["answer"] = answer
    return {**found, "reference": row.reference} if row.reference else found


class Progress:
    """How many rows are done and how long the rest will take."""

    def __init__(self, total: int, before: int) -> None:
        self.total, self.before = total, before
        self.began = self.shown = time.monotonic()
        self.live = sys.stderr.isatty()

    def show(self, done: int) -> None:
        """Write it if it is time; on a terminal the line lives."""
        now = time.monotonic()
        if now - self.shown < (REDRAW_S if self.live else LINE_S):
            return
        self.shown = now
        speed = (done - self.before) / max(now - self.began, 1e-9)
        left = clock((self.total - done) / speed) if speed else "?"
        line = f"{done}/{self.total} rows  {speed:.1f} rows/s  ETA {left}"
        if self.live:
            sys.stderr.write(f"\r{line}\x1b[K")
            sys.stderr.flush()
        else:
            log.info(line)

    def end(self) -> None:
        """Clear the living line."""
        if self.live:
            sys.stderr.write("\r\x1b[K")


def main(settings: Any, args: Any) -> int:
    """`predict IN OUT`. Raises DataError if no row could be asked."""
    with rows_file(args.source) as source:
        return _main(settings, args, source)


def _main(settings: Any, args: Any, source: Path) -> int:
    out, streams = Path(args.out), is_stream(args.out)
    if out.exists() and out.samefile(source):
        raise ConfigError(f"{out} is the file to read; name another one to write")
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; name a file in it")
    total = sum(1 for _ in lines_of(source, args.rows))
    if not total:
        raise DataError(f"{args.source}: it holds no row")
    ensure_lines(source)
    given = given_decoding(args.decoding)
    predictor, session = open_predictor(settings, args.batch_size, given)
    beside = source.parent if source == Path(args.source) else Path()  # where the files of the rows lie
    reader = RowReader(Path(args.media_root or beside), source.name, session.separator, session.system)
    header = header_of(settings, predictor, source)
    output = Stream(args.out, header) if streams else Output(out, header, args.fresh)
    try:
        counts = predict(predictor, reader, lines_of(source, args.rows), output, total)
    finally:
        output.close()
    if streams:
        log.info(counts.told())
    else:
        sys.stdout.write(f"{counts.told()}\nwritten: {out}\n")
    if not counts.answered and not counts.before:
        raise DataError(f"{args.source}: none of its {total} rows could be asked; see `skipped` in {out}")
    return 0


def predict(
    predictor: Predictor, reader: RowReader, lines: Iterator[tuple[int, bytes]], output: Output | Stream, total: int
) -> Counts:
    """Answer the lines that the output lacks."""
    counts, began = Counts(before=min(output.rows, total)), time.monotonic()
    progress = Progress(total, counts.before)
    todo = islice(lines, counts.before, None)
    with ThreadPoolExecutor(READERS) as pool:
        while rows := list(islice(todo, WINDOW * predictor.batch_size)):
            written = predictor.answers([reader.read(number, line) for number, line in rows], pool)
            output.write(written)
            counts.answered += sum("answer" in row for row in written)
            counts.skipped.update(row["skipped"][0] for row in written if "skipped" in row)
            progress.show(rows[-1][0])
    progress.end()
    counts.seconds = time.monotonic() - began
    return counts


def given_decoding(words: Sequence[str]) -> dict[str, Any]:
    """`key=value` words as values. Raises ConfigError."""
    import yaml

    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"predict --decoding {word}: write key=value, for example max_new_tokens=100")
        found[key] = yaml.safe_load(value)
    return found


def open_predictor(settings: Any, batch_size: int, given: dict[str, Any]) -> tuple[Predictor, Any]:
    """The model of a configuration, and the chat session whose habits it takes over.

    Only a YAML with `runner: chat` says how to decode; else answers are greedy. `given` comes over either.
    """
    from minigpt4o.serve.decoding import decoding_of
    from minigpt4o.serve.inference import load_chat

    decoding_of(given)  # a wrong word is told before minutes of loading
    session = load_chat(settings)
    told = asdict(session.decoding)
    if settings.run.name != "chat":
        told = asdict(Decoding(max_new_tokens=session.decoding.max_new_tokens, seed=session.decoding.seed))
    decoding = decoding_of(given, **told)
    encoder = session.encoder
    encoder.positions, encoder.answer_room = session.context, decoding.max_new_tokens
    return Predictor(session.model, encoder, decoding, batch_size), session


def header_of(settings: Any, predictor: Predictor, source: Path) -> dict[str, Any]:
    """What decides the answers. The batch size does not."""
    from minigpt4o.runners.evaluate_model import weights_sha256

    template = predictor.encoder.template
    return {
        "model": settings.model.name,
        "weights_sha256": weights_sha256(predictor.model),
        "input_sha256": sha256_of(source),
        "template": template.name,
        "profile": template.profile,
        "decoding": asdict(predictor.decoding),
    }
