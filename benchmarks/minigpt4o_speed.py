"""Minigpt4o against the installed Gemma3n of transformers: same weights, same inputs, one process, runs in turn.

    python benchmarks/minigpt4o.py --size tiny                     # on a CPU, about a minute
    python benchmarks/minigpt4o.py --size medium --repeats 9
    python benchmarks/minigpt4o.py --size e2b --device cuda --dtype bfloat16

Each case first compares the two outputs (`apart`, the relative distance) and stops if they differ. Then ours and theirs
run in turn; `ratio` is the median over the pairs of their time / our time, with the middle half of the pairs behind it.
On a CPU the time is that of the processor, so that other programs disturb little. A table goes to stderr, one JSON line
to stdout.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration
from transformers.models.gemma3n.feature_extraction_gemma3n import Gemma3nAudioFeatureExtractor

from minigpt4o import (
    Minigpt4oAudioFeatureExtractor,
    Minigpt4oConfig,
    Minigpt4oForConditionalGeneration,
)

# size -> rows and tokens of a batch, prompt and new tokens of generation, pixels of a side, frames of a sound
SHAPES = {
    "tiny": (4, 128, 64, 32, 128, 400),
    "medium": (2, 256, 128, 32, 128, 400),
    "e2b": (1, 1024, 1024, 64, 768, 997),
}
VOCABULARY = {"tiny": (2_000, 16), "medium": (16_000, 16), "e2b": (200_000, 128)}
MEDIUM = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 10,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "sliding_window": 128,
    "num_kv_shared_layers": 5,
    "hidden_size_per_layer_input": 64,
    "altup_num_inputs": 4,
    "laurel_rank": 32,
    "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 2,
    "activation_sparsity_pattern": [0.95] * 4 + [0.0] * 6,
}
MEDIUM_AUDIO = {"hidden_size": 256, "conf_num_hidden_layers": 4, "sscp_conv_channel_size": (64, 32)}
APART = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}
SECONDS, RATE = 10, 16_000
MILLI = 1e3

Act = Callable[[], Any]


@dataclass
class Case:
    """Two ways to do the same, and how far apart their outcomes are."""

    name: str
    ours: Act
    theirs: Act
    apart: float
    limit: float
    tokens: int = 0  # made or read by one run


@dataclass
class Row:
    """What a case took."""

    case: str
    ours_ms: float
    theirs_ms: float
    ratio: float
    low: float
    high: float
    tokens_per_s: float | None
    apart: float


def values(size: str) -> dict[str, Any]:
    """The configuration of a size as plain values, equal for both."""
    config = Minigpt4oConfig.preset("e2b" if size == "e2b" else "tiny", *VOCABULARY[size])
    values = copy.deepcopy(config.to_dict())
    if size == "medium":
        values["text_config"] |= MEDIUM
        values["text_config"].pop("rope_parameters", None)
        values["audio_config"] |= MEDIUM_AUDIO
    for key in ("text_config", "vision_config", "audio_config"):
        values[key].pop("model_type", None)
    values.pop("model_type", None)
    return values


def decoded(values: dict[str, Any]) -> dict[str, Any]:
    """The same with the picture tower's blocks as timm's own builder wants them."""
    from timm.models._efficientnet_builder import decode_arch_def

    values = copy.deepcopy(values)
    arguments = values["vision_config"].get("model_args")
    if arguments:
        arguments["block_args"] = decode_arch_def(arguments["block_args"])
    return values


def models(size: str, device: torch.device, dtype: torch.dtype, attention: str) -> tuple[Any, Any]:
    """Ours and theirs with the very same random weights."""
    facts, options = values(size), {"attn_implementation": attention, "dtype": dtype}
    with device:
        theirs = Gemma3nForConditionalGeneration._from_config(Gemma3nConfig(**decoded(facts)), **options)
        ours = Minigpt4oForConditionalGeneration._from_config(Minigpt4oConfig(**facts), **options)
    scatter(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)  # the same memory
    ours.tie_weights()
    return ours.eval(), theirs.eval()


@torch.no_grad()
def scatter(model: nn.Module) -> None:
    """Weights that make every part count: fresh ones are zeros and ones in many places."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=weight[0].numel() ** -0.5)
        else:
            weight.normal_(mean=1.0 if "norm" in name or name.endswith(("bn.weight", "gamma")) else 0.0, std=0.1)


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Relative; of ids the share that differs."""
    if not theirs.is_floating_point():
        return float((ours != theirs).float().mean())
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp(min=1e-30))


def forward(model: Any, **inputs: Any) -> Tensor:
    with torch.inference_mode():
        return model(**inputs).logits


def backward(model: Any, parameters: list[nn.Parameter], loss: Callable[[], Tensor]) -> Tensor:
    """One training pass; the gradients of a few parameters, to compare."""
    model.zero_grad(set_to_none=True)
    loss().backward()
    return torch.cat([p.grad.flatten()[:4096].float() for p in parameters if p.grad is not None])


def pair(name: str, made: tuple[Any, Any], act: Callable[[Any], Tensor], limit: float, tokens: int = 0) -> Case:
    """The same act on both models."""
    ours, theirs = made
    apart = distance(act(ours), act(theirs))
    return Case(name, lambda: act(ours), lambda: act(theirs), apart, limit, tokens)


def text_cases(made: tuple[Any, Any], size: str, limit: float) -> Iterator[Case]:
    rows, length, prompt, new, *_ = SHAPES[size]
    device, ids_end = made[0].device, VOCABULARY[size][0] - 2 * VOCABULARY[size][1]
    ids = torch.randint(8, ids_end, (rows, length), device=device)
    yield pair("text forward", made, lambda m: forward(m, input_ids=ids), limit, ids.numel())

    def train(model: Any) -> Tensor:
        model.train()
        text = model.model.language_model
        some = [text.layers[0].mlp.up_proj.weight, text.layers[-1].self_attn.q_proj.weight]
        found = backward(model, some, lambda: model(input_ids=ids, labels=ids).loss)
        model.eval()
        return found

    yield pair("text forward + backward", made, train, 10 * limit, ids.numel())
    for model in made:
        model.zero_grad(set_to_none=True)
    start = ids[:1, :prompt] if prompt <= length else ids[:1]
    yield pair(
        "prefill (cache filled)",
        made,
        lambda m: forward(m, input_ids=start, use_cache=True, logits_to_keep=1),
        limit,
        start.numel(),
    )
    options = {"do_sample": False, "min_new_tokens": new, "max_new_tokens": new}

    def generate(model: Any, ids: Tensor) -> Tensor:
        return model.generate(ids, attention_mask=torch.ones_like(ids), **options)

    wrong = 0.0 if made[0].dtype == torch.float32 else 1.0  # rounding may turn a close choice
    yield pair("generate, 1 row", made, lambda m: generate(m, start[:, :8]), wrong, new)
    four = torch.cat([start[:, :8]] * 4)
    yield pair("generate, 4 rows", made, lambda m: generate(m, four), wrong, 4 * new)


def media_cases(made: tuple[Any, Any], size: str, limit: float) -> Iterator[Case]:
    *_, side, frames = SHAPES[size]
    config, device, dtype = made[0].config, made[0].device, made[0].dtype
    mel = torch.randn(2, frames, config.audio_config.input_feat_size, device=device, dtype=dtype)
    padding = torch.zeros(2, frames, dtype=torch.bool, device=device)
    padding[1, frames // 2 :] = True

    def hear(model: Any) -> Tensor:
        outputs = model.model.audio_tower(mel, padding, return_dict=True)
        return outputs[0].masked_fill(outputs[1].unsqueeze(-1), 0.0)

    def hear_only(model: Any) -> Tensor:
        with torch.inference_mode():
            return hear(model)

    def learn(model: Any) -> Tensor:
        some = [model.model.audio_tower.conformer[0].ffw_layer_start.ffw_layer_1.weight]
        return backward(model.model.audio_tower, some, lambda: hear(model).float().square().mean())

    yield pair("audio tower forward", made, hear_only, limit)
    yield pair("audio tower forward + backward", made, learn, 10 * limit)
    for model in made:
        model.zero_grad(set_to_none=True)
    picture = torch.rand(1, 3, side, side, device=device, dtype=dtype)
    slots = [config.image_token_id] * config.vision_soft_tokens_per_image
    sound = [config.audio_token_id] * config.audio_soft_tokens_per_image
    words = list(range(8, 40))
    ids = torch.tensor([[*words, config.boi_token_id, *slots, config.eoi_token_id, *words]], device=device)
    yield pair("picture + text forward", made, lambda m: forward(m, input_ids=ids, pixel_values=picture), limit)
    both = torch.cat([ids, torch.tensor([[config.boa_token_id, *sound, config.eoa_token_id]], device=device)], 1)
    heard = {"input_features": mel[:1], "input_features_mask": ~padding[:1]}
    inputs = {"input_ids": both, "pixel_values": picture, **heard}
    yield pair("picture + sound + text forward", made, lambda m: forward(m, **inputs), limit)


def feature_cases() -> Iterator[Case]:
    """Audio features of ten seconds, alone and eight at once; always on the CPU."""
    ours, theirs = Minigpt4oAudioFeatureExtractor(), Gemma3nAudioFeatureExtractor()
    waves = np.random.default_rng(0).standard_normal((8, SECONDS * RATE)).astype(np.float32) * 0.1
    for clips in (1, 8):
        given = list(waves[:clips])

        def hear(extractor: Any, given: list[np.ndarray] = given) -> Tensor:
            return torch.as_tensor(np.asarray(extractor(given, return_tensors="pt").input_features))

        yield pair(f"audio features, {clips} x {SECONDS} s", (ours, theirs), hear, 1e-4)


def seconds(act: Act, device: torch.device) -> float:
    """One run: the processor's time on a CPU, else from an idle device to an idle device."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    act()
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    return clock() - start


