"""A model as LAVIS and MiniGPT-4 hand it out: `generate`, `encode_img`, `multi_select`, losses of tensors and texts."""

# B rows, T tokens of the longest row, N pictures, P features of one, S side in pixels, D width of the language model

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.answers import ANSWER_RULES, clean_batch_answer
from minigpt4o.conversation.batch import IGNORE, Batch, Decoding, Example
from minigpt4o.models.ranking import padded_places
from minigpt4o.serve.decoding import decoding_of
from minigpt4o.serve.rows import Row, RowMaker, rows_of

_QUESTION = ("prompt", "instruction_input", "text_input", "question")  # the names LAVIS and MiniGPT-4 give a prompt
_ANSWER = ("answer", "text_output")
_OUT = 1e4  # loss of a candidate that is only padding


class ServedModel(nn.Module):
    """An aligned model behind the doors of LAVIS and MiniGPT-4. `aligned` is the model itself."""

    def __init__(self, aligned: Any) -> None:
        super().__init__()
        self.aligned = aligned
        self.rows = RowMaker(aligned)

    @property
    def device(self) -> torch.device:
        return self.aligned.device

    @property
    def compat(self) -> bool:
        """Whether the model speaks as the reference does, faults included."""
        return bool(self.aligned.conversation.profile == "compat")

    # ---- generation ----

    @torch.no_grad()
    def generate(
        self,
        images: Any = None,
        texts: str | Sequence[str] | None = None,
        num_beams: int = 1,
        max_new_tokens: int = 20,
        min_length: int = 1,
        top_p: float = 0.9,
        repetition_penalty: float = 1,
        length_penalty: float = 1,
        temperature: float = 1,
        do_sample: bool = False,
        stop_words_ids: Sequence[Any] = (2,),
        lengths: Sequence[int] | None = None,
        **more: Any,
    ) -> list[str]:
        """Answers to texts about pictures, or to LAVIS's `{"image": ..., "prompt": ...}` as the first argument.

        A text is a plain question, put into the model's template here, or a whole prompt with `<ImageHere>` where a
        picture belongs, sent as it stands. `images`: (N, 3, S, S), one a text; a list of lists, or (N, L, 3, S, S)
        with `lengths`, for several; None for text alone. `more`: `seed`, and LAVIS's `use_nucleus_sampling`, ...
        """
        if isinstance(images, Mapping):
            images, texts = images.get("image"), _first(images, _QUESTION)
        given = {
            "num_beams": num_beams,
            "max_new_tokens": max_new_tokens,
            "min_length": min_length,
            "top_p": top_p,
            "repetition_penalty": repetition_penalty,
            "length_penalty": length_penalty,
            "temperature": temperature,
            "do_sample": do_sample,
        }
        return self.answer(_rows(images, texts, lengths), decoding_of({**given, **more}), self._stops(stop_words_ids))

    def answer(self, rows: Sequence[Row], decoding: Decoding, stops: Sequence[str] = ()) -> list[str]:
        """One answer a row. Raises DataError before the model runs if a row cannot be used."""
        examples = [self.rows.example(row) for row in rows]
        for row, example in zip(rows, examples, strict=True):
            self._ensure_room(row, len(example.input_ids), decoding.max_new_tokens)
        raw = [self.rows.is_raw(row.text) for row in rows]
        answers = [""] * len(rows)
        serving = self.rows.template.serving
        for whole in (False, True):  # what is sent whole stops only at EOS in compat, as in the reference
            chosen = [i for i, is_whole in enumerate(raw) if is_whole == whole]
            if chosen:
                ends = () if whole and self.compat else (*serving.stop, *stops)
                clean = clean_batch_answer if whole else ANSWER_RULES[serving.answer]
                batch = self._batch([examples[i] for i in chosen], "left")
                for i, text in zip(chosen, self.aligned.generate(batch, decoding, None, ends), strict=True):
                    answers[i] = clean(text)
        return answers

    def _stops(self, ids: Sequence[Any]) -> list[str]:
        """Stop sequences of ids as text; EOS stops by itself."""
        tokenizer, found = self.aligned.tokenizer, []
        for item in ids:
            sequence = [int(i) for i in torch.as_tensor(item).reshape(-1)]
            text = tokenizer.decode(sequence, skip_special_tokens=True).strip()
            if text and sequence != [tokenizer.eos_token_id]:
                found.append(text)
        return [] if self.compat else found

    def _ensure_room(self, row: Row, tokens: int, more: int) -> None:
        room = self.aligned.llm.max_positions
        if room is not None and tokens + more > room:
            raise DataError(
                f"{row.where}: the prompt takes {tokens} places (a text of {len(row.text):,} characters, "
                f"{len(row.pictures)} picture(s) of {self.aligned.slots.get('image', 0)} places) and the answer up to "
                f"{more}, but the language model has {room} positions; shorten the text or lower max_new_tokens"
            )

    def _batch(self, examples: Sequence[Example], side: Any) -> Batch:
        from minigpt4o.datasets.collate import collate

        return collate(list(examples), self.aligned.tokenizer.pad_token_id or 0, side).to(self.device)

    # ---- features ----

    @torch.no_grad()
    def encode_img(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) or (B, L, 3, S, S) -> (N, P, D): features behind the bridge, as they stand in a row."""
        pictures = images.flatten(0, 1) if images.ndim == 5 else images
        for picture in pictures:
            self.rows.ensure_size(picture, "encode_img")
        with self.aligned.autocast():
            features = self.aligned.encode("image", pictures.to(self.device))
            return self.aligned.bridges["image"](features)

    # ---- losses ----

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """{"image", "prompt", "answer"} (or MiniGPT-4's instruction_input, LAVIS's text_input/text_output) -> the loss.

        The mean over all learned tokens of the batch.
        """
        found = self.aligned(self._batch([self.rows.example(row) for row in learned_rows(samples)], "right"))
        return {"loss": found.loss_sum / found.count.clamp(min=1)}

    @torch.no_grad()
    def multi_select(
        self,
        images: Any,
        texts: str | Sequence[str],
        answers: Sequence[str | Sequence[str]],
        num_cand: Sequence[int] | None = None,
    ) -> list[list[int]]:
        """Candidates by likelihood, the best first: per row a list of numbers of `answers`.

        `answers[c]` is candidate c for all rows, or a list with one for each. `num_cand[b]`: only so many candidates
        of row b are meant, the rest come last. A candidate's loss is the mean over its own tokens and does not depend
        on the rows beside it; in compat it is the reference's mean over all places of the padded batch.
        """
        rows = _rows(images, texts, None)
        losses = torch.stack([self._losses(rows, candidate) for candidate in answers], dim=1)  # (B, candidates)
        for row, count in enumerate(num_cand or ()):
            losses[row, int(count) :] = _OUT
        return losses.argsort(dim=-1, stable=True).tolist()

    def _losses(self, rows: Sequence[Row], candidate: str | Sequence[str]) -> Tensor:
        """(B,) float32."""
        said = [candidate] * len(rows) if isinstance(candidate, str) else list(candidate)
        if len(said) != len(rows):
            raise DataError(f"multi_select: a candidate has {len(said)} texts, but there are {len(rows)} rows")
        examples = [self.rows.example(replace(row, answer=a)) for row, a in zip(rows, said, strict=True)]
        batch = self._batch(examples, "right")
        sums = torch.zeros(len(rows))
        counts = (batch.labels[:, 1:] != IGNORE).sum(dim=1).cpu()
        with self.aligned.autocast():
            states = self.aligned.llm.hidden(self.aligned.embed(batch)[:, :-1], batch.attention_mask[:, :-1])
            for i in range(len(rows)):
                at = batch.labels[i, 1:] != IGNORE
                logits = self.aligned.llm.logits(states[i][at])
                losses = nn.functional.cross_entropy(logits.float(), batch.labels[i, 1:][at], reduction="sum")
                sums[i] = losses.cpu()
        if self.compat:  # BOS, the longest prompt and the longest answer, less the place that predicts nothing
            longest = max(len(e.labels) - int(n) for e, n in zip(examples, counts, strict=True))
            return sums / padded_places(longest, int(counts.max()))
        return sums / counts.clamp(min=1)

    def load_checkpoint(self, path: str) -> Any:
        """Lay a checkpoint (`.pth` of MiniGPT-4, or a folder of ours) over the model; returns what matched."""
        from minigpt4o.models.weights import lay_over, read_tensors

        return lay_over(self.aligned, read_tensors(path), path)


def learned_rows(samples: Mapping[str, Any]) -> list[Row]:
    """Rows with answers, of a batch in LAVIS's or MiniGPT-4's form."""
    answers = _first(samples, _ANSWER)
    if answers is None:
        raise DataError(f"the samples have no {' or '.join(_ANSWER)}; there are: {', '.join(samples)}")
    answers = [answers] if isinstance(answers, str) else list(answers)
    rows = _rows(samples.get("image"), _first(samples, _QUESTION) or [""] * len(answers), samples.get("length"))
    if len(rows) != len(answers):
        raise DataError(f"{len(rows)} prompt(s) or picture(s) came with {len(answers)} answer(s); give one each")
    return [replace(row, answer=answer) for row, answer in zip(rows, answers, strict=True)]


def _rows(images: Any, texts: Any, lengths: Sequence[int] | None) -> list[Row]:
    if texts is None:
        raise DataError(f"no text came with the pictures; give texts, or one of {', '.join(_QUESTION)}")
    return rows_of(images, texts, lengths)


def _first(samples: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((samples[name] for name in names if samples.get(name) is not None), None)
