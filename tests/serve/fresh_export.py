"""Run in a fresh process: open exported folders with transformers, answer prepared inputs and chats, write all of it.

python fresh_export.py JOBS OUT [--alone]     --alone: the package minigpt4o cannot be imported
"""

import json
import sys
from pathlib import Path


class Alone:
    """Finds nothing of ours."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "minigpt4o":
            raise ModuleNotFoundError(f"{name} is not here", name=name)
        return None


def opened(job: dict) -> dict:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, AutoProcessor

    folder = Path(job["folder"])
    tree = json.loads((folder / "config.json").read_text())
    trust, kind = "auto_map" in tree, AutoModelForMultimodalLM if "text_config" in tree else AutoModelForCausalLM
    model = kind.from_pretrained(folder, trust_remote_code=trust).eval()
    if (folder / "adapter").is_dir():
        model.load_adapter(str(folder / "adapter"))
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust)
    found = {"class": type(model).__name__}
    with torch.no_grad():
        found["logits"] = model(**job["inputs"]).logits.float()
        found["words"] = model.generate(**job["inputs"], max_new_tokens=8, do_sample=False)
        if job.get("exact"):
            wide = {k: v.double() if v.is_floating_point() else v for k, v in job["inputs"].items()}
            found["exact"] = model.double()(**wide).logits
    found["chats"] = [
        dict(
            processor.apply_chat_template(
                talk, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        )
        for talk in json.loads(job["talks"])
    ]
    return found


def main() -> None:
    jobs, out = sys.argv[1:3]
    if "--alone" in sys.argv:
        sys.meta_path.insert(0, Alone())
    import torch

    found = {name: opened(job) for name, job in torch.load(jobs, weights_only=True).items()}
    for one in found.values():
        one["alone"] = "minigpt4o" not in sys.modules
    torch.save(found, out)


if __name__ == "__main__":
    main()
