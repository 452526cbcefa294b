"""Does the folder's processor write the prompt of training? A chat with a picture and a sound, through both."""

# T places of the prompt

from __future__ import annotations

import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from minigpt4o.common.errors import CheckpointError
from minigpt4o.common.registry import registry
from minigpt4o.conversation.batch import SLOTS
from minigpt4o.conversation.marks import escape_marks
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.conversation.sample import MARKS, Media, Sample, Turn
from minigpt4o.models.export.forms import CODE, LANGUAGE, NATIVE, Export
from minigpt4o.serve.export.check import WORDS
from minigpt4o.serve.parts import laid_out

PIXELS = 0.05  # mean |difference| of a picture's numbers that is only another library's rounding
NAMES = {"image": "pixel_values", "audio": "input_features"}
SUFFIX = {"image": ".png", "audio": ".wav"}
_SIZE = (50, 40)  # of the picture, in pixels
_RATE, _SECONDS = 16_000, 1.0  # of the sound


def ensure_same_prompt(export: Export) -> str:
    """A line for the person. Raises CheckpointError if ids or media differ by more than rounding."""
    media = {"image": _picture(), "audio": _sound()}
    kinds = [kind for kind in MARKS if kind in export.media]
    ours = _ours(export, {kind: media[kind] for kind in kinds})
    theirs = _theirs(export, {kind: media[kind] for kind in kinds})
    ids = theirs["input_ids"][0].tolist()
    if ids != ours["input_ids"]:
        at = next((i for i, (a, b) in enumerate(zip(ids, ours["input_ids"], strict=False)) if a != b), len(ids))
        raise CheckpointError(
            f"{export.form.title}: its processor writes another prompt: at place {at} "
            f"{ids[at : at + 5]} where training has {ours['input_ids'][at : at + 5]}"
        )
    told = ["the same prompt"]
    for kind in kinds:
        if export.form is NATIVE and kind == "audio":  # transformers neither fills up nor cuts it: another length
            continue
        a, b = ours[kind], theirs[NAMES[kind]][0].float()
        difference = float((a - b).abs().nan_to_num().mean()) if a.shape == b.shape else float("inf")
        if difference > PIXELS:
            raise CheckpointError(
                f"{export.form.title}: its processor opens another {kind}: shape {tuple(b.shape)} for "
                f"{tuple(a.shape)}, mean |difference| {difference:.2g}, at most {PIXELS:g} is taken"
            )
        told.append(f"{kind}s within {difference:.2g}" if difference else f"the same {kind}s")
    return ", ".join(told)


def _ours(export: Export, media: dict[str, bytes]) -> dict[str, Any]:
    """What a chat of ours makes of it; places of media hold the ids of the folder's tokens."""
    model = export.model
    processors = {kind: registry.build(part) for kind, part in export.media.items()}
    encoder = open_encoder(model.tokenizer, model.conversation, model.slots, processors, 10**9)
    # Minigpt4o's folder has its own template, which knows neither.
    separator, system = ("", "") if export.form is NATIVE else (export.separator, export.system)
    text = laid_out([*((mark, True) for kind, mark in MARKS.items() if kind in media), (WORDS, False)], separator)
    opened = {kind: [Media(data=data, name=kind)] for kind, data in media.items()}
    turns = [Turn("system", escape_marks(system))] if system else []
    sample = Sample("probe", [*turns, Turn("user", text)], opened.get("image", []), opened.get("audio", []))
    example = encoder.prompt(sample, random.Random(0))
    token = _tokens(export)
    places = {SLOTS[kind]: token[kind] for kind in media}
    found: dict[str, Any] = {"input_ids": [places.get(int(i), int(i)) for i in example.input_ids]}
    for kind, name in (("image", "images"), ("audio", "audios")):
        if kind in media:
            found[kind] = getattr(example, name)[0].float()
    return found


def _tokens(export: Export) -> dict[str, int]:
    """Kind of medium -> token that stands for one of its features."""
    tree = json.loads((export.folder / "config.json").read_bytes())
    return {kind: token for kind in SLOTS if (token := tree.get(f"{kind}_token_id", tree.get(f"{kind}_token_index")))}


def _theirs(export: Export, media: dict[str, bytes]) -> Any:
    """What the folder's own processor makes of the same chat."""
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    with tempfile.TemporaryDirectory() as place:
        parts: list[dict[str, str]] = []
        for kind, data in media.items():
            file = Path(place, kind + SUFFIX[kind])
            file.write_bytes(data)
            parts.append({"type": kind, "path" if kind == "image" else "url": str(file)})
        content = [*parts, {"type": "text", "text": WORDS}] if parts else WORDS
        return _opened(export).apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, **options
        )


def _opened(export: Export) -> Any:
    """The processor (of a language model: the tokenizer) of the folder, by its class: no code of the folder is run."""
    import transformers

    folder, here = export.folder, {"local_files_only": True}
    if export.form is CODE:  # by hand: transformers would ask about the folder's code when it opens the tokenizer
        from minigpt4o.models.aligned_hf.processing_aligned import AlignedProcessor

        tree = json.loads((folder / "processor_config.json").read_bytes())
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder, **here)
        written = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        return AlignedProcessor(tokenizer, written, tree["media"], tree["slots"])
    if export.form is NATIVE:
        from minigpt4o.models.minigpt4o.processing_minigpt4o import Minigpt4oProcessor

        return Minigpt4oProcessor.from_pretrained(folder, **here)
    kind = transformers.AutoTokenizer if export.form is LANGUAGE else transformers.LlavaProcessor
    return kind.from_pretrained(folder, **here)


def _picture() -> bytes:
    """A PNG of colours that run into each other, with a bright corner."""
    from PIL import Image

    across, down = np.meshgrid(np.linspace(0, 255, _SIZE[0]), np.linspace(0, 255, _SIZE[1]))
    pixels = np.stack([across, down, 255 - across], axis=-1).astype(np.uint8)
    pixels[:10, :10] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _sound() -> bytes:
    """A WAV of a tone that rises."""
    import soundfile

    time = np.arange(int(_RATE * _SECONDS)) / _RATE
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time), _RATE, format="WAV")
    return file.getvalue()
