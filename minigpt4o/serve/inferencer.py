"""mmpretrain's way in: `inference_model(name, picture)` -> `{"pred_caption": ...}`, `get_model`, `list_models`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.source import nearest
from minigpt4o.common.weight_files import ENV
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.boxes import BoxError, parse_boxes, to_pixels
from minigpt4o.conversation.objects import in_original_frame
from minigpt4o.serve.decoding import decoding_of
from minigpt4o.serve.opening import Source, build, image_processors, is_path, source_of_family, source_of_path
from minigpt4o.serve.pictures import VisProcessor, size_of
from minigpt4o.serve.rows import Row
from minigpt4o.serve.served import ServedModel
from minigpt4o.serve.zoo import Asked, known_model, list_models, tasks_of

__all__ = ["Inferencer", "forget_models", "get_model", "inference_model", "list_models"]

_KEPT: dict[tuple[Any, ...], ServedModel] = {}  # the model of the last call: one, because one may fill the memory


def inference_model(
    model: Any,
    images: Any,
    questions: str | Sequence[str] | None = None,
    *,
    device: Any = None,
    weights: str | Path | None = None,
    checkpoint: str | None = None,
    task: str | None = None,
    prompt: str | None = None,
    language: str | None = None,
    batch_size: int = 1,
    options: Sequence[str] = (),
    profile: str = "",
    **decoding: Any,
) -> Any:
    """A dict for one picture, a list of dicts for a list: `{"pred_caption": ...}` or `{"question", "pred_answer"}`.

    `model`: a name of `list_models()`, a YAML file, a checkpoint or run folder, or a model that `get_model` or
    `load_model` gave. `images`: a path, PIL picture, array (H, W, 3) in RGB, or a list of them. `prompt` or `language`
    chooses other words than the task's own. `decoding`: max_new_tokens, num_beams, do_sample, top_p, ... The model
    stays loaded for the next call; `forget_models()` frees it.
    """
    found = Inferencer(
        model,
        device=device,
        weights=weights,
        checkpoint=checkpoint,
        task=task or ("vqa" if questions is not None and not _has_task(model) else None),
        options=options,
        profile=profile,
    )
    results = found(images, questions, prompt=prompt, language=language, batch_size=batch_size, **decoding)
    return results if isinstance(images, list | tuple) else results[0]


def get_model(
    name: str | Path,
    pretrained: bool | str = True,
    device: Any = None,
    *,
    weights: str | Path | None = None,
    options: Sequence[str] = (),
    profile: str = "",
) -> ServedModel:
    """The model of a name of `list_models()`, a YAML file or a run folder, in eval mode.

    `pretrained`: True = with its published checkpoint, False = without (the bridge starts fresh), or the checkpoint's
    path. The encoder and the language model need their weight files in any case.
    """
    checkpoint = pretrained if isinstance(pretrained, str) else None if pretrained else ""
    return ServedModel(build(_source(name, checkpoint, options, profile)[0], device, weights)).eval()


def forget_models() -> None:
    """Free the model that `inference_model` kept."""
    _KEPT.clear()


class Inferencer:
    """A model with its task and its processor, ready for many calls; `inference_model` is one of them."""

    def __init__(
        self,
        model: Any,
        *,
        device: Any = None,
        weights: str | Path | None = None,
        checkpoint: str | None = None,
        task: str | None = None,
        options: Sequence[str] = (),
        profile: str = "",
    ) -> None:
        settings, known = None, None
        if isinstance(model, str | Path):
            source, known = _source(model, checkpoint, options, profile)
            settings = source.settings
            self.model = _kept(source, device, weights)
        else:
            self.model = model if isinstance(model, ServedModel) else ServedModel(model)
            if device is not None:
                self.model.to(device)
        self.model.eval()
        tasks = known.family.tasks if known else tasks_of(self.model.aligned.template)
        self.task = task or (known.task if known else "caption")
        if self.task not in tasks:
            close = nearest(self.task, list(tasks)) or list(tasks)
            raise ConfigError(f"unknown task {self.task!r} of this model; nearest: {', '.join(close)}")
        self.asked: Asked = tasks[self.task]
        self.processor = VisProcessor(image_processors(settings, self.model.aligned)["eval"])

    def __call__(
        self,
        images: Any,
        questions: str | Sequence[str] | None = None,
        *,
        prompt: str | None = None,
        language: str | None = None,
        batch_size: int = 1,
        **decoding: Any,
    ) -> list[dict[str, Any]]:
        """One dict per picture."""
        chosen = decoding_of(decoding, max_new_tokens=self.asked.max_new_tokens, min_new_tokens=1)
        pictures = list(images) if isinstance(images, list | tuple) else [images]
        asked = self._texts(questions, len(pictures), prompt, language)
        results: list[dict[str, Any]] = []
        for start in range(0, len(pictures), max(batch_size, 1)):
            part = slice(start, start + max(batch_size, 1))
            results += self._answer(pictures[part], asked[part], chosen, start)
        return results

    def _texts(
        self, questions: str | Sequence[str] | None, count: int, prompt: str | None, language: str | None
    ) -> list[tuple[str, str]]:
        """(question, text that is sent) of every picture."""
        words = self._words(prompt, language)
        if questions is None:
            if "{}" in words:
                raise DataError(f"the task {self.task!r} needs a question: inference_model(model, picture, question)")
            return [("", words)] * count
        asked = [questions] * count if isinstance(questions, str) else list(questions)
        if len(asked) != count:
            raise DataError(f"{len(asked)} question(s) came with {count} picture(s); give one for each, or one for all")
        if "{}" not in words:
            words = "{}" if prompt is None else f"{words} {{}}"
        return [(question, words.replace("{}", question)) for question in asked]

    def _words(self, prompt: str | None, language: str | None) -> str:
        if prompt is not None:
            return prompt
        words = self.asked.words
        if language is None or "" in words:
            return next(iter(words.values()))
        if language not in words:
            raise ConfigError(
                f"language {language!r}: this task has {', '.join(words)}; or give the words as prompt=..."
            )
        return words[language]

    def _answer(
        self, pictures: list[Any], asked: list[tuple[str, str]], decoding: Decoding, start: int
    ) -> list[dict[str, Any]]:
        rows = []
        for i, (picture, (_, text)) in enumerate(zip(pictures, asked, strict=True)):
            shown, frame = self.processor.open(picture)
            rows.append(Row(text, (shown,), where=f"picture {start + i}", geometries=(frame,)))
        answers = self.model.answer(rows, decoding)
        return [
            self._result(question, in_original_frame(answer, row.geometries[0]), picture)
            for (question, _), answer, row, picture in zip(asked, answers, rows, pictures, strict=True)
        ]

    def _result(self, question: str, answer: str, picture: Any) -> dict[str, Any]:
        result: dict[str, Any] = {"question": question} if question else {}
        result[self.asked.key] = answer
        if self.asked.boxes:
            size = size_of(picture)
            result["pred_bboxes"] = boxes_of(answer, size) if size else []
        return result


def boxes_of(answer: str, size: tuple[int, int]) -> list[tuple[float, float, float, float]]:
    """Boxes of an answer in pixels of the picture, (left, top, right, bottom); none if they cannot be read."""
    try:
        return [to_pixels(grid, size).xyxy for grid in parse_boxes(answer)]
    except BoxError:
        return []


def _source(name: str | Path, checkpoint: str | None, options: Sequence[str], profile: str) -> tuple[Source, Any]:
    if is_path(name):
        return source_of_path(name, checkpoint, options, profile), None
    known = known_model(str(name))
    return source_of_family(known.family, checkpoint, options, profile), known


def _has_task(model: Any) -> bool:
    return isinstance(model, str) and not is_path(model)


def _kept(source: Source, device: Any, weights: str | Path | None) -> ServedModel:
    """The model of the last call if it is the same one, else a new one in its place."""
    key = (repr(source.settings.model), source.checkpoints, str(device), str(weights), os.environ.get(ENV))
    if key not in _KEPT:
        _KEPT.clear()  # before the new one is built: two may not fit
        _KEPT[key] = ServedModel(build(source, device, weights))
    return _KEPT[key]
