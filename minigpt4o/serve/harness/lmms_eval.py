"""lmms-eval's model interface: `lmms-eval --model minigpt4o --model_args path=RUN --tasks mme`. docs/harnesses.md."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms
from tqdm import tqdm

from minigpt4o.common.distributed import pick_device
from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.sample import Role, Sample
from minigpt4o.models.ranking import Likelihood
from minigpt4o.serve.harness.answering import MAX_NEW_TOKENS, Answerer, decoding_of_task
from minigpt4o.serve.harness.requests import Part, medium_part, parts_of_context, sample_of

log = logging.getLogger(__name__)

MAX_ROUNDS = 64  # of a task in rounds that never says it is over
Turns = list[tuple[Role, list[Part]]]


@dataclass
class Ask:
    """One request of lmms-eval, not opened yet."""

    name: str
    words: str  # by whose length requests are put beside each other
    turns: Callable[[], Turns]
    kwargs: dict[str, Any]


class Weighed(GenerationResult):
    """(loss, greedy) of a given answer. lmms-eval 0.7 turns a plain pair into a string before it scores it; what stands
    in its own wrapper it leaves alone."""

    def __init__(self, loss: float, greedy: bool) -> None:
        super().__init__(text=(loss, greedy))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.text)


class Minigpt4o(lmms):  # type: ignore[misc]
    """A model of ours for lmms-eval's simple requests: words with a list of media, to answer or to weigh answers."""

    is_simple = True

    def __init__(
        self,
        path: str = "",
        checkpoint: str | None = None,
        profile: str = "",
        device: str = "auto",
        batch_size: int | str = 1,
        max_new_tokens: int = MAX_NEW_TOKENS,
        likelihood: Literal["mean", "sum"] = "mean",
        separator: str | None = None,
        system: str | None = None,
        options: str = "",
        max_batch_size: int | None = None,
    ) -> None:
        """`path`, `checkpoint`, `profile`: see `Answerer.open`; `options`: its options, parted by blanks.

        `max_new_tokens`: where the task does not say. `likelihood`: a given answer's loss is the mean or the sum over
        its tokens. `separator`, `system`: in place of the YAML's. `max_batch_size` is lmms-eval's and not used.
        """
        super().__init__()
        if likelihood not in ("mean", "sum"):
            raise ConfigError(f"likelihood is {likelihood!r}; known: mean, sum")
        self.batch_size = _whole(batch_size)
        self.likelihood = likelihood
        self.defaults = Decoding(max_new_tokens=int(max_new_tokens))
        self._rank, self._world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        place = pick_device(device, int(os.environ.get("LOCAL_RANK", 0)))
        self.answerer: Answerer | None = Answerer.open(
            path, checkpoint, profile=profile, device=str(place), options=_bare(options).split()
        )
        self.separator = self.answerer.separator if separator is None else _bare(separator)
        self.system = self.answerer.system if system is None else _bare(system)
        self._device = self.answerer.model.device

    @property
    def device(self) -> Any:
        """Where lmms-eval puts what the ranks tell each other."""
        return self._device

    def clean(self) -> None:
        """Free the model's memory: lmms-eval calls it before it starts a judge."""
        if self.answerer is not None and self.answerer.skipped:
            log.warning("not asked and counted as answered by nothing: %s", dict(self.answerer.skipped))
        self.answerer = None
        super().clean()

    # ---- the three kinds of request ----

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """One answer a request, in their order."""
        names = _names(requests)
        return self._answers([self._ask(request, name) for request, name in zip(requests, names, strict=True)])

    def loglikelihood(self, requests: Sequence[Any]) -> list[Weighed]:
        """(loss, greedy) of each given answer: the smaller the likelier, as lmms-eval's `multiple_choice` wants it.

        lmms-eval's docstring speaks of log-probabilities, but its scorer takes the smallest value (api/task.py), and
        its own adapters return losses. `greedy`: the model would say exactly this and stop.
        """
        groups: dict[Any, list[int]] = {}
        for place, request in enumerate(requests):
            context, _, *rest = request.args
            groups.setdefault((context, *rest[1:]), []).append(place)
        order = sorted(groups.values(), key=lambda places: -len(requests[places[0]].args[0]))
        found: dict[int, Weighed] = {}
        for places_of in self._batches(order, len(requests), "likelihood"):
            samples = [self._ranked_sample(requests[places[0]]) for places in places_of]
            given = [[self._continuation(requests[place]) for place in places] for places in places_of]
            for places, row in zip(places_of, self._open().likelihoods(samples, given), strict=True):
                for place, one in zip(places, row, strict=True):
                    found[place] = Weighed(self._loss(one), one.greedy)
        return [found[place] for place in range(len(requests))]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """The answers of every round of each request; later rounds are asked for by the task, each on its own."""
        names = _names(requests)
        return [self._rounds(request, name) for request, name in zip(requests, names, strict=True)]

    # ---- what is asked ----

    def _ask(self, request: Any, name: str) -> Ask:
        context, kwargs, doc_to_visual, doc_id, task, split = request.args
        doc = lambda: self.task_dict[task][split][doc_id]  # noqa: E731  a document is read when its turn comes
        return Ask(name, context, lambda: self._turns(context, doc_to_visual(doc()), name), kwargs)

    def _turns(self, context: str, media: Iterable[Any] | None, name: str) -> Turns:
        parts = [medium_part(value) for value in media or () if value is not None]
        return [("user", parts_of_context(context, parts, name))]

    def _ranked_sample(self, request: Any) -> Sample:
        context, _, *rest = request.args
        media = rest[0](self.task_dict[rest[2]][rest[3]][rest[1]]) if rest else ()  # without: acc_mutual_info
        name = _name(request)
        return self._sample(name, self._turns(context, media, name))

    def _continuation(self, request: Any) -> str:
        """The answer to weigh. The blank that lmms-eval puts before it is the template's business here."""
        _, target, *rest = request.args
        return str(target(self.task_dict[rest[2]][rest[3]][rest[1]]) if callable(target) else target).strip()

    def _sample(self, name: str, turns: Turns) -> Sample:
        first: Turns = [("system", [("text", self.system)])] if self.system and turns[0][0] != "system" else []
        return sample_of(name, [*first, *turns], self.separator)

    def _rounds(self, request: Any, name: str) -> list[str]:
        context, kwargs, doc_to_visual, doc_to_text, doc_id, task, split = request.args
        doc = self.task_dict[task][split][doc_id]
        media, answers, told = doc_to_visual(doc), [], None
        for number in range(1, MAX_ROUNDS + 1):
            asked = Ask(f"{name}, round {number}", context, partial(self._turns, context, media, name), kwargs)
            answers += self._answers([asked], quiet=True)
            media, context, over, kept, told = doc_to_text(
                doc, previous_output=list(answers), round_idx=number, previous_round_info=told
            )
            if over:
                return list(kept or answers)
        raise ConfigError(f"{name}: the task is not over after {MAX_ROUNDS} rounds")

    # ---- answers ----

    def _answers(self, asks: Sequence[Ask], quiet: bool = False) -> list[str]:
        """Requests with the same wishes are answered together, the longest first."""
        groups: dict[str, list[int]] = {}
        for place, ask in enumerate(asks):
            groups.setdefault(json.dumps(ask.kwargs, sort_keys=True, default=str), []).append(place)
        answers = [""] * len(asks)
        for places in groups.values():
            decoding, until = decoding_of_task(asks[places[0]].kwargs, self.defaults)
            order = sorted(places, key=lambda place: -len(asks[place].words))
            for chosen in self._batches(order, len(order), "answers", quiet):
                samples = [self._sample(asks[place].name, asks[place].turns()) for place in chosen]
                for place, text in zip(chosen, self._open().answer(samples, decoding, until), strict=True):
                    answers[place] = text
                    self.cache_hook.add_partial("generate_until", (asks[place].words, asks[place].kwargs), text)
        return answers

    def _open(self) -> Answerer:
        if self.answerer is None:
            raise ConfigError("the model was freed after an evaluation; make a new one for the next")
        return self.answerer

    def _loss(self, one: Likelihood) -> float:
        return -(one.mean if self.likelihood == "mean" else one.total)

    def _batches(self, items: Sequence[Any], total: int, label: str, quiet: bool = False) -> Iterable[Sequence[Any]]:
        bar = tqdm(total=len(items), desc=f"minigpt4o {label} ({total})", disable=quiet or self.rank != 0)
        for start in range(0, len(items), self.batch_size):
            batch = items[start : start + self.batch_size]
            yield batch
            bar.update(len(batch))
        bar.close()


