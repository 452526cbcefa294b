"""One stage 1 step of a full-size MiniGPT-4 model with random weights: seconds and peak memory, no download.

    python benchmarks/full_size_step.py --model minigpt4_7b --batch 16
    python benchmarks/full_size_step.py --model minigpt4_7b --tiny --device cpu     # the same code in a second

Weights are drawn on the device in bfloat16; what learns is float32, as in training. Writes one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import IGNORE, IMAGE_SLOT, Batch
from minigpt4o.models.llms.tokenizer import train_tokenizer

LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}
NEOX_4B = {"hidden_size": 2816, "intermediate_size": 11264, "num_hidden_layers": 36, "num_attention_heads": 22}
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY_EVA = {"width": 32, "depth": 2, "heads": 2}
TINY_QFORMER = {"queries": 8, "width": 48, "depth": 2, "heads": 4, "ffn": 96}
# name -> family, its dimensions, picture side, bridge, rank of adapters, parameters that learn
MODELS: dict[str, tuple[str, dict[str, int], int, str, int, int]] = {
    "minigpt4_7b": ("llama", LLAMA_7B, 224, "qformer", 0, 3_149_824),
    "minigpt4_13b": ("llama", LLAMA_13B, 224, "qformer", 0, 3_937_280),
    "minigpt4_llama2": ("llama", LLAMA_7B, 224, "grouped", 0, 23_072_768),
    "minigpt_v2": ("llama", LLAMA_7B, 448, "grouped", 64, 56_627_200),
    "bilingual_neox": ("gpt_neox", NEOX_4B, 224, "qformer", 0, 768 * 2816 + 2816),
}


def build(name: str, tiny: bool, precision: str, tokenizer: Path) -> Any:
    """The model of a name; with `tiny` the same parts at toy sizes."""
    family, llm, side, bridge, rank, _ = MODELS[name]
    vocabulary = {"llama": 32000, "gpt_neox": 65536}[family]
    options = {**(TINY if tiny else llm), "vocab_size": vocabulary, "tie_word_embeddings": False}
    eva = {"image_size": side, **(TINY_EVA if tiny else {})}
    bridges = {"qformer": TINY_QFORMER if tiny else {}, "grouped": {"drop_cls": True}}
    values = {
        "llm": Part("llm", "causal_lm", {"model_type": family, "tokenizer": str(tokenizer), "options": options}),
        "encoders": {"image": Part("encoder", "eva_vit", eva)},
        "bridges": {"image": Part("bridge", bridge, bridges[bridge])},
        "feature_norm": True,
        "train": ["bridges.image.proj", *(["lora"] if rank else [])],
        "lora_r": rank,
        "precision": precision,
    }
    return registry.build(Part("model", "minigpt4", values))


def stage1_batch(model: Any, rows: int, text: int, side: int, device: torch.device) -> Batch:
    """BOS, the picture's places, `text` learned tokens."""
    places = model.slots["image"]
    ids = torch.randint(3, 200, (rows, 1 + places + text))
    ids[:, 1 : 1 + places] = IMAGE_SLOT
    labels = ids.clone()
    labels[:, : 1 + places] = IGNORE
    return Batch(ids, torch.ones_like(ids), labels, torch.randn(rows, 3, side, side), None).to(device)


def measure(model: Any, batch: Batch, steps: int, device: torch.device) -> dict[str, Any]:
    """Seconds of a step (the first left out) and peak memory of forward, backward and AdamW."""
    optimizer = torch.optim.AdamW(model.trained_parameters().values(), lr=1e-4)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds, losses = [], []
    for _ in range(steps + 1):
        start = time.perf_counter()
        found = model(batch)
        loss = found.loss_sum / found.count
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())  # waits for the device
        seconds.append(time.perf_counter() - start)
    rows = len(batch)
    best = sorted(seconds[1:])[len(seconds[1:]) // 2]
    return {
        "loss_first": round(losses[0], 4),
        "loss_last": round(losses[-1], 4),
        "step_s": round(best, 4),
        "samples_per_s": round(rows / best, 2),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
    }


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--model", choices=MODELS, default="minigpt4_7b")
    words.add_argument("--batch", type=int, default=8, help="pictures of a step")
    words.add_argument("--text", type=int, default=32, help="learned tokens of a row")
    words.add_argument("--steps", type=int, default=5)
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    words.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    words.add_argument("--tiny", action="store_true", help="toy sizes: checks the script without a GPU")
    args = words.parse_args()
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("a picture of a dog and a cat\n" * 50, encoding="utf-8")
        tokenizer = train_tokenizer([text], Path(folder) / "tokenizer", vocab_size=300)
        torch.set_default_dtype(torch.bfloat16 if args.precision == "bf16" else torch.float32)
        with device:
            model = build(args.model, args.tiny, args.precision, tokenizer)
        torch.set_default_dtype(torch.float32)
    model.to(device).train()
    trained = sum(p.numel() for p in model.trained_parameters().values())
    if not args.tiny and trained != MODELS[args.model][-1]:
        raise SystemExit(f"{trained:,} parameters learn, {MODELS[args.model][-1]:,} were expected")
    batch = stage1_batch(model, args.batch, args.text, MODELS[args.model][2], device)
    facts = measure(model, batch, args.steps, device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    total = sum(p.numel() for p in model.parameters())
    settings = {k: v for k, v in vars(args).items() if k != "device"}
    sys.stdout.write(json.dumps({**settings, "on": where, "parameters": total, "trained": trained, **facts}) + "\n")


if __name__ == "__main__":
    main()
