"""Find pretrained weights on this machine by the name they were published under; nothing is ever downloaded."""

from __future__ import annotations

import os
from pathlib import Path

from minigpt4o.common.errors import ConfigError

ENV = "MINIGPT4O_WEIGHTS"  # folders (separated like PATH) that hold weight files and language model folders

# Where the published files come from, for the error that names a missing one.
SOURCES = {
    "eva_vit_g.pth": "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/eva_vit_g.pth",
    "blip2_pretrained_flant5xxl.pth": (
        "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/blip2_pretrained_flant5xxl.pth"
    ),
    "vicuna-7b": "the Vicuna v0 7B folder (weights, config.json, tokenizer.model), see docs/minigpt4.md",
    "vicuna-13b": "the Vicuna v0 13B folder (weights, config.json, tokenizer.model), see docs/minigpt4.md",
    "Llama-2-7b-chat-hf": "https://huggingface.co/meta-llama/Llama-2-7b-chat-hf",
    "bilingual-gpt-neox-4b": "https://huggingface.co/rinna/bilingual-gpt-neox-4b",
}


def weight_folders() -> list[Path]:
    """Folders that are looked through, in order: those of MINIGPT4O_WEIGHTS, then torch.hub's own cache.

    LAVIS and MiniGPT-4 keep what they downloaded in torch.hub's cache (TORCH_HOME, normally ~/.cache/torch).
    """
    named = [Path(word).expanduser() for word in os.environ.get(ENV, "").split(os.pathsep) if word]
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    home = Path(os.environ.get("TORCH_HOME") or default).expanduser()
    return [*named, home / "hub" / "checkpoints"]


def locate(word: str) -> Path | None:
    """The file or folder a user means by a path, a URL (its last part) or a bare name; None if it is not here."""
    path = Path(word).expanduser()
    if path.exists():
        return path
    is_url = "://" in word
    if not is_url and (path.is_absolute() or len(path.parts) > 1):
        return None
    name = word.split("?")[0].rstrip("/").rpartition("/")[2]
    return next((folder / name for folder in weight_folders() if name and (folder / name).exists()), None)


def find_weights(word: str, key: str, url: str = "") -> Path:
    """Like `locate`, or a ConfigError that names the key, the places looked in and where the file comes from."""
    found = locate(word)
    if found is None:
        raise ConfigError(not_here(word, key, url))
    return found


def not_here(word: str, key: str, url: str = "") -> str:
    """What to say when `locate` finds nothing."""
    name = word.rpartition("/")[2]
    source = url or (word if "://" in word else SOURCES.get(name, ""))
    looked = ", ".join(str(folder) for folder in weight_folders())
    told = (
        f"{key}: {word} does not exist; looked for the path itself and for {name} in {looked}; give its path, or put "
        f"it into a folder and set {ENV} to that folder"
    )
    return told + (f" (source: {source})" if source else "")
