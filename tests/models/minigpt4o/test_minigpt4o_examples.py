"""The examples of a model page, run as written with a tiny checkpoint of random weights in place of the hub's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, pipeline

from minigpt4o import (
    Minigpt4oAudioFeatureExtractor,
    Minigpt4oConfig,
    Minigpt4oForCausalLM,
    Minigpt4oForConditionalGeneration,
    Minigpt4oProcessor,
)
from minigpt4o.models.minigpt4o.image_processing_minigpt4o import Minigpt4oImageProcessor

TOKENIZER = Path(__file__).parent / "tokenizer"


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """A checkpoint, a text-only checkpoint, a picture file and a sound file."""
    import soundfile

    root = tmp_path_factory.mktemp("examples")
    torch.manual_seed(0)
    config = Minigpt4oConfig.preset("tiny", vocab_size=768, media_rows=16)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    Minigpt4oForConditionalGeneration(config).save_pretrained(root / "model")
    Minigpt4oProcessor(Minigpt4oAudioFeatureExtractor(), Minigpt4oImageProcessor(), tokenizer).save_pretrained(
        root / "model"
    )
    Minigpt4oForCausalLM(config.text_config).save_pretrained(root / "text")
    tokenizer.save_pretrained(root / "text")
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(root / "cat.jpeg")
    soundfile.write(root / "meow.wav", np.sin(np.arange(22_050) / 20).astype(np.float32), 22_050)
    return {name: str(root / name) for name in ("model", "text", "cat.jpeg", "meow.wav")}


def chat(*content: dict[str, str]) -> list[dict]:
    system = {"role": "system", "content": [{"type": "text", "text": "You are a helpful assistant."}]}
    return [system, {"role": "user", "content": [*content]}]


def test_the_pipeline_answers_about_a_picture_marked_in_the_text(places) -> None:
    answer = pipeline(task="image-text-to-text", model=places["model"])
    text = "<start_of_image> What is shown in this image?"
    told = answer(places["cat.jpeg"], text=text, max_new_tokens=3)
    assert told[0]["input_text"] == text
    assert isinstance(told[0]["generated_text"], str)


def test_the_pipeline_goes_on_with_a_chat(places) -> None:
    answer = pipeline(task="image-text-to-text", model=places["model"])
    messages = chat({"type": "image", "url": places["cat.jpeg"]}, {"type": "text", "text": "What is shown?"})
    told = answer(text=messages, max_new_tokens=3)
    assert [turn["role"] for turn in told[0]["generated_text"]] == ["system", "user", "assistant"]


def test_processor_and_model_answer_with_a_static_cache(places) -> None:
    model = Minigpt4oForConditionalGeneration.from_pretrained(
        places["model"], device_map="auto", attn_implementation="sdpa"
    )
    processor = AutoProcessor.from_pretrained(places["model"], padding_side="left")
    messages = chat({"type": "image", "url": places["cat.jpeg"]}, {"type": "text", "text": "What is shown?"})
    inputs = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    ).to(model.device)
    output = model.generate(**inputs, max_new_tokens=50, cache_implementation="static", do_sample=False)
    assert output.shape[1] > inputs["input_ids"].shape[1]
    assert "What is shown?" in processor.decode(output[0], skip_special_tokens=True)
    fresh = model.generate(**inputs, max_new_tokens=50, do_sample=False)
    assert torch.equal(output, fresh), "a static cache changed the answer"


def test_a_batch_with_two_pictures_a_sound_and_none(places) -> None:
    model = AutoModelForImageTextToText.from_pretrained(places["model"])
    processor = AutoProcessor.from_pretrained(places["model"])
    picture, sound = {"type": "image", "path": places["cat.jpeg"]}, {"type": "audio", "path": places["meow.wav"]}
    ask = {"type": "text", "text": "What is it?"}
    rows = [chat(picture, picture, ask), chat(sound, ask), chat(ask)]
    told = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = processor.apply_chat_template(rows, **told, processor_kwargs={"padding": True})
    together = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    new = inputs["input_ids"].shape[1]
    for row, ids in zip(rows, together, strict=True):
        alone = processor.apply_chat_template([row], **told)
        answer = model.generate(**alone, max_new_tokens=4, do_sample=False)
        assert answer[0, alone["input_ids"].shape[1] :].tolist() == ids[new:].tolist()
    assert len(processor.post_process_image_text_to_text(together[:, new:])) == 3


def test_text_generation(places) -> None:
    answer = pipeline(task="text-generation", model=places["text"])
    prompt = "Plants create energy through a process known as"
    assert answer(prompt, max_new_tokens=5)[0]["generated_text"].startswith(prompt)
