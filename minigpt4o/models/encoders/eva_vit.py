"""Picture encoder: the EVA Vision Transformer of BLIP-2 and MiniGPT-4 (ViT-g/14 by default), at any size."""

# N pictures, S side in pixels, P tokens: the class token and (S / patch_size) ** 2 patches in raster order

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from minigpt4o.common.registry import registry
from minigpt4o.models.encoders.pictures import check_grid, check_side, empty_picture
from minigpt4o.models.positions import resize_positions


@registry.register("encoder", "eva_vit")
class EvaViT(nn.Module):
    """Pictures (N, 3, S, S) -> features (N, P, width): the last block's raw output, class token first, no final norm.

    Built from timm's EVA blocks; query and value have biases, keys none. Source: EVA (arXiv:2211.07636), as BLIP-2
    cuts it (39 of 40 blocks).
    """

    @dataclass
    class Config:
        image_size: int = 224  # side of the picture in pixels
        patch_size: int = 14  # side of a patch in pixels
        width: int = 1408  # size of a feature
        depth: int = 39  # blocks
        heads: int = 16  # attention heads
        mlp_ratio: float = 4.3637  # width of the feed-forward layers over width; rounded down
        layer_norm_eps: float = 1e-6  # of the norms inside the blocks
        drop_path: float = 0.0  # stochastic depth in training, if it is trained
        gradient_checkpointing: bool = False  # less memory, more time, if it is trained
        weights: str = ""  # eva_vit_g.pth, a safetensors file, or a run that trained it; empty: drawn at random
        weights_prefix: str = "encoders.image."  # where its tensors stand in a checkpoint of ours

    def __init__(self, config: Config) -> None:
        from timm.models.eva import Eva

        super().__init__()
        check_grid("eva_vit", config.image_size, config.patch_size, config.width, config.heads)
        self.vit: Any = Eva(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
            norm_layer=partial(nn.LayerNorm, eps=config.layer_norm_eps),
            use_post_transformer_norm=False,
            use_fc_norm=False,
            global_pool="",
            num_classes=0,
        )
        self.vit.set_grad_checkpointing(config.gradient_checkpointing)
        self.from_scratch = not config.weights
        self.image_size = config.image_size
        self.side = config.image_size // config.patch_size
        self.width = config.width
        self.tokens = 1 + self.side**2
        if config.weights:
            from minigpt4o.models.weights import load_part

            load_part(self, config.weights, config.weights_prefix, "model.encoders.image.weights", bare="vit.")

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, P, width)."""
        check_side(pictures, self.image_size)
        return self.vit.forward_features(pictures)

    def fit_tensor(self, name: str, tensor: Tensor) -> Tensor:
        """Positions of another grid, fitted to this one (`models/positions.py`); any other tensor as it is."""
        if name != "vit.pos_embed" or tensor.ndim != 3 or tensor.shape[-1] != self.width:
            return tensor
        try:
            return resize_positions(tensor, self.side, extra=1)
        except ValueError:
            return tensor  # its shape is then refused with both sizes named

    def example(self) -> Tensor:
        """An empty picture (1, 3, S, S), for steps in which every rank must run the encoder."""
        return empty_picture(self.image_size)
