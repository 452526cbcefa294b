"""Shards elsewhere: fetched only if allowed, whole and checked, kept within a bound, and the same as local ones."""

import functools
import http.server
import json
import os
import pickle
import random
import shutil
import threading
import time
from typing import ClassVar

import fsspec
import pytest
from tar_making import LONG_AGO, shards, write_set

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.datasets.shards import fetch as shard_fetch
from minigpt4o.datasets.shards import spool as shard_spool
from minigpt4o.datasets.shards.counts import shard_name
from minigpt4o.datasets.shards.files import write_set_index
from minigpt4o.datasets.shards.spool import Spool

COUNTS = [3, 4, 2, 4]  # so that all tars have one size
NAMES = "{00000..00003}.tar"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT4O_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shard_spool, "WAIT", 0.01)
    return tmp_path / "cache" / "shards" / "fetched" / "tars"


@pytest.fixture
def folder(tmp_path):
    write_set_index(write_set(tmp_path / "there", COUNTS))
    return tmp_path / "there"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files; answers with each of `faults` once before it does."""

    faults: ClassVar[list] = []
    refused: ClassVar[str] = ""  # end of addresses that are answered 503
    asked: ClassVar[list] = []

    def do_GET(self):
        type(self).asked.append(self.path)
        fault = self.faults.pop(0) if self.faults and self.path.endswith(".tar") else None
        if self.refused and self.path.endswith(self.refused):
            fault = 503
        if isinstance(fault, int):
            self.send_error(fault)
        elif fault == "short":
            self.send_response(200)
            self.send_header("Content-Length", "10000")
            self.end_headers()
            self.wfile.write(b"x" * 100)
        else:
            super().do_GET()

    def log_message(self, *words):
        pass


@pytest.fixture
def server(folder):
    Handler.faults, Handler.asked = [], []
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_an_answer_shorter_than_its_header_promises_is_no_whole_file(server):
    Handler.faults = ["short"]
    pieces = shard_fetch.fetch(f"{server}/00000.tar", "set")
    assert next(pieces) == b"x" * 100
    with pytest.raises(shard_fetch.FetchError, match=r"/00000\.tar broke off after 100 of 10,000 bytes"):
        next(pieces)


def remote(pattern, **values):
    return shards(pattern, **{"allow_remote": True, "shuffle": "window", "window_shards": 2, **values})


def content(builder, seed=0):
    order = builder.order(seed, 0)
    samples = [builder.sample(order(turn), random.Random(0)) for turn in range(len(builder))]
    return [(s.id, s.answers, s.images[0].read()) for s in samples]


def as_local(folder):
    return shards(f"{folder}/{NAMES}", shuffle="window", window_shards=2, lazy_above=0)


def in_memory(folder):
    files = fsspec.filesystem("memory")
    files.put(str(folder), "/bucket", recursive=True)
    return f"memory://bucket/{NAMES}"


@pytest.mark.parametrize("kind", ["http", "pipe", "file", "memory"])
def test_shards_elsewhere_are_the_same_samples_in_the_same_order_as_local_ones(folder, kind, request):
    pattern = {
        "http": lambda: f"{request.getfixturevalue('server')}/{NAMES}",
        "pipe": lambda: f"pipe:cat {folder}/{NAMES}",
        "file": lambda: f"file://{folder}/{NAMES}",
        "memory": lambda: in_memory(folder),
    }[kind]()
    there = remote(pattern, index=str(folder / "index.json") if kind == "pipe" else "")
    here = as_local(folder)
    assert content(there) == content(here)
    assert there.fingerprint() == here.fingerprint()
    assert there.size_hint(7) == here.size_hint(7) > 0


@pytest.mark.parametrize("pattern", ["pipe:touch {}", "http://127.0.0.1:9/{}.tar", "s3://bucket/{}.tar"])
def test_no_address_is_touched_unless_it_is_allowed(tmp_path, pattern):
    with pytest.raises(DataError, match=r"is not a local file; download it first.*allow_remote: true"):
        shards(pattern.format(tmp_path / "canary"))
    assert not (tmp_path / "canary").exists()


def test_the_index_alone_is_read_until_a_sample_is_wanted(server):
    builder = remote(f"{server}/{NAMES}")
    assert len(builder) == sum(COUNTS)
    assert Handler.asked == ["/index.json"]
    builder.sample(4, random.Random(0))
    assert Handler.asked == ["/index.json", "/00001.tar"]


def test_a_fetched_shard_is_not_fetched_again_by_the_next_run(server, folder):
    expected = content(remote(f"{server}/{NAMES}"))
    Handler.asked.clear()
    assert content(remote(f"{server}/{NAMES}")) == expected
    assert Handler.asked == ["/index.json"]


@pytest.mark.parametrize("faults", [[503, 500], ["short", 503], ["short"]])
def test_passing_faults_are_tried_again(server, folder, faults):
    Handler.faults = list(faults)
    assert content(remote(f"{server}/{NAMES}", shuffle="none")) == content(
        shards(f"{folder}/{NAMES}", shuffle="none", lazy_above=0)
    )


def test_a_source_that_stays_broken_costs_its_samples_and_is_not_asked_for_each_of_them(server, cache):
    Handler.faults = [503] * 100
    builder = remote(f"{server}/{NAMES}")
    for index in (0, 1, 2):
        with pytest.raises(SkipSample, match=r"(?s)read_error: datasets\.tars: .*00000.tar answers 503.*tried 3 times"):
            builder.sample(index, random.Random(0))
    assert Handler.asked.count("/00000.tar") == 3
    assert not [f for f in cache.iterdir() if f.suffix == ".part"]


def test_a_source_that_is_not_there_ends_the_run_or_is_counted(server, folder):
    (folder / "00001.tar").unlink()
    with pytest.raises(DataError, match=r"00001.tar answers 404"):
        remote(f"{server}/{NAMES}").sample(4, random.Random(0))
    with pytest.raises(SkipSample, match="missing_file"):
        remote(f"{server}/{NAMES}", damaged="keep").sample(4, random.Random(0))


@pytest.mark.parametrize("what", ["size", "sha256"])
def test_what_arrives_is_compared_with_the_index(server, folder, what, cache):
    data = bytearray((folder / "00000.tar").read_bytes())
    data[600] ^= 1
    (folder / "00000.tar").write_bytes(data if what == "sha256" else data + bytes(512))
    with pytest.raises(SkipSample, match="has another SHA-256" if what == "sha256" else "its index says"):
        remote(f"{server}/{NAMES}").sample(0, random.Random(0))
    assert not [f for f in cache.iterdir() if f.suffix != ".lock"]


def test_the_cache_stays_within_its_bound_and_the_least_recently_used_goes_first(folder, cache, caplog):
    size = (folder / "00000.tar").stat().st_size
    builder = remote(f"file://{folder}/{NAMES}", shuffle="none", cache_gb=2.5 * size / 1e9)
    first = builder.sample(0, random.Random(0)).images[0]
    for index in (4, 0, 8):  # shards 1, 0, 2
        builder.sample(index, random.Random(0))
        time.sleep(0.01)
    kept = sorted(f.name[-9:] for f in cache.iterdir() if f.suffix != ".lock")
    assert kept == ["00000.tar", "00002.tar"]
    builder.sample(11, random.Random(0))
    assert sum(f.stat().st_size for f in cache.iterdir()) <= 2.5 * size
    assert first.read()  # its file is gone, but was held open
    assert "is fetched again" not in caplog.text
    builder.sample(4, random.Random(0))
    assert "00001.tar is fetched again, cache_gb" in caplog.text
    with pytest.raises(DataError, match="is less than the single shard"):
        remote(f"file://{folder}/{NAMES}", cache_gb=1e-9).sample(0, random.Random(0))


def test_a_shard_that_is_used_again_is_not_the_one_that_goes(folder, cache):
    urls = [f"file://{folder}/{number:05d}.tar" for number in range(3)]
    spool = Spool(cache, int(2.5 * (folder / "00000.tar").stat().st_size), "x")
    for url in (urls[0], urls[1], urls[0], urls[2]):
        time.sleep(0.01)
        spool.get(url)
    assert [spool.file(url).exists() for url in urls] == [True, False, True]
    before = spool.file(urls[0]).stat().st_mtime_ns
    spool.file(urls[0]).unlink()
    assert spool.get(urls[0]).stat().st_mtime_ns == before  # fetched again, its index is still the right one


def test_coming_shards_are_fetched_ahead(folder, cache):
    builder = remote(f"file://{folder}/{NAMES}", shuffle="none")
    builder.order(0, 0)(0)
    for _ in range(500):
        if len(list(cache.glob("*.tar"))) == 2:
            break
        time.sleep(0.01)
    assert sorted(f.name[-9:] for f in cache.glob("*.tar")) == ["00001.tar", "00002.tar"]


def test_processes_that_want_the_same_shard_fetch_it_once(folder, cache):
    spools = [Spool(cache, 10**9, "x") for _ in range(4)]
    log = folder / "log"
    script = folder / "bring.sh"
    script.write_text(f"#!/bin/sh\necho x >> {log}\nsleep 0.1\ncat {folder}/00000.tar\n")
    script.chmod(0o755)
    threads = [threading.Thread(target=spool.get, args=(f"pipe:{script} 00000.tar",)) for spool in spools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.read_text() == "x\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("pipe:cat a.tar | gunzip", r"holds '\|'; the command is started without a shell"),
        ("pipe:cat $HOME/a.tar", "without a shell"),
        ("pipe:", "names no command"),
        ("pipe:cat 'a.tar", "cannot be divided into words"),
        ("s3://bucket/a.tar", "pip install s3fs"),
        ("nonsense://bucket/a.tar", "unknown kind of address"),
    ],
)
def test_sources_that_can_never_be_fetched_are_refused_at_the_start(source, said, folder):
    if "s3fs" in said and _there("s3fs"):
        pytest.skip("s3fs is installed")
    with pytest.raises(DataError, match=said):
        remote(source, index=str(folder / "index.json"))


def _there(package):
    import importlib.util

    return importlib.util.find_spec(package) is not None


def test_a_command_that_fails_or_falls_silent_is_no_shard(folder, monkeypatch):
    script = folder / "bring.sh"
    script.write_text(f"#!/bin/sh\ncat {folder}/$1\necho no such bucket >&2\nexit 4\n")
    script.chmod(0o755)
    index = str(folder / "index.json")
    with pytest.raises(SkipSample, match=r"ended with code 4: no such bucket"):
        remote(f"pipe:{script} {NAMES}", index=index).sample(0, random.Random(0))
    with pytest.raises(DataError, match="cannot be started"):
        remote(f"pipe:{folder}/none {NAMES}", index=index).sample(0, random.Random(0))
    monkeypatch.setattr(shard_fetch, "SILENCE", 0.1)
    script.write_text("#!/bin/sh\nsleep 20\n")
    with pytest.raises(SkipSample, match="gave nothing for"):
        remote(f"pipe:{script} {NAMES}", index=index).sample(0, random.Random(0))


def test_an_index_that_a_server_refuses_for_now_is_not_taken_for_absent(server, monkeypatch):
    monkeypatch.setattr(Handler, "refused", "index.json")
    with pytest.raises(DataError, match=r"(?s)index.json answers 503.*try again"):
        remote(f"{server}/{NAMES}")


def test_what_cannot_be_known_of_shards_elsewhere_is_said_at_the_start(folder):
    with pytest.raises(DataError, match=r"nobody says how many samples .*data index"):
        remote(f"pipe:cat {folder}/{NAMES}")
    (folder / "index.json").unlink()
    with pytest.raises(DataError, match=r"nobody says how many samples .*00000.tar holds"):
        remote(f"file://{folder}/{NAMES}")
    with pytest.raises(DataError, match="folds, fold_by and lists of questions need every shard"):
        shards("", "train", annotations={"all": f"file://{folder}/{NAMES}"}, folds=3, allow_remote=True)
    with pytest.raises(DataError, match="name them in two data sets"):
        remote(f"{{file://{folder},{folder}}}/00000.tar")


def test_secrets_of_an_address_reach_no_message():
    assert shard_fetch.hide_secrets("https://me:word@host/a.tar?X-Signature=abc") == "https://host/a.tar"
    assert shard_name("https://host/a/00001.tar?X-Signature=abc/b") == "00001.tar"
    assert shard_name("pipe:aws s3 cp s3://bucket/00002.tar -") == "00002.tar"


def test_a_builder_of_remote_shards_crosses_process_borders(folder):
    builder = remote(f"file://{folder}/{NAMES}")
    expected = content(builder)
    shutil.rmtree(folder)
    copy = pickle.loads(pickle.dumps(builder))  # noqa: S301 - our own bytes
    assert content(copy) == expected


def test_an_index_that_names_other_counts_is_refused_after_fetching(folder):
    listing = json.loads((folder / "index.json").read_text())
    listing["shards"][1]["count"] = 9
    (folder / "index.json").write_text(json.dumps(listing))
    os.utime(folder / "index.json", ns=(LONG_AGO, LONG_AGO))
    with pytest.raises(DataError, match="holds 4 samples, 9 are promised"):
        remote(f"file://{folder}/{NAMES}").sample(4, random.Random(0))
