"""The keys of a `model` node of MiniGPT-4, MiniGPT-v2 and LAVIS, and what they are here."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from minigpt4o.common.dialect import Rewrite, Word
from minigpt4o.common.yaml_places import Node

ARCHS = ("minigpt4", "minigpt_v2")  # whose model nodes may be written in the reference's words
OLD_ARCHS = {"mini_gpt4": "minigpt4", "mini_gpt4_llama_v2": "minigpt4", "minigpt4_v2": "minigpt_v2"}
PAIRS = ("cc_sbu_align", "laion", "cc_sbu")  # data sets that bring no instruction of their own
STAGE2_POOL = "minigpt4_stage2"  # what prompts/alignment.txt holds
QFORMER = {"name": "qformer", "weights": "blip2_pretrained_flant5xxl.pth"}
GROUPED = {"name": "grouped", "group": 4, "drop_cls": True}
IMAGE, BRIDGE, PROJ = "encoders.image", "bridges.image", "bridges.image.proj"


def vit_model(rw: Rewrite, key: str, value: str) -> None:
    """the encoder `eva_vit`, which the presets name"""


def has_qformer(rw: Rewrite, key: str, value: bool) -> None:
    """the bridge `qformer`, or `grouped` (four patches side by side); what the preset has already stays as it is"""
    if value == _qformer(rw):
        return
    if "train" not in rw.node.value:
        others = [name for name in _train(rw) if name not in (BRIDGE, PROJ)]
        rw.put("train", [PROJ if value else BRIDGE, *others], key)
    rw.put(BRIDGE, dict(QFORMER if value else GROUPED), key)
    rw.put("feature_norm_weights", QFORMER["weights"] if value else "", key)


def freeze_vit(rw: Rewrite, key: str, value: bool) -> None:
    """false adds `encoders.image` and the norm behind it to `model.train`"""
    if not value:
        _learn(rw, key, IMAGE, *(["norms.image"] if rw.current("feature_norm") else []))


def freeze_qformer(rw: Rewrite, key: str, value: bool) -> None:
    """false puts the whole of `bridges.image` into `model.train`"""
    if not _qformer(rw):
        rw.note(key, "there is no Q-Former in this model")
    elif not value:
        _learn(rw, key, BRIDGE)


def num_query_token(rw: Rewrite, key: str, value: int) -> None:
    """`model.bridges.image.queries`"""
    if _qformer(rw):
        rw.put("bridges.image.queries", rw.taken[key])
    else:
        rw.note(key, "there is no Q-Former in this model")


def q_former_model(rw: Rewrite, key: str, value: str) -> None:
    """`model.bridges.image.weights`; a URL is not fetched, the file of its name is looked for"""
    if not _qformer(rw):
        rw.note(key, "there is no Q-Former in this model")
    elif value:
        rw.put("bridges.image.weights", rw.taken[key])


def use_grad_checkpoint(rw: Rewrite, key: str, value: bool) -> None:
    """`model.encoders.image.gradient_checkpointing`, if the encoder learns; else it has no effect"""
    if not value:
        return
    if any(_covers(prefix, IMAGE) for prefix in _train(rw)):
        rw.put("encoders.image.gradient_checkpointing", True, key)
    else:
        rw.note(key, "the encoder is frozen, so it saves nothing; model.gradient_checkpointing is for the LLM")


def prompt_path(rw: Rewrite, key: str, value: str) -> None:
    """`datasets.*.prompts` of cc_sbu_align, laion and cc_sbu"""
    if not value:
        return
    if not Path(value).is_file() and PurePosixPath(value).name == "alignment.txt":
        value = STAGE2_POOL
    sets = rw.root.value.get("datasets")
    nodes = sets.value if sets is not None and sets.is_map else {}
    found = [name for name in PAIRS if name in nodes and nodes[name].is_map]
    for name in found:
        nodes[name].value.setdefault("prompts", Node(value, rw.taken[key].place, value, quoted=True))
    if not found:
        rw.note(key, f"prompts belong to data sets here (datasets.*.prompts), and none of {', '.join(PAIRS)} is given")


def low_resource(rw: Rewrite, key: str, value: bool) -> None:
    """`model.llm.quantize: 8bit`"""
    rw.put("llm.quantize", "8bit" if value else "", key)


def chat_template(rw: Rewrite, key: str, value: bool) -> None:
    """true: as the template says; false: `model.prompt_template: "{}"`, a user's words alone"""
    if value:
        return
    if "prompt_template" in rw.node.value:
        rw.note(key, "prompt_template stands beside it and is used, in training and in chats alike")
    else:
        rw.put("prompt_template", "{}", key)


