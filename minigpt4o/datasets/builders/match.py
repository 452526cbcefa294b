"""Builder `match`: pair the samples of two other data sets and ask whether they mean the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.registry import Part, part, registry
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.base import Builder, fingerprint_of, one_round, sha256
from minigpt4o.datasets.order import derive, permute
from minigpt4o.datasets.prompts import Prompts


@registry.register("builder", "match")
class Match:
    """Is it the same? Half of the pairs are: a written and a spoken digit, a picture and a sound, two pictures."""

    @dataclass
    class Config:
        first: Part = part("builder", doc="the builder whose samples come first, each in turn")
        second: Part = part("builder", doc="the builder that a partner is drawn from")
        prompts: str | list[str] = field(
            default_factory=lambda: ["Do they mean the same?"]
        )  # what is asked, or the name of a pool; the media of `first` stand before those of `second`
        same: str = "yes"  # the answer if both have the same label (the accepted answer of the sample)
        different: str = "no"  # the answer if they have not
        pairs: int = 0  # how many pairs a split has; 0 = one for each sample of `first`
        seed: int = 0  # of the drawing; the pairs depend on it, the split and the index alone
        language: str = ""  # of question and answer
        max_samples: int = 0  # take only the first so many pairs; 0 = all

    def __init__(self, config: Config, *, name: str, split: str) -> None:
        self.config, self.name, self.split = config, name, split
        self.prompts = Prompts(config.prompts, name, ())
        self.first: Builder = registry.build(config.first, name=f"{name}.first", split=split)
        self.second: Builder = registry.build(config.second, name=f"{name}.second", split=split)
        self.by_label: dict[str, list[int]] = {}  # label -> samples of `second`
        for index, label in enumerate(_labels(self.second)):
            if label:
                self.by_label.setdefault(label, []).append(index)
        self.words = sorted(self.by_label)
        self.first_labels = _labels(self.first)
        if len(self.words) < 2 or not set(self.words) & set(self.first_labels):
            ours = sorted(set(filter(None, self.first_labels)))[:5]
            raise DataError(
                f"datasets.{name}: `first` has labels such as {ours}, `second` such as {self.words[:5]}; "
                f"they must share some, and `second` must have two or more"
            )

    def __len__(self) -> int:
        pairs = self.config.pairs or len(self.first)
        return min(pairs, self.config.max_samples or pairs)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """The pair at an index. `rng` draws the prompt only."""
        i, j, same = self.pair(index)
        draw = random.Random(derive("match", self.config.seed, self.split, index, "inner"))
        one, other = self.first.sample(i, draw), self.second.sample(j, draw)
        images, audios = one.images + other.images, one.audios + other.audios
        answer = self.config.same if same else self.config.different
        return Sample(
            id=f"{index}:{one.id}+{other.id}",
            turns=one_round(self.prompts.draw(rng), answer, images, audios, one.where),
            images=images,
            audios=audios,
            answers=[answer],
            language=self.config.language,
            dataset=self.name,
            where=f"{one.where} with {other.where}",
            meta={"first": one.answers[0], "second": other.answers[0], "same": same},
        )

    def pair(self, index: int) -> tuple[int, int, bool]:
        """(sample of `first`, sample of `second`, whether they have one label); same and different take turns."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        key = ("match", self.config.seed, self.split)
        epoch, turn = divmod(index, len(self.first))
        i = self._order(epoch)(turn)
        label = self.first_labels[i]
        draw = random.Random(derive(*key, index))
        same = index % 2 == 0
        if not label or (same and label not in self.by_label):
            raise SkipSample("no_target", f"{self.name}: sample {i} of `first` has a label without partner: {label!r}")
        wanted = label if same else draw.choice([word for word in self.words if word != label])
        return i, draw.choice(self.by_label[wanted]), same

    def size_hint(self, index: int) -> int:
        """Bytes of the longest question: nothing else of a pair differs in length."""
        return max((len(prompt.encode()) for prompt in self.prompts.prompts), default=0)

    def modality(self, index: int) -> str:
        """What the two samples bring: `image`, `audio`, `image+audio` or `text`."""
        try:
            i, j, _ = self.pair(index)
        except SkipSample:
            i = j = 0
        shown = _modality(self.first, i) + _modality(self.second, j)
        return "+".join(kind for kind in ("image", "audio") if kind in shown) or "text"

    def fingerprint(self) -> str:
        """SHA-256 of both data sets and of the drawing."""
        config = self.config
        drawn = (config.seed, self.split, len(self), config.same, config.different)
        return sha256(fingerprint_of(self.first), fingerprint_of(self.second), *drawn)

    def _order(self, epoch: int) -> Callable[[int], int]:
        return permute(f"match/{self.config.seed}/{self.split}", epoch, len(self.first))


def _modality(builder: Builder, index: int) -> str:
    tell = getattr(builder, "modality", None)
    return str(tell(index)) if tell else "text"


def _labels(builder: Builder) -> list[str]:
    """Each sample's label: `label(index)` if the builder has it, else the first accepted answer; "" if it is bad."""
    tell = getattr(builder, "label", None) or (lambda i: builder.sample(i, random.Random(0)).answers[0])
    found = []
    for index in range(len(builder)):
        try:
            found.append(tell(index))
        except SkipSample:
            found.append("")
    return found
