"""Claims about `doctor`: it tells every look, ends with 1 if something is bad, and shows no secret."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt4o.cli import main
from minigpt4o.serve import doctor_machine, doctor_packages

ROOT = Path(__file__).resolve().parents[2]


def found(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, dict[str, dict[str, str]]]:
    code = main(["doctor", "--json", *flags])
    return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}


def test_a_machine_on_which_the_tests_run_is_well_enough(capsys, tmp_path) -> None:
    assert main(["doctor", "--output-dir", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    for name in ("python", "packages", "gpu", "memory", "disk output", "environment", "weights", "sound"):
        assert f"  {name} " in told
    assert "0 bad" in told


def test_secrets_are_said_to_be_there_and_not_shown(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_hidden")
    monkeypatch.setenv("MINIGPT4O_API_KEY", "also hidden")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:hidden@mirror.example/hub")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "token").write_text("hf_kept_hidden")
    _, checks = found(capsys)
    told = checks["environment"]["told"]
    assert "HF_TOKEN is set" in told and "MINIGPT4O_API_KEY is set" in told and "HF_HUB_OFFLINE=1" in told
    assert "https://...@mirror.example/hub" in told and f"kept in {tmp_path / 'token'}" in told
    assert "hidden" not in json.dumps(checks)


def test_a_port_in_use_is_told(capsys) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        code, checks = found(capsys, "--ports", str(port))
    assert checks[f"port {port}"]["state"] == "warn" and "--port" in checks[f"port {port}"]["mend"]
    assert code == 0


def test_a_package_out_of_its_bounds_is_bad_and_one_that_few_need_is_not(monkeypatch) -> None:
    lines = ["torch>=99", "nobody-has-this>=1", 'gradio>=99; extra == "demo"', 'none-such>=1; extra == "ja"']
    monkeypatch.setattr(doctor_packages, "_required", lambda: lines)
    checks = {check.name: check for check in [*doctor_packages.installed(), *doctor_packages.extras()]}
    assert checks["torch"].state == checks["nobody-has-this"].state == "bad"
    assert "out of bounds (>=99)" in checks["torch"].told and checks["torch"].mend == "pip install 'torch>=99'"
    assert checks["extra demo"].state == checks["extra ja"].state == "warn"
    assert "the chat page" in checks["extra demo"].told and "none-such is missing" in checks["extra ja"].told


def test_a_build_that_cannot_be_loaded_is_bad_and_the_other_lines_are_told(tmp_path) -> None:
    """Versions are right, but torchaudio was built for another CUDA, and then torch itself is broken."""
    for name, error in {"torchaudio": "libcudart.so.12: cannot open", "torch": "undefined symbol: _ZN3c10"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise OSError({error!r})\n")
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
        words = [sys.executable, "-m", "minigpt4o.cli", "doctor", "--json", "--output-dir", str(tmp_path)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        assert done.returncode == 1 and not done.stderr
        assert checks[f"load {name}"]["state"] == "bad" and error in checks[f"load {name}"]["told"]
        assert "from one index" in checks[f"load {name}"]["mend"] and "torchaudio" in checks[f"load {name}"]["mend"]
        assert checks["packages"]["state"] == checks["disk output"]["state"] == "ok"


def test_little_room_and_lost_folders_are_bad(monkeypatch, tmp_path) -> None:
    usage = type(doctor_machine.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda place: usage(10, 10, 1000))
    checks = {check.name: check for check in doctor_machine.disk(str(tmp_path / "not yet" / "there"))}
    assert checks["disk output"].state == "bad" and "run.output_dir" in checks["disk output"].mend
    monkeypatch.setenv("MINIGPT4O_WEIGHTS", str(tmp_path / "lost"))
    assert [c.state for c in doctor_machine.environment() if c.name == "MINIGPT4O_WEIGHTS"] == ["bad"]


def test_a_gpu_is_told_with_its_memory_and_number_formats(monkeypatch) -> None:
    import contextlib

    import torch

    facts = {"is_available": lambda: True, "device_count": lambda: 3, "get_device_name": lambda index: "Big One"}
    room = [(70 << 30, 80 << 30), (1 << 30, 80 << 30), (70 << 30, 80 << 30)]
    facts |= {"mem_get_info": lambda index: room[index], "device": lambda index: contextlib.nullcontext()}
    bf16 = iter([True, True, False])
    facts["is_bf16_supported"] = lambda: next(bf16)
    for name, value in facts.items():
        monkeypatch.setattr(torch.cuda, name, value)
    first, second, third = doctor_machine.gpu()
    assert first.state == "ok" and "70.0 of 80.0 GiB free, bf16 yes" in first.told
    assert second.state == third.state == "warn"
    assert "nvidia-smi" in second.mend and "fp32" in third.mend


def test_a_driver_too_old_for_torch_is_bad(monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(doctor_machine, "_driver", lambda: "470.1")
    (check,) = doctor_machine.gpu()
    assert check.state == "bad" and "470.1" in check.told and "CUDA 13.0" in check.mend


def test_something_bad_ends_with_1_and_a_look_that_fails_is_told(monkeypatch, capsys) -> None:
    def fails():
        raise OSError("no such thing")
        yield

    monkeypatch.setattr(doctor_machine, "sound", fails)
    code, checks = found(capsys)
    assert code == 1
    assert checks["fails"]["state"] == "bad" and "no such thing" in checks["fails"]["told"]
    assert "weights" in checks


def test_help_of_every_command_comes_without_torch() -> None:
    code = (
        "import sys; from minigpt4o.cli.parser import build_parser; _, commands = build_parser()\n"
        "[command.format_help() for command in commands.values()]\n"
        "wanted = 'train eval demo chat serve predict data export convert doctor report'.split()\n"
        "sys.exit('torch' in sys.modules or not set(wanted) <= set(commands))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
