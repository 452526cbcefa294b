"""Claims about bridges: shapes, which features are joined, and that every bridge of the registry can learn."""

from __future__ import annotations

import pytest
import torch

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, registry

TINY = {"qformer": {"queries": 3, "width": 8, "depth": 2, "heads": 2, "ffn": 16}, "grouped": {"group": 4}}


def build(name: str, from_tokens: int = 16, **values):
    return registry.build(Part("bridge", name, values), from_dim=6, from_tokens=from_tokens, to_dim=10)


@pytest.mark.parametrize("name", registry.names("bridge"))
def test_a_bridge_gives_the_tokens_it_says_and_all_of_it_learns(name):
    bridge = build(name, **TINY.get(name, {}))
    out = bridge(torch.randn(2, 16, 6))
    assert tuple(out.shape) == (2, bridge.tokens, 10)
    out.pow(2).sum().backward()
    assert [n for n, p in bridge.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["linear", "mlp", "grouped"])
def test_the_class_token_can_be_left_out(name):
    bridge = build(name, from_tokens=17, drop_cls=True)
    features = torch.randn(1, 17, 6)
    out = bridge(features)
    assert out.shape[1] == bridge.tokens == (4 if name == "grouped" else 16)
    changed = features.clone()
    changed[:, 0] += 1
    assert torch.equal(bridge(changed), out)


def touched(bridge, position: int) -> list[int]:
    """Which tokens change with one feature."""
    features = torch.zeros(1, 16, 6)
    before = bridge(features)
    features[0, position] = 1.0
    return ((bridge(features) - before).abs().sum(-1)[0] > 0).nonzero().flatten().tolist()


def test_grouped_joins_consecutive_features_in_raster_order():
    bridge = build("grouped", group=4)
    assert [touched(bridge, p) for p in range(16)] == [[p // 4] for p in range(16)]


def test_square_groups_are_true_neighbourhoods_of_the_picture():
    bridge = build("grouped", group=4, square=True)
    assert [touched(bridge, p) for p in range(16)] == [[(p // 8) * 2 + (p % 4) // 2] for p in range(16)]


def test_the_order_inside_a_group_is_the_reference_view():
    bridge = build("grouped", group=4)
    features = torch.randn(2, 16, 6)
    torch.testing.assert_close(bridge(features), bridge.proj(features.view(2, 4, 24)))


@pytest.mark.parametrize(
    ("values", "tokens"), [({"group": 3}, 16), ({"group": 4, "square": True}, 12), ({"group": 2, "square": True}, 16)]
)
def test_groups_that_do_not_divide_the_grid_are_refused(values, tokens):
    with pytest.raises(ConfigError, match=str(tokens)):
        build("grouped", from_tokens=tokens, **values)


def test_queries_read_the_features():
    bridge = build("qformer", **TINY["qformer"]).eval()
    features = torch.randn(1, 16, 6)
    assert not torch.allclose(bridge(features), bridge(features.roll(1, dims=0) * 2))
    torch.testing.assert_close(bridge(features), bridge(features.flip(1)), atol=1e-5, rtol=1e-4)  # positions are theirs
