"""The published files of MiniGPT-4, MiniGPT-v2 and the bilingual GPT-NeoX variant, tiny: same names, same layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TINY = [
    "model.encoders.image.image_size=28",
    "model.encoders.image.width=16",
    "model.encoders.image.depth=1",
    "model.encoders.image.heads=2",
    "model.llm.pad_token=''",
]
TINY_QFORMER = [
    *TINY,
    *(f"model.bridges.image.{key}" for key in ("queries=4", "width=16", "depth=2", "heads=2", "ffn=24")),
]
TINY_V2 = [*TINY, "model.lora_r=2"]


def drawn(arch: str, model_type: str, options: list[str], tokenizer: Path, family: str = "llama") -> Any:
    """A tiny model of a preset with random weights."""
    from minigpt4o.common.registry import registry
    from minigpt4o.serve.opening import settings_of

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    llm = {"name": "causal_lm", "path": "", "tokenizer": str(tokenizer), "model_type": family, "seed": 3}
    llm["options"] = {**sizes, "initializer_range": 0.3, "max_position_embeddings": 2048}
    tree = {"model": {"arch": arch, "model_type": model_type, "llm": llm}, "run": {"runner": "chat"}}
    none = ["model.encoders.image.weights=''", "model.precision=fp32"]
    if "bridges.image.queries=4" in " ".join(options):
        none += ["model.bridges.image.weights=''", "model.feature_norm_weights=''"]
    import torch

    torch.manual_seed(5)
    return registry.build(settings_of(tree, "tiny", [*options, *none]).model).eval()


def write_weights(folder: Path, words: Path) -> Path:
    """A folder with every published file, in its own layout and under its own name, all tiny."""
    import torch

    vicuna = drawn("minigpt4", "pretrain_vicuna0", TINY_QFORMER, words)
    tensors = official_tensors(vicuna)
    vit = {n.removeprefix("visual_encoder."): t for n, t in tensors.items() if n.startswith("visual_encoder.")}
    torch.save(vit, folder / "eva_vit_g.pth")
    blip = {n: t for n, t in tensors.items() if n.startswith(("Qformer.", "query_tokens", "ln_vision."))}
    torch.save({"model": blip}, folder / "blip2_pretrained_flant5xxl.pth")
    learned(tensors, folder / "prerained_minigpt4_7b.pth")
    vicuna.llm.export(folder / "vicuna-7b")
    v2 = drawn("minigpt_v2", "pretrain", TINY_V2, words)
    for name, parameter in v2.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    learned(official_tensors(v2), folder / "minigptv2_checkpoint.pth")
    drawn("minigpt4", "pretrain_llama2", TINY, words).llm.export(folder / "Llama-2-7b-chat-hf")
    neox = drawn("minigpt4", "pretrain_neox", TINY_QFORMER, words, "gpt_neox")
    neox.llm.export(folder / "bilingual-gpt-neox-4b")
    (folder / "bilingual-gpt-neox-4b-minigpt4").mkdir()
    learned(official_tensors(neox), folder / "bilingual-gpt-neox-4b-minigpt4" / "checkpoint.pth")
    return folder


def official_tensors(model: Any) -> dict[str, Any]:
    from minigpt4o.models.official import to_official

    own = dict(model.named_parameters())
    return {official: own[name].detach() for name, official in to_official(own).items()}


def learned(tensors: dict[str, Any], file: Path) -> None:
    """A checkpoint as MiniGPT-4's runner writes it: what learned, and its bookkeeping."""
    import torch

    kept = {n: t for n, t in tensors.items() if n.startswith("llama_proj.") or ".lora_" in n}
    torch.save({"model": kept, "optimizer": {}, "config": {}, "scaler": None, "epoch": 3}, file)


def train(folder: Path, weights: Path) -> Path:
    """Train the bridge of a tiny Llama-2 variant for two steps; returns the job folder."""
    import json

    import yaml
    from PIL import Image

    from minigpt4o.common.config import load_settings
    from minigpt4o.common.registry import registry

    rows = []
    for number, colour in enumerate(("red", "blue", "white", "green")):
        Image.new("RGB", (28, 28), colour).save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": f"a {colour} picture"})
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    tree = {
        "model": {"arch": "minigpt4", "model_type": "pretrain_llama2", "template": "llama2"},
        "datasets": {
            "own": {
                "builder": "pairs",
                "batch_size": 2,
                "annotations": {"train": str(folder / "rows.json")},
                "media_root": str(folder),
                "vis_processor": {"train": {"name": "blip2_image_train", "image_size": 28}},
            }
        },
        "run": {"task": "image_text_pretrain", "max_steps": 2, "init_lr": 0.05, "device": "cpu", "job_name": "own"},
    }
    file = folder / "train.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    llm = f"model.llm.path={weights / 'Llama-2-7b-chat-hf'}"
    vit = f"model.encoders.image.weights={weights / 'eva_vit_g.pth'}"
    settings = load_settings(file, [*TINY, llm, vit, f"run.output_dir={folder / 'output'}"])
    registry.build(settings.run, settings=settings).run()
    return folder / "output" / "own"