class Minigpt4oChat(Minigpt4o):
    """The same for lmms-eval's messages: turns whose pictures, sounds and words stand in the task's own order."""

    is_simple = False

    def _ask(self, request: Any, name: str) -> Ask:
        context, doc_to_messages, kwargs, doc_id, task, split = request.args
        doc = lambda: self.task_dict[task][split][doc_id]  # noqa: E731  a document is read when its turn comes
        return Ask(name, str(context), lambda: turns_of_messages(doc_to_messages(doc())), kwargs)

    def _rounds(self, request: Any, name: str) -> list[str]:
        context, doc_to_messages, kwargs, doc_id, task, split = request.args
        doc = self.task_dict[task][split][doc_id]
        messages, answers, told = doc_to_messages(doc), [], None
        for number in range(1, MAX_ROUNDS + 1):
            asked = Ask(f"{name}, round {number}", str(context), partial(turns_of_messages, messages), kwargs)
            answers += self._answers([asked], quiet=True)
            given = doc_to_messages(
                doc, round_idx=number, previous_output=list(answers), previous_round_info=told
            )  # messages, over, answers so far, whatever the task wants back
            if not (isinstance(given, tuple) and len(given) == 4):
                return answers
            messages, over, kept, told = given
            if over:
                return list(kept or answers)
        raise ConfigError(f"{name}: the task is not over after {MAX_ROUNDS} rounds")


