"""The smallest files of each data set of MiniGPT-4, in the layout that its preset expects, and what the reference
makes of their first row after random.seed(0)."""

import io
import json
import pickle
import tarfile

from PIL import Image

COCO_TRAIN = "coco/images/COCO_train2014_000000000009.jpg"
DIALOGUE = [
    {
        "id": "000000000009",
        "conversations": [
            {"from": "human", "value": "What is it?\n<image>"},
            {"from": "gpt", "value": "A dog."},
            {"from": "human", "value": "Why?"},
            {"from": "gpt", "value": "Because."},
        ],
    }
]
SENTENCE = {"sent_id": 1, "tokens": ["x"], "raw": "The Man!", "sent": "the man"}
REFS = [
    {"ref_id": 5 + i, "ann_id": 7, "category_id": 1, "image_id": 9, "split": split, "sentences": [SENTENCE]}
    for i, split in enumerate(("train", "val", "testA", "testB", "test"))
]
INSTANCES = {
    "images": [{"id": 9, "width": 64, "height": 48}],
    "annotations": [{"id": 7, "image_id": 9, "category_id": 1, "bbox": [10, 12, 20, 24]}],
    "categories": [{"id": 1, "name": "person"}],
}
REGIONS = [
    {"region_id": 1, "width": 20, "height": 24, "phrase": "The Clock.", "x": 10, "y": 12},
    {"region_id": 2, "width": 200, "height": 240, "phrase": "big", "x": 0, "y": 0},
]
GROUNDED = "<p>A man</p> {<1><2><3><4>} with <p>dogs</p> {<1><2><3><4>}<delim>{<5><6><7><8>} ."
BOOK = {
    "imageURL": "http://x/y.jpg",
    "split": 1,
    "questions": ["Who Wrote this?"],
    "answers": ["A. B. Smith"],
    "title": "t",
    "genre": "g",
}
TRAIN_NAME, VAL_NAME = "train2014/COCO_train2014_000000000009.jpg", "val2014/COCO_val2014_000000000009.jpg"
JSON_FILES = {
    "coco/annotations/vqa_train.json": [
        {"question_id": 1, "question": "What is (this)?", "answer": ["dog", "dog", "cat"], "image": VAL_NAME}
    ],
    "coco/annotations/vqa_val.json": [],
    "okvqa/okvqa_train.json": [
        {"question_id": 1, "question": "What is (this)?", "answer": ["dog", "dog", "cat"], "image": VAL_NAME}
    ],
    "coco/annotations/coco_karpathy_train.json": [
        {"caption": "x", "image": "val2014/COCO_val2014_1.jpg", "image_id": "coco_1"},
        {"caption": "A Dog.", "image": TRAIN_NAME, "image_id": "coco_9"},
    ],
    "aokvqa/aokvqa_v1p0_train.json": [
        {
            "image": TRAIN_NAME,
            "question": "Q?",
            "question_id": "a",
            "direct_answers": ["Dog", "Dog", "cat"],
            "choices": ["a"],
            "correct_choice_idx": 0,
        }
    ],
    "gqa/train_balanced_questions.json": [
        {"image": "2.jpg", "question": "Is it?", "answer": "Yes", "question_id": "1"}
    ],
    "llava/conversation_58k.json": DIALOGUE,
    "llava/detail_23k.json": DIALOGUE,
    "llava/complex_reasoning_77k.json": DIALOGUE,
    "multitask_conversation/multi_task_conversation.json": DIALOGUE,
    "unnatural_instructions/filtered_unnatural_instruction.json": [
        {"instances": [{"instruction_with_input": "Sort: 3, 1.", "constraints": "None.", "output": "1, 3."}]}
    ],
    "flickr30k/groundedcaption.json": [{"image_id": "9", "grounded_caption": GROUNDED}],
    "flickr30k/captiontobbox.json": [
        {"image_id": "9", "caption": "a man with dogs", "output": "<p>man</p> {<1><2><3><4>}"}
    ],
    "flickr30k/phrasetobbox.json": [{"image_id": "9", "phrase": "dogs", "bbox": "{<1><2><3><4>}<delim>{<5><6><7><8>}"}],
    "ocrvqa/dataset.json": {"B1": BOOK | {"split": 3}, "B0": BOOK, "B2": BOOK | {"split": 2}},
    "textcaps/TextCaps_0.1_train.json": {"data": [{"image_id": "9", "caption_str": "A Sign."}]},
    "cc_sbu_align/filter_cap.json": {"annotations": [{"image_id": "2", "caption": "The image shows (a) Dog."}]},
    "visual_genome/image_data.json": [{"image_id": 1, "url": "https://cs/VG_100K/1.jpg", "width": 64, "height": 48}],
    "visual_genome/region_descriptions.json": [{"id": 1, "regions": REGIONS}],
}
PICTURES = [
    COCO_TRAIN,
    "coco/images/train/COCO_val2014_000000000009.jpg",
    "gqa/images/2.jpg",
    "flickr30k/images/9.jpg",
    "ocrvqa/images/B0.jpg",
    "ocrvqa/images/B1.jpg",
    "ocrvqa/images/B2.jpg",
    "textcaps/train_images/9.jpg",
    "cc_sbu_align/image/2.jpg",
    "visual_genome/VG_100K/1.jpg",
]

