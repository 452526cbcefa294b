"""Is the exported model the same? Opened again from its folder, it must give the same logits and the same words."""

# T places of the probe, V words

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
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

BOUND = 1e-5  # of a logit's difference, for float32
ROUNDED = {torch.bfloat16: 2**-5, torch.float16: 2**-8}  # for formats that round weights, by the largest logit (or 1)
WORDS = "What is this? これは何？ 3.14  two blanks"
NEW = 8  # words that both generate
EXACT = 8  # bytes of a weight in float64


@dataclass(frozen=True)
class Checked:
    """What the comparison gave."""

    difference: float  # largest of a logit
    largest: float  # largest logit
    same_words: bool  # greedy answers
    exact: float | None = None  # the difference where both compute in float64: that of the weights alone

    def told(self) -> str:
        """One line for the person."""
        words = "the same" if self.same_words else "other"
        exact = "" if self.exact is None else f", {self.exact:.2g} computed in float64"
        return (
            f"max |difference| {self.difference:.2g}{exact} (largest |logit| {self.largest:.3g}), {words} greedy tokens"
        )


@dataclass(frozen=True)
class Probe:
    """A prompt and what the model itself makes of it."""

    model: Any
    batch: Batch
    logits: Tensor  # (T, V)
    words: list[int]  # ids of a greedy answer


@torch.no_grad()
def probe_of(model: Any) -> Probe:
    """A prompt with a picture and a sound in noise."""
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
    return Probe(model, batch, logits, _greedy(model, batch))


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
def compare(export: Export, probe: Probe) -> Checked:
    """The folder's model against the logits of the model it was made of, on the CPU.

    Two programs that add the same numbers in another order differ by float32's rounding, which grows with the model's
    size (adapters added to weights: one such order). Where they differ by more than the bound, both compute once more
    in float64: what is left is the difference of the weights.
    """
    model, token = open_folder(export)
    inputs = _inputs(probe.batch, token)
    difference = _difference(probe.logits, model(**inputs).logits)
    length = inputs["input_ids"].shape[1]
    found = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)[0].tolist()
    answer = found[length:] if found[:length] == inputs["input_ids"][0].tolist() else found
    exact = None
    if difference > BOUND and export.dtype == torch.float32 and _room_for_float64(probe.model):
        model.double()
        exact = _difference(float64_logits(probe), model(**_as(inputs, torch.float64)).logits)
    return Checked(difference, float(probe.logits.abs().max()), answer[: len(probe.words)] == probe.words, exact)


def _inputs(batch: Batch, token: dict[str, int]) -> dict[str, Tensor]:
    """The prompt as the folder's model takes it; `token`: kind of medium -> token of its places."""
    ids = batch.input_ids.cpu().clone()
    for kind, slot in SLOTS.items():
        if kind in token:
            ids[ids == slot] = token[kind]
    inputs: dict[str, Tensor] = {"input_ids": ids, "attention_mask": batch.attention_mask.cpu()}
    for name, media in (("pixel_values", batch.images), ("input_features", batch.audios)):
        if media is not None:
            inputs[name] = media.cpu()
    return inputs


def _as(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in inputs.items()}


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest |difference| of (T, V) and (1, T, V or more)."""
    width = min(ours.shape[1], theirs.shape[2])
    return float((ours[:, :width] - theirs[0, :, :width].to(ours.dtype)).abs().max())


def float64_logits(probe: Probe) -> Tensor:
    """(T, V) of the model itself with all its numbers in float64; they are float32 again afterwards, unchanged."""
    model, batch = probe.model, probe.batch
    images, audios = (None if media is None else media.double() for media in (batch.images, batch.audios))
    held = model.compute_dtype
    model.double()
    model.compute_dtype = torch.float64
    try:
        hidden = model.llm.hidden(model.embed(replace(batch, images=images, audios=audios)), batch.attention_mask)
        head = model.llm.head  # itself it ends in float32
        logits = torch.nn.functional.linear(hidden, head.weight, head.bias)[0] * head.scale
        return (torch.tanh(logits / head.softcap) * head.softcap if head.softcap else logits).cpu()
    finally:
        model.float()
        model.compute_dtype = held


def _room_for_float64(model: Any) -> bool:
    """Whether two models of so many weights fit into memory; half of it is left to what is computed."""
    from minigpt4o.serve.doctor_machine import available_memory

    return 2 * 2 * EXACT * sum(p.numel() for p in model.parameters()) < available_memory()


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


def ensure_same(checked: Checked, export: Export) -> None:
    """Raises CheckpointError if the two models differ by more than rounding."""
    difference, bound = checked.difference, BOUND
    if export.dtype in ROUNDED:
        bound = ROUNDED[export.dtype] * max(checked.largest, 1.0)
    elif checked.exact is not None:
        difference = checked.exact
    elif difference > BOUND:  # no memory for float64: float32's rounding counts by the largest logit
        bound = BOUND * max(checked.largest, 1.0)
    if difference > bound or (export.dtype == torch.float32 and not checked.same_words):
        raise CheckpointError(
            f"{export.form.title}: the exported model is another: {checked.told()}; at most {bound:.2g} is taken"
        )
