"""A conversation template as a Jinja chat template: what other programs need to write the same prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping

from minigpt4o.conversation.template import Around, Template

SLOT = {"image": "<image>", "audio": "<audio>"}  # what stands for one feature of a medium in the text

_CONTENT = """\
{%- macro write(content, separator) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- set seen = namespace(medium=false) -%}
        {%- for part in content -%}
            {%- if part.type == 'text' -%}
                {{- (separator if seen.medium and part.text else '') ~ part.text -}}
                {%- set seen.medium = false -%}
"""
_MEDIUM = """\
            {%- elif part.type == {kind} -%}
                {{- {text} -}}
                {%- set seen.medium = true -%}
"""
_CONTENT_END = """\
            {%- else -%}
                {{- raise_exception('a part of a message is of type ' ~ part.type ~ '; known: {known}') -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
"""
_LOOP = """\
{%- for message in messages -%}
    {%- set role = {'human': 'user', 'gpt': 'assistant', 'model': 'assistant'}.get(message.role, message.role) -%}
"""
_LOOP_END = """\
    {%- else -%}
        {{- raise_exception('a message is of role ' ~ message.role ~ '; known: system, user, assistant') -}}
    {%- endif -%}
    {%- set state.last = role -%}
{%- endfor -%}
"""


def jinja_of(template: Template, slots: Mapping[str, int], separator: str = "") -> str:
    """The Jinja text that renders OpenAI-like messages as `template` renders turns for generation.

    `slots`: media kind -> how often its mark (`SLOT`) is written for one picture or sound. `separator` stands between
    the media of a message and its words. The words of the assistant stand between `{% generation %}` marks.
    """
    serving = template.serving
    lines = [_content(serving, slots)]
    if serving.bos:
        lines.append("{{- bos_token or '' -}}\n")
    lines.append("{%- set state = namespace(last='') -%}\n")
    if serving.system:
        start = _opening(serving.roles["system"], "''")
        said = _text(serving.system + serving.roles["system"].after)
        lines.append(
            "{%- if not messages or messages[0].role != 'system' -%}\n"
            f"    {{{{- {start} ~ {said} -}}}}\n    {{%- set state.last = 'system' -%}}\n{{%- endif -%}}\n"
        )
    lines.append(_LOOP)
    lines += [_turn(serving, role, number) for number, role in enumerate(("system", "user", "assistant"))]
    lines.append(_LOOP_END)
    opened = _opening(serving.roles["assistant"], "state.last")
    lines.append(f"{{%- if add_generation_prompt -%}}\n    {{{{- {opened} -}}}}\n{{%- endif -%}}\n")
    lines = [line.replace("@separator", _text(separator)) for line in lines]
    return "".join(lines)


def _content(template: Template, slots: Mapping[str, int]) -> str:
    text = _CONTENT
    for kind, count in slots.items():
        around = template.media[kind]
        written = f"{_text(around.before)} ~ {_text(SLOT[kind])} * {count} ~ {_text(around.after)}"
        # llama.cpp, servers and OpenAI's clients call the same thing by their own names
        text += _MEDIUM.replace("{kind}", _text(kind)).replace("{text}", written)
    return text + _CONTENT_END.replace("{known}", ", ".join(("text", *slots)))


def _turn(template: Template, role: str, number: int) -> str:
    around = template.roles[role]
    test = "if" if number == 0 else "elif"
    opened = f"        {{{{- {_opening(around, 'state.last')} -}}}}\n"
    words = "write(message.content, @separator)"
    if role == "assistant":
        said = "''" if template.forgets else words
        body = (
            "        {%- generation -%}\n"
            f"            {{{{- {_text(around.lead)} ~ {said} ~ {_text(around.after)} -}}}}\n"
            "        {%- endgeneration -%}\n"
        )
    else:
        body = f"        {{{{- {words} ~ {_text(around.after)} -}}}}\n"
    return f"    {{%- {test} role == '{role}' -%}}\n{opened}{body}"


def _opening(around: Around, last: str) -> str:
    """The expression for what stands before a speaker's words, behind a message of the role `last`."""
    text = _text(around.before)
    if last == "''":
        return text
    if around.behind_system is not None:
        text = f"({_text(around.behind_system)} if {last} == 'system' else {text})"
    if around.again is not None:
        text = f"({_text(around.again)} if {last} == 'assistant' else {text})"
    return text


def _text(words: str) -> str:
    """A Jinja string."""
    return json.dumps(words, ensure_ascii=False)
