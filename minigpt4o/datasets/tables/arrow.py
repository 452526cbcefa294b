"""Rows of .parquet files and of folders that Hugging Face `datasets` saved, mapped into memory.

Both are read with pyarrow alone. A Parquet file, which has no way to one row, is laid out once as Arrow in the cache.
Picture and sound columns come as `{"bytes": ..., "path": ...}`; nothing in them is decoded here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minigpt4o.common.cache import cache_dir
from minigpt4o.common.errors import DataError
from minigpt4o.common.files import sha256_of
from minigpt4o.datasets.base import sha256
from minigpt4o.datasets.tables.cache import derived
from minigpt4o.datasets.tables.row import Row
from minigpt4o.datasets.tables.store import Rows

log = logging.getLogger(__name__)

BATCH = 256  # rows that are laid out at once
KEPT_BYTES = 1 << 20  # of a file; the SHA-256 of a smaller one is made faster than kept


def arrow_rows(path: Path, list_key: str = "") -> tuple[Rows, bytes]:
    """The rows of a .parquet file or a `save_to_disk` folder, and the SHA-256 of what it holds. Raises DataError."""
    if list_key:
        raise DataError(f"{path}: `rows` names a place in a JSON file ({list_key!r}); leave it out here")
    try:
        files = _saved_files(path) if path.is_dir() else [path]
        digest = hashlib.sha256(b"".join(_digest(file) for file in files)).digest()
        return (ArrowRows(path, files) if path.is_dir() else _parquet_rows(path)), digest
    except OSError as error:  # also what pyarrow raises of damaged files
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pyarrow().ArrowInvalid as error:
        raise DataError(f"{path}: is damaged or of another kind: {error}; fetch it again") from error


def pyarrow() -> Any:
    """The package, or an error that says how to get it."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise DataError("Parquet and Arrow files need pyarrow: pip install 'minigpt4o[parquet]'") from error
    return pyarrow


def _digest(path: Path) -> bytes:
    stat = path.stat()

    def make() -> dict[str, np.ndarray]:
        return {"digest": np.frombuffer(bytes.fromhex(sha256_of(path)), np.uint8)}

    kept = stat.st_size >= KEPT_BYTES
    found = derived(("digest", path.resolve()), (stat.st_size, stat.st_mtime_ns), make, kept)
    return found["digest"].tobytes()


def _saved_files(folder: Path) -> list[Path]:
    """The Arrow files of a saved data set, in order."""
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_bytes()).get("splits", [])
        raise DataError(f"{folder}: holds the splits {', '.join(splits)}; name one of them: {folder / 'SPLIT'}")
    state = folder / "state.json"
    if state.is_file():
        try:
            names = [str(one["filename"]) for one in json.loads(state.read_bytes())["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{state}: does not say which files hold the rows ({error})") from error
        return [folder / Path(name).name for name in names]
    files = sorted(folder.glob("*.arrow"))
    if not files:
        raise DataError(
            f"{folder}: is a folder without Arrow files; name an annotation file, or a folder of `save_to_disk`"
        )
    return files


class ArrowRows(Rows):
    """Rows of Arrow files, mapped into memory by each process when it asks for the first."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        super().__init__()
        self.file, self._files = str(path), list(files)
        self._batches: list[Any] = []
        self._open()
        self._ends = np.cumsum([len(batch) for batch in self._batches])
        self._texts = _text_columns(self._batches[0].schema) if self._batches else []

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_batches": []}

    def _open(self) -> None:
        arrow = pyarrow()
        for file in self._files:
            mapped = arrow.memory_map(str(file))
            try:
                reader = arrow.ipc.open_stream(mapped)
            except arrow.ArrowInvalid:
                reader = arrow.ipc.open_file(mapped)
            self._batches += reader.read_all().to_batches()

    def _place(self, index: int) -> tuple[Any, int]:
        if not self._batches:
            self._open()
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._batches[number], index - (int(self._ends[number - 1]) if number else 0)

    def make(self, index: int) -> Row:
        batch, place = self._place(index)
        return _row(batch.slice(place, 1), self.file, index + 1)

    def size(self, index: int) -> int:
        """Bytes of the columns that hold no pictures or sounds."""
        batch, place = self._place(index)
        return int(sum(batch.column(column).slice(place, 1).nbytes for column in self._texts))


class ParquetRows(Rows):
    """Rows of a Parquet file where there is no room to lay them out; the last row group stays in memory."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = str(path)
        about = pyarrow().parquet.ParquetFile(self.file).metadata
        self._sizes = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
        self._mean = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups)) // max(1, len(self))
        self._ends = np.cumsum(self._sizes)
        self._group: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return sum(self._sizes)

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_group": (-1, None)}

    def make(self, index: int) -> Row:
        number = int(np.searchsorted(self._ends, index, side="right"))
        held, table = self._group
        if held != number:
            try:
                table = pyarrow().parquet.ParquetFile(self.file).read_row_group(number, use_threads=False)
            except (OSError, pyarrow().ArrowInvalid) as error:
                return Row({}, self.file, index + 1, f"its row group cannot be read: {error}", "read_error")
            self._group = (number, table)
        return _row(table.slice(index - int(self._ends[number]) + self._sizes[number], 1), self.file, index + 1)

    def size(self, index: int) -> int:
        """Bytes of a row on the average."""
        return int(self._mean)


def _parquet_rows(path: Path) -> Rows:
    stat = path.stat()
    folder, prefix = cache_dir("rows"), sha256("parquet", path.resolve())[:24]
    laid = folder / f"{prefix}-{sha256(stat.st_size, stat.st_mtime_ns)[:24]}.arrow"
    if not laid.is_file():
        source = pyarrow().parquet.ParquetFile(path)
        try:
            _lay_out(source, laid)
        except OSError as error:
            log.warning("%s is read by row groups, which is slow: %s cannot be written (%s)", path, folder, error)
            return ParquetRows(path)
        for old in folder.glob(f"{prefix}-*.arrow"):
            if old != laid:
                old.unlink(missing_ok=True)
    rows = ArrowRows(laid, [laid])
    rows.file = str(path)
    return rows


def _lay_out(source: Any, laid: Path) -> None:
    """Write a Parquet file's rows as an Arrow file, which is there as a whole or not at all."""
    laid.parent.mkdir(parents=True, exist_ok=True)
    unfinished = laid.with_name(f".tmp-{laid.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with pyarrow().ipc.new_stream(str(unfinished), source.schema_arrow) as writer:
            for batch in source.iter_batches(BATCH, use_threads=False):
                writer.write_batch(batch)
        os.replace(unfinished, laid)
    finally:
        unfinished.unlink(missing_ok=True)


def _text_columns(schema: Any) -> list[int]:
    """Columns that hold no bytes at any depth."""
    return [place for place, field in enumerate(schema) if "binary" not in str(field.type)]


def _row(table: Any, file: str, number: int) -> Row:
    try:
        return Row(table.to_pylist()[0], file, number)
    except (UnicodeDecodeError, ValueError, OverflowError) as error:
        return Row({}, file, number, f"cannot be read: {error}", "bad_text")
