"""Names of tensors: those of MiniGPT-4, MiniGPT-v2, BLIP-2 and rinna's GPT-NeoX variant <-> ours. The one place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

# official prefix -> ours. The order matters where one prefix begins another.
_PREFIXES = (
    ("visual_encoder.", "encoders.image.vit."),
    ("ln_vision.", "norms.image."),
    ("query_tokens", "bridges.image.query_tokens"),
    ("Qformer.bert.embeddings.LayerNorm.", "bridges.image.qformer.layernorm."),
    ("Qformer.bert.encoder.", "bridges.image.qformer.encoder."),
    ("llama_proj.", "bridges.image.proj."),
)
_LLMS = ("llama_model.", "gpt_neox_model.")  # official names of the language model
_LLM = "llm.model."
_PEFT = "base_model.model."  # peft's wrapper, which stands in front of every name of a language model with adapters
_ATTENTION = re.compile(r"(\.layer\.\d+\.(?:cross)?attention\.)self\.")
_OWN_ATTENTION = re.compile(r"(\.layer\.\d+\.(?:cross)?attention\.)attention\.")
_ADAPTER = re.compile(r"\.(lora_[AB])\.(?:default\.)?")
_HEAD = re.compile(r"^(?:lm_head|embed_out)\.(?:0\.)?")  # GPT-NeoX's older name; peft 0.2 wraps the head (`.0`)

# Known to stand in official files and of no use: buffers, and parts of BLIP-2 that MiniGPT-4 does not have.
_IGNORED = re.compile(
    r"(^|\.)rotary_emb\.inv_freq$|^Qformer\.bert\.embeddings\.position_ids$|\.layers\.\d+\.attention\.(masked_)?bias$"
    r"|^Qformer\.cls\.|^Qformer\.bert\.embeddings\.(word|position)_embeddings\."
    r"|^Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\."
    r"|^(t5_model|opt_model|t5_proj|opt_proj|llm_model|llm_proj|vision_proj|text_proj|itm_head)\.|^temp$"
)


def is_ignored(name: str) -> bool:
    """Whether an official file may hold this name and a model has no use for it (buffers, BLIP-2's text side)."""
    return bool(_IGNORED.search(name))


def to_own(names: Iterable[str]) -> dict[str, str]:
    """Official name -> ours, for every name that is known; ignored and unknown names are left out.

    Read are: `llama_model.*` and `gpt_neox_model.*`, with peft's `base_model.model.` or without, adapters as peft 0.2
    writes them (`lora_A.weight`) or later (`lora_A.default.weight`, `base_layer`), `lm_head.0.weight`,
    `visual_encoder.*`, `ln_vision.*`, `query_tokens`, `Qformer.bert.*`, `llama_proj.*`.
    """
    names = [name for name in names if not is_ignored(name)]
    adapted = {match for name in names if (match := _adapted_module(name))}
    found = {}
    for name in names:
        own = _llm_to_own(name, adapted) if name.startswith(_LLMS) else _rest_to_own(name)
        if own:
            found[name] = own
    return found


def to_official(names: Iterable[str]) -> dict[str, str]:
    """Our name -> the official one, for every name that has one (`encoders.image`, `norms.image`, the bridge, `llm`).

    Adapters are written as peft 0.2 did, and `base_model.model.` stands before the language model's names exactly if
    there are adapters among `names`. GPT-NeoX goes under `gpt_neox_model.` with its head as `embed_out`, anything else
    under `llama_model.`.
    """
    names = list(names)
    wrapped = _PEFT if any(_ADAPTER.search(name) for name in names) else ""
    is_neox = any(name.startswith(_LLM + "gpt_neox.") for name in names)
    llm = _LLMS[1] if is_neox else _LLMS[0]
    found = {}
    for name in names:
        if name.startswith(_LLM):
            rest = _ADAPTER.sub(r".\1.", name.removeprefix(_LLM).replace(".base_layer.", "."))
            rest = _HEAD.sub("embed_out.", rest) if is_neox else rest
            found[name] = llm + wrapped + rest
            continue
        official = next((a + name.removeprefix(b) for a, b in _PREFIXES if name.startswith(b)), "")
        if official:
            found[name] = _OWN_ATTENTION.sub(r"\1self.", official)
    return found


def fitted(names: Iterable[str], own: Collection[str]) -> dict[str, str]:
    """Our names as a file has them -> as this model has them: `q_proj.weight` is `q_proj.base_layer.weight` beside
    an adapter, and the other way round."""
    found = {}
    for name in names:
        head, _, leaf = name.rpartition(".")
        other = (
            f"{head.removesuffix('.base_layer')}.{leaf}"
            if head.endswith(".base_layer")
            else f"{head}.base_layer.{leaf}"
        )
        found[name] = other if name not in own and other in own else name
    return found


def _adapted_module(name: str) -> str:
    """The module an adapter's tensor belongs to, without peft's wrapper; "" if it is no adapter's."""
    if not name.startswith(_LLMS):
        return ""
    rest = _unwrapped(name)
    match = _ADAPTER.search(rest)
    return rest[: match.start()] if match else ""


def _unwrapped(name: str) -> str:
    return name.partition(".")[2].removeprefix(_PEFT)


def _llm_to_own(name: str, adapted: set[str]) -> str:
    rest = _HEAD.sub("lm_head.", _unwrapped(name))
    if _ADAPTER.search(rest):
        return _LLM + _ADAPTER.sub(r".\1.default.", rest)
    module, _, leaf = rest.rpartition(".")
    if module in adapted:
        return f"{_LLM}{module}.base_layer.{leaf}"
    return _LLM + rest


def _rest_to_own(name: str) -> str:
    own = next((b + name.removeprefix(a) for a, b in _PREFIXES if name.startswith(a)), "")
    return _ATTENTION.sub(r"\1attention.", own)
