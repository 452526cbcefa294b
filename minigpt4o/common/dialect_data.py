"""Keys of the data sets and benchmarks (`evaluation_datasets`) of MiniGPT-4 and LAVIS, and what they are here."""

from __future__ import annotations

import contextlib
from pathlib import PurePosixPath
from typing import Any

from minigpt4o.common.check import PLACEHOLDER
from minigpt4o.common.dialect import Report, Rewrite, Word
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.common.schema import Misfit, fit, parse_type
from minigpt4o.common.source import nearest
from minigpt4o.common.yaml_places import Node, from_plain

SPLITS = {
    "refcoco": ("val", "testA", "testB"),
    "refcoco+": ("val", "testA", "testB"),
    "refcocog": ("val", "test"),
}
BENCHMARKS = ("okvqa", "gqa", "vizwiz", "iconvqa", "vsr", "hm", *SPLITS)
_BENCHMARK_KEYS = {"eval_file_path": "str", "img_path": "str", "max_new_tokens": "int", "batch_size": "int"}
_OKVQA_QUESTIONS, _OKVQA_ANSWERS = "okvqa_test_split.json", "mscoco_val2014_annotations_clean.json"
_BUILD_INFO = ("storage", "images", "annotations", "image_path", "ann_path", "data_dir", "dataset", "splitBy")
_REFER = {  # data set -> folder, its division into splits
    f"{inv}{name}": (folder, by)
    for inv in ("", "inv")
    for name, folder, by in (
        ("refcoco", "refcoco", "unc"),
        ("refcocop", "refcoco+", "unc"),
        ("refcocog", "refcocog", "umd"),
    )
}


def kind(rw: Rewrite, key: str, value: str) -> None:
    """anything but `default` has no effect: the name of the data set alone chooses its preset"""
    if value != "default":
        rw.note(key, "the name of the data set alone chooses its preset")


def build_info(rw: Rewrite, key: str, value: dict[str, Any]) -> None:
    """`annotations` and `media_root`, from storage, images, annotations, image_path, ann_path, data_dir"""
    info, name = rw.taken[key], rw.path.split(".")[1]
    for word, child in info.value.items():
        dotted = f"{rw.path}.{key}.{word}"
        rw.problems.renamed[child.place] = dotted
        rw.taken[f"{key}.{word}"] = child
        if word not in _BUILD_INFO:
            close = nearest(word, _BUILD_INFO)
            mend = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_BUILD_INFO)}"
            rw.problems.add(child.place, dotted, f"unknown key {word!r}; {mend}")
        elif word == "images":
            _images(rw, dotted, child)
        elif word == "annotations":
            _annotations(rw, dotted, child)
        elif word in ("dataset", "splitBy"):
            continue  # read with ann_path
        elif not isinstance(child.value, str):
            rw.problems.add(child.place, dotted, "text is wanted here")
        elif word == "storage":
            _storage(rw, name, child)
        elif word == "image_path":
            rw.put("media_root", child)
        elif word == "data_dir":
            rw.put("annotations.train", _file(child, "region_descriptions.json"))
            rw.put("media_root", child)
        elif name in _REFER:
            _refs(rw, name, info, child)
        else:
            rw.put("annotations.train", child)


def _storage(rw: Rewrite, name: str, node: Node) -> None:
    """Tars of pairs, or the folder of the hand-made stage-2 set."""
    if name != "cc_sbu_align":
        rw.put("annotations.train", node)
        return
    folder = node.value.rstrip("/")
    rw.put("annotations.train", Node(f"{folder}/filter_cap.json", node.place, node.text, quoted=True))
    rw.put("media_root", Node(f"{folder}/image", node.place, node.text, quoted=True))


def _images(rw: Rewrite, dotted: str, node: Node) -> None:
    storage = node.value.get("storage") if node.is_map else None
    if storage is None:
        rw.problems.add(node.place, dotted, "a mapping with `storage`, the folder of the pictures, is wanted here")
        return
    rw.problems.renamed[storage.place] = f"{dotted}.storage"
    rw.put("media_root", storage)


def _annotations(rw: Rewrite, dotted: str, node: Node) -> None:
    for split, info in node.value.items() if node.is_map else ():
        storage = info.value.get("storage") if info.is_map else None
        if storage is None:
            what = "a mapping with `storage`, the file here, is wanted; nothing is downloaded from a `url`"
            rw.problems.add(info.place, f"{dotted}.{split}", what)
            continue
        rw.problems.renamed[storage.place] = f"{dotted}.{split}.storage"
        files = storage.value if storage.is_list else [storage]
        word = files[0].value if len(files) == 1 else "{" + ",".join(str(file.value) for file in files) + "}"
        rw.put(f"annotations.{split}", Node(word, storage.place, str(word), quoted=True))
    if not node.is_map:
        rw.problems.add(node.place, dotted, "a mapping of splits is wanted here")