def llama_model(rw: Rewrite, key: str, value: str | None) -> None:
    """`model.llm.path`"""
    if value:
        rw.put("llm.path", rw.taken[key])


def ckpt(rw: Rewrite, key: str, value: str | None) -> None:
    """the same here; empty or null: none"""
    if value:
        rw.put("ckpt", rw.taken[key])


def finetuned(rw: Rewrite, key: str, value: str | None) -> None:
    """`model.ckpt`, `finetuned` before `pretrained`, unless the load_ flag forbids it"""
    allowed = rw.node.value.get(f"load_{key}")
    if not value:
        return
    if allowed is not None and allowed.value is False:
        rw.note(key, f"load_{key} is false")
    elif "ckpt" in rw.node.value:
        rw.note(key, "another file is named already, and one is loaded")
    else:
        rw.put("ckpt", rw.taken[key])


def load_flag(rw: Rewrite, key: str, value: bool) -> None:
    """whether the file of that name is loaded"""
    if value and key.removeprefix("load_") not in rw.taken:
        rw.note(key, f"{key.removeprefix('load_')} names no file; model.ckpt does that here")


def _qformer(rw: Rewrite) -> bool:
    bridge = rw.current(BRIDGE)
    name = rw.current(f"{BRIDGE}.name")
    return (name if name is not None else bridge) == "qformer"


def _train(rw: Rewrite) -> list[str]:
    train = rw.current("train")
    return list(train) if isinstance(train, list) else ["bridges"]


def _covers(prefix: str, name: str) -> bool:
    return isinstance(prefix, str) and (name == prefix or name.startswith(prefix + "."))


def _learn(rw: Rewrite, key: str, *names: str) -> None:
    """Add to what learns; what lies below a new name goes."""
    train = _train(rw)
    for name in names:
        if not any(_covers(prefix, name) for prefix in train):
            train = [*(prefix for prefix in train if not _covers(name, prefix)), name]
    rw.node.value.pop("train", None)
    rw.put("train", train, key)


# In this order: what chooses a part stands before what speaks of it.
WORDS = {
    "vit_model": Word("Literal['eva_clip_g']", act=vit_model),
    "has_qformer": Word("bool", act=has_qformer),
    "image_size": Word("int", to="encoders.image.image_size"),
    "drop_path_rate": Word("float", to="encoders.image.drop_path"),
    "vit_precision": Word(
        "Literal['fp16', 'fp32', 'bf16']", why="frozen parts take the precision of the model (model.precision)"
    ),
    "freeze_vit": Word("bool", act=freeze_vit),
    "freeze_qformer": Word("bool", act=freeze_qformer),
    "num_query_token": Word("int", act=num_query_token),
    "q_former_model": Word("str | None", act=q_former_model),
    "use_grad_checkpoint": Word("bool", act=use_grad_checkpoint),
    "use_grad_checkpoint_llm": Word("bool", to="gradient_checkpointing"),
    "llama_model": Word("str | None", act=llama_model),
    "low_resource": Word("bool", act=low_resource),
    "device_8bit": Word("int", why="the model lies where run.device says"),
    "prompt": Word("str", why="the reference does not use it either; prompts belong to data sets (datasets.*.prompts)"),
    "prompt_path": Word("str | None", act=prompt_path),
    "chat_template": Word("bool", act=chat_template),
    "ckpt": Word("str | None", act=ckpt, ours=True),
    "finetuned": Word("str | None", act=finetuned),
    "load_finetuned": Word("bool", act=load_flag),
    "pretrained": Word("str | None", act=finetuned),
    "load_pretrained": Word("bool", act=load_flag),
}
