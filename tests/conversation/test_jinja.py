"""Claims about chat templates in Jinja: they write what our own templates write, for every template that is shipped."""

import pytest

from minigpt4o.conversation.jinja import SLOT, jinja_of
from minigpt4o.conversation.marks import split_at_marks
from minigpt4o.conversation.sample import MARKS, Turn
from minigpt4o.conversation.template import load_template, template_names

KINDS = {mark: kind for kind, mark in MARKS.items()}
TALKS = [
    [("user", "<image>what is it?")],
    [("user", "<image><audio>what are they?"), ("assistant", "a dog"), ("user", "again")],
    [("system", "Be brief."), ("user", "hello"), ("assistant", "hi"), ("user", "a <image> and <image>?")],
    [("user", "{{ 7 * 7 }} {% if x %}\"'\\n<p>"), ("assistant", "ユーザー"), ("user", "")],
    [("user", "one"), ("user", "two"), ("assistant", "three"), ("assistant", "four")],
]


def rendered(text: str, talk, **values) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [{"role": role, "content": parts(words)} for role, words in talk]
    found, _ = render_jinja_template(conversations=[messages], chat_template=text, bos_token="<s>", **values)
    return found[0]


def parts(words: str) -> list[dict[str, str]]:
    return [{"type": KINDS[p]} if p in KINDS else {"type": "text", "text": p} for p in split_at_marks(words)]


def written(template, talk, open_answer: bool) -> str:
    serving = template.serving
    text = "<s>" if serving.bos else ""
    for segment in serving.render([Turn(role, words) for role, words in talk], open_answer=open_answer):
        text += SLOT[segment.kind] * 2 if segment.kind in SLOT else segment.text + segment.end
    return text


@pytest.mark.parametrize("name", template_names())
@pytest.mark.parametrize("profile", ["default", "compat"])
def test_the_jinja_text_writes_what_the_template_writes(name, profile) -> None:
    template = load_template(name, profile)
    text = jinja_of(template, {"image": 2, "audio": 2})
    for talk in TALKS:
        for open_answer in (False, True):
            if open_answer and talk[-1][0] == "assistant":
                continue
            assert rendered(text, talk, add_generation_prompt=open_answer) == written(template, talk, open_answer)


def test_a_separator_stands_between_media_and_words_only() -> None:
    text = jinja_of(load_template("toy"), {"image": 1}, separator="\n")
    assert "</Img>\nwhat?" in rendered(text, [("user", "<image>what?")])
    assert "\n" not in rendered(text, [("user", "what?<image>")])
    assert rendered(text, [("user", "a <image>b<image> c")]).count("\n") == 2


def test_a_plain_string_and_an_unknown_part_or_role() -> None:
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    text = jinja_of(load_template("toy"), {"image": 1})
    assert rendered(text, []) == "<s>"
    for message in ({"role": "tool", "content": "x"}, {"role": "user", "content": [{"type": "audio"}]}):
        with pytest.raises(TemplateError, match="known: "):
            render_jinja_template(conversations=[[message]], chat_template=text, bos_token="")


def test_what_the_assistant_says_is_marked() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "red"}]
    found, spans = render_jinja_template(
        conversations=[talk],
        chat_template=jinja_of(load_template("toy"), {}),
        bos_token="<s>",
        return_assistant_tokens_mask=True,
    )
    (start, end) = spans[0][0]
    assert found[0][start:end] == " red</s>"
