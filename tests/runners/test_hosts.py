"""A bridge put beside a language model or an encoder it was not trained with says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import train

from minigpt4o.common.registry import Part, registry
from minigpt4o.runners.hosts import frozen_of, tell_other_hosts

Make = Callable[..., Any]


@pytest.fixture
def ckpt(make_settings: Make) -> Path:
    return train(make_settings(max_steps=1, job_name="first"))


def other_llm(make_settings: Make) -> Part:
    llm = make_settings().model["llm"]
    return Part("llm", "causal_lm", {**llm.values, "seed": 5})


def built(settings: Any) -> Any:
    torch.manual_seed(42)  # as the runner does: the frozen encoder is drawn at random
    return registry.build(settings.model)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "trained beside" in r.getMessage()]


def test_a_checkpoint_tells_what_it_was_trained_beside(ckpt: Path) -> None:
    assert set(frozen_of(ckpt)) == {"llm", "encoders.image"}


def test_one_warning_names_the_parts_that_differ(
    make_settings: Make, ckpt: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(make_settings(max_steps=1, model={"ckpt": str(ckpt), "llm": other_llm(make_settings)}))
    (said,) = warnings(caplog)
    assert "other weights of llm than" in said
    assert "encoders.image" not in said


def test_the_same_parts_are_silence(make_settings: Make, ckpt: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = built(make_settings(model={"ckpt": str(ckpt)}))
    assert tell_other_hosts(model, ckpt) == []
    assert not warnings(caplog)


def test_frozen_in_other_pieces_or_another_format_cannot_be_compared(make_settings: Make, ckpt: Path) -> None:
    model = built(make_settings(model={"llm": other_llm(make_settings)}))
    assert tell_other_hosts(model, ckpt) == ["llm"]
    assert tell_other_hosts(model, ckpt, {"llm": "bfloat16:0", "bridges.image": "float32:0"}) == []


def test_files_and_old_checkpoints_without_fingerprints_say_nothing(make_settings: Make, tmp_path: Path) -> None:
    model = built(make_settings())
    assert tell_other_hosts(model, "") == []
    (tmp_path / "x.pth").write_bytes(b"")
    assert tell_other_hosts(model, tmp_path / "x.pth") == []
