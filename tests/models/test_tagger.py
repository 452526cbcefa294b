"""Claims about the tagger: it learns tokens where their objects stand, and only what is named learns."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import AUDIO_SLOT, IGNORE, IMAGE_SLOT, Batch, Decoding
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.models.tagger import NONE

VIT = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 0, "heads": 2}  # no layer that mixes its patches
EAR = {"frames": 12, "mels": 8, "patch_frames": 4, "width": 16, "depth": 1, "heads": 2}
ENCODERS = {"image": Part("encoder", "timm_vit", VIT), "audio": Part("encoder", "spectrogram_transformer", EAR)}
WORDS = {"red": "red", "blue": "blue", "green": "green", "high": "top", "low": "left"}  # shown thing -> its word


def tagger(folder: Path, **values: Any) -> Any:
    torch.manual_seed(0)
    return registry.build(Part("model", "tagger", {"encoders": ENCODERS, "tokenizer": str(folder), **values}))


def ids_of(model: Any, thing: str) -> list[int]:
    return model.tokenizer.encode(" " + WORDS[thing], add_special_tokens=False)


def picture(colour: str, quarter: int) -> Tensor:
    """A patch of one colour in one quarter of a grey picture."""
    pixels = torch.zeros(3, 16, 16)
    y, x = 8 * (quarter // 2), 8 * (quarter % 2)
    pixels[["red", "green", "blue"].index(colour), y : y + 8, x : x + 8] = 2.0
    return pixels


def sound(pitch: str) -> Tensor:
    spectrum = torch.zeros(12, 8)
    spectrum[4:8, 6 if pitch == "high" else 1] = 2.0
    return spectrum


def batch_of(model: Any, rows: list[list[str]], draw: random.Random) -> Batch:
    """Each row shows what it names and learns the words for it; a colour stands in a random quarter."""
    pictures, sounds, ids, labels, samples = [], [], [], [], []
    for row in rows:
        seen, heard = [t for t in row if t not in ("high", "low")], [t for t in row if t in ("high", "low")]
        pictures += [picture(thing, draw.randrange(4)) for thing in seen]
        sounds += [sound(thing) for thing in heard]
        said = [i for thing in row for i in ids_of(model, thing)]
        slots = [IMAGE_SLOT] * len(seen) + [AUDIO_SLOT] * len(heard)
        ids.append(torch.tensor([1, *slots, *said]))
        labels.append(torch.tensor([IGNORE] * (1 + len(slots)) + said))
        images, audios = [Media(path="x.png")] * len(seen), [Media(path="x.wav")] * len(heard)
        samples.append(Sample(id="/".join(row), turns=[Turn("user", "")], images=images, audios=audios))
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    return Batch(
        input_ids=padded,
        attention_mask=(padded != 0).long(),
        labels=torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORE),
        images=torch.stack(pictures) if pictures else None,
        audios=torch.stack(sounds) if sounds else None,
        samples=samples,
    )


def random_rows(draw: random.Random, count: int = 16) -> list[list[str]]:
    kinds = (["red"], ["blue"], ["green"], ["high"], ["low"], ["red", "low"], ["blue", "high"])
    return [list(draw.choice(kinds)) for _ in range(count)]


@pytest.fixture(scope="module")
def learned(tokenizer_folder: Path) -> tuple[Any, list[float]]:
    """A tagger after a short real training, with the loss of each step."""
    model, draw = tagger(tokenizer_folder), random.Random(0)
    optimizer = torch.optim.AdamW(model.trained_parameters().values(), lr=1e-2)
    losses = []
    for _ in range(100):
        loss_sum, count = model.train()(batch_of(model, random_rows(draw), draw))
        optimizer.zero_grad()
        (loss_sum / count).backward()
        optimizer.step()
        losses.append(float(loss_sum.detach() / count))
    return model.eval(), losses


def test_the_loss_falls_far_on_a_small_real_problem(learned: tuple[Any, list[float]]) -> None:
    _, losses = learned
    assert sum(losses[-5:]) < 0.1 * sum(losses[:5])


@pytest.mark.parametrize("row", [["red"], ["green"], ["high"], ["low"], ["red", "low"], ["blue", "high"]])
def test_what_is_shown_gets_evidence_and_what_is_not_does_not(learned: tuple[Any, list[float]], row: list[str]) -> None:
    model, _ = learned
    evidence = model._evidence(batch_of(model, [row], random.Random(5)))[0]
    meant = {i for thing in row for i in ids_of(model, thing)}
    others = {i for thing in WORDS for i in ids_of(model, thing)} - meant
    assert all(evidence[i] > 0 for i in meant)
    assert all(evidence[i] < 0 for i in others)


def test_a_combination_never_seen_together_is_named_all_the_same(learned: tuple[Any, list[float]]) -> None:
    model, _ = learned
    (answer,) = model.generate(batch_of(model, [["green", "high"]], random.Random(6)), Decoding(max_new_tokens=8))
    meant = {model.tokenizer.decode([i]).strip() for thing in ("green", "high") for i in ids_of(model, thing)}
    assert set(answer.split()) == meant - {""}


def test_the_votes_for_a_thing_come_from_where_it_stands(learned: tuple[Any, list[float]]) -> None:
    model, _ = learned
    for quarter in range(4):
        votes = model.heads["image"](model.encoders["image"](picture("red", quarter)[None]))[0]  # (P, V)
        best = int(votes[:, ids_of(model, "red")[-1]].argmax())
        assert (best // 4 // 2, best % 4 // 2) == (quarter // 2, quarter % 2)


def test_media_of_a_row_are_joined_and_rows_do_not_mix(learned: tuple[Any, list[float]]) -> None:
    model, _ = learned
    rows = [["red", "low"], ["high"], ["blue"], ["red", "green"], ["low"]]
    with torch.no_grad():
        together = model._evidence(batch_of(model, rows, random.Random(3)))
        draw = random.Random(3)  # the same quarters again, row after row
        for row, found in zip(rows, together, strict=True):
            alone = model._evidence(batch_of(model, [row], draw))[0]
            assert torch.allclose(found, alone, atol=1e-4)


def test_a_row_without_media_expects_nothing(learned: tuple[Any, list[float]]) -> None:
    model, _ = learned
    batch = batch_of(model, [["red"], ["low"]], random.Random(3))
    batch.samples.append(Sample(id="text", turns=[Turn("user", "")]))
    more = torch.cat([batch.input_ids, torch.zeros(1, batch.input_ids.shape[1], dtype=torch.int64)])
    batch.input_ids = more
    evidence = model._evidence(batch)
    assert torch.equal(evidence[2], torch.full_like(evidence[2], NONE))
    assert model.generate(batch, Decoding(max_new_tokens=4))[2] == ""


def test_gradients_reach_only_what_is_named_in_train(tokenizer_folder: Path) -> None:
    model = tagger(tokenizer_folder, train=["encoders.image", "heads"])
    model.train()
    batch = batch_of(model, [["red", "high"]], random.Random(0))
    model(batch).loss_sum.backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == set(model.trained_parameters())
    assert {".".join(name.split(".")[:2]) for name in with_gradient} == {"encoders.image", "heads.image", "heads.audio"}
    assert not model.encoders["audio"].training and model.encoders["image"].training
    assert "encoders.audio" in model.frozen_fingerprints()


@pytest.mark.parametrize("rows", [[["red"]], [["low"]], [["red", "low"]]], ids=["picture", "sound", "both"])
def test_every_trained_parameter_takes_part_whatever_the_batch_holds(tokenizer_folder: Path, rows: list) -> None:
    model = tagger(tokenizer_folder)
    model(batch_of(model, rows, random.Random(0))).loss_sum.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    absent = {"red": "audio", "low": "image"}.get("/".join(rows[0]))
    if absent:
        assert not any(p.grad.any() for p in model.encoders[absent].parameters())


def test_the_loss_is_a_sum_counted_by_learned_tokens(tokenizer_folder: Path) -> None:
    model = tagger(tokenizer_folder).eval()
    rows = [["red"], ["blue", "low"], ["high"]]
    draw = random.Random(1)
    with torch.no_grad():
        whole = model(batch_of(model, rows, random.Random(1)))
        parts = [model(batch_of(model, [row], draw)) for row in rows]
    assert float(whole.loss_sum) == pytest.approx(sum(float(p.loss_sum) for p in parts), rel=1e-5)
    assert int(whole.count) == sum(int(p.count) for p in parts) == sum(len(ids_of(model, t)) for r in rows for t in r)


def test_encoders_trained_here_are_read_by_an_encoder(learned: tuple[Any, list[float]], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model, _ = learned
    save_file({name: p.detach() for name, p in model.trained_parameters().items()}, tmp_path / "w.safetensors")
    encoder = registry.build(Part("encoder", "timm_vit", {**VIT, "weights": str(tmp_path / "w.safetensors")}))
    pairs = zip(encoder.parameters(), model.encoders["image"].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"encoders": {}}, r"model\.encoders: .*image, audio"),
        ({"encoders": {"video": ENCODERS["image"]}}, r"model\.encoders: .*image, audio"),
        ({"tokenizer": ""}, r"model\.tokenizer"),
        ({"train": ["bridges"]}, r"model\.train: .*'bridges'"),
    ],
)
def test_what_cannot_be_is_refused(tokenizer_folder: Path, values: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tagger(tokenizer_folder, **values)
