"""The model card: what the model is, what it learned from and under which licences, its scores, its limits, its use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from minigpt4o import __version__
from minigpt4o.common import presets
from minigpt4o.common.files import MANIFEST, sha256_of
from minigpt4o.models.export.forms import ADAPTERS, Export
from minigpt4o.runners.evaluate_items import SEEN
from minigpt4o.serve.export.card_licence import licence_metadata

UNKNOWN = "not stated"
_LOCAL = "/"  # what a path of this machine holds and a hub name holds once

USE = {
    "pictures": """\
import torch
from transformers import {auto}, AutoProcessor

processor = AutoProcessor.from_pretrained("{name}"{trust})
model = {auto}.from_pretrained("{name}", dtype="auto"{trust}).eval()
{adapters}messages = [
    {{"role": "user", "content": [{media}{{"type": "text", "text": "What is this?"}}]}}
]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
with torch.no_grad():
    answer = model.generate(**inputs, max_new_tokens=100{stop})
print(processor.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
""",
    "text": """\
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto").eval()
inputs = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "Hello."}}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
with torch.no_grad():
    answer = model.generate(**inputs, max_new_tokens=100{stop})
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
""",
}
_PART = {"image": '{"type": "image", "url": "picture.png"}, ', "audio": '{"type": "audio", "url": "sound.wav"}, '}


@dataclass
class Facts:
    """What the card tells of one export."""

    name: str
    export: Export
    settings: Any
    checkpoint: Path | None
    run: Any = None  # settings of the run that trained the checkpoint, where its folder tells them
    trained: frozenset[str] = frozenset()  # parts that the checkpoint holds
    licence: str = ""
    checked: str = ""  # what the comparison of logits gave
    scores: list[dict[str, Any]] = field(default_factory=list)
    notes: Sequence[str] = ()  # why other classes did not fit


def card(facts: Facts) -> str:
    """README.md of the folder."""
    import yaml

    front = yaml.safe_dump(_front(facts), sort_keys=False, allow_unicode=True)
    sections = [
        f"# {facts.name}\n\n{_summary(facts)}",
        f"## How to use it\n\n{_use(facts)}",
        f"## What it is made of\n\n{_parts(facts)}",
        f"## What it learned from\n\n{_data(facts)}",
        f"## Scores\n\n{_scores(facts)}",
        f"## Licence\n\n{_licence(facts)}",
        f"## Limits\n\n{_limits(facts)}",
        f"## Where it comes from\n\n{_origin(facts)}",
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(section.rstrip() for section in sections) + "\n"


def _front(facts: Facts) -> dict[str, Any]:
    kinds = list(facts.export.model.slots)
    told: dict[str, Any] = {**licence_metadata(facts.licence), "library_name": "transformers"}
    told["pipeline_tag"] = "image-text-to-text" if "image" in kinds else "text-generation"
    told["tags"] = ["minigpt4o", *kinds]
    languages = _languages(facts)
    if languages:
        told["language"] = languages
    base = [word for word in _bases(facts).values() if word.count(_LOCAL) == 1 and not Path(word).exists()]
    if base:
        told["base_model"] = base
    if facts.scores:
        told["model-index"] = [{"name": facts.name, "results": _index(facts.scores)}]
    return told


def _languages(facts: Facts) -> list[str]:
    return sorted({spec.language for spec in _taught(facts).datasets.values() if spec.language})


def _taught(facts: Facts) -> Any:
    """The settings that name what it learned from."""
    return facts.settings if facts.run is None else facts.run


def _index(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in scores:
        if one["condition"] == SEEN:
            metric = {"type": one["metric"], "name": one["metric"], "value": round(one["value"], 6)}
            found.setdefault((one["dataset"], one["task"]), []).append(metric)
    return [
        {"task": {"type": task}, "dataset": {"type": name, "name": name}, "metrics": metrics}
        for (name, task), metrics in found.items()
    ]


def _summary(facts: Facts) -> str:
    kinds = {"image": "pictures", "audio": "sounds"}
    takes = [kinds[kind] for kind in facts.export.model.slots]
    eats = " and ".join(["text", *takes]) if len(takes) < 2 else f"text, {', '.join(takes[:-1])} and {takes[-1]}"
    form = facts.export.form
    return (
        f"A model that takes {eats} and answers in text, trained with minigpt4o {__version__} and written for "
        f"transformers as `{form.title}`."
    )


def _use(facts: Facts) -> str:
    form, kinds = facts.export.form, list(facts.export.model.slots)
    needs = " ".join(["torch", *form.needs, *(["pillow"] if "image" in kinds else []), *_more(facts)])
    stop = stop_words(facts.export.model)
    code = USE["pictures" if kinds else "text"].format(
        name=facts.name,
        auto=form.auto,
        trust=", trust_remote_code=True" if form.trust else "",
        adapters=f'model.load_adapter("{facts.name}/{ADAPTERS}")\n' if facts.export.adapters else "",
        media="".join(_PART[kind] for kind in kinds),
        stop=f", stop_strings={stop!r}, tokenizer={'processor.tokenizer' if kinds else 'tokenizer'}" if stop else "",
    )
    lines = [f"`pip install {needs}`, then:", f"```python\n{code}```"]
    if form.trust:
        lines.append("`trust_remote_code` lets transformers run the Python files of this folder; look at them first.")
    if facts.export.adapters:
        lines.append(
            f"The folder `{ADAPTERS}/` holds low-rank adapters; without `load_adapter` they have no part in it."
        )
    if form.name in ("llava", "blip2"):
        lines.append(
            'Pictures are resized by torchvision here and by Pillow in training; `backend="pil"` in '
            "`AutoProcessor.from_pretrained` gives the same pixels. Earlier answers of a chat may be cut into other "
            "tokens at their borders than in training."
        )
    if form.name == "llava":
        lines.append(
            f"Written with transformers {version('transformers')}; releases before 5 may take another state of the "
            "picture encoder for its last one."
        )
    return "\n\n".join(lines)


def _more(facts: Facts) -> list[str]:
    more = ["timm"] if facts.export.form.name == "minigpt4o" else []
    return [*more, *(["peft"] if facts.export.adapters else [])]


def stop_words(model: Any) -> list[str]:
    """Words that end an answer and are no tokens of their own."""
    known = model.tokenizer.get_added_vocab()
    return [word for word in model.conversation.serving.stop if word not in known]


def _bases(facts: Facts) -> dict[str, str]:
    """Part -> what its pretrained weights are called."""
    values = facts.settings.model.values
    found: dict[str, str] = {}
    llm = values.get("llm")
    if llm is not None and hasattr(llm, "values") and llm.values.get("path"):
        found["language model"] = str(llm.values["path"])
    if values.get("path"):
        found["whole model"] = str(values["path"])
    for group, key in (("encoders", "weights"), ("bridges", "weights")):
        for kind, part in (values.get(group) or {}).items():
            named = part.values.get(key) or part.values.get("path") if hasattr(part, "values") else ""
            if named:
                found[f"{group.removesuffix('s')} for {kind}"] = str(named)
    return found


def _parts(facts: Facts) -> str:
    bases = _bases(facts)
    rows = ["| part | parameters | in the checkpoint |", "| --- | ---: | --- |"]
    for row in facts.export.model.part_rows():
        rows.append(f"| {row.part} | {row.parameters:,} | {'yes' if row.part in facts.trained else 'no'} |")
    told = "\n".join(rows)
    told += "\n\nThe checkpoint holds what its last stage of training changed; the rest came with the pretrained parts."
    if bases:
        told += "\n\nPretrained parts:\n\n" + "\n".join(f"- {part}: `{_named(word)}`" for part, word in bases.items())
    return told


def _named(word: str) -> str:
    """A hub name or a file's name; folders of the machine it was made on are nobody's business."""
    return word if word.count(_LOCAL) == 1 and not Path(word).exists() else "/".join(Path(word).parts[-2:])


def _data(facts: Facts) -> str:
    from minigpt4o.datasets.known import known_set

    names = list(_taught(facts).datasets)
    if not names:
        return "The configuration names no data set; ask whoever made this model."
    rows = ["| data set | what it is | licence | source |", "| --- | --- | --- | --- |"]
    for name in names:
        known = known_set(name) if presets.find("datasets", name, _taught(facts).plugins) else None
        about = known.about if known is not None else {}
        cells = (known.what if known else "data of its maker", about.get("licence", UNKNOWN), about.get("source", ""))
        rows.append(f"| {name} | " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n\nThese are the data sets of the last stage; pretrained parts learned from others."


def _scores(facts: Facts) -> str:
    if not facts.scores:
        return "No evaluation was given. Do not assume any."
    rows = ["| data set | metric | shown | score [95 %] | n |", "| --- | --- | --- | ---: | ---: |"]
    shown = {SEEN: "with its media", "blind": "no media (baseline)", "shuffled": "another's media (baseline)"}
    rows += [
        f"| {s['dataset']} | {s['metric']} | {shown.get(s['condition'], s['condition'])} | "
        f"{s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}] | {s['n']} |"
        for s in facts.scores
    ]
    return "\n".join(rows) + (
        "\n\nIntervals are bootstrap intervals. A model that does not look cannot beat its baselines without media."
    )


def _licence(facts: Facts) -> str:
    stated = f"The maker states: {facts.licence}. " if facts.licence else ""
    return (
        f"{stated}What may be done with this model follows from the licences of its pretrained parts and of the data "
        'named above, all of which hold together; where one says "not stated", ask its owner.'
    )


def _limits(facts: Facts) -> str:
    model = facts.export.model
    room = getattr(model.llm, "max_positions", None)
    lines = ["It makes things up: names, numbers, text in pictures and places of things should be checked."]
    if room:
        lines.append(f"A conversation with its media and the answer takes at most {room} places.")
    lines += [f"One {'picture' if k == 'image' else 'sound'} takes {n} places." for k, n in model.slots.items()]
    if "image" in model.slots:
        lines.append("Pictures are resized to one square size: small print and far things are lost.")
    if "audio" in facts.export.media:
        seconds = facts.export.media["audio"].values.get("seconds")
        lines.append(f"Of a sound it hears {seconds or 'the first'} seconds.")
    languages = _languages(facts)
    if languages:
        lines.append(f"Languages it was taught in the last stage: {', '.join(languages)}.")
    return "\n".join(f"- {line}" for line in lines)


def _origin(facts: Facts) -> str:
    lines = [f"minigpt4o {__version__}, model `{facts.settings.model.name}`, template `{facts.export.model.template}`"]
    if facts.checkpoint is not None:
        lines.append(f"checkpoint `{'/'.join(facts.checkpoint.parts[-3:])}`")
        if (facts.checkpoint / MANIFEST).is_file():
            lines[-1] += f", SHA-256 of its manifest `{sha256_of(facts.checkpoint / MANIFEST)}`"
    if facts.checked:
        lines.append(f"compared with the model it was made of: {facts.checked}")
    lines += [f"not written as {note}" for note in facts.notes]
    return "\n".join(f"- {line}" for line in lines)
