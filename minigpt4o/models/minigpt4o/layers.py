"""The small parts of Minigpt4o's text model: norms, scaled embeddings, rotary tables, AltUp, LAuReL, sparse MLP."""

# B rows, T tokens, N = B * T, D width, A streams of AltUp, F width of the MLP, C width of an attention head

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update

from minigpt4o.models.minigpt4o.configuration_minigpt4o import Minigpt4oTextConfig


class RoundedScale:
    """A factor as each dtype can hold it: 45.2548 is 45.25 to a bfloat16 model, as the published weights expect."""

    def __init__(self, value: float) -> None:
        dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
        self.values = {dtype: torch.tensor(value, dtype=dtype, device="cpu").item() for dtype in dtypes}

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.values[x.dtype]


class Minigpt4oRMSNorm(nn.Module):
    """x / rms(x) over the last dimension, times a learned weight if `with_scale`; computed in float32."""

    weight: Tensor | None

    def __init__(self, dim: int, eps: float = 1e-6, with_scale: bool = True) -> None:
        super().__init__()
        self.shape, self.eps = (dim,), eps
        self.register_parameter("weight", nn.Parameter(torch.ones(dim)) if with_scale else None)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if weight is None or weight.dtype == x.dtype:
            return torch.rms_norm(x, self.shape, weight, self.eps).to(x.dtype)
        return torch.rms_norm(x.float(), self.shape, weight.float(), self.eps).to(x.dtype)  # as under autocast

    def extra_repr(self) -> str:
        return f"{self.shape[0]}, eps={self.eps}, with_scale={self.weight is not None}"


class Minigpt4oTextScaledWordEmbedding(nn.Embedding):
    """An embedding table whose rows are multiplied by a constant when they are read."""

    def __init__(self, rows: int, dim: int, padding_idx: int | None, embed_scale: float = 1.0) -> None:
        super().__init__(rows, dim, padding_idx)
        self.scale = RoundedScale(embed_scale)

    def forward(self, ids: Tensor) -> Tensor:
        return self.scale(super().forward(ids))


class Minigpt4oRotaryEmbedding(nn.Module):
    """The rotary tables, one base for each type of layer.

    `forward` gives (cos, sin), each (B, T, C), for `rotate` below: the first half of sin carries the minus sign of the
    rotation, so that no half of a query has to be negated.
    """

    max_seq_len_cached: int

    def __init__(self, config: Minigpt4oTextConfig, device: torch.device | None = None) -> None:
        super().__init__()
        self.config = config
        self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings
        self.layer_types = sorted(set(config.layer_types or ()))
        self.rope_type: dict[str, str] = {}
        for kind in self.layer_types:
            assert config.rope_parameters is not None
            self.rope_type[kind] = config.rope_parameters[kind]["rope_type"]
            frequencies, scaling = self.frequencies(kind, device)
            self.register_buffer(f"{kind}_inv_freq", frequencies, persistent=False)
            self.register_buffer(f"{kind}_original_inv_freq", frequencies.clone(), persistent=False)
            setattr(self, f"{kind}_attention_scaling", scaling)

    def frequencies(self, kind: str, device: torch.device | None = None) -> tuple[Tensor, float]:
        """((C / 2,) angles per position, factor of the tables) of one type of layer."""
        rope_type = self.rope_type[kind]
        if rope_type != "default":
            return ROPE_INIT_FUNCTIONS[rope_type](self.config, device, layer_type=kind)
        return self.compute_default_rope_parameters(self.config, device, kind)

    @staticmethod
    def compute_default_rope_parameters(
        config: Minigpt4oTextConfig, device: torch.device | None = None, layer_type: str | None = None, **_: Any
    ) -> tuple[Tensor, float]:
        """theta ** (-2 i / C) for the i-th pair of a head (RoFormer)."""
        assert config.rope_parameters is not None and layer_type is not None
        theta, dim = config.rope_parameters[layer_type]["rope_theta"], config.head_dim
        exponents = torch.arange(0, dim, 2, dtype=torch.float) / dim
        return (1.0 / theta**exponents).to(device), 1.0

    def init_own(self) -> None:
        """Fill the buffers again (they are in no checkpoint)."""
        for kind in self.layer_types:
            frequencies, _ = self.frequencies(kind)
            init.copy_(getattr(self, f"{kind}_inv_freq"), frequencies)
            init.copy_(getattr(self, f"{kind}_original_inv_freq"), frequencies)

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str) -> tuple[Tensor, Tensor]:
        frequencies = getattr(self, f"{layer_type}_inv_freq").to(device=x.device, dtype=torch.float)
        scaling = getattr(self, f"{layer_type}_attention_scaling")
        angles = position_ids.unsqueeze(-1).float() * frequencies  # (B, T, C / 2)
        cos, sin = angles.cos(), angles.sin()
        if scaling != 1.0:
            cos, sin = cos * scaling, sin * scaling
        return torch.cat((cos, cos), -1).to(x.dtype), torch.cat((-sin, sin), -1).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + C / 2) of (B, T, heads, C) by the tables (B, T, 1, C) of Minigpt4oRotaryEmbedding."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class ClippedLinear(nn.Linear):
    """A map of few numbers whose weights count as at most `clip` while it learns (AltUp's coefficients).

    `in_place` writes the limit into the weights; otherwise weights beyond it get no gradient.
    """

    def __init__(self, inputs: int, outputs: int, clip: float | None, in_place: bool) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.clip, self.in_place = clip, in_place

    def forward(self, x: Tensor) -> Tensor:
        if self.clip is None or not self.training:
            return super().forward(x)
        if not self.in_place:
            return F.linear(x, self.weight.clamp(-self.clip, self.clip))
        self.weight.data.clamp_(-self.clip, self.clip)
        return super().forward(x)


