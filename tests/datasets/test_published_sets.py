"""Every known set is read by its YAML alone from files of the form in which it is published, and rendered."""

import random
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import minigpt4_files as minigpt4
import pytest
import yaml
from published_sets import WRITTEN_BY
from published_truth import EXPECTED
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.conversation.batch import AUDIO_SLOT, IGNORE, IMAGE_SLOT
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.objects import written
from minigpt4o.conversation.template import load_template
from minigpt4o.datasets.known import ABOUT, known_set, known_sets, markdown
from minigpt4o.runners.build import PROCESSOR_FIELDS, build_builders

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "minigpt4o/configs/datasets"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
TARS = dict.fromkeys(("laion", "cc_sbu"), "{00000..00001}")  # of ten thousand
BESIDE = {"same_digit": ["written_digits", "spoken_digits"]}  # sets that take their files from others
SLOTS = {"image": 3, "audio": 2}
SMALL = {"image": {"image_size": 32}, "audio": {"seconds": 0.2}}  # so that each takes milliseconds
FEW_KEYS = 3  # sets that differ in so few keys must be told in terms of each other


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where the files of all families lie; each is written when it is first asked for."""
    return tmp_path_factory.mktemp("published")


@pytest.fixture
def build(root, tmp_path, monkeypatch):
    """(builder, spec) of a set and split by a YAML that only names it."""
    for name in ("MINIGPT4O_DATA", "OWN_DATA"):
        monkeypatch.setenv(name, str(root))
    monkeypatch.setenv("MINIGPT4O_CACHE", str(root / "cache"))
    monkeypatch.chdir(root)

    def build_one(name, split, **values):
        done = root / f".{WRITTEN_BY[name].__name__}"
        if not done.exists():
            WRITTEN_BY[name](root)
            done.touch()
        if name in TARS:
            values["annotations"] = {"train": f"{root}/{name}/{name}_dataset/{TARS[name]}.tar"}
        file = tmp_path / "named.yaml"
        file.write_text(yaml.safe_dump({"datasets": {**{n: {} for n in BESIDE.get(name, ())}, name: values}}))
        settings = load_settings(file, needs=())
        return build_builders(settings, split, [name])[name], settings.datasets[name]

    return build_one


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes as tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate([*alphabet, "<s>", "</s>"])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def processors(spec, use):
    """The set's own processors, on small pictures and short sounds."""
    found = {}
    for kind, field in PROCESSOR_FIELDS.items():
        chosen = getattr(spec, field).get(use)
        if chosen is not None:
            found[kind] = registry.build(replace(chosen, values={**chosen.values, **SMALL[kind]}))
    return found


def said(sample):
    return " | ".join(turn.text for turn in written(sample).turns)


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_read_and_rendered_from_its_published_form(build, tokenizer, name):
    counts, first = EXPECTED[name]
    for split, count in counts.items():
        builder, spec = build(name, split)
        assert len(builder) == count, split
        sample = builder.sample(0, random.Random(0))
        if split == next(iter(counts)):
            assert said(sample) == first
        use = "train" if split == "train" else "eval"
        encoder = SampleEncoder(tokenizer, load_template("plain"), SLOTS, processors(spec, use), 400)
        example = encoder.example(sample, random.Random(0))
        ids = example.input_ids.tolist()
        assert ids.count(IMAGE_SLOT) == 3 * len(example.images) == 3 * len(sample.images)
        assert ids.count(AUDIO_SLOT) == 2 * len(example.audios) == 2 * len(sample.audios)
        learned = tokenizer.decode([i for i in example.labels.tolist() if i != IGNORE])
        answers = [turn.text for turn in written(sample).turns if turn.role == "assistant"]
        assert learned.replace("</s>", "") == "".join(answers)
        if spec.task is not None:
            registry.build(spec.task)


@pytest.mark.parametrize("name", sorted(minigpt4.COMPAT))
def test_in_compat_it_says_what_the_reference_says(build, name):
    asked, answered = minigpt4.COMPAT[name]
    sample = written(build(name, "train", profile="compat")[0].sample(0, random.Random(0)))
    texts = {role: "!@#".join(t.text for t in sample.turns if t.role == role) for role in ("user", "assistant")}
    assert texts["assistant"] == answered
    assert asked is None or texts["user"].replace("<image>", minigpt4.IMG) == asked


