"""How a chat is written for Minigpt4o, as a Jinja template of transformers."""

from __future__ import annotations

# <bos>, then each turn as <start_of_turn>user|model, its content, <end_of_turn>. Instructions of the system stand in
# front of the first turn of the user. The marks around what the model says serve `return_assistant_tokens_mask`.
CHAT_TEMPLATE = """\
{%- macro write(content) -%}
    {%- if content is string -%}
        {{- content | trim -}}
    {%- else -%}
        {%- for block in content -%}
            {%- if block.type == 'text' -%}
                {{- block.text | trim -}}
            {%- elif block.type == 'image' -%}
                {{- '<image_soft_token>' -}}
            {%- elif block.type == 'audio' -%}
                {{- '<audio_soft_token>' -}}
            {%- else -%}
                {{- raise_exception("a content block is of type '" ~ block.type ~ "'; known: text, image, audio") -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- set told = namespace(system='') -%}
{%- for message in messages -%}
    {%- if message.role == 'system' -%}
        {%- if not loop.first -%}
            {{- raise_exception("message " ~ loop.index ~ " is of role 'system'; only the first may be") -}}
        {%- endif -%}
        {%- set told.system = write(message.content) ~ '\\n\\n' -%}
    {%- elif message.role in ('assistant', 'model') -%}
        {{- '<start_of_turn>model\\n' ~ told.system -}}
        {%- set told.system = '' -%}
        {%- generation -%}
            {{- write(message.content) ~ '<end_of_turn>' -}}
        {%- endgeneration -%}
        {{- '\\n' -}}
    {%- elif message.role == 'user' -%}
        {{- '<start_of_turn>user\\n' ~ told.system ~ write(message.content) ~ '<end_of_turn>\\n' -}}
        {%- set told.system = '' -%}
    {%- else -%}
        {{- raise_exception("a message is of role '" ~ message.role ~ "'; known: system, user, assistant") -}}
    {%- endif -%}
{%- endfor -%}
{%- if told.system -%}
    {{- '<start_of_turn>user\\n' ~ told.system ~ '<end_of_turn>\\n' -}}
{%- endif -%}
{%- if add_generation_prompt -%}
    {{- '<start_of_turn>model\\n' -}}
{%- endif -%}
"""
