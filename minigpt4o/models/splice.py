"""Put media features at their slots in the text, or say which counts disagree."""

# B rows, T tokens, P features of one picture or sound, D width of the LLM

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.batch import SLOTS
from minigpt4o.conversation.sample import Sample

WORDS = {"image": ("picture", "pictures"), "audio": ("sound", "sounds")}


def splice(
    input_ids: Tensor,
    embed: Callable[[Tensor], Tensor],
    features: Mapping[str, Tensor],
    samples: Sequence[Sample] = (),
) -> Tensor:
    """(B, T) ids -> (B, T, D) embeddings with each kind's features (N, P, D) in its slots, in row order.

    Raises DataError where the slots of a row and the features that belong to it disagree in number.
    """
    embeddings = embed(input_ids.clamp(min=0))
    for kind, slot in SLOTS.items():
        places = input_ids == slot
        found = features.get(kind)
        said = int(places.sum())
        given = 0 if found is None else found.shape[0] * found.shape[1]
        if said != given:
            raise DataError(_disagreement(kind, places, found, samples))
        if found is not None:
            embeddings = embeddings.masked_scatter(places.unsqueeze(-1), found.to(embeddings.dtype))
    return embeddings


def _disagreement(kind: str, places: Tensor, features: Tensor | None, samples: Sequence[Sample]) -> str:
    one, many = WORDS[kind]
    if features is None:
        have = f"no {one} was encoded"
    else:
        have = f"the {many} of the batch give {features.shape[0]} x {features.shape[1]}"
    said = places.sum(dim=1).tolist()
    for row, sample in enumerate(samples):
        media = len(sample.images if kind == "image" else sample.audios)
        size = 0 if features is None else features.shape[1]
        if said[row] != media * size:
            own = f"its {media} {one if media == 1 else many} give {media} x {size}" if size else have
            name = "/".join(word for word in (sample.dataset, sample.id) if word)
            where = f"; {sample.where}" if sample.where else ""
            return f"{said[row]} places for {one} features (sample {name}{where}) but {own}"
    return f"{sum(said)} places for {one} features in {len(said)} rows but {have}"
