"""The code of docs/python-api.md runs as it stands, with the published files in tiny sizes."""

import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python-api.md"
PRESETS = Path(__file__).resolve().parents[2] / "minigpt4o" / "configs" / "models"


@pytest.fixture
def desk(tmp_path, weights, tiny, own_run, monkeypatch):
    """A folder with what the page's code reads, and presets whose sizes are tiny."""
    from omegaconf import OmegaConf

    for name, options in (("minigpt4_pretrain_vicuna0", tiny.qformer), ("minigpt_v2_pretrain", tiny.v2)):
        tree = OmegaConf.to_container(OmegaConf.load(PRESETS / f"{name}.yaml"))
        for option in options:
            key, value = option.split("=")
            *path, last = key.split(".")
            node = tree
            for word in path:
                node = node[word]
            node[last] = yaml.safe_load(value)
        (tmp_path / "configs" / "models").mkdir(parents=True, exist_ok=True)
        (tmp_path / "configs" / "models" / f"{name}.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    chat = {
        "model": {
            "arch": "minigpt4",
            "model_type": "pretrain_vicuna0",
            "ckpt": "prerained_minigpt4_7b.pth",
            "prompt_template": "###Human: {} ###Assistant: ",
            "end_sym": "###",
        },
        "datasets": {"cc_sbu_align": {"vis_processor": {"train": {"name": "blip2_image_eval", "image_size": 28}}}},
        "run": {"task": "image_text_pretrain"},
    }
    (tmp_path / "minigpt4_eval.yaml").write_text(yaml.safe_dump(chat), encoding="utf-8")
    Image.new("RGB", (60, 40), "brown").save(tmp_path / "cat-dog.png")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "my_job").symlink_to(own_run)
    monkeypatch.setenv("MINIGPT4O_CONFIG_PATH", str(tmp_path))
    monkeypatch.setenv("MINIGPT4O_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_code_of_the_page_runs(desk, capsys) -> None:
    from minigpt4o import forget_models

    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 7
    names: dict = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number + 1}", "exec"), names)  # noqa: S102 - our own page
    said = capsys.readouterr().out
    assert "'pred_caption'" in said and "pretrain_vicuna0" in said and "torch.Size([2, 4, 32])" in said
    assert len(names["answers"]) == 2 and names["answer"]
    assert names["loss"].isfinite()
    forget_models()


def test_every_file_the_page_names_is_one_the_program_looks_for() -> None:
    from minigpt4o.common.weight_files import SOURCES
    from minigpt4o.serve.zoo import FAMILIES

    page = PAGE.read_text(encoding="utf-8")
    assert all(name in page for name in SOURCES)
    assert all(family.checkpoints[0] in page for family in FAMILIES)
