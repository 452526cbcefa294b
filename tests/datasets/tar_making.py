"""Small tars for tests, and the builder that reads them."""

import io
import json
import os
import tarfile

from minigpt4o.common.registry import Part, registry
from minigpt4o.datasets.shards.index import Group
from minigpt4o.datasets.shards.table import split_name
from minigpt4o.datasets.shards.tar import Tar

PNG = b"\x89PNG not really"
LONG_AGO = 1_700_000_000_000_000_000  # a date that no file system takes for now


def write_tar(path, members, **kind):
    with tarfile.open(path, "w", **{"format": tarfile.USTAR_FORMAT, **kind}) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


def captions(count, start=0):
    members = []
    for i in range(start, start + count):
        members += [
            (f"{i:04d}.png", PNG + bytes([i % 256])),
            (f"{i:04d}.json", json.dumps({"caption": f"no {i}"}).encode()),
        ]
    return members


def write_set(folder, counts):
    """Tars 00000.tar, ... of so many samples, numbered through; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = [sum(counts[:n]) for n in range(len(counts))]
    return [
        write_tar(folder / f"{n:05d}.tar", captions(c, s)) for n, (c, s) in enumerate(zip(counts, starts, strict=True))
    ]


def shards(where, split="train", **values):
    values = {"annotations": {split: str(where)}, "fields": {"image": "png", "text": "json.caption"}} | values
    return registry.build(Part("builder", "shards", values), name="tars", split=split)


def group_members(tar: Tar) -> list[Group]:
    """Samples of a tar in order of first appearance, the simple way; members of one key need not stand side by side."""
    groups: dict[str, Group] = {}
    for member in tar.members:
        key, extension = split_name(member.name)
        group = groups.setdefault(key, Group(tar, key, {}))
        if extension in group.members:
            group.twice = extension
        else:
            group.members[extension] = member
    return list(groups.values())
