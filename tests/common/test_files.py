"""Killed at any instant, flipped or cut anywhere: what is found afterwards is whole."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigpt4o.common import files
from minigpt4o.common.errors import CheckpointError, Minigpt4oError

KILLED = 137
CALLS = ("write", "fsync", "rename", "replace")


def contents(step: int) -> dict[str, Any]:
    draw = random.Random(step)
    return {
        "trained.safetensors": [draw.randbytes(300), draw.randbytes(200)],
        "state.json": files.dump_json({"step": step}),
        "llm/config.json": b"{}",
    }


def step_folder(run: Path, step: int) -> Path:
    return run / files.CHECKPOINTS / f"step-{step:06d}"


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked process; its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at_call(number: int) -> None:
    """From now on the `number`-th system call that changes the disk ends the process before it is made."""
    seen = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == number:
                os._exit(KILLED)
            return real(*args)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def test_killed_at_every_call_of_a_save_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    points = 0
    while True:
        run = tmp_path / str(points)
        files.publish(step_folder(run, 1), contents(1))
        acknowledged = run / "acknowledged"

        def save(run: Path = run, number: int = points + 1, acknowledged: Path = acknowledged) -> None:
            die_at_call(number)
            files.publish(step_folder(run, 2), contents(2))
            acknowledged.touch()

        code = in_child(save)
        found = files.find_checkpoint(run)
        assert files.verify(found) == []
        assert found == step_folder(run, 2) if acknowledged.exists() else found.name in ("step-000001", "step-000002")
        files.sweep(run / files.CHECKPOINTS)
        left = [p.name for p in (run / files.CHECKPOINTS).iterdir()]
        assert all(name.startswith("step-") for name in left), left
        if code == 0:
            break
        assert code == KILLED
        points += 1
    assert points >= 10  # writes, fsyncs and renames of four files and three folders


def test_replacing_a_checkpoint_of_the_same_step_never_loses_the_older_one(tmp_path: Path) -> None:
    for number in range(1, 20):
        run = tmp_path / str(number)
        files.publish(step_folder(run, 1), contents(1))
        files.publish(step_folder(run, 2), contents(2))

        def save(run: Path = run, number: int = number) -> None:
            die_at_call(number)
            files.publish(step_folder(run, 2), contents(3))

        in_child(save)
        assert files.verify(files.find_checkpoint(run)) == []


def test_a_small_file_is_old_or_new_and_never_between(tmp_path: Path) -> None:
    path = tmp_path / "best"
    for number in range(1, 6):
        files.write_json(path, {"a": 1})

        def save(number: int = number) -> None:
            die_at_call(number)
            files.write_json(path, {"a": 2, "b": list(range(100))})

        in_child(save)
        assert json.loads(path.read_text())["a"] in (1, 2)


def test_bytes_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    for name in CALLS:
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name: (seen.append(name), real(*a))[1])
    files.publish(tmp_path / "step-000001", {"a": b"x"})
    assert seen == ["write", "fsync", "write", "fsync", "fsync", "rename", "fsync"]
    seen.clear()
    files.write_bytes(tmp_path / "last", b"x")
    assert seen == ["write", "fsync", "replace", "fsync"]


def test_every_truncation_and_flip_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "step-000001"
    draw = random.Random(0)
    files.publish(folder, contents(1))
    for name in ("trained.safetensors", "state.json", "llm/config.json", files.MANIFEST):
        whole = (folder / name).read_bytes()
        for trial in range(30):
            data = bytearray(whole)
            if trial % 2:
                del data[draw.randrange(len(data)) :]
            else:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            (folder / name).write_bytes(bytes(data))
            problems = files.verify(folder)
            same = name == files.MANIFEST and json_equal(bytes(data), whole)
            assert problems or same, (name, trial)
        (folder / name).write_bytes(whole)
        assert not files.verify(folder)
    (folder / "state.json").unlink()
    assert "missing" in files.verify(folder)[0]


def json_equal(data: bytes, like: bytes) -> bool:
    """Whether a manifest says the same although its bytes differ (a blank became another blank)."""
    try:
        return bool(json.loads(data) == json.loads(like))
    except ValueError:
        return False


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "job" / "run-1"
    for step in (5, 10, 100):
        files.publish(step_folder(run, step), contents(step))
    (step_folder(run, 100) / "state.json").write_bytes(b"x")
    with caplog.at_level("WARNING"):
        assert files.find_checkpoint(run) == step_folder(run, 10)
        assert files.find_checkpoint(tmp_path / "job") == step_folder(run, 10)
    assert "DAMAGED" in caplog.text
    assert "step-000100" in caplog.text
    with pytest.raises(CheckpointError, match="damaged"):
        files.find_checkpoint(step_folder(run, 100))


def test_a_pointer_a_run_and_a_job_name_a_checkpoint_and_a_miss_says_what_was_looked_at(tmp_path: Path) -> None:
    run = tmp_path / "job" / "run-1"
    files.publish(step_folder(run, 5), contents(5))
    files.publish(step_folder(run, 7), contents(7))
    files.write_bytes(run / "best", b"step-000005\n")
    assert files.find_checkpoint(run / "best").name == "step-000005"
    assert files.find_checkpoint(tmp_path / "job").name == "step-000007"
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        files.find_checkpoint(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no step folder"):
        files.find_checkpoint(tmp_path / "empty")
    (run / "bad").write_text("../../etc")
    with pytest.raises(CheckpointError, match="names no step folder"):
        files.find_checkpoint(run / "bad")


def test_of_several_runs_the_one_that_saved_last_is_taken(tmp_path: Path) -> None:
    for name, step, when in (("b", 50, 1_000), ("a", 3, 2_000)):
        folder = step_folder(tmp_path / name, step)
        files.publish(folder, contents(step))
        os.utime(folder, (when, when))
    assert files.find_checkpoint(tmp_path) == step_folder(tmp_path / "a", 3)


def test_a_full_disk_is_told_with_path_and_bytes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    files.publish(step_folder(tmp_path, 1), contents(1))
    note = tmp_path / "note"

    def save() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
        try:
            files.publish(step_folder(tmp_path, 2), {"big": [b"x" * 1_500, b"y" * 1_500]})
        except Minigpt4oError as error:
            note.write_text(str(error))

    assert in_child(save) == 0
    assert "step-000002" in note.read_text()
    assert "1,500 bytes" in note.read_text()
    assert [p.name for p in (tmp_path / files.CHECKPOINTS).iterdir()] == ["step-000001"]
