"""Picture encoder: any Vision Transformer of timm, by name or by its dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.registry import registry


@registry.register("encoder", "timm_vit")
class TimmViT(nn.Module):
    """Pictures (N, 3, S, S) -> patch features (N, P, width)."""

    @dataclass
    class Config:
        model_name: str = ""  # name of a timm ViT; empty: built from the dimensions below
        image_size: int = 224  # side of the picture in pixels
        patch_size: int = 16  # side of a patch in pixels (without model_name)
        width: int = 768  # size of a feature (without model_name)
        depth: int = 12  # layers (without model_name)
        heads: int = 12  # attention heads (without model_name)
        mlp_ratio: float = 4.0  # width of the feed-forward layers over width (without model_name)
        class_token: bool = False  # have a class token (without model_name)
        final_norm: bool = True  # normalise the last layer's output (without model_name)
        drop_cls: bool = True  # give only patch features, not class and register tokens
        weights: str = ""  # safetensors file or run that trained it; "timm": timm's own, by network
        weights_prefix: str = "encoders.image."  # where its tensors stand in a checkpoint of ours

    def __init__(self, config: Config) -> None:
        super().__init__()
        vit = _by_name(config) if config.model_name else _by_size(config)
        self.vit: Any = vit
        self.from_scratch = not config.weights
        self.image_size = config.image_size
        prefix = int(vit.num_prefix_tokens)  # class and register tokens
        self.first = prefix if config.drop_cls else 0
        self.width = int(vit.embed_dim)
        self.tokens = int(vit.patch_embed.num_patches) + prefix - self.first
        if config.weights and config.weights != "timm":
            from minigpt4o.models.weights import load_part

            load_part(self, config.weights, config.weights_prefix, "model.encoders.image.weights")

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, tokens, width)."""
        if pictures.shape[-1] != self.image_size or pictures.shape[-2] != self.image_size:
            raise DataError(
                f"a picture of {pictures.shape[-1]}x{pictures.shape[-2]} pixels came to an encoder of image_size "
                f"{self.image_size}; set vis_processor.image_size and model.encoders.image.image_size to one value"
            )
        return self.vit.forward_features(pictures)[:, self.first :]

    def example(self) -> Tensor:
        """An empty picture (1, 3, S, S), for steps in which every rank must run the encoder."""
        return torch.zeros(1, 3, self.image_size, self.image_size)


def _by_size(config: TimmViT.Config) -> Any:
    from timm.models.vision_transformer import VisionTransformer

    if config.image_size % config.patch_size or config.width % config.heads:
        raise ConfigError(
            f"encoder timm_vit: image_size {config.image_size} must be a multiple of patch_size {config.patch_size} "
            f"and width {config.width} of heads {config.heads}"
        )
    return VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        mlp_ratio=config.mlp_ratio,
        class_token=config.class_token,
        final_norm=config.final_norm,
        global_pool="",
        num_classes=0,
    )


def _by_name(config: TimmViT.Config) -> Any:
    import timm

    if not timm.is_model(config.model_name):
        from minigpt4o.common.source import nearest

        hint = nearest(config.model_name, timm.list_models("*vit*")) or ["timm.list_models('*vit*') lists them"]
        raise ConfigError(f"encoder timm_vit: timm has no model {config.model_name!r}; nearest: {', '.join(hint)}")
    try:
        vit = timm.create_model(
            config.model_name,
            pretrained=config.weights == "timm",
            num_classes=0,
            global_pool="",
            img_size=config.image_size,
        )
    except TypeError as error:  # a convolutional network takes no img_size
        raise _not_a_vit(config.model_name) from error
    if not hasattr(vit, "num_prefix_tokens") or not hasattr(vit.patch_embed, "num_patches"):
        raise _not_a_vit(config.model_name)
    return vit


def _not_a_vit(name: str) -> ConfigError:
    return ConfigError(f"encoder timm_vit: {name} is not a Vision Transformer with patch tokens")
