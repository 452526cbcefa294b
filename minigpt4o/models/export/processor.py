"""The processor of an export for transformers alone: pictures as our evaluation opens them, one mark for each."""

from __future__ import annotations

from typing import Any

from minigpt4o.conversation.jinja import SLOT, jinja_of


def picture_processor(model: Any, tokenizer: Any, pictures: Any, separator: str = "") -> Any:
    """A `LlavaProcessor`: each `<image>` grows to the places that a picture fills, in a text or a chat.

    It serves BLIP-2 too: transformers' `Blip2Processor` writes all places in front of BOS and forgets chat templates.
    """
    from transformers import LlavaProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    side = model.encoders["image"].image_size
    opener = BlipImageProcessorPil(
        size={"height": side, "width": side},
        image_mean=pictures.mean.flatten().tolist(),
        image_std=pictures.std.flatten().tolist(),
    )
    return LlavaProcessor(
        opener,
        tokenizer,
        patch_size=side,  # of a picture it counts one patch; the rest of the places are "additional"
        vision_feature_select_strategy="full",
        chat_template=jinja_of(model.conversation, {"image": 1}, separator),
        image_token=SLOT["image"],
        num_additional_image_tokens=model.slots["image"] - 1,
    )
