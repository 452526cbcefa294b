"""The reference's instructions and benchmark questions are there byte for byte, in its order."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from minigpt4o.conversation.template import TEMPLATES

POOLS = TEMPLATES.parent / "prompts"
SHORT = "[vqa] Based on the image, respond to this question with a short answer: {}"
CAPTION = [
    "Briefly describe this image.",
    "Provide a concise depiction of this image.",
    "Present a short description of this image.",
    "Summarize this image in a few words.",
    "A short image caption:",
    "A short image description:",
    "A photo of ",
    "An image that shows ",
    "Write a short description for the image. ",
    "Write a description for the photo.",
    "Provide a description of what is presented in the photo.",
    "Briefly describe the content of the image.",
    "Can you briefly explain what you see in the image?",
    "Could you use a few words to describe what you perceive in the photo?",
    "Please provide a short depiction of the picture.",
    "Using language, provide a short account of the image.",
    "Use a few words to illustrate what is happening in the picture.",
]
EXPECTED = {
    "minigpt_v2_vqa": ("question", ["[vqa] {}", SHORT]),
    "minigpt_v2_refer": (
        "expression",
        [
            "[refer] {}",
            "[refer] give me the location of {}",
            "[refer] where is {} ?",
            "[refer] from this image, tell me the location of {}",
            "[refer] the location of {} is",
            "[refer] could you tell me the location for {} ?",
            "[refer] where can I locate the {} ?",
        ],
    ),
    "minigpt_v2_identify": (
        "box",
        [
            "[identify] {}",
            "[identify] what object is in this location {}",
            "[identify] identify the object present at this location {}",
            "[identify] what is it in {}",
            "[identify] describe this object in {}",
            "[identify] this {} is",
            "[identify] the object in {} is",
        ],
    ),
    "minigpt_v2_grounding": (
        "",
        [
            "[grounding] please describe this image in details",
            "[grounding] describe this image as detailed as possible",
            "[grounding] summarize this image in details",
            "[grounding] give a thorough description of what you see in this image",
        ],
    ),
    "minigpt_v2_detection": ("text", ["[detection] {}"]),
    "minigpt_v2_caption": ("", ["[caption] " + words for words in CAPTION]),
    "minigpt_v2_tags": ("", ["[vqa]", "[caption]", "[refer]", "[identify]", "[grounding]", "[detection]"]),
    "minigpt4_stage2": (
        "",
        [
            "<image>Describe this image in detail.",
            "<image>Take a look at this image and describe what you notice.",
            "<image>Please provide a detailed description of the picture.",
            "<image>Could you describe the contents of this image for me?",
        ],
    ),
    "benchmark_okvqa": ("question", [SHORT]),
    "benchmark_gqa": ("question", [SHORT]),
    "benchmark_iconvqa": ("question", [SHORT]),
    "benchmark_vizwiz": (
        "question",
        [
            "[vqa] The question is '{}' Based on the image, answer the question with a single word or phrase."
            " and reply 'unanswerable' when the provided information is insufficient"
        ],
    ),
    "benchmark_vsr": ("statement", ["[vqa] Based on the image, is this statement true or false? {}"]),
    "benchmark_hm": (
        "text",
        ["This is an image writting '{}'. Is this image hateful? Answer yes or no. Answer:"],
    ),
    "benchmark_refcoco": ("expression", ["[refer] give me the location of {}"]),
}


def pool(name: str) -> dict[str, Any]:
    return yaml.safe_load((POOLS / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", list(EXPECTED))
def test_a_pool_is_the_reference_s(name: str) -> None:
    place, texts = EXPECTED[name]
    assert pool(name)["prompts"] == [text.replace("{}", f"{{{place}}}") for text in texts]


def test_three_caption_instructions_end_with_a_blank() -> None:
    blank = [text for text in pool("minigpt_v2_caption")["prompts"] if text.endswith(" ")]
    assert len(CAPTION) == 17 and len(blank) == 3


@pytest.mark.parametrize("file", sorted(POOLS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_pool_says_what_it_is_for_and_its_language(file: Any) -> None:
    tree = pool(file.stem)
    assert set(tree) == {"about", "language", "prompts"} and tree["about"]
    assert file.stem.endswith("_ja") == (tree["language"] == "ja")
    assert len(set(tree["prompts"])) == len(tree["prompts"]) >= 1
