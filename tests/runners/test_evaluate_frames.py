"""A model that is shown a letterbox answers in its frame, and is scored in the frame of the original picture."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.conversation.template import load_template
from minigpt4o.runners.evaluate_answers import MediaCache, Questioner
from minigpt4o.runners.evaluate_items import collect
from minigpt4o.runners.evaluate_ranking import Ranked

SIZE, DOG = (80, 40), [8, 4, 32, 16]  # x, y, width, height: {<10><10><50><50>} of the picture


class Oracle:
    """Sees the red of a letterboxed picture and says where it is; it knows nothing of the original picture."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def generate(self, batch: Any, decoding: Decoding, stop: Any = ()) -> list[str]:
        said = []
        for picture in batch.images:
            red = picture[0] > picture[2]
            rows, columns = torch.nonzero(red.any(dim=1))[:, 0], torch.nonzero(red.any(dim=0))[:, 0]
            box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            said.append("{" + "".join(f"<{round(100 * int(v) / red.shape[0])}>" for v in box) + "}")
        return said


@pytest.fixture
def asked(tmp_path: Path) -> Any:
    """The builder of one referring question about a drawn picture."""
    picture = Image.new("RGB", SIZE, (0, 0, 255))
    picture.paste((255, 0, 0), (8, 4, 40, 20))
    file = io.BytesIO()
    picture.save(file, "PNG")
    (tmp_path / "p.png").write_bytes(file.getvalue())
    row = {"image": "p.png", "sents": "the red thing", "bbox": DOG, "width": SIZE[0], "height": SIZE[1]}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    values = {"annotations": {"test": str(tmp_path / "rows.json")}, "media_root": str(tmp_path)}
    return registry.build(Part("builder", "boxes", values), name="refer", split="test")


def questioner(**options: Any) -> Questioner:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.add_tokens(list(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    plain = {"image_size": 100, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    look = registry.build(Part("processor", "image_augment", {**plain, "pad_colour": [0, 0, 255], **options}))
    encoder = open_encoder(tokenizer, load_template("toy"), {"image": 1}, {"image": look}, 200)
    cache, task = MediaCache(), registry.build(Part("task", "referring", {}))
    cache.wrap(encoder, "here")
    return Questioner(Oracle(tokenizer), encoder, task, 1, torch.device("cpu"), cache)


@pytest.mark.parametrize(
    ("options", "raw"),
    [
        ({"keep_aspect": "pad"}, "{<10><30><50><50>}"),
        ({"keep_aspect": "pad", "flip": 1.0}, "{<50><30><90><50>}"),
        ({}, None),
    ],
)
def test_answers_are_scored_in_the_frame_of_the_original_picture(asked: Any, options: Any, raw: str | None) -> None:
    one = questioner(**options)
    found = collect(asked, one.task, "refer", "en", None, 0)
    (row,) = one.ask(found.items, Decoding())
    assert row["answer"] == "{<10><10><50><50>}" and row["truth"] == ["{<10><10><50><50>}"]
    assert row["meta"].get("raw_answer") == raw
    prediction = one.task.prediction(found.items[0].sample, "", row["answer"])
    assert one.task.score([prediction], rounds=2)["mean_iou"].value == pytest.approx(1.0)
    if raw is not None:  # read as it was said, it would lie elsewhere
        assert one.task.score([replace(prediction, answer=raw)], rounds=2)["mean_iou"].value < 0.6


def test_the_picture_is_opened_once_with_its_geometry(asked: Any) -> None:
    one = questioner(keep_aspect="pad")
    sample = asked.sample(0, random.Random(0))
    first, second = (one.encoder.prompt(sample, random.Random(seed)) for seed in (0, 1))
    assert first.images[0] is second.images[0] and first.geometries == second.geometries
    assert torch.equal(one.encoder.processors["image"](sample.images[0], random.Random(2)), first.images[0])


def test_the_written_prompt_shows_boxes_and_no_marks(asked: Any) -> None:
    asked.config.ask, asked.prompts.prompts = "identify", ["what is {box}?"]
    one = questioner()
    sample = asked.sample(0, random.Random(0))
    assert "<bbox>" in sample.turns[0].text
    assert "what is {<10><10><50><50>}?" in one.prompt_text(sample)


def test_a_choice_that_is_a_box_is_that_of_the_original_picture_and_is_not_moved(asked: Any) -> None:
    one = questioner(keep_aspect="pad")
    item = collect(asked, one.task, "refer", "en", None, 0).items[0]
    frame = one.encoder.prompt(item.sample, random.Random(0)).frame
    assert frame is not None and not frame.whole
    row = one._row(item, None, Ranked("{<10><10><50><50>}", {}), frame)
    assert row["answer"] == "{<10><10><50><50>}" and "raw_answer" not in row["meta"]
