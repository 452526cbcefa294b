"""`like: NAME`: a data set told in terms of another; `about` is for people and changes no run."""

import pytest

from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.presets import ENV

PRESETS = {
    "base": """
  base:
    builder: pairs
    annotations: {train: a.json, val: b.json}
    fields: {image: i, text: t}
    task: {name: captioning, max_new_tokens: 5}
    about: {licence: CC0, source: here}
""",
    "other": """
  other:
    like: base
    annotations: {train: c.json}
    about: {source: there}
""",
    "third": "\n  third: {like: other, fields: {text: x}}\n",
    "round": "\n  round: {like: about_round}\n",
    "about_round": "\n  about_round: {like: round}\n",
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    for name, text in PRESETS.items():
        (tmp_path / f"datasets/{name}.yaml").write_text(f"datasets:{text}")
    monkeypatch.setenv(ENV, str(tmp_path))

    def load_text(text, *options):
        (tmp_path / "run.yaml").write_text(f"datasets: {{{text}}}")
        return load_settings(tmp_path / "run.yaml", list(options), needs=())

    return load_text


def test_what_stands_beside_like_takes_the_place_of_that_key_and_the_rest_is_the_others(load):
    other = load("other: {}").datasets["other"]
    assert other.builder.values["annotations"] == {"train": "c.json"}
    assert other.builder.values["fields"] == {"image": "i", "text": "t"}
    assert other.task.values["max_new_tokens"] == 5
    assert other.about == {"licence": "CC0", "source": "there"}


def test_likeness_goes_on_through_several_sets(load):
    third = load("third: {}").datasets["third"]
    assert third.builder.values["fields"] == {"text": "x"}
    assert third.builder.values["annotations"] == {"train": "c.json"}


def test_a_users_own_set_may_be_like_a_known_one_and_options_are_laid_over_it(load):
    settings = load("mine: {like: other, sample_ratio: 3}", "datasets.mine.fields.text=y")
    mine = settings.datasets["mine"]
    assert (mine.sample_ratio, mine.builder.values["fields"]) == (3, {"text": "y"})
    assert "like" not in settings.tree["datasets"]["mine"]


def test_a_preset_laid_under_a_users_node_is_joined_with_it_as_before(load):
    other = load("other: {annotations: {test: d.json}}").datasets["other"]
    assert other.builder.values["annotations"] == {"train": "c.json", "test": "d.json"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mine: {like: bas}", "there is no 'bas'; did you mean 'base'"),
        ("mine: {like: [base]}", "`like` names the preset of a data set"),
        ("round: {}", "circle: round -> about_round -> round"),
        ("base: {about: {license: x}}", "did you mean 'licence'"),
        ("base: {about: {count: [1]}}", "text is wanted here"),
    ],
)
def test_what_is_wrong_is_told_with_its_mend(load, text, said):
    with pytest.raises(ConfigError) as error:
        load(text)
    assert said in str(error.value)


def test_a_word_changed_in_about_changes_no_run(load):
    first, second = load("base: {}"), load("base: {about: {notes: more}}")
    assert second.datasets["base"].about["notes"] == "more"
    assert first.tree == second.tree
    assert not any("about" in key for key in second.sources)