IMG = "<Img><ImageHere></Img> "
SHORT = IMG + "[vqa] Based on the image, respond to this question with a short answer: "
CAPTION = IMG + "[caption] Can you briefly explain what you see in the image? "
IDENTIFY = IMG + "[identify] the object in {<15><25><46><75>} is "
REFER = IMG + "[refer] where can I locate the the man ? "
TWO_ROUNDS = (IMG + "What is it? !@#Why? ", "A dog.!@#Because.")
COMPAT = {  # data set -> (what is asked, what is answered); several rounds are joined by !@#
    "coco_vqa": (SHORT + "what is this ? ", "cat"),
    "ok_vqa": (SHORT + "what is this ? ", "cat"),
    "coco_caption": (CAPTION, "a dog"),
    "aok_vqa": (SHORT + "q? ", "cat"),
    "gqa": (SHORT + "is it? ", "yes"),
    "llava_conversation": TWO_ROUNDS,
    "llava_detail": (IMG + "what is it? ", "A dog."),
    "llava_reason": (IMG + "what is it? ", "A dog."),
    "multitask_conversation": TWO_ROUNDS,
    "unnatural_instruction": ("sort 3, 1 none", "1, 3"),
    "flickr_grounded_caption": (
        IMG + "[grounding] give a thorough description of what you see in this image ",
        GROUNDED,
    ),
    "flickr_CaptionToPhrase": (IMG + "[detection] a man with dogs ", "<p>man</p> {<1><2><3><4>}"),
    "flickr_ObjectToPhrase": (IMG + "[detection] dogs ", "<p>dogs</p> {<1><2><3><4>}<delim>{<5><6><7><8>}"),
    "ocrvqa": (SHORT + "who wrote this? ", "a b smith"),
    "textcaps_caption": (CAPTION, "a sign"),
    "cc_sbu_align": (None, "The image shows (a) Dog."),
    "refcoco": (REFER, "{<15><25><46><75>}"),
    "refcocop": (REFER, "{<15><25><46><75>}"),
    "refcocog": (REFER, "{<15><25><46><75>}"),
    "invrefcoco": (IDENTIFY, "the man"),
    "invrefcocop": (IDENTIFY, "the man"),
    "invrefcocog": (IDENTIFY, "the man"),
    "refvg": (IMG + "[refer] where can I locate the the clock ? ", "{<15><25><46><75>}"),
    "laion": (IMG, "a photo of dog 1"),
    "cc_sbu": (IMG, "a photo of dog 1"),
}


def picture(width=64, height=48):
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 30)).save(file, format="JPEG")
    return file.getvalue()


def write(root):
    """Everything below a root folder."""
    jpeg = picture()
    for name in PICTURES:
        put(root / name, jpeg)
    for name, tree in JSON_FILES.items():
        put(root / name, json.dumps(tree).encode())
    for folder, by in (("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")):
        put(root / f"refcoco_annotations/{folder}/refs({by}).p", pickle.dumps(REFS, protocol=0))
        put(root / f"refcoco_annotations/{folder}/instances.json", json.dumps(INSTANCES).encode())
    for name in ("laion", "cc_sbu"):
        for number in range(2):
            shard(root / f"{name}/{name}_dataset/{number:05d}.tar", number, jpeg)


def shard(path, number, jpeg):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for extension, data in (
            ("jpg", jpeg),
            ("json", json.dumps({"caption": f"A Photo (of) dog {number + 1}."}).encode()),
        ):
            info = tarfile.TarInfo(f"{number:09d}.{extension}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