class Minigpt4oTextAltUp(nn.Module):
    """Alternating Updates: A streams, of which one goes through the layer; a small router mixes them before (`predict`)
    and spreads what the layer added after it (`correct`). https://arxiv.org/abs/2301.13310

    Streams are (B, T, A, D) here, so that each token's mixture is one small matrix product.
    """

    def __init__(self, config: Minigpt4oTextConfig) -> None:
        super().__init__()
        streams, width, clip = config.altup_num_inputs, config.hidden_size, config.altup_coef_clip
        self.streams, self.active, self.scaled = streams, config.altup_active_idx, config.altup_correct_scale
        self.router_scale = 1.0 / width
        self.correct_output_scale = nn.Parameter(torch.zeros(width))
        self.correction_coefs = ClippedLinear(streams, streams, clip, in_place=False)
        self.prediction_coefs = ClippedLinear(streams, streams**2, clip, in_place=True)
        self.modality_router = nn.Linear(width, streams, bias=False)
        self.router_norm = Minigpt4oRMSNorm(width, eps=config.rms_norm_eps)

    def init_own(self) -> None:
        """Zero, as in Gemma 3n: a new model takes nothing from its per-layer inputs before the first step."""
        init.zeros_(self.correct_output_scale)

    def _route(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, A) in -1 ... 1."""
        return torch.tanh(self.modality_router(self.router_norm(x)).float() * self.router_scale).to(x.dtype)

    def pick(self, first: Tensor, others: Tensor) -> Tensor:
        """The active one (B, T, D) of stream 0, (B, T, D), and the others, (B, T, A - 1, D)."""
        return first if self.active == 0 else others[..., self.active - 1, :]

    def predict(self, streams: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, A, D) -> stream 0 and the others, each plus a mixture of all; the active one says which.

        They come apart, (B, T, D) and (B, T, A - 1, D), because the layer treats them differently (and a split has a
        cheaper gradient than slices).
        """
        coefficients = self.prediction_coefs(self._route(streams[..., self.active, :]))  # (B, T, A * A)
        flat = streams.flatten(0, 1)  # (N, A, D)
        mixed = torch.baddbmm(flat, coefficients.view(-1, self.streams, self.streams), flat)
        first, others = mixed.to(streams.dtype).view(streams.shape).split((1, self.streams - 1), -2)
        return first.squeeze(-2), others

    def correct(self, first: Tensor, others: Tensor, activated: Tensor) -> tuple[Tensor, Tensor]:
        """Add to each predicted stream its share of what the layer changed; `activated` is (B, T, D)."""
        shares = self.correction_coefs(self._route(activated)) + 1.0  # (B, T, A)
        change = activated - self.pick(first, others)
        first = torch.addcmul(first, shares[..., :1], change)
        return first, torch.addcmul(others, shares[..., 1:].unsqueeze(-1), change.unsqueeze(-2))

    def forward(self, active: Tensor) -> Tensor:
        """The corrected active stream (B, T, D) as the per-layer input sees it."""
        if not self.scaled:
            return active
        return (active.to(self.correct_output_scale.dtype) * self.correct_output_scale).to(active.dtype)


class Minigpt4oTextLaurelBlock(nn.Module):
    """LAuReL, a residual of low rank: x + norm(right(left(x))). https://arxiv.org/abs/2411.07501"""

    def __init__(self, config: Minigpt4oTextConfig) -> None:
        super().__init__()
        self.linear_left = nn.Linear(config.hidden_size, config.laurel_rank, bias=False)
        self.linear_right = nn.Linear(config.laurel_rank, config.hidden_size, bias=False)
        self.post_laurel_norm = Minigpt4oRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.post_laurel_norm(self.linear_right(self.linear_left(x)))


class Minigpt4oTextMLP(nn.Module):
    """A gated MLP; in sparse layers only gates above the `activation_sparsity` quantile of a fitted normal pass."""

    def __init__(self, config: Minigpt4oTextConfig, layer_idx: int = 0) -> None:
        super().__init__()
        assert isinstance(config.intermediate_size, list) and isinstance(config.activation_sparsity_pattern, list)
        width, wide = config.hidden_size, config.intermediate_size[layer_idx]
        self.gate_proj = nn.Linear(width, wide, bias=False)
        self.up_proj = nn.Linear(width, wide, bias=False)
        self.down_proj = nn.Linear(wide, width, bias=False)
        self.act_fn = ACT2FN[config.hidden_activation]
        self.activation_sparsity = sparsity = config.activation_sparsity_pattern[layer_idx]
        if not 0.0 <= sparsity < 1.0:
            raise ValueError(f"activation_sparsity_pattern[{layer_idx}] is {sparsity}: it must be in [0, 1)")
        # sqrt(F) turns the norm of the centred gates into their standard deviation
        self.threshold = NormalDist().inv_cdf(sparsity) / math.sqrt(wide) if sparsity > 0.0 else None

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        if self.threshold is not None:
            gate = self._gaussian_topk(gate, self.threshold)
        return self.down_proj(self.act_fn(gate) * self.up_proj(x))

    @staticmethod
    def _gaussian_topk(gate: Tensor, threshold: float) -> Tensor:
        """What of (..., F) lies above mean + quantile * deviation, measured from there; else 0."""
        centred = gate - gate.mean(-1, keepdim=True)
        return F.relu(centred - torch.linalg.vector_norm(centred, dim=-1, keepdim=True) * threshold)