def test_every_set_has_files_to_be_tried_on_and_says_where_it_is_from():
    assert set(WRITTEN_BY) == set(NAMES)
    assert set(EXPECTED) == set(NAMES)
    for name, one in known_sets().items():
        assert one.what, f"{name}.yaml: the first line must say what it is: # ..."
        lost = {"licence", "source", "layout", "download"} - set(one.about)
        assert not lost, f"{name}.yaml: `about` does not tell {', '.join(sorted(lost))}"
        assert set(one.about) <= set(ABOUT)


@pytest.mark.parametrize("name", NAMES)
def test_each_split_of_a_set_is_tried(build, name):
    patterns = build(name, next(iter(EXPECTED[name][0])))[1].builder.values.get("annotations")
    wanted = {"train", "val", "test"} if not patterns or "all" in patterns else set(patterns)
    assert set(EXPECTED[name][0]) == wanted


def test_seven_builders_serve_all_sets(capsys):
    builders = Counter(one.builder for one in known_sets().values())
    with capsys.disabled():
        sys.stdout.write(f"\n{len(NAMES)} known sets: {', '.join(f'{n} {name}' for name, n in builders.items())}\n")
    assert len(builders) == 7
    assert {registry.entry("builder", name).names[0] for name in registry.names("builder")} == set(builders)


def test_no_two_files_say_nearly_the_same():
    nodes = {}
    for name in NAMES:
        node = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["datasets"][name]
        if "like" not in node:
            nodes[name] = {key: value for key, value in node.items() if key != "about"}
    for one, other in combinations(sorted(nodes), 2):
        keys = nodes[one].keys() | nodes[other].keys()
        apart = [key for key in keys if nodes[one].get(key) != nodes[other].get(key)]
        alike = nodes[one]["builder"] == nodes[other]["builder"] and len(apart) <= FEW_KEYS
        assert not alike, f"{one} and {other} differ in {apart} alone: write `like: {one}` in {other}.yaml"


def test_sounds_of_one_number_from_two_sources_are_two_sounds(build):
    builder, _ = build("wavcaps", "train")
    found = [builder.sample(i, random.Random(0)) for i in range(len(builder))]
    assert [s.audios[0].name.split("/")[0] for s in found] == [
        "AudioSet_SL_flac",
        "BBC_Sound_Effects_flac",
        "FreeSound",
        "SoundBible_flac",
    ]
    assert {s.answers[0] for s in found if "2219" in s.audios[0].name} == {
        "A traditional ringtone is playing.",
        "An airplane is landing.",
    }


def test_what_several_people_said_of_one_thing_is_one_sample(build):
    questions, _ = build("clotho_aqa", "test")
    assert [questions.sample(i, random.Random(0)).answers for i in range(2)] == [
        ["yes", "no", "yes"],
        ["dog", "dogs", "barking"],
    ]
    assert questions.sample(0, random.Random(0)).meta["confidence"] == ["yes", "yes", "yes"]
    captions, _ = build("audiocaps", "test")
    assert captions.sample(0, random.Random(0)).answers == [f"Rustling occurs {i}" for i in range(5)]
    japanese, _ = build("stair_captions", "val")
    assert (japanese.sample(0, random.Random(0)).language, len(japanese.sample(0, random.Random(0)).answers)) == (
        "ja",
        2,
    )


def test_a_transcript_may_be_taken_in_small_letters(build):
    fields = {"id": "id", "audio": "audio", "text": "lower"}
    builder, _ = build("librispeech", "val", fields=fields)
    assert builder.sample(1, random.Random(0)).answers == ["chapter one missus rachel lynde is surprised"]
    assert builder.sample(1, random.Random(0)).meta["speaker"] == "103"


def test_known_sets_tell_the_users_own_folder(monkeypatch):
    monkeypatch.setenv("MINIGPT4O_DATA", "/big")
    one = known_set("textcaps")
    assert (one.like, one.builder, one.media_root) == ("textcaps_caption", "pairs", "/big/textcaps/train_images")
    assert one.annotations["train"] == "/big/textcaps/TextCaps_0.1_train.json"
    assert one.about == known_set("textcaps_caption").about
    with pytest.raises(ConfigError, match="did you mean 'clotho'"):
        known_set("cloto")


def test_the_page_of_known_sets_is_current():
    page = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    assert page == markdown(known_sets().values()), "python -m minigpt4o.cli data list --markdown > docs/datasets.md"
