"""The keys of a `run` node of MiniGPT-4 and LAVIS, and what they are here."""

from __future__ import annotations

from typing import Any

from minigpt4o.common.dialect import Rewrite, Word
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.common.yaml_places import Node

EVALUATE = "evaluate"
_PRETRAIN = "image_text_pretrain"  # the only task of MiniGPT-4; its evaluations name it too
_RANKED = "answers are ranked where a data set's task has choices and `by: likelihood`; all of them are"
_TORCHRUN = "torchrun says how many processes there are and where they meet"


def evaluate(rw: Rewrite, key: str, value: bool) -> None:
    """true: `run.runner: evaluate`"""
    if value and "runner" not in rw.node.value:
        rw.put("runner", EVALUATE, key)


def runner(rw: Rewrite, key: str, value: str) -> None:
    """the same here; LAVIS's runner_iter is runner_base with run.max_steps"""
    ours = Node("runner_base", rw.taken[key].place, "runner_base", quoted=True)
    rw.node.value["runner"] = ours if value == "runner_iter" else rw.taken[key]


def max_iters(rw: Rewrite, key: str, value: float) -> None:
    """`run.max_steps`, `run.iters_per_epoch` (2e4 is taken as the whole number)"""
    rw.put({"max_iters": "max_steps", "iters_per_inner_epoch": "iters_per_epoch"}[key], int(value), key)


def resume(rw: Rewrite, key: str, value: str | None) -> None:
    """the same here; null: none"""
    if value is not None:
        rw.put("resume_ckpt_path", rw.taken[key])


def test_splits(rw: Rewrite, key: str, value: list[str]) -> None:
    """`run.split` of an evaluation; no effect in a training"""
    if not value:
        return
    if not evaluates(rw):
        rw.note(key, "a training does not test at its end; evaluate the run with eval.py")
        return
    rw.put("split", value[0], key)
    if value[1:]:
        rw.note(key, f"one evaluation asks one split: {value[0]}")


def name(rw: Rewrite, key: str, value: str) -> None:
    """`run.job_name` of an evaluation"""
    _for_evaluation(rw, key, "job_name")


def save_path(rw: Rewrite, key: str, value: str) -> None:
    """`run.output_dir` of an evaluation"""
    _for_evaluation(rw, key, "output_dir")


def ratios(rw: Rewrite, key: str, value: dict[str, float]) -> None:
    """`datasets.*.sample_ratio`"""
    sets = rw.root.value["datasets"]
    for one, ratio in value.items():
        if one in sets.value and sets.value[one].is_map:
            sets.value[one].value.setdefault("sample_ratio", Node(ratio, rw.taken[key].place, str(ratio)))
        else:
            rw.note(key, f"there is no data set {one!r}")


def of_generation(rw: Rewrite, key: str, value: Any) -> None:
    """the task's: max_new_tokens, min_new_tokens, num_beams, length_penalty, repetition_penalty"""
    ours = {"max_len": "max_new_tokens", "min_len": "min_new_tokens"}.get(key, key)
    named = _task_name(rw)
    if named and ours not in _task_fields(named):
        rw.note(key, "the task generates nothing")
    elif evaluates(rw):
        _for_every_set(rw, ours, Node(value, rw.taken[key].place, str(value)))
    elif named:
        rw.put(f"task.{ours}", value, key)
    else:
        rw.note(key, "the task generates nothing")


def _for_every_set(rw: Rewrite, ours: str, value: Node) -> None:
    """A key of every data set's task; what a data set says itself stays, unless this was said on the command line."""
    sets = rw.root.value["datasets"].value
    for name, node in sets.items():
        if node.value is None:
            node = sets[name] = Node({}, node.place)
        if not node.is_map:
            continue
        task = node.value.get("task")
        if task is None or not task.is_map:
            task = Node({} if task is None or task.value is None else {"name": task}, value.place)
            node.value["task"] = task
        there = task.value.get(ours)
        if there is None or (value.place.source == "option") > (there.place.source == "option"):
            task.value[ours] = value


def inference_method(rw: Rewrite, key: str, value: str) -> None:
    """no effect: what is ranked is said by a data set's task (`by: likelihood`), which needs given choices"""
    if value != "generate":
        rw.note(key, _RANKED)


