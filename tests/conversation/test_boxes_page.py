"""What docs/boxes.md shows is what happens."""

import re
from pathlib import Path

from PIL import Image

from minigpt4o.common.config import load_settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "boxes.md").read_text(encoding="utf-8")


def blocks(what):
    """The code of each marked block."""
    return re.findall(rf"<!-- {what} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_s_code_holds_from_first_to_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (80, 40)).save("garden.png")
    (rows,) = blocks(r"file: rows\.json")
    Path("rows.json").write_text(rows, encoding="utf-8")
    code = blocks("run")
    assert len(code) == 3
    told = {}
    for block in code:
        exec(block, told)  # noqa: S102  the page's own code, which shares its names from block to block


def test_the_page_s_options_are_those_of_the_processor(tmp_path):
    (node,) = blocks("config")
    file = tmp_path / "one.yaml"
    indented = "".join(f"    {line}\n" for line in node.splitlines())
    file.write_text(
        "datasets:\n  one:\n    builder: boxes\n    annotations: {train: rows.json}\n" + indented, encoding="utf-8"
    )
    processors = load_settings(file, needs=["datasets"]).datasets["one"].vis_processor
    assert [processors[use].name for use in ("train", "eval")] == ["image_augment"] * 2
    shown = set(re.findall(r"^\| `(\w+): ", PAGE, re.MULTILINE))
    assert shown == {"crop_scale", "flip", "keep_aspect", "min_visible"}
    from minigpt4o.processors.image_augment import ImageAugment

    assert shown < set(ImageAugment.Config.__dataclass_fields__)
