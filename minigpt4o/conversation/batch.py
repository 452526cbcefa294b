"""What a model eats: one `Example` per sample, one `Batch` per step. Every field's shape stands here and only here."""

# B rows, T tokens of the longest row, N pictures and M sounds in the whole batch,
# S picture side in pixels, F spectrogram frames, K mel bins

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from minigpt4o.conversation.sample import Sample

if TYPE_CHECKING:
    import torch

    from minigpt4o.conversation.objects import Geometry

IGNORE = -100  # label of a position that is not learned
IMAGE_SLOT = -1  # input id of a place that one picture feature fills
AUDIO_SLOT = -2  # input id of a place that one sound feature fills
SLOTS = {"image": IMAGE_SLOT, "audio": AUDIO_SLOT}


@dataclass
class Example:
    """One tokenised sample with its opened media, as a loader's worker makes it."""

    input_ids: torch.Tensor  # (T,) int64; a medium's place is a run of IMAGE_SLOT or AUDIO_SLOT
    labels: torch.Tensor  # (T,) int64; the input id where it is learned, IGNORE elsewhere (not shifted)
    images: list[torch.Tensor]  # each (3, S, S) float32, normalised
    audios: list[torch.Tensor]  # each (F, K) float32 log-mel
    sample: Sample  # its boxes, and its texts with boxes written out, are those of the original pictures
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (reason, detail) of samples this one stands in for
    truncated: int = 0  # learned tokens that were cut off; of a prompt: tokens of old turns left out
    context: int = 0  # compat: places before the first answer; contexts and answers are then padded apart
    geometries: list[Geometry] = field(default_factory=list)  # of each picture; empty if all are shown whole
    frame: Geometry | None = None  # of a prompt: of the picture that its answer's boxes lie in; None: it is shown whole
    facts: dict[str, float] = field(default_factory=dict)  # noted when opening the media: audio_cut_seconds, ...


@dataclass
class Batch:
    """Rows padded to one length: on the right for learning, on the left for generation."""

    input_ids: torch.Tensor  # (B, T) int64; pad id at padding
    attention_mask: torch.Tensor  # (B, T) int64; 1 where a token or slot stands
    labels: torch.Tensor  # (B, T) int64; IGNORE where nothing is learned
    images: torch.Tensor | None  # (N, 3, S, S) float32, in row order; None if the batch holds no picture
    audios: torch.Tensor | None  # (M, F, K) float32, in row order; None if the batch holds no sound
    samples: list[Sample] = field(default_factory=list)  # B of them
    skipped: list[tuple[str, str]] = field(default_factory=list)
    truncated: int = 0
    facts: dict[str, dict[str, float]] = field(default_factory=dict)  # the examples' facts summed by data set
    fillers: int = 0  # rows at the end that stand for no sample: nothing is learned from them

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """The same batch with every tensor on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which a GPU copies while it computes. The loader calls it."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        import torch

        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {name: change(v) for name, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **changed)

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])


@dataclass(frozen=True)
class Decoding:
    """How answers are generated. The defaults are greedy."""

    max_new_tokens: int = 64
    min_new_tokens: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    num_beams: int = 1
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    seed: int = 0  # of sampling