def measure(case: Case, repeats: int, device: torch.device) -> Row:
    """In turn, the first pair left out; who goes first changes."""
    if not case.apart <= case.limit:
        raise SystemExit(f"{case.name}: the outputs are {case.apart:.2e} apart, at most {case.limit:.0e}; not timed")
    pairs = []
    for n in range(repeats + 1):
        acts = (case.ours, case.theirs) if n % 2 else (case.theirs, case.ours)
        taken = {act: seconds(act, device) for act in acts}
        pairs.append((taken[case.ours], taken[case.theirs]))
    ours, theirs = zip(*pairs[1:], strict=True)
    ratios = sorted(b / a for a, b in pairs[1:])
    quarter = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    middle = statistics.median(ours)
    return Row(
        case.name,
        round(middle * MILLI, 2),
        round(statistics.median(theirs) * MILLI, 2),
        round(statistics.median(ratios), 2),
        round(quarter[0], 2),
        round(quarter[2], 2),
        round(case.tokens / middle) if case.tokens else None,
        float(f"{case.apart:.1e}"),
    )


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--size", choices=SHAPES, default="tiny")
    words.add_argument("--device", default="cpu")
    words.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    words.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    words.add_argument("--repeats", type=int, default=7, help="pairs of runs of each case")
    words.add_argument("--threads", type=int, default=1, help="of the CPU")
    words.add_argument("--only", default="", help="cases whose name holds this")
    args = words.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    made, limit = models(args.size, device, dtype, args.attention), APART[dtype]
    rows = []
    say(f"{'case':<32}{'ours ms':>10}{'theirs ms':>11}{'ratio':>7}{'middle half':>15}{'tokens/s':>10}{'apart':>10}")
    for cases in (text_cases(made, args.size, limit), media_cases(made, args.size, limit), feature_cases()):
        for case in cases:
            if args.only not in case.name:
                continue
            row = measure(case, args.repeats, torch.device("cpu") if "features" in case.name else device)
            gc.collect()
            rows.append(row)
            made_s = "" if row.tokens_per_s is None else f"{row.tokens_per_s:,}"
            half = f"{row.low:.2f} ... {row.high:.2f}"
            say(
                f"{row.case:<32}{row.ours_ms:>10.1f}{row.theirs_ms:>11.1f}{row.ratio:>7.2f}{half:>15}{made_s:>10}"
                f"{row.apart:>10.0e}"
            )
    where = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    sys.stdout.write(json.dumps({**vars(args), "on": where, **versions, "cases": [asdict(row) for row in rows]}) + "\n")


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
