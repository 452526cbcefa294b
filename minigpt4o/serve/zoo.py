"""Names a person may ask for: which preset and which published checkpoint they mean, and what is asked of the model."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.source import nearest

_RELEASES = "https://github.com/Vision-CAIR/MiniGPT-4, section on pretrained checkpoints of its README"
_STAGES = f"{_RELEASES} (after stage 3: checkpoint_stage3.pth)"


@dataclass(frozen=True)
class Asked:
    """A task: the words it sends, by language, and the longest answer. `{}` is the place of a question."""

    words: dict[str, str]
    max_new_tokens: int = 20
    key: str = "pred_answer"  # what the answer is called in a result
    boxes: bool = False  # whether answers hold boxes

    @property
    def takes_question(self) -> bool:
        return any("{}" in text for text in self.words.values())


CAPTION = Asked(
    {"en": "Describe this image in detail.", "ja": "この画像を詳しく説明してください。"}, 300, "pred_caption"
)
QUESTION = Asked({"": "{}"}, 100)
# MiniGPT-v2 was taught one tag per task; the words are those of its instruction pools.
TAGGED = {
    "caption": Asked({"en": "[caption] Briefly describe this image."}, 100, "pred_caption"),
    "vqa": Asked({"en": "[vqa] Based on the image, respond to this question with a short answer: {}"}, 20),
    "refer": Asked({"en": "[refer] give me the location of {}"}, 40, boxes=True),
    "identify": Asked({"en": "[identify] what object is in this location {}"}, 40),
    "detection": Asked({"en": "[detection] {}"}, 300, boxes=True),
    "grounding": Asked({"en": "[grounding] please describe this image in details"}, 300, "pred_caption", boxes=True),
    "chat": QUESTION,
}
# rinna's model card asks its model "What can you see?"; it was taught captions and short answers only.
RINNA = Asked({"ja": "何が見えますか？", "en": "What can you see?"}, 100, "pred_caption")


@dataclass(frozen=True)
class Family:
    """A published model: its preset here, and the names its own checkpoint goes by."""

    stem: str
    arch: str
    model_type: str
    template: str  # the published weights were taught with; the preset may name that of stage 1
    checkpoints: tuple[str, ...]  # the first that is found is taken
    source: str
    tasks: dict[str, Asked] = field(default_factory=lambda: {"caption": CAPTION, "vqa": QUESTION})


@dataclass(frozen=True)
class Known:
    """A name of `list_models()`."""

    name: str
    family: Family
    task: str

    @property
    def asked(self) -> Asked:
        return self.family.tasks[self.task]


FAMILIES = (
    Family(
        "minigpt-4_vicuna-7b",
        "minigpt4",
        "pretrain_vicuna0",
        "vicuna_v0",
        ("prerained_minigpt4_7b.pth", "pretrained_minigpt4_7b.pth"),
        _RELEASES,
    ),
    Family(
        "minigpt-4_vicuna-13b",
        "minigpt4",
        "pretrain_vicuna0_13b",
        "vicuna_v0",
        ("pretrained_minigpt4.pth", "pretrained_minigpt4_13b.pth", "prerained_minigpt4_13b.pth"),
        _RELEASES,
    ),
    Family(
        "minigpt-4_llama2-7b",
        "minigpt4",
        "pretrain_llama2",
        "llama2",
        ("pretrained_minigpt4_llama2_7b.pth", "prerained_minigpt4_llama2_7b.pth"),
        _RELEASES,
    ),
    Family(
        "minigpt-v2_llama2-7b",
        "minigpt_v2",
        "pretrain",
        "minigpt_v2",
        ("minigptv2_checkpoint.pth", "checkpoint_stage3.pth"),
        _STAGES,
        TAGGED,
    ),
    Family(
        "bilingual-gpt-neox-4b-minigpt4",
        "minigpt4",
        "pretrain_neox",
        "rinna_neox",
        ("bilingual-gpt-neox-4b-minigpt4/checkpoint.pth", "bilingual-gpt-neox-4b-minigpt4.pth"),
        "https://huggingface.co/rinna/bilingual-gpt-neox-4b-minigpt4",
        {"caption": RINNA, "vqa": QUESTION},
    ),
)
MODELS = {
    name: Known(name, family, task)
    for family in FAMILIES
    for task in family.tasks
    for name in [f"{family.stem}_{task}"]
}


def list_models(pattern: str | None = None, task: str | None = None) -> list[str]:
    """Names `inference_model` and `get_model` take, sorted; `pattern` is a file name pattern (`*v2*`)."""
    found = sorted(name for name, known in MODELS.items() if task in (None, known.task))
    return found if pattern is None else [n for n in found if fnmatch.fnmatch(n, pattern + "*")]


def known_model(name: str) -> Known:
    """What a name means. Raises ConfigError with the nearest names."""
    if name.lower() in MODELS:
        return MODELS[name.lower()]
    close = nearest(name, list(MODELS))
    mend = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(MODELS)}"
    raise ConfigError(
        f"unknown model {name!r}; {mend} A YAML file, or a run or checkpoint folder of yours, can be named too"
    )


def family_of(arch: str, model_type: str) -> Family | None:
    """The published model behind a preset, if there is one."""
    return next((f for f in FAMILIES if (f.arch, f.model_type) == (arch, model_type)), None)


def tasks_of(template: str) -> dict[str, Asked]:
    """What can be asked of a model that is not of this list, by the template it was taught with."""
    return TAGGED if template == "minigpt_v2" else {"caption": CAPTION, "vqa": QUESTION}
