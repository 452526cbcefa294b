"""The processor of Minigpt4o against that of Gemma 3n, and what it makes of chats and of bad input."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.gemma3n import Gemma3nAudioFeatureExtractor, Gemma3nProcessor
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

from minigpt4o import Minigpt4oAudioFeatureExtractor, Minigpt4oProcessor
from minigpt4o.models.minigpt4o.image_processing_minigpt4o import Minigpt4oImageProcessor

TOKENIZER = AutoTokenizer.from_pretrained(Path(__file__).parent / "tokenizer")
SLOTS = {"audio_seq_length": 5, "image_seq_length": 4}
SIDE = {"height": 48, "width": 48}
IMAGE, AUDIO = "<image_soft_token>", "<audio_soft_token>"
DRAW = np.random.default_rng(0)
PICTURES = [
    PIL.Image.fromarray(DRAW.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in ((40, 30), (20, 50), (90, 80))
]
CLIPS = [DRAW.standard_normal(samples).astype(np.float32) / 10 for samples in (8000, 12_345, 700)]
ASK = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}


@pytest.fixture(scope="module")
def ours() -> Minigpt4oProcessor:
    return Minigpt4oProcessor(Minigpt4oAudioFeatureExtractor(), Minigpt4oImageProcessor(size=SIDE), TOKENIZER, **SLOTS)


@pytest.fixture(scope="module")
def oracle() -> Gemma3nProcessor:
    pictures = SiglipImageProcessor(
        size=SIDE, resample=2, do_normalize=False, image_mean=(0.5,) * 3, image_std=(0.5,) * 3
    )
    return Gemma3nProcessor(Gemma3nAudioFeatureExtractor(), pictures, TOKENIZER, **SLOTS)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("media")
    PICTURES[0].save(root / "a.png")
    PICTURES[2].save(root / "b.jpeg")
    soundfile.write(root / "a.wav", CLIPS[0], 16_000, subtype="FLOAT")
    soundfile.write(root / "fast.flac", np.stack([CLIPS[1], CLIPS[1]], axis=1), 44_100)
    soundfile.write(root / "long.wav", np.zeros(31 * 8000), 8000)
    soundfile.write(root / "empty.wav", np.zeros(0), 16_000)
    PIL.Image.new("1", (9000, 9000)).save(root / "huge.png")
    (root / "not.wav").write_bytes(b"nothing of the kind")
    return {path.name: str(path) for path in root.iterdir()}


def user(*content: Any) -> dict:
    blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in content]
    return {"role": "user", "content": blocks}


def image(source: Any) -> dict:
    return {"type": "image", "path" if isinstance(source, str) else "image": source}


def audio(source: Any) -> dict:
    return {"type": "audio", "path" if isinstance(source, str) else "audio": source}


@pytest.mark.parametrize(
    "call",
    [
        {"text": "only text 文だけ"},
        {"text": ["one", "two texts"], "padding": True},
        {"text": f"a {IMAGE} b", "images": PICTURES[0]},
        {"text": f"{IMAGE}{IMAGE}", "images": PICTURES[:2]},
        {"text": [f"{IMAGE} x", f"y {IMAGE} {IMAGE}\n"], "images": [PICTURES[:1], PICTURES[1:]], "padding": True},
        {"text": ["no picture", f"{IMAGE}!"], "images": [[], PICTURES[:1]], "padding": True},
        {"text": f"hear {AUDIO}", "audio": CLIPS[0]},
        {"text": [f"{AUDIO}{AUDIO}", f"z{AUDIO}"], "audio": CLIPS, "padding": True},
        {"text": f"{AUDIO} and {IMAGE}", "images": np.asarray(PICTURES[0]), "audio": [CLIPS[1]]},
        {"images": [PICTURES[:1], PICTURES[1:]], "padding": True},
        {"audio": CLIPS[:2], "padding": True},
        {"text": f"{IMAGE} long", "images": PICTURES[0], "padding": "max_length", "max_length": 40},
    ],
)
def test_every_output_equals_gemma3n(ours, oracle, call) -> None:
    got, want = ours(**call, return_tensors="pt"), oracle(**call, return_tensors="pt")
    assert set(got) == set(want)
    for name, value in want.items():
        assert got[name].dtype == value.dtype, name
        torch.testing.assert_close(got[name], value, rtol=0, atol=1e-4 if name == "input_features" else 0, msg=name)


def test_slots_and_token_types_stand_where_the_marks_were(ours) -> None:
    got = ours(text=f"a{IMAGE}b{AUDIO}", images=PICTURES[0], audio=CLIPS[0], return_tensors="pt")
    ids, kinds = got["input_ids"][0], got["token_type_ids"][0]
    assert (ids == TOKENIZER.image_token_id).sum() == (kinds == 1).sum() == 4
    assert (ids == TOKENIZER.audio_token_id).sum() == (kinds == 3).sum() == 5
    sequence = f"\n\n<start_of_audio>{AUDIO * 5}<end_of_audio>\n\n"
    assert TOKENIZER.decode(ids) == f"<bos>a\n\n<start_of_image>{IMAGE * 4}<end_of_image>\n\nb{sequence}"


@pytest.mark.parametrize("form", ["<start_of_image>", f"<start_of_image>{IMAGE}<end_of_image>", "whole"])
def test_other_ways_to_mark_a_picture_give_the_same_slots(ours, form) -> None:
    form = ours.full_image_sequence if form == "whole" else form
    got = ours(text=f"a{form}b<start_of_audio>", images=PICTURES[0], audio=CLIPS[0])
    want = ours(text=f"a{IMAGE}b{AUDIO}", images=PICTURES[0], audio=CLIPS[0])
    assert got["input_ids"] == want["input_ids"]


def test_saved_and_loaded_it_is_the_same(ours, tmp_path) -> None:
    ours.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is Minigpt4oProcessor
    assert loaded.to_dict() == ours.to_dict()
    assert loaded.chat_template == ours.chat_template
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), Minigpt4oImageProcessor)
    call = {"text": f"{IMAGE} {AUDIO} 猫", "images": PICTURES[0], "audio": CLIPS[0]}
    before, after = ours(**call, return_tensors="pt"), loaded(**call, return_tensors="pt")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert list(before) and set(before) <= set(loaded.model_input_names)


def test_a_chat_takes_paths_pictures_arrays_and_base64(ours, files) -> None:
    data = base64.b64encode(Path(files["a.wav"]).read_bytes()).decode()
    chat = [
        {"role": "system", "content": "Be short."},
        user(image(files["a.png"]), image(PICTURES[2]), audio(files["fast.flac"]), "What is it?"),
        {"role": "assistant", "content": "A cat."},
        user(audio(CLIPS[0]), image(np.asarray(PICTURES[1])), "And this?"),
        {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
        user({"type": "audio", "url": f"data:audio/wav;base64,{data}"}, "That?"),
    ]
    got = ours.apply_chat_template(chat, **ASK)
    assert got["pixel_values"].shape == (3, 3, 48, 48)
    assert got["input_features"].shape[0] == 3
    torch.testing.assert_close(got["input_features"][1], got["input_features"][2])
    assert (got["token_type_ids"] == 1).sum() == 12 and (got["token_type_ids"] == 3).sum() == 15
    assert TOKENIZER.decode(got["input_ids"][0]).startswith(
        "<bos><start_of_turn>user\nBe short.\n\n\n\n<start_of_image>"
    )
    assert chat[1]["content"][2] == audio(files["fast.flac"]), "the caller's chat was changed"


def test_a_file_at_another_rate_is_resampled(ours, files) -> None:
    got = ours.apply_chat_template([user(audio(files["fast.flac"]), "?")], **ASK)
    frames = int(got["input_features_mask"].sum())
    assert abs(frames - len(CLIPS[1]) / 44_100 * 100) < 4, "the mask ends a frame before the sound"


def test_chats_with_different_numbers_of_pictures_share_a_batch(ours) -> None:
    chats = [[user("Hello")], [user(image(PICTURES[0]), image(PICTURES[1]), "Both?")], [user(image(PICTURES[2]), "?")]]
    got = ours.apply_chat_template(chats, **ASK, processor_kwargs={"padding": True})
    assert got["pixel_values"].shape[0] == 3
    assert (got["token_type_ids"] == 1).sum(1).tolist() == [0, 8, 4]
    assert got["attention_mask"][:, -1].all(), "generation needs the padding on the left"


def test_the_mask_of_the_answers_is_right_behind_grown_slots(ours) -> None:
    chat = [user(image(PICTURES[0]), "<start_of_image>?", image(PICTURES[1])), {"role": "assistant", "content": "Yes."}]
    told = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "return_assistant_tokens_mask": True}
    chat[0]["content"][1:2] = []
    got = ours.apply_chat_template([*chat, user(audio(CLIPS[0])), {"role": "assistant", "content": "No."}], **told)
    said = got["input_ids"][0][got["assistant_masks"][0].bool()]
    assert TOKENIZER.decode(said) == "Yes.<end_of_turn>No.<end_of_turn>"
    frame = ours.apply_chat_template(
        [user("<start_of_image>?"), chat[1]], **told, processor_kwargs={"images": [PICTURES[0]]}
    )
    said = frame["input_ids"][0][frame["assistant_masks"][0].bool()]
    assert TOKENIZER.decode(said) == "Yes.<end_of_turn>"


def test_tokens_that_a_user_types_are_text_on_request_and_an_error_without(ours) -> None:
    chat = [user(image(PICTURES[0]), f"What is {IMAGE} or <start_of_image> or {AUDIO}<end_of_turn>?")]
    with pytest.raises(ValueError, match=r"3 <image_soft_token> mark\(s\) but 1 picture.*sanitize_control_tokens"):
        ours.apply_chat_template(chat, **ASK)
    got = ours.apply_chat_template(chat, **ASK, sanitize_control_tokens=True)
    ids = got["input_ids"][0]
    assert (ids == TOKENIZER.image_token_id).sum() == 4
    assert TOKENIZER.audio_token_id not in ids
    assert f"What is {IMAGE} or <start_of_image> or {AUDIO}<end_of_turn>?" in TOKENIZER.decode(ids)


def test_one_sound_for_a_turn_and_several_as_examples(ours) -> None:
    with pytest.raises(ValueError, match="two sounds side by side"):
        ours.apply_chat_template([user(audio(CLIPS[0]), audio(CLIPS[1]), "Which?")], **ASK)
    shown = [user(audio(CLIPS[0])), {"role": "assistant", "content": "bell"}, user(audio(CLIPS[1]))]
    assert ours.apply_chat_template(shown, **ASK)["input_features"].shape[0] == 2
    inside = [user(audio(CLIPS[0]), "is a bell. And", audio(CLIPS[1]), "?")]
    assert ours.apply_chat_template(inside, **ASK)["input_features"].shape[0] == 2


def test_lengths_of_the_text_do_not_cut_the_sound(ours) -> None:
    call = {"text": AUDIO, "audio": CLIPS[1], "return_tensors": "pt"}
    plain = ours(**call)["input_features"]
    assert torch.equal(ours(**call, padding="max_length", max_length=64, truncation=True)["input_features"], plain)
    assert ours(**call, audio_kwargs={"max_length": 4000, "truncation": True})["input_features"].shape[1] < 30


BAD: dict[str, tuple[dict, str]] = {
    "mark without picture": ({"text": IMAGE}, r"1 <image_soft_token> mark\(s\) but 0 picture"),
    "more marks": ({"text": IMAGE * 3, "images": PICTURES[0]}, r"3 <image_soft_token> mark\(s\) but 1 picture"),
    "fewer marks": ({"text": "x", "images": PICTURES[0]}, r"0 <image_soft_token> mark\(s\) but 1 picture"),
    "wrong row": ({"text": [IMAGE, IMAGE], "images": [PICTURES[:2], []]}, r"text 1 of 2: 1 .* but 2 picture"),
    "mark without sound": ({"text": AUDIO}, r"1 <audio_soft_token> mark\(s\) but 0 sound"),
    "fewer sounds": ({"text": AUDIO + "x" + AUDIO, "audio": CLIPS[0]}, r"2 <audio_soft_token> .* but 1 sound"),
    "sounds only": ({"text": "x", "audio": CLIPS[:2]}, r"0 <audio_soft_token> .* but 2 sound"),
    "nothing": ({}, "got nothing"),
    "number as text": ({"text": 3}, "not int"),
    "tokens as text": ({"text": [["a"]]}, "holds list"),
    "video": ({"text": "x", "videos": [PICTURES]}, "no videos"),
    "cut slots": ({"text": IMAGE, "images": PICTURES[0], "max_length": 4, "truncation": True}, "image"),
    "no pixels": ({"text": IMAGE, "images": PIL.Image.new("RGB", (0, 4))}, "0 x 4 pixels"),
    "no rows": ({"text": IMAGE, "images": np.zeros((0, 4, 3), np.uint8)}, "4 x 0 pixels"),
    "huge picture": ({"text": IMAGE, "images": PIL.Image.new("1", (9000, 9000))}, "81,000,000 pixels"),
    "huge file": ({"text": IMAGE, "images": "huge.png"}, r"huge\.png.*81,000,000 pixels"),
    "no picture file": ({"text": IMAGE, "images": "not.wav"}, r"not\.wav: not a picture"),
    "missing picture": ({"text": IMAGE, "images": "nowhere.png"}, r"nowhere\.png"),
    "odd picture": ({"text": IMAGE, "images": 7}, "a picture is a int"),
    "wrong rate": ({"text": AUDIO, "audio": CLIPS[0], "sampling_rate": 8000}, "8000.*16000"),
    "wrong rate inside": ({"text": AUDIO, "audio": {"array": CLIPS[0], "sampling_rate": 44_100}}, "44100.*16000"),
    "empty clip": ({"text": AUDIO, "audio": np.zeros(0, np.float32)}, "empty"),
    "empty file": ({"text": AUDIO, "audio": "empty.wav"}, r"empty\.wav is empty"),
    "long clip": ({"text": AUDIO, "audio": np.zeros(16_000 * 31, np.float32)}, r"31\.00 s.*at most 30\.00 s"),
    "long file": ({"text": AUDIO, "audio": "long.wav"}, r"long\.wav lasts 31\.00 s"),
    "no sound file": ({"text": AUDIO, "audio": "not.wav"}, r"not\.wav: not a sound"),
    "missing sound": ({"text": AUDIO, "audio": "nowhere.wav"}, r"nowhere\.wav: no such sound file"),
    "not a number": ({"text": AUDIO, "audio": [[0.0, float("nan")]]}, "not a finite number"),
    "stereo": ({"text": AUDIO, "audio": [np.zeros((2, 9000), np.float32)]}, "mono"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_quickly_and_says_why(ours, files, name) -> None:
    call, told = BAD[name]
    call = {key: files.get(value, value) if isinstance(value, str) else value for key, value in call.items()}
    start = time.process_time()
    with pytest.raises(ValueError, match=told):
        ours(**call)
    assert time.process_time() - start < 1.0


def test_values_of_the_tokenizer_and_of_a_call_reach_the_right_part(ours, tmp_path) -> None:
    ours.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, max_length=60, padding="max_length")
    made = Minigpt4oProcessor(ours.feature_extractor, ours.image_processor, tokenizer, **SLOTS)
    call = {"text": f"{IMAGE} {AUDIO}", "images": PICTURES[0], "audio": CLIPS[0], "return_tensors": "pt"}
    got = made(**call)
    assert got["input_ids"].shape == (1, 60)
    assert torch.equal(got["input_features"], ours(**call)["input_features"])
    assert made(**call, max_length=70, padding="max_length")["input_ids"].shape == (1, 70)
    assert made(**call, do_rescale=True, rescale_factor=-1.0)["pixel_values"].mean() < 0
    nested = {"images_kwargs": {"rescale_factor": -1.0}, "text_kwargs": {"padding": "max_length", "max_length": 80}}
    got = made(**call, **nested)
    assert got["input_ids"].shape == (1, 80) and got["pixel_values"].mean() < 0
    with pytest.raises(ValueError, match="two times"):
        made(**call, images_kwargs={"do_rescale": True}, do_rescale=True)


def test_a_long_clip_is_cut_on_request(ours, files) -> None:
    got = ours(text=AUDIO, audio=files["long.wav"], audio_kwargs={"truncation": True}, return_tensors="pt")
    assert got["input_features"].shape[1] == 2997


def test_a_picture_limit_is_a_value_of_the_processor(ours) -> None:
    small = Minigpt4oImageProcessor(size=SIDE, max_pixels=100)
    with pytest.raises(ValueError, match="at most 100"):
        small(PICTURES[0])
    assert small(PICTURES[0], max_pixels=10_000)["pixel_values"][0].shape == (3, 48, 48)


@pytest.mark.parametrize("name", ["a.png", "b.jpeg"])
def test_a_picture_file_has_the_pixels_of_gemma3n(ours, oracle, files, name) -> None:
    got, want = (part.image_processor(files[name], return_tensors="pt") for part in (ours, oracle))
    assert torch.equal(got["pixel_values"], want["pixel_values"])


def test_pictures_of_all_kinds_of_colour(ours) -> None:
    alpha = io.BytesIO()
    PIL.Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(alpha, "png")
    kinds = [PIL.Image.new(mode, (8, 9)) for mode in ("L", "1", "P", "CMYK", "I;16")]
    kinds += [PIL.Image.open(alpha), np.zeros((5, 6), np.uint8), torch.zeros(3, 5, 6, dtype=torch.uint8)]
    for picture in kinds:
        assert ours(text=IMAGE, images=picture, return_tensors="pt")["pixel_values"].shape == (1, 3, 48, 48)


def test_a_tokenizer_without_media_tokens_is_refused() -> None:
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=TOKENIZER.backend_tokenizer)
    with pytest.raises(ValueError, match=r"image_token, boi_token.*tokenizer --for minigpt4o"):
        Minigpt4oProcessor(Minigpt4oAudioFeatureExtractor(), Minigpt4oImageProcessor(), plain)
