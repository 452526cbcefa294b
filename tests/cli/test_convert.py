"""`convert` goes from a checkpoint of ours to the official layout and back without losing a bit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "runners"))

from reference_file import BUFFERS, SHAPES, reference_optimizer, write_reference
from tiny_world import LLAMA, lines, make_world, tiny_settings, train

from minigpt4o.cli import main
from minigpt4o.common.files import find_checkpoint, verify
from minigpt4o.models import official
from minigpt4o.runners import checkpoint

Told = Callable[..., tuple[int, str, str]]
TENSORS = ("trained.safetensors", "optimizer.safetensors")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("convert-world"))


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    def run(*words: Any) -> tuple[int, str, str]:
        code = main(["convert", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def run(world: Path, tmp_path: Path) -> Path:
    """Five steps of a tiny model, two of them an epoch."""
    values = {"max_steps": 5, "iters_per_epoch": 2, "weight_decay": 0.2, "beta2": 0.95}
    return train(tiny_settings(world, tmp_path / "output", **values))


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, containers, types of tensors and all."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def test_ours_to_official_and_back_is_the_same_to_the_bit(told: Told, run: Path, tmp_path: Path) -> None:
    code, out, _ = told(run, tmp_path / "official")
    assert code == 0
    file = tmp_path / "official" / "checkpoint_1.pth"
    assert "step 5 is 1 step(s) behind the end of an epoch" in out
    assert told(file, tmp_path / "back")[0] == 0
    step = find_checkpoint(run)
    assert all((step / name).read_bytes() == (tmp_path / "back" / name).read_bytes() for name in TENSORS)
    (learned, progress, identity), (_, was, before) = checkpoint.load(tmp_path / "back"), checkpoint.load(step)
    assert learned.updates == 5
    assert (identity, progress.step, progress.loader) == (before, was.step, was.loader)


def test_the_official_file_is_what_the_reference_s_runner_loads(told: Told, run: Path, tmp_path: Path) -> None:
    assert told(run, tmp_path / "x.pth", "--to", "official")[0] == 0
    found = load(tmp_path / "x.pth")
    assert list(found) == ["model", "optimizer", "config", "scaler", "epoch"]
    assert list(found["model"]) == list(SHAPES)  # the order of the reference's named_parameters()
    assert found["epoch"] == 1
    parameters = {n: torch.nn.Parameter(t) for n, t in found["model"].items()}
    optimizer = reference_optimizer(parameters)
    optimizer.load_state_dict(found["optimizer"])
    moments = load_file(find_checkpoint(run) / "optimizer.safetensors")
    own = official.to_own(SHAPES)
    for name, parameter in parameters.items():
        assert torch.equal(optimizer.state[parameter]["exp_avg"], moments[f"exp_avg.{own[name]}"])
        assert optimizer.state[parameter]["step"] == 5
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.2, 0.0]
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)


@pytest.mark.parametrize("uneven", [False, True])
def test_official_to_ours_and_back_is_the_same_but_for_buffers(told: Told, tmp_path: Path, uneven: bool) -> None:
    found = write_reference(tmp_path / "checkpoint_1.pth", uneven=uneven)
    assert told(tmp_path / "checkpoint_1.pth", tmp_path / "own")[0] == 0
    assert not verify(tmp_path / "own")
    assert told(tmp_path / "own", tmp_path / "again")[0] == 0
    again = load(tmp_path / "again" / "checkpoint_1.pth")
    assert list(again["model"]) == list(SHAPES)
    assert same(again, {**found, "model": {n: t for n, t in found["model"].items() if n not in BUFFERS}})


def test_a_converted_file_is_a_model_ckpt_and_the_file_itself_is_too(told: Told, world: Path, tmp_path: Path) -> None:
    found = write_reference(tmp_path / "checkpoint_1.pth")
    told(tmp_path / "checkpoint_1.pth", tmp_path / "own")
    for name in ("own", "checkpoint_1.pth"):
        settings = tiny_settings(world, tmp_path / "output", model={"ckpt": str(tmp_path / name)}, max_steps=1)
        from minigpt4o.common.registry import registry

        model = registry.build(settings.model)
        assert torch.equal(model.bridges["image"].proj.weight, found["model"]["llama_proj.weight"])


def recipe(world: Path, path: Path, **model: Any) -> Path:
    llm = {"name": "causal_lm", "tokenizer": str(world / "tokenizer"), "options": LLAMA}
    encoder = {"name": "timm_vit", "image_size": 8, "patch_size": 4, "width": 16, "depth": 1, "heads": 2}
    sizes = {side: {"name": f"blip2_image_{side}", "image_size": 8} for side in ("train", "eval")}
    tree = {
        "model": {
            "arch": "aligned", "llm": llm, "encoders": {"image": encoder}, "bridges": {"image": "linear"},
            "lora_r": 2, "train": ["bridges", "lora"], "max_txt_len": 32, **model,
        },
        "datasets": {
            "colours": {
                "builder": "pairs", "annotations": {"train": str(world / "train.json")}, "media_root": str(world),
                "vis_processor": sizes,
            }
        },
        "run": {
            "task": "image_text_pretrain", "device": "cpu", "iters_per_epoch": 3, "max_epoch": 3, "batch_size_train": 2,
            "output_dir": str(path.parent / "output"), "job_name": path.stem, "valid_splits": [], "save_freq": 100,
        },
    }  # fmt: skip
    path.write_text(yaml.safe_dump(tree))
    return path


def test_with_its_recipe_a_file_becomes_a_checkpoint_of_that_run(told: Told, world: Path, tmp_path: Path) -> None:
    write_reference(tmp_path / "checkpoint_1.pth")
    config = recipe(world, tmp_path / "recipe.yaml")
    code, out, err = told(tmp_path / "checkpoint_1.pth", tmp_path / "own", "--cfg-path", config)
    assert code == 0, err
    assert [line.split() for line in out.splitlines() if line.startswith(("lora", "bridges"))] == [
        ["bridges.image", "2", "0", "0"],
        ["lora", "4", "0", "0"],
    ]
    state = json.loads((tmp_path / "own" / "state.json").read_text())
    assert (state["step"], state["updates"], state["loader"]["position"]) == (6, 3, 12)
    assert state["identity"]["frozen"]
    assert state["identity"]["data"]
    assert main(["train", "--cfg-path", str(config), f"run.resume_ckpt_path={tmp_path / 'own'}"]) == 0
    (by_folder,) = (tmp_path / "output" / "recipe").iterdir()
    direct = f"run.resume_ckpt_path={tmp_path / 'checkpoint_1.pth'}"
    assert main(["train", "--cfg-path", str(config), direct, "run.job_name=direct"]) == 0
    (by_file,) = (tmp_path / "output" / "direct").iterdir()
    assert [row["step"] for row in lines(by_folder)] == [7, 8, 9]
    assert lines(by_folder) == lines(by_file)


def test_a_recipe_whose_tensors_do_not_agree_is_refused_and_nothing_is_written(
    told: Told, world: Path, tmp_path: Path
) -> None:
    write_reference(tmp_path / "checkpoint_1.pth")
    config = recipe(world, tmp_path / "recipe.yaml", lora_r=3)
    code, _, err = told(tmp_path / "checkpoint_1.pth", tmp_path / "own", "--cfg-path", config)
    assert code == 4
    assert "(2, 16) in the checkpoint, (3, 16) now" in err
    assert not (tmp_path / "own").exists()


def test_what_has_no_official_name_keeps_ours_and_comes_back(told: Told, world: Path, tmp_path: Path) -> None:
    run = train(tiny_settings(world, tmp_path / "output", max_steps=1))
    step = find_checkpoint(run)
    learned, progress, identity = checkpoint.load(step)
    extra = "bridges.audio.proj.weight"
    learned.weights[extra] = torch.ones(2, 2)
    learned.weights["bridges.audio.norm.running_mean"] = torch.ones(2)
    learned.moments |= {f"{key}.{extra}": torch.full((2, 2), 0.5) for key in ("exp_avg", "exp_avg_sq")}
    identity.trained[extra] = [2, 2]
    identity.order.append(extra)
    checkpoint.save(tmp_path / "both", learned, progress, identity)
    code, out, _ = told(tmp_path / "both", tmp_path / "x.pth")
    assert code == 0
    assert "2 tensor(s) have no official name and keep ours" in out
    assert told(tmp_path / "x.pth", tmp_path / "back")[0] == 0
    assert all((tmp_path / "both" / n).read_bytes() == (tmp_path / "back" / n).read_bytes() for n in TENSORS)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("pwned",))


def test_broken_and_hostile_files_are_refused_and_nothing_is_left(told: Told, tmp_path: Path) -> None:
    good = tmp_path / "checkpoint_1.pth"
    found = write_reference(good)
    (tmp_path / "cut.pth").write_bytes(good.read_bytes()[:-500])
    torch.save({**found, "config": Evil()}, tmp_path / "evil.pth")
    state = {**found["optimizer"]["state"]}
    state[0] = {**state[0], "exp_avg": torch.zeros(3, 3)}
    torch.save({**found, "optimizer": {**found["optimizer"], "state": state}}, tmp_path / "shape.pth")
    torch.save(
        {**found, "model": {**found["model"], "llama_proj.bias": torch.full((16,), torch.nan)}}, tmp_path / "nan.pth"
    )
    before = sorted(tmp_path.iterdir())
    for name, why in [
        ("cut", "cannot be read"), ("evil", "cannot be read"), ("shape", "optimizer state 0"), ("nan", "NaN")
    ]:  # fmt: skip
        code, out, err = told(tmp_path / f"{name}.pth", tmp_path / "own")
        assert code == 4, name
        assert why in err, name
        assert "pwned" not in out
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_written_over_and_wrong_ways_are_named(told: Told, run: Path, tmp_path: Path) -> None:
    write_reference(tmp_path / "a.pth")
    (tmp_path / "there").mkdir()
    assert "exists; nothing is written over" in told(tmp_path / "a.pth", tmp_path / "there")[2]
    assert "exists; nothing is written over" in told(run, tmp_path / "a.pth")[2]
    assert "is in that layout already" in told(tmp_path / "a.pth", tmp_path / "b", "--to", "official")[2]
    assert "does not exist" in told(tmp_path / "no.pth", tmp_path / "b")[2]
    assert "serves the way from an official file" in told(run, tmp_path / "b", "--cfg-path", "x.yaml")[2]
