"""Minigpt4o's sound tower: log-mel frames -> sub-sampling convolutions -> conformer blocks -> soft tokens.

The architecture is that of the Universal Speech Model (https://arxiv.org/abs/2303.01037) as Gemma 3n uses it; parameter
names and numbers agree with Gemma 3n's tower. The mask of this tower is True where a frame is padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from minigpt4o.models.minigpt4o.configuration_minigpt4o import Minigpt4oAudioConfig
from minigpt4o.models.minigpt4o.layers import Minigpt4oRMSNorm
from minigpt4o.models.minigpt4o.modeling_base import Minigpt4oPreTrainedModel

# B clips, L mel frames, M mel bins, T frames after the convolutions, D width, C channels, K frequencies left of M,
# N heads, H width of a head, U chunks of W queries, each sees S = W + past + future keys, R = past + 1 + future
# positions relative to a query

LONGEST_WAVELENGTH = 1.0e4  # of the sinusoids that stand for a relative position, in units of a radian's frames


@dataclass
class Minigpt4oAudioEncoderModelOutput(BaseModelOutputWithPooling):
    """`last_hidden_state` (B, T / reduction, D), 0 at padding; `audio_mel_mask` the same without D, True at padding."""

    audio_mel_mask: Tensor | None = None


def clipped(x: Tensor, limit: float) -> Tensor:
    """`x` within +-limit, and no gradient where it was outside. No limit is above the largest number of its type."""
    limit = min(limit, torch.finfo(x.dtype).max)
    return x.clamp(-limit, limit)


# ---- sub-sampling -------------------------------------------------------------------------------------------------


class Minigpt4oAudioCumulativeGroupNorm(nn.Module):
    """Normalise each frame by the mean and deviation of all frames up to it, over frequencies and channels."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))

    def init_own(self) -> None:
        init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, K, C) -> the same. In float32, whatever the type of `x`."""
        frames = x.float().flatten(2)  # (B, T, K * C)
        seen = torch.arange(1, frames.shape[1] + 1, device=x.device, dtype=torch.float32) * frames.shape[2]  # (T,)
        mean = frames.sum(-1).cumsum(1) / seen  # (B, T)
        centred = frames - mean.unsqueeze(-1)
        # Each frame is measured from the mean at its own time; earlier frames are not measured again.
        variance = torch.linalg.vector_norm(centred, dim=-1).square().cumsum(1) / seen
        scale = torch.rsqrt(variance + self.eps)[:, :, None, None] * self.weight.float()  # (B, T, 1, C)
        return (centred.view_as(x) * scale).to(x.dtype)


class Minigpt4oAudioSSCPConvBlock(nn.Module):
    """A convolution over time and frequency that looks ahead in time, then the norm and a ReLU. Channels come last."""

    def __init__(self, config: Minigpt4oAudioConfig, index: int) -> None:
        super().__init__()
        channels = (1, *config.sscp_conv_channel_size)
        self.kernel, self.stride = config.sscp_conv_kernel_size[index], config.sscp_conv_stride_size[index]
        self.conv = nn.Conv2d(
            channels[index], channels[index + 1], tuple(self.kernel), stride=tuple(self.stride), bias=False
        )
        self.norm = Minigpt4oAudioCumulativeGroupNorm(channels[index + 1], config.sscp_conv_group_norm_eps)

    def bins(self, bins: int) -> int:
        """The frequencies that are left of `bins`."""
        return (bins + 2 - self.kernel[1]) // self.stride[1] + 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, K, C) -> (B, ceil(T / stride), K', C'). With channels last the convolution is several times faster."""
        x = F.pad(x, (0, 0, 1, 1, 0, self.kernel[0] - 1)).to(self.conv.weight.dtype)
        x = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()
        return F.relu(self.norm(x))


