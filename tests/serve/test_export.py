"""Claims about exported folders: opened in a fresh process they give the same logits, the same words, the same ids."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import exporting
import published
import pytest
import torch
from exporting import png, wav

from minigpt4o.cli import main
from minigpt4o.conversation.batch import SLOTS, Decoding
from minigpt4o.conversation.marks import escape_marks
from minigpt4o.conversation.sample import Media, Sample, Turn

SCRIPT = Path(__file__).with_name("fresh_export.py")
TYPED = "say <image> and </s> <assistant>"


@dataclass
class Pair:
    """A model and what a fresh process made of its export."""

    session: Any
    batch: Any  # a prompt of ours with its media
    inputs: dict[str, torch.Tensor]  # the same as the exported model takes it
    logits: torch.Tensor
    folder: Path
    told: str
    found: dict[str, Any] | None = None

    @property
    def said(self) -> str:
        return self.session.model.generate(self.batch, Decoding(max_new_tokens=8))[0]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("media")
    (folder / "red.png").write_bytes(png())
    (folder / "tone.wav").write_bytes(wav())
    return {"image": folder / "red.png", "audio": folder / "tone.wav"}


@pytest.fixture(scope="module")
def pairs(
    words: Path, demo_yaml: Path, weights: Path, media: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Pair]:
    """Everything that is exported, each opened in one of two fresh processes: with transformers alone, and with us."""
    base = tmp_path_factory.mktemp("exports")
    v2 = exporting.v2_file(base, weights)
    whole, qformer = exporting.minigpt4(base, words)
    native = exporting.native_file(base)
    picture = {"image": media["image"]}
    jobs = {
        "blip2": (qformer, [f"model.ckpt={whole}"], [str(whole), "--cfg-path", str(qformer)], picture),
        "native": (native, [], [str(native)], media),
        "both": (demo_yaml, [], [str(demo_yaml)], media),
        "merged": (v2, published.TINY_V2, [str(v2), "--merge-lora"], picture),
        "beside": (v2, published.TINY_V2, [str(v2)], picture),
    }
    made = {name: _made(base / name, *job) for name, job in jobs.items()}
    for alone in (True, False):
        mine = {name: pair for name, pair in made.items() if (name in ("blip2", "native")) is alone}
        _open(base, mine, media, alone)
    return made


def _made(out: Path, file: Path, options: list[str], source: list[str], media: dict[str, Path]) -> Pair:
    from minigpt4o import load_chat
    from minigpt4o.datasets.collate import collate

    told = exporting.export(source[0], out, *source[1:], options=[] if "ckpt" in " ".join(options) else options)
    torch.manual_seed(0)  # what no file gives is drawn
    session = load_chat(file, [*options, "model.precision=fp32"])
    text = "".join(f"<{kind}>" for kind in media) + "what is there?"
    images, audios = ([Media(str(media[kind]))] if kind in media else [] for kind in ("image", "audio"))
    batch = collate([session.encoder.prompt(Sample("x", [Turn("user", text)], images, audios), None)], 0, "left")
    with torch.no_grad():
        logits = session.model.llm.logits(session.model.llm.hidden(session.model.embed(batch), batch.attention_mask))
    config = json.loads((out / "config.json").read_text())
    ids = batch.input_ids.clone()
    for kind, slot in SLOTS.items():
        token = config.get(f"{kind}_token_id", config.get(f"{kind}_token_index"))
        ids[ids == slot] = slot if token is None else token
    inputs = {"input_ids": ids, "attention_mask": batch.attention_mask}
    inputs |= {} if batch.images is None else {"pixel_values": batch.images}
    if batch.audios is not None:
        inputs["input_features"] = batch.audios.nan_to_num()
    if batch.audios is not None and bool(batch.audios.isnan().any()):  # frames of Minigpt4o in which no sound is
        inputs["input_features_mask"] = ~batch.audios[..., 0].isnan()
    return Pair(session, batch, inputs, logits, out, told)


def _open(base: Path, pairs: dict[str, Pair], media: dict[str, Path], alone: bool) -> None:
    jobs = {}
    for name, pair in pairs.items():
        parts = [{"type": kind, "url": str(media[kind])} for kind in media if kind in pair.session.encoder.slots]
        talks: list[Any] = [[{"role": "user", "content": [*parts, {"type": "text", "text": "what is there?"}]}]]
        if name == "both":
            said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a red one"}]
            talks.append([*said, {"role": "user", "content": TYPED}])
        jobs[name] = {"folder": str(pair.folder), "inputs": pair.inputs, "talks": json.dumps(talks)}
    torch.save(jobs, base / "jobs.pt")
    command = [sys.executable, str(SCRIPT), str(base / "jobs.pt"), str(base / "found.pt"), *(["--alone"] * alone)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=base, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(base / "found.pt", weights_only=True)
    for name, pair in pairs.items():
        pair.found = found[name]


@pytest.mark.parametrize("name", ["blip2", "native", "both", "merged", "beside"])
def test_a_fresh_process_gives_the_same_logits_and_words(pairs, name) -> None:
    pair = pairs[name]
    scale = max(1.0, float(pair.logits.abs().max()))
    theirs = pair.found["logits"][..., : pair.logits.shape[-1]]
    assert (theirs - pair.logits).abs().max() < 1e-5 * scale
    new = pair.found["words"][0, pair.inputs["input_ids"].shape[1] :]
    assert pair.session.model.tokenizer.decode(new, skip_special_tokens=True).strip() == pair.said
    assert "the same greedy tokens" in pair.told


@pytest.mark.parametrize("name", ["blip2", "native", "both", "merged"])
def test_a_chat_is_written_and_cut_as_in_training(pairs, name) -> None:
    pair = pairs[name]
    assert pair.found["chats"][0]["input_ids"].tolist() == pair.inputs["input_ids"].tolist()


def test_minigpt4_with_its_qformer_is_a_blip2_and_needs_transformers_alone(pairs) -> None:
    found = pairs["blip2"].found
    assert found["class"] == "Blip2ForConditionalGeneration" and found["alone"]
    pixels = found["chats"][0]["pixel_values"] - pairs["blip2"].inputs["pixel_values"]
    assert pixels.abs().max() < 0.02  # a step of 1/255, by another library's resizing


def test_the_new_word_for_a_picture_is_never_the_likeliest(pairs) -> None:
    theirs, ours = pairs["blip2"].found["logits"], pairs["blip2"].logits
    assert theirs.shape[-1] == ours.shape[-1] + 1
    assert torch.equal(theirs.argmax(-1), ours.argmax(-1))


def test_minigpt4o_brings_its_code_and_needs_no_package(pairs) -> None:
    assert pairs["native"].found["class"] == "Minigpt4oForConditionalGeneration" and pairs["native"].found["alone"]


def test_pictures_and_sounds_are_opened_as_in_training_and_typed_marks_are_words(pairs) -> None:
    pair = pairs["both"]
    assert pair.found["class"] == "AlignedForConditionalGeneration" and not pair.found["alone"]
    for name in ("pixel_values", "input_features"):
        assert torch.equal(pair.found["chats"][0][name], pair.inputs[name])
    turns = [Turn("user", "hi"), Turn("assistant", "a red one"), Turn("user", escape_marks(TYPED))]
    ours = pair.session.encoder.prompt(Sample("x", turns), None).input_ids
    assert pair.found["chats"][1]["input_ids"][0].tolist() == ours.tolist()


def test_adapters_are_merged_or_lie_beside(pairs) -> None:
    for name, there in (("merged", False), ("beside", True)):
        assert (pairs[name].folder / "adapter" / "adapter_model.safetensors").is_file() is there
    said = [p for n, p in pairs["beside"].session.model.named_parameters() if ".lora_B." in n]
    assert said and all(bool(p.any()) for p in said)  # adapters that say something
    assert pairs["merged"].found["logits"].shape == pairs["beside"].found["logits"].shape


def test_a_form_that_gives_other_logits_is_not_taken(words, tmp_path, capsys) -> None:
    file = exporting.settings_file(tmp_path, exporting.qformer_node(words))  # features so small that one eps shows
    assert main(["export", str(file), str(tmp_path / "no"), "--as", "transformers"]) == 4
    assert "the exported model is another: max |difference|" in capsys.readouterr().err
    assert not (tmp_path / "no").exists() and not list(tmp_path.glob(".tmp*"))
    assert main(["export", str(file), str(tmp_path / "code")]) == 0
    assert "form: AlignedForConditionalGeneration" in capsys.readouterr().out


def test_what_cannot_be_done_is_said_before_anything_is_written(demo_yaml, pairs, tmp_path, capsys) -> None:
    out, whole = tmp_path / "out", pairs["blip2"].folder.parent / "whole.pth"
    cases = [
        ([str(demo_yaml), str(out), "--as", "transformers"], 2, "BLIP-2 has one encoder"),
        ([str(whole), str(out)], 2, "--cfg-path"),
        ([str(tmp_path / "none"), str(out)], 4, "does not exist"),
        ([str(demo_yaml), str(tmp_path)], 2, "nothing is written over"),
        ([str(demo_yaml), str(out), "--public"], 2, "--push"),
        ([str(demo_yaml), str(out), "--results", str(demo_yaml)], 2, "not a results.json"),
    ]
    for given, code, told in cases:
        assert main(["export", *given]) == code, given
        assert told in capsys.readouterr().err
    assert not out.exists()


def test_half_precision_is_half_the_size_and_still_the_same_model(pairs, tmp_path) -> None:
    base, out = pairs["blip2"].folder, tmp_path / "half"
    source = [str(base.parent / "whole.pth"), "--cfg-path", str(base.parent / "minigpt4.yaml")]
    exporting.export(source[0], out, *source[1:], "--dtype", "bfloat16")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (out, base)]
    assert sizes[0] < 0.7 * sizes[1]
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