def _refs(rw: Rewrite, name: str, info: Node, node: Node) -> None:
    """The folder that holds refcoco/refs(unc).p and the like; one file has all the splits."""
    words = []
    for key, usual in zip(("dataset", "splitBy"), _REFER[name], strict=True):
        child = info.value.get(key)
        words.append(child.value if child is not None and isinstance(child.value, str) else usual)
    file = _file(node, f"{words[0].removeprefix('inv')}/refs({words[1]}).p")
    for split in ("train", "val", "test") if name.endswith("g") else ("train", "val", "testA", "testB"):
        rw.put(f"annotations.{split}", file)


def scales(rw: Rewrite) -> None:
    """min_scale and max_scale are read by nobody, there or here."""
    for use in ("train", "eval"):
        processors = rw.node.value.get("vis_processor")
        one = processors.value.get(use) if processors is not None and processors.is_map else None
        if one is None or not one.is_map or _written_out(one):
            continue
        for key in ("min_scale", "max_scale"):
            if key in one.value:
                dotted = f"vis_processor.{use}.{key}"
                rw.taken[dotted] = one.value[key]
                rw.note(dotted, "pictures are never cropped, as in the reference")


def _written_out(processor: Node) -> bool:
    """Whether every key of the class stands there: so a run of ours writes its config.yaml, and no person a file."""
    name = processor.value.get("name")
    with contextlib.suppress(ConfigError):  # an unknown name is told by the check
        fields = registry.entry("processor", str(name.value)).fields if name is not None else ()
        return bool(fields) and all(field.name in processor.value for field in fields)
    return False


def same_for_eval(rw: Rewrite) -> None:
    """The reference opens pictures of chats and benchmarks with the `train` processor: give `eval` its size."""
    processors = rw.node.value.get("vis_processor")
    if processors is None or not processors.is_map or "eval" in processors.value:
        return
    train = processors.value.get("train")
    if train is None or not train.is_map or "image_size" not in train.value:
        return
    kept = {key: node for key, node in train.value.items() if key in ("image_size", "mean", "std")}
    name = Node("blip2_image_eval", train.place, "blip2_image_eval", quoted=True)
    processors.value["eval"] = Node({"name": name, **kept}, train.place)


def mix(root: Node, report: Report) -> None:
    """Batches of unlike sizes, one data set each, become batches that mix: the same share of samples for every set.

    The reference draws a data set by its ratio and takes a batch of its size, so ratio x batch_size weighs samples.
    """
    sets, run = root.value["datasets"].value, root.value["run"].value
    sizes = {name: _number(node, "batch_size") for name, node in sets.items()}
    if "batch_size_train" in run or None in sizes.values() or len(set(sizes.values())) < 2:
        return
    ratios = {name: _number(node, "sample_ratio", 1.0) or 0.0 for name, node in sets.items()}
    weights = {name: ratios[name] * (size or 0) for name, size in sizes.items()}
    mean = max(1, round(sum(weights.values()) / (sum(ratios.values()) or 1)))
    for name, node in sets.items():
        place = node.value["batch_size"].place
        node.value["sample_ratio"] = from_plain(weights[name], place)
        what = f"batches mix the data sets here: {mean} rows each (run.batch_size_train), sample_ratio times batch_size"
        report.add(place, f"datasets.{name}.batch_size", what)
    run["batch_size_train"] = from_plain(mean, next(iter(sets.values())).value["batch_size"].place)


def _number(node: Node, key: str, default: float | None = None) -> float | None:
    child = node.value.get(key) if node.is_map else None
    value = child.value if child is not None else default
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


WORDS = {
    "type": Word("str", act=kind),
    "data_type": Word("str | list[str]", why="the builder of the data set knows it"),
    "dataset_card": Word("str", why="nothing reads it"),
    "data_dir": Word("str", why="files are named by annotations and media_root"),
    "build_info": Word("dict[str, Any]", act=build_info),
}


# ---- benchmarks ----


