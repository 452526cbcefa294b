"""Is the exported model the same? Opened again from its folder, it must give the same logits and the same words."""

# T places of the probe, V words

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt4o.common.errors import CheckpointError
from minigpt4o.conversation.batch import SLOTS, Batch
from minigpt4o.conversation.jinja import SLOT
from minigpt4o.conversation.marks import escape_marks
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.conversation.sample import MARKS, Media, Sample, Turn
from minigpt4o.models.export.forms import ADAPTERS, CODE, NATIVE, Export

BOUND = 1e-5  # of a logit's difference, relative to the largest logit (or 1), for float32
ROUNDED = {torch.bfloat16: 2**-5, torch.float16: 2**-8}  # the same for formats that round weights
WORDS = "What is this? これは何？ 3.14  two blanks"
NEW = 8  # words that both generate


@dataclass(frozen=True)
class Checked:
    """What the comparison gave."""

    difference: float  # largest of a logit
    largest: float  # largest logit
    same_words: bool  # greedy answers

    def told(self) -> str:
        """One line for the person."""
        words = "the same" if self.same_words else "other"
        return f"max |difference| {self.difference:.2g} (largest |logit| {self.largest:.3g}), {words} greedy tokens"


@torch.no_grad()
def logits_of(model: Any) -> tuple[Batch, Tensor, list[int]]:
    """(probe, its logits (T, V), ids of a greedy answer) of the model itself, with a picture and a sound in noise."""
    kinds = list(model.slots)
    drawn = torch.Generator().manual_seed(0)
    opened = {kind: torch.randn(model.encoders[kind].example().shape, generator=drawn)[0] for kind in kinds}
    processors = {kind: (lambda media, rng, kind=kind: opened[kind]) for kind in kinds}
    encoder = open_encoder(model.tokenizer, model.conversation, model.slots, processors, 10**9)
    text = "".join(MARKS[kind] for kind in MARKS if kind in kinds) + escape_marks(WORDS)
    media: dict[str, list[Media]] = {k: [Media(data=b"x")] if k in kinds else [] for k in ("image", "audio")}
    sample = Sample("probe", [Turn("user", text)], media["image"], media["audio"])
    from minigpt4o.datasets.collate import collate

    batch = collate([encoder.prompt(sample, random.Random(0))], model.tokenizer.pad_token_id or 0, "left")
    batch = batch.to(model.device)
    with model.autocast():
        hidden = model.llm.hidden(model.embed(batch), batch.attention_mask)
        logits = model.llm.logits(hidden)[0].float().cpu()
    return batch, logits, _greedy(model, batch)


def _greedy(model: Any, batch: Batch) -> list[int]:
    """Likeliest words one after the other, end words included, as transformers gives them."""
    ids: list[int] = []
    cache, inputs = model.llm.new_cache(), model.embed(batch)
    with model.autocast():
        for _ in range(NEW):
            start = batch.input_ids.shape[1] + len(ids) - inputs.shape[1]
            positions = torch.arange(start, start + inputs.shape[1], device=model.device)[None]
            hidden = model.llm.hidden(inputs, None, positions, cache)[:, -1]
            ids.append(int(model.llm.logits(hidden).argmax()))
            if ids[-1] in model.llm.eos_ids:
                break
            inputs = model.llm.embed(torch.tensor([[ids[-1]]], device=model.device))
    return ids


@torch.no_grad()
def compare(export: Export, probe: tuple[Batch, Tensor, list[int]]) -> Checked:
    """The folder's model against the logits of the model it was made of, on the CPU."""
    batch, ours, words = probe
    model, token = open_folder(export)
    ids = batch.input_ids.cpu().clone()
    for kind, slot in SLOTS.items():
        if kind in token:
            ids[ids == slot] = token[kind]
    inputs: dict[str, Tensor] = {"input_ids": ids, "attention_mask": batch.attention_mask.cpu()}
    for name, media in (("pixel_values", batch.images), ("input_features", batch.audios)):
        if media is not None:
            inputs[name] = media.cpu()
    theirs = model(**inputs).logits[0, :, : ours.shape[1]].float()
    width = min(ours.shape[1], theirs.shape[1])
    difference = float((ours[:, :width] - theirs[:, :width]).abs().max())
    found = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)[0].tolist()
    answer = found[ids.shape[1] :] if found[: ids.shape[1]] == ids[0].tolist() else found
    return Checked(difference, float(ours.abs().max()), answer[: len(words)] == words)


def open_folder(export: Export) -> tuple[Any, dict[str, int]]:
    """(model in float32, kind of medium -> token of its places); adapters that lie beside are laid on."""
    folder = export.folder
    kind = _class_of(export)
    model = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    if export.adapters:
        model.load_adapter(str(folder / ADAPTERS))
    config = model.config
    return model, {kind: token for kind in SLOT if (token := getattr(config, f"{kind}_token_id", None)) is not None}


def _class_of(export: Export) -> Any:
    """The class itself: no code of the folder is run here."""
    if export.form is CODE:
        from minigpt4o.models.aligned_hf.modeling_aligned import AlignedForConditionalGeneration

        return AlignedForConditionalGeneration
    if export.form is NATIVE:
        from minigpt4o.models.minigpt4o.modeling_minigpt4o import Minigpt4oForConditionalGeneration

        return Minigpt4oForConditionalGeneration
    import transformers

    return getattr(transformers, export.form.auto)


def bound_of(dtype: torch.dtype, largest: float) -> float:
    """The largest difference that is taken."""
    return ROUNDED.get(dtype, BOUND) * max(largest, 1.0)


def ensure_same(checked: Checked, export: Export) -> None:
    """Raises CheckpointError if the two models differ by more than rounding."""
    bound = bound_of(export.dtype, checked.largest)
    if checked.difference > bound:
        raise CheckpointError(
            f"{export.form.title}: the exported model is another: {checked.told()}; at most {bound:.2g} is taken"
        )
