"""Turn a Gemma-3n folder of transformers into a Minigpt4o folder, with the vocabulary of another tokenizer if asked.

Tensors keep their names and bits. Rows of the vocabulary (text embeddings, per-layer embeddings, hard embeddings of
pictures and sounds, the head if it is not tied) follow the tokens: a token that both tokenizers have, by what it writes
or by its job, takes its old row; another the mean of the rows of the pieces that the old tokenizer cuts it into; one
that cannot be cut the mean of all old rows with 1 % noise. The same input gives the same bytes.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt4o.common import files as disk
from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.models.minigpt4o_rows import Plan, Rows, Vocabulary, media_rows, plan_rows, read_vocabulary
from minigpt4o.models.minigpt4o_settings import (
    MEDIA,
    MEDIA_IDS,
    TEXT_IDS,
    generation_settings,
    new_config,
    processor_of,
    read_config,
)
from minigpt4o.models.minigpt4o_shards import PIECE_BYTES, SHARD_BYTES, Planned, Shards, whole, written

NOISE = 0.01  # of the old rows' deviation, on rows that start from the mean of all
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
TEXT = "model.language_model."
HEAD = "lm_head.weight"


@dataclass
class Report:
    """What became of the rows and of the tensors."""

    vocabulary: tuple[int, int]
    found: Mapping[str, int]
    copied: int = 0
    tables: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # tensors that the model has no use for
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For the terminal."""
        told = {
            "kept": "kept as they are",
            "string": "by what they write",
            "role": "by role",
            "pieces": "mean of pieces",
            "mean": "mean of all, with noise",
        }
        rows = ", ".join(f"{self.found[how]:,} {words}" for how, words in told.items() if self.found.get(how))
        lines = [f"vocabulary {self.vocabulary[0]:,} -> {self.vocabulary[1]:,} rows: {rows}"]
        lines.append(f"tensors: {self.copied:,} copied, {len(self.tables)} by rows ({', '.join(self.tables)})")
        if self.left:
            lines.append(f"left out, the model reads them nowhere: {len(self.left)}, {self.left[0]}, ...")
        return lines + self.notes


def convert_gemma3n(
    source: str | Path, out: str | Path, tokenizer: str | Path | None = None, shard_bytes: int = SHARD_BYTES
) -> Report:
    """Write the Minigpt4o folder `out` (whole or not at all) and say what was done.

    Without `tokenizer` (a folder made for Minigpt4o) the vocabulary stays as it is.
    Raises ConfigError or CheckpointError on anything that is no Gemma-3n folder or no such tokenizer.
    """
    source, out = Path(source), Path(out)
    if out.exists():
        raise ConfigError(f"{out} exists; nothing is written over: name another place, or remove it first")
    old_config = read_config(source)
    old = _vocabulary(source)
    new = old if tokenizer is None else _vocabulary(Path(tokenizer))
    config = new_config(old_config, None if tokenizer is None else new, str(tokenizer))
    old_rows, rows = old_config.text_config.vocab_size, config.text_config.vocab_size
    if max(old.tokenizer.get_vocab().values()) >= old_rows:
        raise ConfigError(f"{source}: its tokenizer has ids beyond its vocab_size {old_rows}; one of the two is wrong")
    plan = _plan(config, old_config, new, old)
    with ExitStack() as stack:
        shards = Shards(source, stack)
        report = Report((old_rows, rows), plan.found)
        tensors = list(_planned(shards, config, old_config, plan, report))
        small = _small_files(source, config, new, report)
        disk.publish(out, {**small, **written(tensors, shard_bytes)})
    return report


def _vocabulary(folder: Path) -> Vocabulary:
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in TOKENIZER_FILES):  # else transformers would make an empty one
        raise ConfigError(f"{folder}: no tokenizer there ({' or '.join(TOKENIZER_FILES)})")
    try:
        return read_vocabulary(AutoTokenizer.from_pretrained(folder, local_files_only=True), str(folder))
    except ConfigError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"{folder}: no tokenizer can be read there ({error})") from error


def _plan(config: Any, old: Any, new: Vocabulary, was: Vocabulary) -> Plan:
    """The old row of each new row of the text table."""
    count = config.text_config.vocab_size
    if new.tokenizer.get_vocab() == was.tokenizer.get_vocab() and count == old.text_config.vocab_size:
        plan = Plan([(i,) for i in range(count)], plan_rows(new, was, {}, 0).found)
        plan.found["kept"] = count
        return plan
    roles: dict[int, int] = {}
    for kind in MEDIA:
        mine, theirs = (_span(c, kind) for c in (config, old))
        roles |= media_rows(mine, theirs)
    pairs = [(getattr(config, key), getattr(old, key)) for key in MEDIA_IDS]
    pairs += [(getattr(config.text_config, key), getattr(old.text_config, key)) for key in TEXT_IDS]
    for i, j in pairs:
        i, j = (x[0] if isinstance(x, list) and x else x for x in (i, j))
        if isinstance(i, int) and isinstance(j, int) and 0 <= j < old.text_config.vocab_size:
            roles[i] = j
    return plan_rows(new, was, roles, count)


