"""Claims about what goes with the weights: the card, the files, tokenizers of SentencePiece, the way to the hub."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import exporting
import pytest
import yaml

from minigpt4o.cli import main
from minigpt4o.common.files import MANIFEST, find_checkpoint, sha256_of

SCORE = {"value": 0.75, "low": 0.5, "high": 0.9, "n": 40}


@pytest.fixture(scope="module")
def exported(own_run: Path, tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's newest checkpoint, with scores of an evaluation that asked it."""
    folder = tmp_path_factory.mktemp("card")
    mark = sha256_of(find_checkpoint(own_run) / MANIFEST)
    file = results(folder, {"base": {"checkpoint_sha256": "other"}, "mine": {"checkpoint_sha256": mark}})
    flags = ["--results", str(file), "--licence", "cc-by-4.0"]
    exporting.export(str(own_run), folder / "own", *flags, options=tiny.plain)
    return folder / "own"


def results(folder: Path, variants: dict[str, Any]) -> Path:
    told = {
        "conditions": {"seen": {"scores": {"accuracy": SCORE, "f1": SCORE}}, "blind": {"scores": {"accuracy": SCORE}}}
    }
    other = {"conditions": {"seen": {"scores": {"accuracy": {**SCORE, "value": 0.111}}}}}
    sets = {"task": "vqa", "headline": "accuracy", "variants": {v: told if v == "mine" else other for v in variants}}
    file = folder / "results.json"
    file.write_text(json.dumps({"variants": variants, "datasets": {"coco_vqa": sets}}))
    return file


def test_the_card_tells_scores_with_intervals_of_this_checkpoint_alone(exported) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert "| coco_vqa | accuracy | with its media | 0.750 [0.500, 0.900] | 40 |" in card
    assert "| coco_vqa | accuracy | no media (baseline) | 0.750 [0.500, 0.900] | 40 |" in card
    assert "0.111" not in card
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc-by-4.0" and front["pipeline_tag"] == "image-text-to-text"
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert [(m["name"], m["value"]) for m in metrics] == [("accuracy", 0.75), ("f1", 0.75)]


def test_the_card_names_parts_data_limits_and_how_to_load(exported) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    for words in ("| bridges.image | 2,080 | yes |", "| encoders.image |", "Llama-2-7b-chat-hf", "eva_vit_g.pth"):
        assert words in card
    assert "| own | data of its maker | not stated |" in card
    assert "at most 2048 places" in card and "compared with the model it was made of: max |difference|" in card
    block = card.split("```python\n")[1].split("```")[0]
    compile(block, "card", "exec")
    assert 'AutoModelForMultimodalLM.from_pretrained("own", dtype="auto", trust_remote_code=True)' in block


def test_the_folder_is_whole_and_holds_no_path_of_this_machine(exported, own_run) -> None:
    assert {file.name for file in exported.iterdir()} >= {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("processor_config.json", "chat_template.jinja", "README.md", "minigpt4o_aligned.py"),
    }
    for file in exported.rglob("*"):
        if file.suffix in (".json", ".md", ".jinja", ".py"):
            assert str(own_run.parents[2]) not in file.read_text(encoding="utf-8"), file
        assert file.stat().st_mode & 0o044 == 0o044


def test_licences_of_known_sets_stand_on_the_card(words, tmp_path) -> None:
    from minigpt4o.datasets.known import known_set

    node = {"name": "blip2_image_eval", "image_size": 28}
    tree = {
        "model": exporting.qformer_node(words),
        "datasets": {"cc_sbu_align": {"vis_processor": {"train": node, "eval": node}}},
        "run": {"task": "image_text_pretrain"},
    }
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump(tree))
    exporting.export(str(tmp_path / "eval.yaml"), tmp_path / "out", "--no-check", "--as", "code")
    licence = " ".join(known_set("cc_sbu_align").about["licence"].split()).replace("|", "\\|")
    assert licence and f"| {licence} |" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "No evaluation was given" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_scores_of_another_checkpoint_are_refused_unless_named(own_run, tiny, tmp_path, capsys) -> None:
    file = results(tmp_path, {"mine": {"checkpoint_sha256": "another"}})
    command = ["export", str(own_run), str(tmp_path / "out"), "--no-check", "--options", *tiny.plain]
    assert main([*command, "--results", str(file)]) == 2
    assert f"--results {file}:mine" in capsys.readouterr().err
    assert main([*command, "--results", f"{file}:yours"]) == 2
    assert "there are: mine" in capsys.readouterr().err
    assert main([*command, "--results", f"{file}:mine"]) == 0
    assert "0.750 [0.500, 0.900]" in (tmp_path / "out" / "README.md").read_text()


def test_a_language_model_alone_is_written_as_its_own_class(words, tmp_path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = exporting.qformer_node(words)["llm"]["options"]
    llm = {"name": "causal_lm", "tokenizer": str(words), "options": options}
    file = exporting.settings_file(tmp_path, {"arch": "aligned", "llm": llm, "template": "plain", "train": ["llm"]})
    told = exporting.export(str(file), tmp_path / "out")
    assert "a causal language model, opened by AutoModelForCausalLM" in told
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "out")).__name__ == "LlamaForCausalLM"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    talk = [{"role": "user", "content": "what is there?"}]
    assert tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == "<s>what is there?\n"


# ---- SentencePiece ----


def trained(folder: Path, kind: str, **more: Any) -> Any:
    import sentencepiece

    from minigpt4o.models.llms.tokenizer_files import load_tokenizer

    lines = ["a small red circle is at the top left", "two big blue squares", "ユーザー: 小さな赤い丸\nシステム: はい"]
    (folder / "t.txt").write_text("\n".join(lines * 30), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "t.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=400 if kind == "bpe" else 300,
        model_type=kind,
        byte_fallback=True,
        minloglevel=2,
        **more,
    )
    return load_tokenizer(str(folder / "tokenizer.model"), "sentencepiece")


LLAMA = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
TEXTS = [
    "a  small",
    " red",
    "circle ",
    "\n\n two\n",
    "3.14",
    "🦜 ﬁ",
    "<s>a</s> b",
    "ユーザー: 小さな",
    "x" * 60,
    "[INST] a [/INST]",
]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_llamas_tokenizer_cuts_the_same_with_transformers_alone(tmp_path, kind) -> None:
    from transformers import AutoTokenizer

    from minigpt4o.models.export.tokens import first_difference, portable

    ours = trained(tmp_path, kind, **LLAMA)
    portable(ours, ["<image>"]).save_pretrained(tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert first_difference(ours, theirs, TEXTS) is None
    assert theirs.convert_tokens_to_ids("<image>") == len(ours)
    for text in TEXTS:
        ids = ours(text, add_special_tokens=False)["input_ids"]
        assert (
            theirs.decode(ids, skip_special_tokens=True).strip() == ours.decode(ids, skip_special_tokens=True).strip()
        )
    assert theirs("red").input_ids == theirs("red", add_special_tokens=False).input_ids  # the chat template writes BOS


def test_a_tokenizer_that_would_cut_otherwise_is_refused(tmp_path) -> None:
    from minigpt4o.common.errors import ConfigError
    from minigpt4o.models.export.tokens import portable

    with pytest.raises(ConfigError, match=r"'a \$\$ b\$\$c' is .* in training and would be"):
        portable(trained(tmp_path, "bpe", user_defined_symbols="$$", **LLAMA), ["<image>"])


# ---- the hub ----


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