def benchmarks(rw: Rewrite) -> None:
    """`evaluation_datasets` as data sets with the presets benchmark_*, and the evaluating runner."""
    node = rw.node
    if not node.is_map:
        rw.problems.add(node.place, rw.path, "a mapping of benchmarks is wanted here")
        return
    processor, dummy = _picture_processor(rw)
    sets: dict[str, Node] = {}
    for name, one in node.value.items():
        dotted = f"{rw.path}.{name}"
        if name not in BENCHMARKS:
            close = nearest(name, BENCHMARKS)
            mend = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(BENCHMARKS)}"
            rw.problems.add(one.place, dotted, f"unknown benchmark {name!r}; {mend}")
        elif _benchmark_fits(rw, dotted, one):
            sets.update(_data_sets(rw, name, one, processor))
    run = rw.root.value["run"]
    run.value.setdefault("runner", Node("evaluate", node.place, "evaluate", quoted=True))
    sizes = [one.value["batch_size"] for one in node.value.values() if one.is_map and "batch_size" in one.value]
    if sizes and all(isinstance(size.value, int) for size in sizes):
        run.value.setdefault("batch_size_eval", min(sizes, key=lambda size: size.value))
    for name, dropped in dummy.items():
        rw.report.add(
            dropped.place, f"datasets.{name}", "beside evaluation_datasets it only lends its picture processor"
        )
    rw.root.value["datasets"] = Node(sets, node.place)


def _picture_processor(rw: Rewrite) -> tuple[Node | None, dict[str, Node]]:
    """The reference reads it from the first data set's training side; that set is not evaluated."""
    datasets = rw.root.value["datasets"].value
    processor = None
    for node in datasets.values():
        for key in ("vis_processor", "train"):
            node = node.value.get(key) if node is not None and node.is_map else None
        processor = processor or node
    return processor, datasets


def _benchmark_fits(rw: Rewrite, dotted: str, one: Node) -> bool:
    """Whether the entry holds what it must; what it lacks is told."""
    if not one.is_map:
        rw.problems.add(one.place, dotted, "a mapping with eval_file_path and img_path is wanted here")
        return False
    good = True
    for key, child in one.value.items():
        if key not in _BENCHMARK_KEYS:
            close = nearest(key, _BENCHMARK_KEYS)
            mend = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_BENCHMARK_KEYS)}"
            rw.problems.add(child.place, f"{dotted}.{key}", f"unknown key {key!r}; {mend}")
            continue
        rw.problems.renamed[child.place] = f"{dotted}.{key}"
        try:
            value = fit(child, parse_type(_BENCHMARK_KEYS[key]))
            wrong = f"{value!r} is a placeholder; write your own value" if PLACEHOLDER.match(str(value)) else ""
        except Misfit as misfit:
            wrong = misfit.found[0][2]
        if wrong:
            good = False
            rw.problems.add(child.place, f"{dotted}.{key}", wrong)
    for key in ("eval_file_path", "img_path"):
        if key not in one.value:
            good = False
            rw.problems.add(one.place, f"{dotted}.{key}", f"is required ({_BENCHMARK_KEYS[key]})")
    return good


def _data_sets(rw: Rewrite, name: str, one: Node, processor: Node | None) -> dict[str, Node]:
    """One data set, or one for each split of the RefCOCO family."""
    path = one.value["eval_file_path"]
    files = {"": {"annotations": path}}
    if name in SPLITS:
        files = {f"_{s}": {"annotations": _file(path, f"{name}/{name}_{s}.json")} for s in SPLITS[name]}
    elif name == "okvqa":
        files = {"": {"annotations": _file(path, _OKVQA_QUESTIONS), "answers": _file(path, _OKVQA_ANSWERS)}}
    elif name == "vsr" and not PurePosixPath(path.text).suffix:
        rw.report.add(path.place, f"{rw.path}.vsr.eval_file_path", "nothing is fetched; the preset's file is read")
        files = {"": {}}
    sets = {}
    for split, keys in files.items():
        node = Node({key: Node({"test": file}, one.place) for key, file in keys.items()}, one.place)
        node.value["media_root"] = one.value["img_path"]
        if "batch_size" in one.value:
            node.value["batch_size"] = one.value["batch_size"]
        if "max_new_tokens" in one.value:
            node.value["task"] = Node({"max_new_tokens": one.value["max_new_tokens"]}, one.place)
        if processor is not None:
            node.value["vis_processor"] = Node({"train": processor, "eval": processor}, one.place)
        sets[f"benchmark_{name.replace('+', 'p')}{split}"] = node
    return sets


def _file(node: Node, name: str) -> Node:
    """A file in the folder that a node names."""
    if not name or not isinstance(node.value, str) or PurePosixPath(node.value).suffix in (".json", ".p"):
        return node
    return Node(f"{node.value.rstrip('/')}/{name}", node.place, node.text, quoted=True)
