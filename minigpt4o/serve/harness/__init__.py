"""Models of ours behind other people's evaluation harnesses; here what lmms-eval's entry point loads."""

from __future__ import annotations

from typing import Any


def lmms_eval_models() -> list[Any]:
    """Our entries in lmms-eval's model registry (entry point group `lmms_eval.models`).

    `minigpt4o` takes every kind of request. `minigpt4o_chat` takes the tasks' messages, in which pictures may stand
    between words and earlier turns may be given, but no likelihoods: lmms-eval asks those of simple models only.
    """
    from lmms_eval.models.registry_v2 import ModelManifest

    home = f"{__name__}.lmms_eval"
    return [
        ModelManifest("minigpt4o", simple_class_path=f"{home}.Minigpt4o"),
        ModelManifest("minigpt4o_chat", chat_class_path=f"{home}.Minigpt4oChat"),
    ]
