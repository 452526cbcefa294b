"""What is left out of long recordings reaches the data report with any number of workers, and survives a resume."""

import io
import random
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from transformers import AutoTokenizer

from minigpt4o.common.errors import SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.sample import Media
from minigpt4o.conversation.template import load_template
from minigpt4o.datasets.bad import BadSamples, merged, report_of
from minigpt4o.datasets.loader import TrainLoader
from minigpt4o.models.llms.tokenizer import train_tokenizer

LONG, SHORT, WINDOW = 1.5, 0.4, 0.5  # seconds


@pytest.fixture
def folder(tmp_path):
    """A shard of four sounds, two of them longer than the window."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, seconds in enumerate((LONG, SHORT, LONG, SHORT)):
            file = io.BytesIO()
            soundfile.write(file, 0.1 * np.sin(np.arange(round(seconds * 8000)) / 5), 8000, format="WAV")
            for name, data in (("wav", file.getvalue()), ("txt", b"a tone")):
                member = tarfile.TarInfo(f"{number}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    (tmp_path / "words.txt").write_text("a tone and what is heard")
    train_tokenizer([tmp_path / "words.txt"], tmp_path / "tokenizer", 300)
    return tmp_path


def loader(folder, workers=0):
    values = {"annotations": {"train": str(folder / "a.tar")}, "fields": {"audio": "wav", "text": "txt"}}
    builder = registry.build(Part("builder", "shards", values), name="tones", split="train")
    sound = registry.build(Part("processor", "log_mel", {"seconds": WINDOW, "n_mels": 8}))
    words = AutoTokenizer.from_pretrained(folder / "tokenizer")
    encoder = SampleEncoder(words, load_template("plain"), {"audio": 2}, {"audio": sound})
    return TrainLoader(
        {"tones": builder}, {"tones": 1.0}, {"tones": encoder}, seed=0, batch_size=4, num_workers=workers
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_the_seconds_left_out_are_in_the_report(folder, workers):
    data = loader(folder, workers)
    batches = iter(data)
    batch = next(batches)
    assert batch.facts == {"tones": {"audio_cut_clips": 2, "audio_cut_seconds": pytest.approx(2 * (LONG - WINDOW))}}
    next(batches)
    data.close()
    told = data.bad.report()["datasets"]["tones"]
    assert (told["audio_cut_clips"], told["audio_cut_seconds"]) == (4, pytest.approx(4.0))
    assert (told["good"], told["bad"]) == (8, 0)
    again = BadSamples(0.01)
    again.load_state(data.bad.state())
    assert again.report() == data.bad.report()
    both = report_of(merged([data.bad.state(), again.state()]), 0.1)["datasets"]["tones"]
    assert both["audio_cut_seconds"] == pytest.approx(8.0)


def test_what_was_left_out_of_a_sample_that_is_given_up_counts_for_no_other(folder):
    """Its first sound is long and is cut, its second cannot be read."""
    values = {"annotations": {"train": str(folder / "a.tar")}, "fields": {"audio": "wav", "text": "txt"}}
    builder = registry.build(Part("builder", "shards", values), name="tones", split="train")
    sound = registry.build(Part("processor", "log_mel", {"seconds": WINDOW, "n_mels": 8}))
    words = AutoTokenizer.from_pretrained(folder / "tokenizer")
    encoder = SampleEncoder(words, load_template("plain"), {"audio": 2}, {"audio": sound})
    long, short = (builder.sample(index, random.Random(0)) for index in (0, 1))
    asked, answered = long.turns
    spoiled = replace(
        long, turns=[replace(asked, text=2 * asked.text), answered], audios=[*long.audios, Media(data=b"RIFF")]
    )
    with pytest.raises(SkipSample, match="unreadable_audio"):
        encoder.example(spoiled, random.Random(0))
    assert encoder.example(short, random.Random(0)).facts == {}