class Minigpt4oAudioSubSampleConvProjection(nn.Module):
    """Two convolutions that make one frame of several, and a linear map to the width of the tower."""

    def __init__(self, config: Minigpt4oAudioConfig) -> None:
        super().__init__()
        self.conv_0 = Minigpt4oAudioSSCPConvBlock(config, 0)
        self.conv_1 = Minigpt4oAudioSSCPConvBlock(config, 1)
        left = self.conv_1.bins(self.conv_0.bins(config.input_feat_size))
        self.input_proj_linear = nn.Linear(left * config.sscp_conv_channel_size[-1], config.hidden_size, bias=False)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, L, M) -> (B, T, D)"""
        return self.input_proj_linear(self.conv_1(self.conv_0(mel.unsqueeze(-1))).flatten(2))


# ---- attention ----------------------------------------------------------------------------------------------------


class ChunkedSight:
    """What one forward pass knows about who sees whom; the same for all blocks, so it is worked out once.

    A chunk holds W queries. Its keys are the chunk itself, `past` frames before and `future` frames after it.
    """

    def __init__(self, config: Minigpt4oAudioConfig) -> None:
        self.chunk = config.conf_attention_chunk_size
        self.past = max(0, config.conf_attention_context_left - 1)
        self.future = config.conf_attention_context_right
        self.keys = self.chunk + self.past + self.future
        self.positions = self.past + 1 + self.future

    def padded(self, x: Tensor) -> Tensor:
        """(B, T, ...) -> (B, past + U * W + future, ...), 0 outside of the clip."""
        after = self.future + -x.shape[1] % self.chunk
        return F.pad(x, (0, 0) * (x.ndim - 2) + (self.past, after))

    def queries(self, padded: Tensor) -> Tensor:
        """Of what is `padded`: the part that asks, (B, U * W, ...)."""
        return padded[:, self.past : padded.shape[1] - self.future]

    def windows(self, padded: Tensor) -> Tensor:
        """Of what is `padded`: the keys of each chunk, a view (B, U, ..., S)."""
        return padded.unfold(1, self.keys, self.chunk)

    def blocked(self, padding: Tensor) -> Tensor:
        """(B, T) True at padding -> (B, U, W, S) True where the query may not look."""
        query = torch.arange(self.chunk, device=padding.device)[:, None]
        key = torch.arange(self.keys, device=padding.device)
        far = (key < query) | (key >= query + self.positions)  # (W, S)
        return ~self.windows(self.padded(~padding)).unsqueeze(2) | far

    def timing(self, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """(R, D) sinusoids of the positions past ... -future relative to the query."""
        position = torch.arange(self.past, -self.future - 1, -1, device=device, dtype=torch.float32)
        half = width // 2
        step = math.log(LONGEST_WAVELENGTH) / max(half - 1, 1)
        angle = position[:, None] * torch.exp(torch.arange(half, device=device, dtype=torch.float32) * -step)
        return torch.cat([angle.sin(), angle.cos()], dim=-1).to(dtype)

    def aligned(self, scores: Tensor) -> Tensor:
        """(..., W, R) scores of relative positions -> (..., W, S): row w moves w keys to the right.

        Rows padded to S + 1 and read again in rows of S do just that; the rest lies where `blocked` is True.
        """
        padded = F.pad(scores, (0, self.keys + 1 - self.positions)).flatten(-2)
        return padded[..., : self.chunk * self.keys].unflatten(-1, (self.chunk, self.keys))


class Minigpt4oAudioRelativePositionEmbedding(nn.Module):
    """The keys of relative positions: one linear map of their sinusoids."""

    def __init__(self, config: Minigpt4oAudioConfig) -> None:
        super().__init__()
        self.pos_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, timing: Tensor) -> Tensor:
        """(R, D) -> (R, D)"""
        return self.pos_proj(timing)


class Minigpt4oAudioAttention(nn.Module):
    """Attention of each chunk to itself and its surroundings, by content and by relative position."""

    def __init__(self, config: Minigpt4oAudioConfig) -> None:
        super().__init__()
        width, self.heads = config.hidden_size, config.conf_num_attention_heads
        self.head_width = width // self.heads
        self.cap = config.conf_attention_logit_cap
        self.sight = ChunkedSight(config)
        self.relative_position_embedding = Minigpt4oAudioRelativePositionEmbedding(config)
        self.per_dim_scale = nn.Parameter(torch.zeros(self.head_width))
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.q_scale = self.head_width**-0.5 / math.log(
            2.0
        )  # softplus(0) = ln 2: a fresh per_dim_scale changes nothing

    def init_own(self) -> None:
        init.zeros_(self.per_dim_scale)

    def forward(self, x: Tensor, blocked: Tensor, timing: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D), (B, U, W, S), (R, D) -> (B, T, D) and the weights (N, B, U, W, S).

        The heads go outermost, so that each meets its own positions in one product.
        """
        heads, sight, padded = (self.heads, self.head_width), self.sight, self.sight.padded(x)
        scale = F.softplus(self.per_dim_scale) * (self.q_scale / self.cap)
        query = self.q_proj(sight.queries(padded)).unflatten(-1, heads) * scale  # (B, U * W, N, H)
        query = query.unflatten(1, (-1, sight.chunk)).permute(3, 0, 1, 2, 4).contiguous()  # (N, B, U, W, H)
        key, value = (  # (N, B, U, S, H); no projection has a bias, so what was 0 stays 0
            sight.windows(project(padded).unflatten(-1, heads)).permute(2, 0, 1, 4, 3).contiguous()
            for project in (self.k_proj, self.v_proj)
        )
        place = self.relative_position_embedding(timing).unflatten(-1, heads).permute(1, 2, 0)  # (N, H, R)
        by_place = (query.flatten(1, 3) @ place).view(*query.shape[:-1], -1)  # (N, B, U, W, R)
        scores = torch.tanh(query @ key.mT + sight.aligned(by_place)) * self.cap  # (N, B, U, W, S)
        scores = scores.masked_fill_(blocked, torch.finfo(scores.dtype).min)
        weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
        mixed = (weights @ value).permute(1, 2, 3, 0, 4)  # (B, U, W, N, H)
        return mixed.flatten(3).flatten(1, 2)[:, : x.shape[1]], weights


