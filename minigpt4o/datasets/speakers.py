"""Who speaks in one turn of a dialogue, and what: the same in training data, in files to convert and to answer."""

from __future__ import annotations

from typing import Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.sample import Role

# LLaVA's and ShareGPT's names, OpenAI's, and those of other chat files.
ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
}


def spoken(said: Any, where: str) -> tuple[Role, Any]:
    """The role and the content (a text or a list of parts, not looked at here) of `{from, value}` or
    `{role, content}`. Raises SkipSample for what is no turn."""
    if not isinstance(said, dict):
        raise SkipSample("bad_json", f"{where}: a turn is a {type(said).__name__}, not an object")
    name = str(said.get("from", said.get("role", "")))
    if name not in ROLES:
        raise SkipSample("bad_json", f"{where}: unknown speaker {name!r}; known: {', '.join(ROLES)}")
    return ROLES[name], said.get("value", said.get("content"))
