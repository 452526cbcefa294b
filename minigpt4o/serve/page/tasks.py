"""Task shortcuts: words that MiniGPT-v2's tasks begin with, or plain ones for models that know no task words."""

from __future__ import annotations

from collections.abc import Mapping

TASKS = ("caption", "vqa", "refer", "grounding", "detection", "identify")
# As MiniGPT-v2's demo puts them into the message; a drawn box follows [identify].
_TAGGED = {
    "caption": "[caption] Briefly describe this image.",
    "vqa": "[vqa] ",
    "refer": "[refer] ",
    "grounding": "[grounding] describe this image in detail",
    "detection": "[detection] ",
    "identify": "[identify] what is this ",
}
_PLAIN = {
    "en": {
        "caption": "Describe the picture.",
        "vqa": "",
        "refer": "Give the box of ",
        "grounding": "Describe the picture in detail.",
        "detection": "Find all of these: ",
        "identify": "What is this? ",
    },
    "ja": {
        "caption": "画像を説明してください。",
        "vqa": "",
        "refer": "次の物の位置を教えてください: ",
        "grounding": "画像を詳しく説明してください。",
        "detection": "次の物をすべて見つけてください: ",
        "identify": "これは何ですか? ",
    },
}


def prompts_of(given: Mapping[str, str], template: str, language: str) -> dict[str, str]:
    """Task -> words that its shortcut puts into the message. `given` (run.tasks) stands above all else."""
    if given:
        return {task: given[task] for task in TASKS if task in given}
    return _TAGGED if template == "minigpt_v2" else _PLAIN[language]


def with_task(text: str, prompt: str, prompts: Mapping[str, str]) -> str:
    """A message begun anew for a task: words that a shortcut had put there give way, others stay behind it."""
    rest = text
    for known in sorted(filter(None, prompts.values()), key=len, reverse=True):
        if rest.startswith(known.rstrip()):
            rest = rest[len(known.rstrip()) :].lstrip()
            break
    return prompt + rest