def evaluates(rw: Rewrite) -> bool:
    """Whether the run measures and does not train."""
    chosen = rw.node.value.get("runner")
    return chosen is not None and chosen.value == EVALUATE


def splits(rw: Rewrite) -> None:
    """Who names the splits to learn from and none to look at gets no validation, as in the reference."""
    named = rw.node.value.get("train_splits")
    if named is not None and not evaluates(rw):
        rw.node.value.setdefault("valid_splits", Node([], named.place))


def accumulation(rw: Rewrite, compat: bool) -> None:
    """The reference counts micro-batches where we count optimizer steps."""
    accum = rw.node.value.get("accum_grad_iters")
    if compat or accum is None or not isinstance(accum.value, int) or accum.value < 2:
        return
    for key in ("iters_per_epoch", "warmup_steps"):
        if key in rw.node.value:
            what = f"counts optimizer steps; the reference counted micro-batches, {accum.value} of them in a step"
            rw.note(key, what + " (profile: compat does too)")


def of_evaluation(rw: Rewrite) -> None:
    """An evaluation in the reference's words: its task belongs to the data sets, what is for training goes."""
    if not evaluates(rw):
        return
    task = rw.node.value.pop("task", None)
    if task is not None and isinstance(task.value, str) and task.value != _PRETRAIN:
        for node in _sets(rw):
            there = node.value.get("task")
            if there is None:
                node.value["task"] = task
            elif there.is_map and "name" not in there.value:
                there.value["name"] = task
    ours = {spec.name for spec in registry.entry("runner", EVALUATE).fields}
    training = {spec.name for spec in registry.entry("runner", "runner_base").fields} - ours
    for key in list(rw.node.value):
        if key in training:
            rw.note(key, "it is for training, and this is an evaluation")
            del rw.node.value[key]


def _for_evaluation(rw: Rewrite, key: str, ours: str) -> None:
    if evaluates(rw):
        rw.put(ours, rw.taken[key])
    else:
        rw.note(key, f"it names an evaluation; here it is run.{ours}")


def _sets(rw: Rewrite) -> list[Node]:
    return [node for node in rw.root.value["datasets"].value.values() if node.is_map]


def _task_name(rw: Rewrite) -> str:
    task = rw.node.value.get("task")
    if task is not None and task.is_map:
        task = task.value.get("name")
    return task.value if task is not None and isinstance(task.value, str) else ""


def _task_fields(task: str) -> set[str]:
    try:
        return {spec.name for spec in registry.entry("task", task).fields} if task else set()
    except ConfigError:
        return set()


WORDS = {
    "evaluate": Word("bool", act=evaluate),
    "runner": Word("str", act=runner, ours=True),
    "max_iters": Word("float", act=max_iters),
    "iters_per_inner_epoch": Word("float", act=max_iters),
    "resume_ckpt_path": Word("str | None", act=resume, ours=True),
    "test_splits": Word("list[str]", act=test_splits),
    "name": Word("str", act=name),
    "save_path": Word("str", act=save_path),
    "train_dataset_ratios": Word("dict[str, float]", act=ratios),
    "max_len": Word("int", act=of_generation),
    "max_new_tokens": Word("int", act=of_generation),
    "min_len": Word("int", act=of_generation),
    "num_beams": Word("int", act=of_generation),
    "length_penalty": Word("float", act=of_generation),
    "repetition_penalty": Word("float", act=of_generation),
    "inference_method": Word("str", act=inference_method),
    "num_ans_candidates": Word("int", why=_RANKED),
    "prompt": Word("str", why="prompts belong to data sets (datasets.*.prompts)"),
    "grad_norm_clip": Word("float", to="grad_clip"),
    "world_size": Word("int", why=_TORCHRUN),
    "dist_url": Word("str", why=_TORCHRUN),
    "distributed": Word("bool", why=_TORCHRUN),
    "dist_backend": Word("str", why="NCCL for GPUs, gloo for CPUs"),
    "use_dist_eval_sampler": Word("bool", why="an evaluation always divides the samples among its processes"),
    "find_unused_parameters": Word("bool", why="every parameter that learns takes part in every step"),
    "lr_layer_decay": Word("float", why="no schedule of the reference uses it either; see run.lr_multipliers"),
    "val_freq": Word("int", why="run.valid_freq says how many steps lie between validations"),
    "save_last": Word("bool", why="the last step is always saved"),
}
