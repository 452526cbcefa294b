"""Claims about the way of an export to the hub: only when asked, privately, and what a dry run tells."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from minigpt4o.cli import main


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as an upload asks for."""

    asked: list[tuple[str, str, bytes]]

    @property
    def place(self) -> str:
        return f"http://{self.headers['Host']}/lab/model"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.path, self.headers.get("Authorization", ""), body))
        if self.path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif "/commit/" in self.path:
            self.answer({"commitUrl": f"{self.place}/commit/1", "commitOid": "1" * 40, "hookOutput": ""})
        else:
            self.answer({"url": self.place, "name": "lab/model", "id": "1"})

    def answer(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.answer({"id": "lab/model", "sha": "0" * 40, "siblings": []})

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    asked: list[tuple[str, str, bytes]] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Hub,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def test_a_folder_is_pushed_as_it_is_and_privately(hub, tmp_path) -> None:
    address, asked = hub
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("# card\n")
    code = (
        "import sys; from pathlib import Path; from minigpt4o.serve.export.push import *; ensure_can_push('lab/model')"
    )
    code += "; sys.stdout.write(push(Path('out'), 'lab/model'))"
    values = {
        "HF_ENDPOINT": address,
        "HF_TOKEN": "hf_x",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path),
        "no_proxy": "*",
    }
    env = {k: v for k, v in os.environ.items() if "OFFLINE" not in k} | values
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    made = next(json.loads(body) for path, _, body in asked if path == "/api/repos/create")
    assert made["visibility"] == "private" and made["name"] == "model" and made["organization"] == "lab"
    sent = next(body for path, _, body in asked if "/commit/main" in path)
    assert b"README.md" in sent and all(key == "Bearer hf_x" for _, key, _ in asked)


def test_a_dry_run_lists_what_would_be_pushed_and_reaches_out_to_nobody(hub, demo_yaml, tmp_path, monkeypatch, capsys):
    address, asked = hub
    monkeypatch.setenv("HF_ENDPOINT", address)
    command = ["export", str(demo_yaml), str(tmp_path / "out"), "--no-check", "--dry-run"]
    assert main(command) == 2
    assert "--dry-run belongs to --push" in capsys.readouterr().err
    assert main([*command, "--push", "lab/model"]) == 0
    told = capsys.readouterr().out
    assert "would be pushed to lab/model, privately" in told and "model.safetensors" in told and "README.md" in told
    assert not asked and "pushed:" not in told


def test_nothing_is_pushed_unless_it_can_be_and_this_is_said_first(demo_yaml, tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "out"
    command = ["export", str(demo_yaml), str(out), "--push"]
    assert main([*command, "model"]) == 2
    assert "org/name" in capsys.readouterr().err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main([*command, "lab/model"]) == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert main([*command, "lab/model"]) == 2
    assert "no token" in capsys.readouterr().err
    assert not out.exists()
