"""Claims about number formats: what `auto` means here, and that bfloat16 is a matter of the computation alone."""

from __future__ import annotations

import pytest
import torch

from minigpt4o.models.precision import autocast, dtype_of


def test_auto_is_bfloat16_only_where_a_gpu_has_it(monkeypatch):
    assert dtype_of("fp32") == torch.float32
    assert dtype_of("bf16") == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dtype_of("auto") == torch.float32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for has, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has: has)
        assert dtype_of("auto") == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_forward_pass_computes_in_the_format_and_weights_stay_as_they_are(dtype):
    layer = torch.nn.Linear(4, 3)
    with autocast(torch.device("cpu"), dtype):
        found = layer(torch.ones(2, 4))
    assert found.dtype == dtype
    assert layer.weight.dtype == torch.float32
    found.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
