"""Write captioned pictures as WebDataset tars: KEY.png, KEY.json and KEY.txt side by side, the same bytes each time."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

PER_SHARD = 1000


def write_shards(folder: Path, root: Path, captions: list[dict]) -> int:
    """Shards NNNNN.tar of rows {image, caption, ...} whose images lie under `root`; returns how many pictures."""
    for old in folder.glob("*.tar"):
        old.unlink()
    for first in range(0, len(captions), PER_SHARD):
        shard = folder / f"{first // PER_SHARD:05d}.tar"
        with tarfile.open(shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for i, row in enumerate(captions[first : first + PER_SHARD], first):
                about = {"caption": row["caption"], "key": f"{i:09d}", "image_id": row["image_id"]}
                _add(tar, f"{i:09d}.png", (root / row["image"]).read_bytes())
                _add(tar, f"{i:09d}.json", json.dumps(about, ensure_ascii=False).encode())
                _add(tar, f"{i:09d}.txt", row["caption"].encode())
    return len(captions)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # time 0, owner 0, mode 644
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
