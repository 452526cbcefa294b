"""Find, load or draw the weights of a language model, in full precision or quantised."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.common.weight_files import locate, not_here
from minigpt4o.models.llms.tokenizer_files import HUB_NAME

log = logging.getLogger(__name__)

KEY = "model.llm.path"


def hf_source(path: str) -> str:
    """What transformers can open for a path: a Hugging Face folder, `llm/` of a checkpoint of ours, or a hub name.

    A bare name (`vicuna-7b`) is also looked for in the weight folders.
    """
    from minigpt4o.models.weights import resolve_checkpoint

    folder = locate(path)
    if folder is None:
        if HUB_NAME.fullmatch(path) and not Path(path.split("/")[0]).exists():
            return path
        raise ConfigError(f"{not_here(path, KEY)}; a run folder or a hub name (org/name) will do too")
    if (folder / "config.json").is_file():
        return str(folder)
    if (folder / "llm" / "config.json").is_file():
        return str(folder / "llm")
    step = resolve_checkpoint(folder)
    if (step / "llm" / "config.json").is_file():
        return str(step / "llm")
    raise CheckpointError(
        f"{KEY}: {step} holds no language model (no llm/config.json); it is written at the last "
        "step of a run whose `model.train` names `llm`"
    )


def load_weights(source: str, attention: str, quantize: str = "") -> nn.Module:
    """The causal LM of a folder or hub name, in the precision of its file or with its linear maps in 8 or 4 bit."""
    from transformers import AutoModelForCausalLM

    more = _quantised(quantize) if quantize else {}

    def load(attention: str) -> nn.Module:
        return AutoModelForCausalLM.from_pretrained(
            source,
            local_files_only=Path(source).exists(),
            trust_remote_code=False,
            attn_implementation=attention,
            dtype="auto",
            **more,
        )

    try:
        model = _with_attention(load, attention)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"{KEY}: {source} cannot be loaded: {error}") from error
    module: Any
    for module in model.modules():
        # bitsandbytes packs 4-bit weights anew at their first use without gradients on some CPUs. Their bytes would
        # change, and a later backward pass through them would give zeros without a word.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def draw_weights(model_type: str, options: dict[str, Any], seed: int, attention: str) -> nn.Module:
    """A causal LM of a family with random weights that depend on the seed alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        settings = AutoConfig.for_model(model_type, **options)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"model.llm: model_type {model_type!r} with these options: {error}") from error
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return _with_attention(
            lambda attention: AutoModelForCausalLM.from_config(settings, attn_implementation=attention), attention
        )


def _with_attention(make: Callable[[str], nn.Module], attention: str) -> nn.Module:
    """Some families (Gemma 2, GPT-J) have no SDPA attention: they get their own."""
    try:
        return make(attention)
    except ValueError as error:
        if attention != "sdpa" or "scaled_dot_product_attention" not in str(error):
            raise
    log.warning("this family of language models has no SDPA attention in transformers; `eager` is used")
    return make("eager")


def check_family(model: Any) -> None:
    """Refuse families that would go wrong in silence, or late, behind embeddings and a key-value cache."""
    name = type(model).__name__
    if getattr(model.config.get_text_config(), "hidden_size_per_layer_input", 0):
        raise ConfigError(
            f"model.llm: {name} reads the ids of words in every layer, and features of pictures and sounds have none; "
            "choose another language model"
        )
    if getattr(model, "_is_stateful", False):
        raise ConfigError(
            f"model.llm: {name} keeps a state instead of keys and values, from which batches cannot be cut; choose a "
            "language model with attention"
        )


def _quantised(bits: str) -> dict[str, Any]:
    """What transformers needs to load linear maps in 8 or 4 bit, on this process's own device.

    LLM.int8() (8 bit) and NF4 with its scales quantised again (4 bit); the output map stays as it is.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.llm.quantize: {bits} needs the package bitsandbytes: pip install 'minigpt4o[quantize]', "
            "or leave quantize empty"
        )
    from transformers import BitsAndBytesConfig

    # It says at every call of every layer that inputs are cast to float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if bits == "8bit":
        settings = BitsAndBytesConfig(load_in_8bit=True)
    else:
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
        )
    # A quantised map cannot move between devices as freely as others, so it is made where it will stay.
    place: Any = int(os.environ.get("LOCAL_RANK", 0)) if torch.cuda.is_available() else "cpu"
    return {"quantization_config": settings, "device_map": {"": place}}
