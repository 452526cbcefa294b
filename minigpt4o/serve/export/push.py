"""Upload an exported folder to the Hugging Face hub: the one act of an export that reaches out, and only when asked."""

from __future__ import annotations

import os
from pathlib import Path

from minigpt4o.common.errors import ConfigError
from minigpt4o.models.llms.tokenizer_files import HUB_NAME

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_NO = ("", "0", "false", "no", "off")


def ensure_can_push(name: str, dry_run: bool = False) -> None:
    """Raises ConfigError, before anything is opened, if nothing could be uploaded under this name.

    `dry_run`: only the name has to be one.
    """
    if not HUB_NAME.fullmatch(name):
        raise ConfigError(f"--push {name}: a name on the hub is org/name, for example my-lab/my-model")
    if dry_run:
        return
    switched = next((word for word in OFFLINE if os.environ.get(word, "").lower() not in _NO), "")
    if switched:
        raise ConfigError(f"--push {name}: {switched} is set, so nothing may reach out; unset it, or leave --push out")
    from huggingface_hub import get_token

    if not get_token():
        raise ConfigError(f"--push {name}: no token is known; run `hf auth login`, or set HF_TOKEN")


def listed(folder: Path, name: str, private: bool = True) -> str:
    """The files that an upload would send, a line each with its size in bytes. Reaches out to nobody."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    total = sum(file.stat().st_size for file in files)
    lines = [f"would be pushed to {name}, {'privately' if private else 'for everyone to see'}: {total:,} bytes"]
    lines += [f"{file.stat().st_size:>14,}  {file.relative_to(folder).as_posix()}" for file in files]
    return "".join(f"{line}\n" for line in lines)


def push(folder: Path, name: str, private: bool = True) -> str:
    """The address of the uploaded folder. Raises ConfigError in the hub's own words if it refuses."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        found = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Exported by minigpt4o")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigError(f"--push {name}: the hub did not take it: {error}; the folder {folder} is whole") from error
    return str(found)