class Minigpt4oAudioConformerAttention(nn.Module):
    """Norm, attention, output map, norm, and the way around them."""

    def __init__(self, config: Minigpt4oAudioConfig) -> None:
        super().__init__()
        self.limit = config.gradient_clipping
        self.pre_attn_norm = Minigpt4oRMSNorm(config.hidden_size)
        self.attn = Minigpt4oAudioAttention(config)
        self.post = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.post_norm = Minigpt4oRMSNorm(config.hidden_size)

    def forward(self, x: Tensor, blocked: Tensor, timing: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)"""
        mixed, _ = self.attn(self.pre_attn_norm(clipped(x, self.limit)), blocked, timing)
        return x + self.post_norm(clipped(self.post(mixed), self.limit))


# ---- the other parts of a block -----------------------------------------------------------------------------------


class Minigpt4oAudioConformerFeedForward(nn.Module):
    """Half a feed-forward step: its result counts `conf_residual_weight`; one opens a block, one closes it."""

    def __init__(self, config: Minigpt4oAudioConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.limit = config.gradient_clipping
        self.weight = config.conf_residual_weight
        self.pre_layer_norm = Minigpt4oRMSNorm(width)
        self.ffw_layer_1 = nn.Linear(width, 4 * width, bias=False)
        self.ffw_layer_2 = nn.Linear(4 * width, width, bias=False)
        self.post_layer_norm = Minigpt4oRMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)"""
        inner = F.silu(self.ffw_layer_1(self.pre_layer_norm(clipped(x, self.limit))))
        return torch.add(x, self.post_layer_norm(clipped(self.ffw_layer_2(inner), self.limit)), alpha=self.weight)


class Minigpt4oAudioConformerLightConv1d(nn.Module):
    """A gate, a convolution over time for each channel by itself that only looks back, and a linear map."""

    def __init__(self, config: Minigpt4oAudioConfig) -> None:
        super().__init__()
        width, kernel = config.hidden_size, config.conf_conv_kernel_size
        self.limit = config.gradient_clipping
        self.pre_layer_norm = Minigpt4oRMSNorm(width, eps=config.rms_norm_eps)
        self.linear_start = nn.Linear(width, 2 * width, bias=False)
        self.depthwise_conv1d = nn.Conv1d(width, width, kernel, groups=width, bias=False)
        self.conv_norm = Minigpt4oRMSNorm(width, eps=config.rms_norm_eps)
        self.linear_end = nn.Linear(width, width, bias=False)

    def convolved(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D). As a picture of height 1 with channels last: nothing is transposed in memory."""
        weight = self.depthwise_conv1d.weight  # (D, 1, kernel)
        picture = F.pad(x, (0, 0, weight.shape[-1] - 1, 0)).unsqueeze(1).permute(0, 3, 1, 2)
        return F.conv2d(picture, weight.unsqueeze(2), groups=len(weight)).permute(0, 2, 3, 1).squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)"""
        gated = F.glu(self.linear_start(self.pre_layer_norm(x)), dim=-1)
        return x + self.linear_end(F.silu(self.conv_norm(clipped(self.convolved(gated), self.limit))))


class Minigpt4oAudioConformerBlock(GradientCheckpointingLayer):
    """Feed-forward, attention, convolution, feed-forward, norm."""

    def __init__(self, config: Minigpt4oAudioConfig) -> None:
        super().__init__()
        self.limit = config.gradient_clipping
        self.ffw_layer_start = Minigpt4oAudioConformerFeedForward(config)
        self.attention = Minigpt4oAudioConformerAttention(config)
        self.lconv1d = Minigpt4oAudioConformerLightConv1d(config)
        self.ffw_layer_end = Minigpt4oAudioConformerFeedForward(config)
        self.norm = Minigpt4oRMSNorm(config.hidden_size)

    def forward(self, x: Tensor, padding: Tensor, blocked: Tensor, timing: Tensor) -> Tensor:
        """(B, T, D), (B, T, 1) True at padding, and what `ChunkedSight` says -> (B, T, D)."""
        x = self.attention(self.ffw_layer_start(x), blocked, timing)
        x = self.lconv1d(x.masked_fill(padding, 0.0))  # padding must not reach its neighbours
        return self.norm(clipped(self.ffw_layer_end(x), self.limit))


class Minigpt4oAudioEncoder(Minigpt4oPreTrainedModel):
    """The sound tower: one soft token for about 0.16 s."""

    config: Minigpt4oAudioConfig
    main_input_name = "audio_mel"
    input_modalities = ("audio",)
    _no_split_modules: ClassVar[list[str]] = ["Minigpt4oAudioConformerBlock"]
    _can_record_outputs: ClassVar[dict[str, Any]] = {
        "hidden_states": Minigpt4oAudioConformerBlock,
        "attentions": OutputRecorder(Minigpt4oAudioAttention, index=1),
    }

    def __init__(self, config: Minigpt4oAudioConfig) -> None:
        super().__init__(config)
        if config.hidden_size % config.conf_num_attention_heads:
            raise ValueError(
                f"hidden_size {config.hidden_size} is not a multiple of conf_num_attention_heads "
                f"{config.conf_num_attention_heads}"
            )
        self.subsample_conv_projection = Minigpt4oAudioSubSampleConvProjection(config)
        self.conformer = nn.ModuleList(
            [Minigpt4oAudioConformerBlock(config) for _ in range(config.conf_num_hidden_layers)]
        )
        self.sight = ChunkedSight(config)
        self.frames_per_step = math.prod(stride[0] for stride in config.sscp_conv_stride_size)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(self, audio_mel: Tensor, audio_mel_mask: Tensor, **kwargs: Any) -> Minigpt4oAudioEncoderModelOutput:
        """`audio_mel` (B, L, M) log-mel frames, `audio_mel_mask` (B, L), True where a frame is padding."""
        self._check(audio_mel, audio_mel_mask)
        x = self.subsample_conv_projection(audio_mel)  # (B, T, D)
        padding = audio_mel_mask.bool()[:, :: self.frames_per_step]  # (B, T): of the first frame in each step
        blocked = self.sight.blocked(padding)
        timing = self.sight.timing(x.shape[-1], x.device, x.dtype)
        for block in self.conformer:
            x = block(x, padding.unsqueeze(-1), blocked, timing)
        if (step := self.config.conf_reduction_factor) > 1:
            x, padding = x[:, ::step], padding[:, ::step]
        return Minigpt4oAudioEncoderModelOutput(
            last_hidden_state=x.masked_fill(padding.unsqueeze(-1), 0.0), audio_mel_mask=padding
        )

    def _check(self, mel: Tensor, mask: Tensor) -> None:
        bins = self.config.input_feat_size
        if mel.ndim != 3 or mel.shape[2] != bins or not mel.shape[1]:
            raise ValueError(
                f"audio_mel has shape {tuple(mel.shape)}, wanted is (clips, frames, {bins}) with at least one frame: "
                "take input_features of Minigpt4oAudioFeatureExtractor"
            )
        if mask.shape != mel.shape[:2]:
            raise ValueError(
                f"audio_mel_mask has shape {tuple(mask.shape)} for audio_mel of shape {tuple(mel.shape)}: it holds one "
                "bool for each frame, True at padding (~input_features_mask)"
            )
