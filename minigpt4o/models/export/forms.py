"""Which form a model is exported in, and writing it: a class of transformers where one fits, else one with code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.files import write_bytes, write_json
from minigpt4o.common.registry import Part, registry
from minigpt4o.models.export import blip2, code, llava
from minigpt4o.models.export.language import Language, has_adapters, language_of, plain_tensors, write_adapters
from minigpt4o.models.export.tokens import portable

Wanted = Literal["auto", "transformers", "code"]
ADAPTERS = "adapter"  # folder inside an export that holds adapters which were not merged


@dataclass(frozen=True)
class Form:
    """How a model is written."""

    name: str  # llava, blip2, language, code, minigpt4o
    title: str  # for people
    auto: str  # the Auto class that opens it
    needs: tuple[str, ...] = ("transformers",)  # packages
    trust: bool = False  # whether the reader has to allow code of the folder


BLIP2 = Form("blip2", "Blip2ForConditionalGeneration", "AutoModelForImageTextToText")
LLAVA = Form("llava", "LlavaForConditionalGeneration", "AutoModelForImageTextToText")
LANGUAGE = Form("language", "a causal language model", "AutoModelForCausalLM")
CODE = Form("code", "AlignedForConditionalGeneration", "AutoModelForMultimodalLM", ("transformers", "minigpt4o"), True)
NATIVE = Form("minigpt4o", "Minigpt4oForConditionalGeneration", "AutoModelForMultimodalLM", trust=True)


def forms_of(model: Any, wanted: Wanted) -> tuple[list[Form], list[str]]:
    """Forms that fit, the best first, and why others do not. Raises ConfigError if none does."""
    if hasattr(model, "whole"):
        return [NATIVE], []
    if not hasattr(model, "bridges"):
        raise ConfigError(f"a model of class {type(model).__name__} holds no conversations and is not exported")
    if not model.encoders:
        return [LANGUAGE], []
    reasons = {LLAVA: llava.why_not(model), BLIP2: blip2.why_not(model)}
    fits = [form for form, reason in reasons.items() if not reason] if wanted != "code" else []
    told = [f"{form.title}: {reason}" for form, reason in reasons.items() if reason]
    if wanted == "transformers" and not fits:
        raise ConfigError(
            "transformers has no class for this model\n"
            + "\n".join(f"  {line}" for line in told)
            + "\n--as code writes it with code that needs the package minigpt4o"
        )
    return [*fits, *([CODE] if wanted != "transformers" else [])], told


@dataclass
class Export:
    """One export on its way: what is written, and with which processors."""

    model: Any
    form: Form
    folder: Path
    media: Mapping[str, Part]  # evaluation processors by kind
    merge: bool
    dtype: torch.dtype
    separator: str = ""  # between media and words of a chat
    system: str = ""  # said first in a chat that brings no words of the system; empty: as the template says
    plugins: tuple[str, ...] = ()

    @property
    def adapters(self) -> bool:
        """Whether adapters are written beside the weights."""
        return not self.merge and has_adapters(self.language_part)

    @property
    def language_part(self) -> Any:
        """The module in which adapters sit."""
        return self.model.whole if self.form is NATIVE else self.model.llm.model

    def write(self) -> None:
        """Weights, configuration, tokenizer, processor, and adapters that are not merged."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.form is NATIVE:
            self._write_native()
        else:
            self._write_aligned()
        if self.adapters:
            module = self.model.language_model if self.form is NATIVE else self.model.llm.model
            base = module.base_model_prefix if self.form is LLAVA else ""  # LLaVA has the language model without head
            write_adapters(module, self.folder / ADAPTERS, _BELOW[self.form.name], base)

    # ---- Minigpt4o ----

    def _write_native(self) -> None:
        from minigpt4o.models.minigpt4o.export import export_with_code
        from minigpt4o.models.native_export import processor_of

        tensors = plain_tensors(self.model.whole, self.merge)
        whole = _outlined(type(self.model.whole), self.model.whole.config, tensors, self.dtype)
        export_with_code(whole, processor_of(self.model), self.folder)

    # ---- joined from parts ----

    def _write_aligned(self) -> None:
        marks = code.marks_of(self.model)
        tokenizer = portable(self.model.tokenizer, marks)
        language = language_of(self.model.llm, tokenizer, self.merge)
        ids = {kind: tokenizer.convert_tokens_to_ids(mark) for kind, mark in zip(self.model.slots, marks, strict=True)}
        kind, config, tensors = self._parts(language, ids)
        _outlined(kind, config, tensors, self.dtype).save_pretrained(self.folder)
        self._processor(tokenizer).save_pretrained(self.folder)
        if self.form is CODE:
            write_bytes(self.folder / f"{code.MODULE}.py", code.LOADER.encode())
            file = self.folder / "processor_config.json"
            write_json(file, {**json.loads(file.read_bytes()), "auto_map": code.PROCESSOR_MAP})

    def _parts(self, language: Language, ids: Mapping[str, int]) -> tuple[Any, Any, dict[str, Tensor]]:
        """(class, configuration, tensors) of the exported model."""
        if self.form is LANGUAGE:
            return type(self.model.llm.model), language.config, language.tensors
        if self.form is BLIP2:
            from transformers import Blip2ForConditionalGeneration

            config = blip2.blip2_config(self.model, language, ids["image"])
            return Blip2ForConditionalGeneration, config, blip2.blip2_tensors(self.model, language)
        if self.form is LLAVA:
            from transformers import LlavaForConditionalGeneration

            config = llava.llava_config(self.model, language, ids["image"])
            return LlavaForConditionalGeneration, config, llava.llava_tensors(self.model, language)
        from minigpt4o.models.aligned_hf.modeling_aligned import AlignedForConditionalGeneration

        config = code.code_config(self.model, language, ids, list(self.plugins))
        return AlignedForConditionalGeneration, config, code.code_tensors(self.model, language)

    def _processor(self, tokenizer: Any) -> Any:
        from minigpt4o.conversation.jinja import jinja_of
        from minigpt4o.models.export.processor import picture_processor

        template = self.model.conversation.serving
        if self.system:
            template = replace(template, system=self.system)
        chat = jinja_of(template, dict.fromkeys(self.model.slots, 1), self.separator)
        if self.form is LANGUAGE:
            tokenizer.chat_template = chat
            return tokenizer
        if self.form is CODE:
            return code.code_processor(self.model, tokenizer, self.media, chat)
        counted: dict[str, Any] = {}
        if self.form is LLAVA:
            core = self.model.encoders["image"].core
            counted = {"patch": core.config.patch_size, "strategy": llava.strategy_of(self.model)}
        return picture_processor(self.model, tokenizer, registry.build(self.media["image"]), chat, **counted)


# Where the language model stands in the exported class.
_BELOW = {
    "llava": "model.language_model",
    "blip2": "language_model",
    "code": "language_model",
    "language": "",
    "minigpt4o": "model.language_model",
}


def _outlined(kind: Any, config: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Any:
    """A model of transformers around tensors that exist already. Raises ConfigError where names do not agree."""
    with torch.device("meta"):
        model = kind._from_config(config, dtype=dtype) if hasattr(kind, "_from_config") else kind(config)
    held = {name: t.to(dtype).contiguous() if t.is_floating_point() else t for name, t in tensors.items()}
    loaded = model.load_state_dict(held, strict=False, assign=True)
    model.tie_weights()
    left = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if left or loaded.unexpected_keys:
        raise ConfigError(
            f"{kind.__name__} does not take this model: {len(left)} tensor(s) without a value ({', '.join(left[:3])}), "
            f"{len(loaded.unexpected_keys)} without a place ({', '.join(loaded.unexpected_keys[:3])})"
        )
    model.config.dtype = dtype
    return model


__all__ = ["ADAPTERS", "CODE", "NATIVE", "Export", "Form", "forms_of"]
