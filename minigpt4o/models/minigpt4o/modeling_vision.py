"""The picture tower of Minigpt4o: a network of timm (MobileNetV5) under a thin roof of transformers' habits."""

# N pictures, C channels (hidden_size), h x w last feature map (16 x 16 from 768 x 768 pixels)

from __future__ import annotations

import copy
import difflib
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple

from minigpt4o.models.minigpt4o.configuration_minigpt4o import Minigpt4oVisionConfig
from minigpt4o.models.minigpt4o.modeling_base import Minigpt4oPreTrainedModel

USUAL_RANGE = 0.02  # this initializer_range gives timm's own spread of the convolutions


def build_network(config: Minigpt4oVisionConfig) -> nn.Module:
    """The network itself, with random weights: nothing is downloaded. Blocks may be written in timm's notation."""
    import timm
    from timm.models._efficientnet_builder import decode_arch_def

    options = copy.deepcopy(config.model_args or {})  # timm takes the blocks apart while it builds them
    blocks = options.get("block_args")
    if blocks and isinstance(blocks[0][0], str):
        options["block_args"] = decode_arch_def(blocks)
    if not timm.is_model(config.architecture):
        near = difflib.get_close_matches(config.architecture, timm.list_models(), n=3)
        raise ValueError(
            f"timm {timm.__version__} knows no architecture {config.architecture!r}"
            + (f"; near: {', '.join(near)}" if near else "; a newer timm may: pip install -U timm")
        )
    return timm.create_model(config.architecture, pretrained=False, num_classes=0, **options)


class Minigpt4oVisionEncoder(Minigpt4oPreTrainedModel):
    """Pixels to one feature map. The weights carry timm's names after `timm_model.`"""

    config: Minigpt4oVisionConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    base_model_prefix = "timm_model"
    _no_split_modules: ClassVar[list[str]] = ["Minigpt4oVisionEncoder"]
    _can_record_outputs: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Minigpt4oVisionConfig) -> None:
        super().__init__(config)
        self.timm_model: Any = build_network(config)
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As timm does: He initialisation by fan-out, norms 1, layer scales at their small start."""
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1] // module.groups
            gain = self.config.initializer_range / USUAL_RANGE
            init.normal_(module.weight, 0.0, gain * (2.0 / fan_out) ** 0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(getattr(module, "gamma", None), nn.Parameter):
            init.constant_(module.gamma, getattr(module, "init_values", 1.0))
        elif isinstance(module, nn.BatchNorm2d):  # of other networks of timm: has running means, too
            super()._init_weights(module)
        elif isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.ndim == 1:
            init.ones_(module.weight)
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)
        fill = getattr(module, "init_non_persistent_buffers", None)  # other networks of timm have such
        if callable(fill):
            fill()

    def get_input_embeddings(self) -> None:
        return None  # pixels are no tokens

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,  # (N, 3, H, W)
        do_pooling: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPooling:
        """`last_hidden_state` is (N, C, h, w); `hidden_states`, where asked for, one map for each stage."""
        if pixel_values.ndim != 4:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}: give (pictures, 3, height, width), "
                "all pictures of all rows one after the other"
            )
        if output_attentions:
            raise ValueError("the picture tower gives no attention weights: timm does not hand them out")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if hasattr(self.timm_model, "set_grad_checkpointing"):
            self.timm_model.set_grad_checkpointing(self.gradient_checkpointing and self.training)
        pixel_values = pixel_values.to(self.device, self.dtype)
        stages = None
        if output_hidden_states:
            features, stages = self.timm_model.forward_intermediates(pixel_values)
        else:
            features = self.timm_model.forward_features(pixel_values)
        pool = self.config.do_pooling if do_pooling is None else do_pooling
        return BaseModelOutputWithPooling(
            last_hidden_state=features,
            pooler_output=self.timm_model.forward_head(features) if pool else None,
            hidden_states=None if stages is None else tuple(stages),
        )


__all__ = ["Minigpt4oVisionEncoder"]
