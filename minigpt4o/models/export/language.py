"""The language model of an export: tensors without or with the adapters added, rows for new words, adapters alone."""

# V words of the tokenizer, R rows of the embeddings, D width

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError


@dataclass
class Language:
    """A language model as it is written."""

    config: Any  # of transformers, with the number of rows and the ids of the tokenizer
    tensors: dict[str, Tensor]  # under the names of the transformers class
    base: str  # where the model without its output map stands in it
    table: str  # name of the embeddings' tensor
    head: str  # name of the output map's; in `tensors` only where it is not the embeddings'


def language_of(llm: Any, tokenizer: Any, merge: bool) -> Language:
    """The tensors and configuration of `llm` (our CausalLM) for a tokenizer that may have more words.

    Without `merge` adapters are left out. A new word's output row is a copy of an older special word's, so that it is
    never the likeliest word and every other logit stays as it was.
    """
    model = llm.model
    if getattr(model, "is_quantized", False):
        raise ConfigError("model.llm.quantize: a quantised language model cannot be exported; leave quantize empty")
    tensors = plain_tensors(model, merge)
    config = copy.deepcopy(model.config)
    config._name_or_path = ""  # a folder of this machine
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        special = (tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        like = next(i for i in special if i is not None)
        for name in _row_tensors(model):
            tensors[name] = _grown(tensors[name], len(tokenizer), like)
        config.get_text_config().vocab_size = len(tokenizer)
    text = config.get_text_config()
    text.pad_token_id, text.bos_token_id = tokenizer.pad_token_id, tokenizer.bos_token_id
    ends = sorted({*llm.eos_ids})
    text.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    return Language(
        config,
        tensors,
        base=model.base_model_prefix,
        table=_name_of(model, model.get_input_embeddings()),
        head=_name_of(model, model.get_output_embeddings()),
    )


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    """Name of a module's weight."""
    return next(f"{name}.weight" for name, module in model.named_modules() if module is wanted)


def plain_tensors(model: nn.Module, merge: bool) -> dict[str, Tensor]:
    """All tensors under the names they had before adapters came; with `merge` the adapters are added.

    Tensors that are one (tied embeddings) are given once, under their first name.
    """
    adapted = {f"{name}.weight": m for name, m in model.named_modules() if merge and hasattr(m, "lora_A")}
    found: dict[str, Tensor] = {}
    seen: set[tuple[int, torch.Size]] = set()
    for name, tensor in model.state_dict().items():
        if ".lora_" in name:
            continue
        key = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() and tensor.device.type != "meta":
            if key in seen:
                continue
            seen.add(key)
        name, tensor = name.replace(".base_layer.", "."), tensor.detach()
        found[name] = _merged(tensor, adapted[name]) if name in adapted else tensor
    return found


def _merged(weight: Tensor, layer: Any) -> Tensor:
    """The weight of a map with its adapters added, float32: summed in float64, so that it is rounded once."""
    total = weight.double()
    for adapter in layer.lora_A:
        first, second = (part[adapter].weight.detach().double() for part in (layer.lora_A, layer.lora_B))
        added = second @ first * layer.scaling[adapter]
        total += added.T if layer.fan_in_fan_out else added
    return total.float()


def has_adapters(model: nn.Module) -> bool:
    """Whether low-rank adapters sit in it."""
    return any(".lora_A." in name for name, _ in model.named_parameters())


def _row_tensors(model: Any) -> list[str]:
    """Names of the tensors with one row a word: embeddings, output map, its bias; tied ones once."""
    wanted = {id(model.get_input_embeddings().weight)}
    out = model.get_output_embeddings()
    wanted |= {id(p) for p in (out.weight, getattr(out, "bias", None)) if p is not None}
    return [name.replace(".base_layer.", ".") for name, p in model.named_parameters() if id(p) in wanted]


def _grown(tensor: Tensor, rows: int, like: int) -> Tensor:
    """(R, ...) -> (rows, ...): new rows are copies of row `like`."""
    more = tensor[like : like + 1].expand(rows - tensor.shape[0], *tensor.shape[1:])
    return torch.cat([tensor, more])


def write_adapters(model: nn.Module, folder: Path, inside: str, base: str = "") -> Path:
    """The adapters as a folder of peft, for a model in which this one (or what it calls `base`) is named `inside`.

    `model.load_adapter(folder)` of transformers, or `peft.PeftModel.from_pretrained(model, folder)`, lays them on.
    """
    import re

    from peft import LoraConfig
    from safetensors.torch import save_file

    settings: Any = model.peft_config
    ours = settings["default"]
    targets = "|".join(map(re.escape, sorted(ours.target_modules)))
    below, dropped = (f"{name}." if name else "" for name in (inside, base))
    config = LoraConfig(
        r=ours.r,
        lora_alpha=ours.lora_alpha,
        lora_dropout=ours.lora_dropout,
        bias="none",
        fan_in_fan_out=ours.fan_in_fan_out,
        # only in the language model: encoders may have maps of the same names
        target_modules=rf"{re.escape(below)}.*\.({targets})",
        inference_mode=True,
    )
    config.save_pretrained(folder)
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if ".lora_" in name:
            name = name.removeprefix(dropped).replace(".default.", ".")
            tensors[f"base_model.model.{below}{name}"] = tensor.detach().float().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder
