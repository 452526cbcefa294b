"""A template's file says what its conversations look like, in both profiles, and refuses what it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.sample import Turn
from minigpt4o.conversation.template import TEMPLATES, Template, load_template, template_names

TREES = {name: yaml.safe_load((TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8")) for name in template_names()}
CASES = [
    (name, number, form)
    for name, tree in TREES.items()
    for number, example in enumerate(tree["examples"])
    for form in ("text", "prompt", "compat_train", "compat_serve")
    if form in example
]
DIALOGUE = [Turn("user", "<image>q1"), Turn("assistant", "a1"), Turn("user", "q2")]


def rendered(template: Template, turns: list[Turn], open_answer: bool = False) -> str:
    marks = {"image": "[IMAGE]", "audio": "[AUDIO]"}
    segments = template.render(turns, open_answer=open_answer)
    return ("<s>" if template.bos else "") + "".join(marks.get(s.kind, s.text + s.end) for s in segments)


@pytest.mark.parametrize(("name", "number", "form"), CASES)
def test_the_examples_a_template_gives_are_what_it_renders(name: str, number: int, form: str) -> None:
    example = TREES[name]["examples"][number]
    template = load_template(name, "compat" if form.startswith("compat") else "default")
    turns = [Turn(**turn) for turn in example["turns"]]
    asked = turns[:-1] if turns[-1].role == "assistant" else turns
    if form in ("text", "compat_train"):
        assert rendered(template, turns) == example[form]
    else:
        assert rendered(template.serving, asked, open_answer=True) == example[form]


@pytest.mark.parametrize("name", template_names())
def test_every_template_shows_one_turn_and_more(name: str) -> None:
    lengths = [len(example["turns"]) for example in TREES[name]["examples"]]
    assert min(lengths) <= 3 and max(lengths) >= 3 and len(lengths) >= 2


@pytest.mark.parametrize("name", template_names())
def test_in_the_default_profile_serving_is_training(name: str) -> None:
    template = load_template(name)
    assert template.serving is template and not (template.joined or template.forgets or template.answer)


def test_what_begins_a_later_question_stands_only_where_an_answer_ended() -> None:
    vicuna = load_template("vicuna_v0")
    turns = [Turn("user", "q1"), Turn("user", "q2"), Turn("assistant", "a"), Turn("user", "q3")]
    assert rendered(vicuna, turns) == "<s>###Human: q1 ###Human: q2 ###Assistant: a###Human: q3 "
    assert "######" not in rendered(vicuna, turns)


def test_a_system_turn_takes_the_place_of_the_template_s_own() -> None:
    serving = load_template("vicuna_v0", "compat").serving
    text = rendered(serving, [Turn("system", "Be kind."), Turn("user", "q")], open_answer=True)
    assert text == "<s>Be kind.###Human: q###Assistant: "


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("###Human: {} ###Assistant: ", "###"), "vicuna_v0"),
        (("[INST] {} [/INST] ", "</s>"), "llama2"),
        (("[INST] {} [/INST]", "</s>"), "minigpt_v2"),
        (("", "\n"), "caption"),
        (("{}", "\n"), "caption"),
    ],
)
@pytest.mark.parametrize("profile", ["default", "compat"])
def test_the_reference_s_words_name_a_known_template(words: tuple[str, str], name: str, profile: str) -> None:
    assert load_template("plain", profile, *words) == load_template(name, profile)  # type: ignore[arg-type]


def test_words_of_a_user_replace_those_of_the_template() -> None:
    template = load_template("vicuna_v0", "default", "Q: {} A: ", "!")
    assert rendered(template, DIALOGUE, open_answer=True) == "<s>Q: <Img>[IMAGE]</Img> q1 A: a1!Q: q2 A: "
    assert template.stop == ("!",)
    compat = load_template("vicuna_v0", "compat", "Q: {} A: ", "!")
    assert rendered(compat, DIALOGUE, open_answer=True) == "<s>Q: <Img>[IMAGE]</Img> q1 A: a1!<s>Q: q2 A: "
    assert compat.serving == load_template("vicuna_v0", "compat").serving  # the demos have words of their own


def test_an_end_symbol_that_begins_the_question_is_not_said_twice() -> None:
    template = load_template("toy", "default", "##Q: {} A: ", "##")
    assert rendered(template, DIALOGUE) == "<s>##Q: <Img>[IMAGE]</Img>q1 A:  a1##Q: q2 A: "  # toy leads an answer


def test_an_end_symbol_alone_leaves_the_other_words() -> None:
    template = load_template("vicuna_v0", "default", "", "</s>")
    assert template.roles["assistant"].after == "</s>" and template.roles["user"].before == "###Human: "


@pytest.mark.parametrize("words", ["no place", "{} and {}"])
def test_a_prompt_template_has_one_place_for_the_words(words: str) -> None:
    with pytest.raises(ConfigError, match=r"must hold \{\} once"):
        load_template("toy", "default", words)


def test_an_unknown_template_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="vicuna_v0"):
        load_template("vicuna0")
    with pytest.raises(ConfigError, match="unknown profile 'exact'"):
        load_template("toy", "exact")  # type: ignore[arg-type]


GOOD = {"roles": {"user": {"before": "Q:"}, "assistant": {"before": "A:", "after": "."}}}


def test_a_user_s_own_file_is_a_template(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**GOOD, "compat": {"serve": {"joined": True, "answer": "chat"}}}))
    template = load_template(str(file), "compat")
    assert template.name == "mine" and template.serving.joined and not template.joined
    assert rendered(template, DIALOGUE) == "<s>Q:[IMAGE]q1A:a1.Q:q2"


BAD = [
    ({"role": GOOD["roles"]}, r"unknown key `role`; did you mean 'roles'"),
    ({"roles": {"user": {"befor": "x"}, "assistant": {}}}, r"unknown key `roles.user.befor`; did you mean 'before'"),
    ({"roles": {"user": {}}}, "lacks assistant"),
    ({"roles": {"user": {"before": 3}, "assistant": {}}}, r"`roles.user.before` is 3, but must be a text"),
    ({**GOOD, "joined": True}, "unknown key `joined`"),  # only serving may differ so
    ({**GOOD, "compat": {"train": {"joined": True}}}, "unknown key `compat.train.joined`"),
    ({**GOOD, "compat": {"serving": {}}}, "did you mean 'serve'"),
    ({**GOOD, "media": {"video": {}}}, "unknown key `media.video`"),
    ({**GOOD, "stop": [""]}, "texts that are not empty"),
    ({**GOOD, "compat": {"serve": {"answer": "chatty"}}}, "must be one of , batch, chat"),
    ([1], "a template is a mapping"),
]


@pytest.mark.parametrize(("tree", "said"), BAD)
def test_what_a_template_file_may_not_say_is_named(tmp_path: Path, tree: object, said: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=said):
        load_template(str(file), "compat")