def _span(config: Any, kind: str) -> tuple[int, int]:
    """The first id of a medium and its number of rows."""
    part = getattr(config, f"{kind}_config")
    return part.vocab_offset, part.vocab_size


def _tables(config: Any, old: Any, plan: Plan) -> dict[str, list[Rows]]:
    """Name of a table by rows -> the old rows of its rows."""
    tables = {f"{TEXT}embed_tokens.weight": plan.rows, HEAD: plan.rows}
    told, known = config.text_config.vocab_size_per_layer_input, old.text_config.vocab_size_per_layer_input
    # The model reads row 0 for every id beyond the table, so it stays row 0, and old ids beyond it mean row 0.
    layered = [tuple(i if i < known else 0 for i in rows) for rows in plan.rows[:told]]
    tables[f"{TEXT}embed_tokens_per_layer.weight"] = [(0,), *layered[1:]]
    for kind in MEDIA:
        (first, count), (old_first, old_count) = _span(config, kind), _span(old, kind)
        rows = [tuple(i - old_first for i in ids) for ids in plan.rows[first : first + count]]
        inside = [ids if all(0 <= i < old_count for i in ids) else () for ids in rows]
        tables[f"model.embed_{kind}.embedding.weight"] = inside
    return tables


def _planned(shards: Shards, config: Any, old: Any, plan: Plan, report: Report) -> Iterator[Planned]:
    """Every tensor of the new model, from the old ones."""
    from minigpt4o.models.minigpt4o.modeling_minigpt4o import Minigpt4oForConditionalGeneration

    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in Minigpt4oForConditionalGeneration(config).state_dict().items()}
    if config.tie_word_embeddings:
        del shapes[HEAD]
    missing = [name for name in shapes if name not in shards.files]
    if missing:
        raise CheckpointError(f"{len(missing)} of {len(shapes)} tensors are not in the folder: {missing[0]}, ...")
    tables = _tables(config, old, plan)
    wrong = [
        f"{name} has shape {shards.shape(name)}, its configuration says {shape}"
        for name, shape in shapes.items()
        if shards.shape(name)[name in tables :] != shape[name in tables :]
    ]
    if wrong:
        raise CheckpointError(f"{len(wrong)} tensor(s) do not fit the configuration: {wrong[0]}")
    report.left = sorted(set(shards.files) - set(shapes) - {HEAD})
    for name, shape in shapes.items():
        pieces = Gathered(shards, name, tables[name]) if name in tables else Copied(shards, name)
        (report.tables if name in tables else []).append(name)
        yield Planned(name, shards.dtype(name), shape, pieces)
    report.copied = len(shapes) - len(report.tables)


@dataclass
class Copied(Iterable[Tensor]):
    """A tensor as it is."""

    shards: Shards
    name: str

    def __iter__(self) -> Iterator[Tensor]:
        return whole(self.shards.tensor(self.name))


@dataclass
class Gathered(Iterable[Tensor]):
    """A table of rows taken from old rows, some thousands at a time."""

    shards: Shards
    name: str
    rows: Sequence[Rows]

    def __iter__(self) -> Iterator[Tensor]:
        table = self.shards.tensor(self.name)
        step = max(1, PIECE_BYTES // (4 * table.shape[1]))
        mean, spread = middle(table, step) if any(not ids for ids in self.rows) else (torch.zeros(()), 0.0)
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
        for start in range(0, len(self.rows), step):
            rows = self.rows[start : start + step]
            block = table[torch.tensor([ids[0] if ids else 0 for ids in rows])]
            for n, ids in enumerate(rows):
                if not ids:
                    noise = torch.randn(table.shape[1], generator=generator)
                    block[n] = (mean + noise * spread * NOISE).to(table.dtype)
                elif len(ids) > 1:
                    block[n] = table[torch.tensor(ids)].float().mean(0).to(table.dtype)
            yield block


def middle(table: Tensor, step: int) -> tuple[Tensor, float]:
    """The mean row (D,) and the deviation from it, read some rows at a time."""
    total = sum((part.double().sum(0) for part in table.split(step)), torch.zeros(table.shape[1], dtype=torch.float64))
    mean = total / len(table)
    squares = sum(float((part.double() - mean).square().sum()) for part in table.split(step))
    return mean.float(), (squares / table.numel()) ** 0.5


def _small_files(source: Path, config: Any, new: Vocabulary, report: Report) -> dict[str, bytes]:
    """Configuration, generation settings, tokenizer and processor, as `save_pretrained` writes them."""
    processor = processor_of(source, config, new.tokenizer, report.notes)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        processor.save_pretrained(folder)
        kept = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    generation = generation_settings(source, config, "kept" in report.found, report.notes)
    return {**kept, "generation_config.json": disk.dump_json(generation)}