def turns_of_messages(messages: Sequence[dict[str, Any]]) -> Turns:
    """lmms-eval's `[{"role", "content": [{"type": "text", "text"} or {"type": "image", "url"}]}]` as turns.

    Media in front of one text go to the places written in it, if it has as many: messages that lmms-eval makes of
    simple tasks look so.
    """
    turns: Turns = []
    for message in messages:
        content = message["content"]
        given = [{"type": "text", "text": content}] if isinstance(content, str) else content
        parts = [("text", p["text"]) if p["type"] == "text" else medium_part(p["url"], p["type"]) for p in given]
        *media, last = parts or [("text", "")]
        if last[0] == "text" and media and all(kind != "text" for kind, _ in media):
            parts = parts_of_context(last[1], media, message["role"])
        turns.append((message["role"], parts))
    return turns


def _name(request: Any) -> str:
    return f"{request.task_name}/{request.doc_id}"


def _names(requests: Sequence[Any]) -> list[str]:
    """Names that tell repeats of one request apart: what is drawn at random depends on the name."""
    seen: Counter[str] = Counter()
    names = []
    for request in requests:
        name = f"{_name(request)}.{request.idx}"
        names.append(name if not seen[name] else f"{name}, repeat {seen[name]}")
        seen[name] += 1
    return names


def _bare(words: str) -> str:
    """Words of the command line without the quotes that guard their commas, with `\\n` as a line end."""
    quoted = len(words) > 1 and words[0] == words[-1] == '"'
    return (words[1:-1] if quoted else words).replace("\\n", "\n")


def _whole(size: int | str) -> int:
    if not str(size).isdigit() or int(size) < 1:
        raise ConfigError(f"batch_size is {size!r}; give a whole number (it is not found by trial)")
    return int(size)
