"""The processor of an export for transformers alone: pictures as our evaluation opens them, one mark for each."""

from __future__ import annotations

from typing import Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.jinja import SLOT


def picture_processor(
    model: Any, tokenizer: Any, pictures: Any, chat_template: str, patch: int = 0, strategy: str = "full"
) -> Any:
    """A `LlavaProcessor`: each `<image>` grows to the places that a picture fills, in a text or a chat.

    It serves BLIP-2 too: transformers' `Blip2Processor` writes all places in front of BOS and forgets chat templates.
    Of a picture it counts patches of `patch` pixels (0: the whole picture is one); the rest is "additional".
    Raises ConfigError for `pictures` that are not just resized.
    """
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    if not hasattr(pictures, "mean"):
        raise ConfigError(f"its pictures are opened by {type(pictures).__name__}; transformers' are resized as a whole")
    side = model.encoders["image"].image_size
    square = {"height": side, "width": side}
    opener = CLIPImageProcessorPil(
        size=square,
        crop_size=square,  # not cropped; vLLM and others read a picture's size here
        do_center_crop=False,
        image_mean=pictures.mean.flatten().tolist(),
        image_std=pictures.std.flatten().tolist(),
    )
    patches = (side // (patch or side)) ** 2
    return LlavaProcessor(
        opener,
        tokenizer,
        patch_size=patch or side,
        vision_feature_select_strategy=strategy,
        chat_template=chat_template,
        image_token=SLOT["image"],
        num_additional_image_tokens=model.slots["image"] + (strategy == "default") - patches,
    )
