"""Picture encoder: any image network of timm by name, or a Vision Transformer by its dimensions."""

# N pictures, S side in pixels, P tokens, H and W rows and columns of a grid of features

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.models.encoders.pictures import check_grid, check_side, empty_picture

log = logging.getLogger(__name__)


@registry.register("encoder", "timm_vit", "timm")
class TimmEncoder(nn.Module):
    """Pictures (N, 3, S, S) -> features (N, P, width): patches of a transformer, or cells of the last grid in raster
    order of a convolutional or hierarchical network."""

    @dataclass
    class Config:
        model_name: str = ""  # name of any image network of timm; empty: a ViT built from the dimensions below
        options: dict[str, Any] = field(default_factory=dict)  # further values of that network's constructor
        image_size: int = 224  # side of the picture in pixels
        patch_size: int = 16  # side of a patch in pixels (without model_name)
        width: int = 768  # size of a feature (without model_name)
        depth: int = 12  # layers (without model_name)
        heads: int = 12  # attention heads (without model_name)
        mlp_ratio: float = 4.0  # width of the feed-forward layers over width (without model_name)
        class_token: bool = False  # have a class token (without model_name)
        final_norm: bool = True  # normalise the last layer's output (without model_name)
        drop_cls: bool = True  # give only patch features, not class and register tokens
        weights: str = ""  # file (timm's own too) or run that trained it; "timm": timm's own, by network
        weights_prefix: str = "encoders.image."  # where its tensors stand in a checkpoint of ours

    def __init__(self, config: Config) -> None:
        super().__init__()
        make = _by_name if config.model_name else _by_size
        self.vit: Any = make(config, config.weights == "timm")
        self.from_scratch = not config.weights
        self.image_size = config.image_size
        self.channels_last = getattr(self.vit, "output_fmt", "") == "NHWC"
        self.first = int(getattr(self.vit, "num_prefix_tokens", 0)) if config.drop_cls else 0
        _, self.tokens, self.width = self._shape(config)
        if config.weights and config.weights != "timm":
            from minigpt4o.models.weights import load_part

            where = "model.encoders.image.weights"
            load_part(self, config.weights, config.weights_prefix, where, bare="vit.")

    def _shape(self, config: Config) -> torch.Size:
        """Shape of the features of one picture, from a run of a twin without weights; what that did not use is cut off.

        A network of timm may keep layers that come after its features. They would learn nothing, and ranks would wait
        for their gradients.
        """
        make = _by_name if config.model_name else _by_size
        try:
            with torch.device("meta"):
                twin = make(config, False).eval()
                features = self._as_tokens(twin.forward_features(torch.empty(self.example().shape)))
                features.sum().backward()
            _cut_off(self.vit, {name for name, p in twin.named_parameters() if p.grad is None})
            return features.shape
        except (RuntimeError, NotImplementedError, AssertionError, ValueError) as error:
            log.debug("%s runs only with weights: %s", config.model_name, error)
        was_training = self.vit.training
        try:  # it computes with numbers while it is built, or the picture's size does not suit it
            with torch.no_grad():
                device = next(self.vit.parameters()).device
                return self._as_tokens(self.vit.eval().forward_features(self.example().to(device))).shape
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"encoder timm: {config.model_name} cannot take pictures of image_size {config.image_size}: {error}"
            ) from error
        finally:
            self.vit.train(was_training)

    def _as_tokens(self, features: Any) -> Tensor:
        """(N, P, D), (N, H, W, D) or (N, D, H, W) -> (N, P, D)."""
        if not isinstance(features, Tensor) or features.dim() not in (3, 4):
            raise ConfigError(f"encoder timm: {type(self.vit).__name__} gives no grid or sequence of features")
        if features.dim() == 3:
            return features[:, self.first :]
        return features.flatten(1, 2) if self.channels_last else features.flatten(2).transpose(1, 2)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, tokens, width)."""
        check_side(pictures, self.image_size)
        return self._as_tokens(self.vit.forward_features(pictures))

    def example(self) -> Tensor:
        """An empty picture (1, 3, S, S), for steps in which every rank must run the encoder."""
        return empty_picture(self.image_size)


def _by_size(config: TimmEncoder.Config, pretrained: bool) -> Any:
    from timm.models.vision_transformer import VisionTransformer

    if pretrained or config.options:
        raise ConfigError("encoder timm: weights: timm and options need model_name, the name of a network of timm")
    check_grid("timm_vit", config.image_size, config.patch_size, config.width, config.heads)
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


def _by_name(config: TimmEncoder.Config, pretrained: bool) -> Any:
    import timm

    name = config.model_name
    if not timm.is_model(name):
        from minigpt4o.common.source import nearest

        hint = nearest(name, timm.list_models()) or ["timm.list_models() lists them"]
        raise ConfigError(f"encoder timm: timm has no model {name!r}; nearest: {', '.join(hint)}")
    # A transformer is told its picture's size; a convolutional network takes no such value. A few (distilled ones) do
    # not take the value that says that features are not pooled, which they are not here anyway.
    tries: list[dict[str, Any]] = [
        {"img_size": config.image_size, "global_pool": ""},
        {"global_pool": ""},
        {"img_size": config.image_size},
        {},
    ]
    failed: Exception | None = None
    for values in tries:
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **values, **config.options)
        except (TypeError, AssertionError) as error:
            failed = error
    raise ConfigError(f"encoder timm: {name} cannot be built with image_size and options as given: {failed}")


def _cut_off(network: nn.Module, unused: set[str]) -> None:
    """Put nothing in the place of modules of which no parameter is used."""
    for name, module in list(network.named_modules()):
        below = [f"{name}.{inner}" for inner, _ in module.named_parameters()]
        if name and below and unused.issuperset(below):
            unused = unused.difference(below)
            network.set_submodule(name, nn.Identity())
