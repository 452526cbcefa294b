"""Claims about what harnesses send: media stand where they were meant, words stay words, tasks' wishes are kept."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from PIL import Image

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.marks import unescape_marks
from minigpt4o.serve.harness.answering import decoding_of_task
from minigpt4o.serve.harness.requests import medium_part, parts_of_context, sample_of, sound_media

RED, BLUE = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (4, 4), "blue")
TONE = {"array": np.linspace(-0.5, 0.5, 1600), "sampling_rate": 16000, "path": "not-there.wav"}


def asked(parts, separator=""):
    return sample_of("task/0", [("user", parts)], separator)


def test_media_come_before_words_that_do_not_say_where():
    sample = asked(parts_of_context("what is it?", [("image", RED), ("audio", TONE)]))
    assert sample.turns[0].text == "<image><audio>what is it?"
    assert (len(sample.images), len(sample.audios)) == (1, 1)


def test_media_stand_where_the_words_say_if_the_numbers_agree():
    sample = asked(parts_of_context("first <image> then <image>?", [("image", RED), ("image", BLUE)]))
    assert sample.turns[0].text == "first <image> then <image>?"
    assert [Image.open(io.BytesIO(media.data)).size for media in sample.images] == [(8, 6), (4, 4)]


def test_marks_that_do_not_fit_the_media_are_words(caplog):
    sample = asked(parts_of_context("look: <image> <image>", [("image", RED)], "task/0"))
    assert sample.turns[0].text.count("<image>") == 1, "the one picture stands before the words"
    assert unescape_marks(sample.turns[0].text) == "<image>look: <image> <image>"
    assert "task/0" in caplog.text
    alone = asked(parts_of_context("what does <image> mean?", []))
    assert "<image>" not in alone.turns[0].text
    assert unescape_marks(alone.turns[0].text) == "what does <image> mean?"


def test_the_separator_stands_between_media_and_words_only():
    parts = [("image", RED), ("text", "a"), ("text", "b"), ("image", BLUE), ("text", ""), ("text", "c")]
    assert asked(parts, "\n\n").turns[0].text == "<image>\n\na\nb<image>\n\nc"


def test_a_decoded_sound_is_a_sound_whatever_the_harness_calls_it():
    assert medium_part(TONE, "video")[0] == "audio"
    wave, rate = soundfile.read(io.BytesIO(sound_media(TONE).data))
    assert rate == 16000
    assert np.abs(wave - TONE["array"]).max() < 1e-7, "nothing is lost on the way"


def test_a_stereo_decoder_of_datasets_is_a_sound():
    decoder = SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=np.zeros((2, 800)), sample_rate=8000))
    assert medium_part(decoder)[0] == "audio"
    assert soundfile.info(io.BytesIO(sound_media(decoder).data)).channels == 2


@pytest.mark.parametrize(
    ("value", "kind"),
    [(RED, "image"), ("a/b.JPG", "image"), ("a.flac", "audio"), ({"path": "x.mp3", "bytes": b""}, "audio")],
)
def test_the_kind_of_a_medium_is_read_from_itself(value, kind):
    assert medium_part(value)[0] == kind


@pytest.mark.parametrize("film", ["clip.mp4", {"type": "video", "url": "clip.mp4"}, object()])
def test_films_are_refused_with_a_mend(film):
    with pytest.raises(DataError, match="Films are not supported"):
        medium_part(film)


def test_a_file_that_is_not_there_is_named_with_its_sample():
    with pytest.raises(DataError, match=r"task/0: .*nowhere\.wav"):
        asked([("audio", "nowhere.wav")])


def test_answers_are_greedy_unless_the_task_draws():
    plain = Decoding(max_new_tokens=99)
    for given in ({}, {"temperature": 0, "do_sample": True, "top_p": 0.0}, {"temperature": 0.7, "do_sample": False}):
        assert decoding_of_task(given, plain)[0] == plain
    drawn = decoding_of_task({"temperature": 0.7, "top_p": None, "max_new_tokens": "5", "num_beams": 1}, plain)[0]
    assert drawn == Decoding(max_new_tokens=5, do_sample=True, temperature=0.7)


def test_the_tasks_limits_and_stops_are_taken():
    decoding, until = decoding_of_task({"max_gen_toks": 7, "until": "\n\n", "repetition_penalty": 1.1}, Decoding())
    assert (decoding.max_new_tokens, decoding.repetition_penalty, until) == (7, 1.1, ("\n\n",))
    assert decoding_of_task({"until": ["a", "", "b"]}, Decoding())[1] == ("a", "b")


def test_wishes_without_meaning_are_named_once(caplog):
    for _ in range(2):
        decoding_of_task({"image_aspect_ratio_of_test": "pad"}, Decoding())
    assert caplog.text.count("image_aspect_ratio_of_test") == 1


def test_a_wish_that_cannot_be_is_refused_in_words():
    with pytest.raises(ConfigError, match=r"generation_kwargs .*many"):
        decoding_of_task({"max_new_tokens": "many"}, Decoding())
