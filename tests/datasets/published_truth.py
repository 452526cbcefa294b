"""What tests/datasets/published_sets.py must be read as: samples of each split, and the turns of the first of train.

Turns are those of the first split named, drawn with random.Random(0), boxes written out, joined by ` | `.
"""

from published_benchmarks import EXPECTED as BENCHMARKS

EXPECTED = BENCHMARKS | {
    "aok_vqa": (
        {"train": 1, "val": 1},
        "<image>[vqa] Based on the image, respond to this question with a short answer: Q? | cat",
    ),
    "audiocaps": (
        {"train": 1, "val": 1, "test": 1},
        "<audio>Say in one sentence what can be heard. | Constant rattling noise, and sharp vibrations",
    ),
    "audioset_caption": (
        {"train": 1},
        "<audio>Say in one sentence what can be heard. | Wind and a man speaking are heard.",
    ),
    "benchmark_gqa": (
        {"test": 1},
        "<image>[vqa] Based on the image, respond to this question with a short answer: What is it? | dog",
    ),
    "benchmark_hm": (
        {"test": 1},
        "<image>This is an image writting 'it's a dog'. Is this image hateful? Answer yes or no. Answer: | no",
    ),
    "benchmark_iconvqa": (
        {"test": 1},
        "<image>[vqa] Based on the image, respond to this question with a short answer: How many? | three",
    ),
    "benchmark_okvqa": (
        {"test": 1},
        "<image>[vqa] Based on the image, respond to this question with a short answer: What is it? | dog",
    ),
    "benchmark_refcoco": (
        {"val": 1, "testA": 1, "testB": 1, "test": 2},
        "<image>[refer] give me the location of the Man | {<16><25><47><75>}",
    ),
    "benchmark_refcoco_testA": ({"test": 1}, "<image>[refer] give me the location of the Man | {<16><25><47><75>}"),
    "benchmark_refcoco_testB": ({"test": 1}, "<image>[refer] give me the location of the Man | {<16><25><47><75>}"),
    "benchmark_refcoco_val": ({"test": 1}, "<image>[refer] give me the location of the Man | {<16><25><47><75>}"),
    "benchmark_refcocog": (
        {"val": 1, "test": 1},
        "<image>[refer] give me the location of the Man | {<16><25><47><75>}",
    ),
    "benchmark_refcocog_test": ({"test": 1}, "<image>[refer] give me the location of the Man | {<16><25><47><75>}"),
    "benchmark_refcocog_val": ({"test": 1}, "<image>[refer] give me the location of the Man | {<16><25><47><75>}"),
    "benchmark_refcocop": (
        {"val": 1, "testA": 1, "testB": 1, "test": 2},
        "<image>[refer] give me the location of the Man | {<16><25><47><75>}",
    ),
    "benchmark_refcocop_testA": ({"test": 1}, "<image>[refer] give me the location of the Man | {<16><25><47><75>}"),
    "benchmark_refcocop_testB": ({"test": 1}, "<image>[refer] give me the location of the Man | {<16><25><47><75>}"),
    "benchmark_refcocop_val": ({"test": 1}, "<image>[refer] give me the location of the Man | {<16><25><47><75>}"),
    "benchmark_vizwiz": (
        {"test": 1},
        "<image>[vqa] The question is 'What is it?' Based on the image, answer the question with a single "
        "word or phrase. and reply 'unanswerable' when the provided information is insufficient | dog",
    ),
    "benchmark_vsr": (
        {"test": 1},
        "<image>[vqa] Based on the image, is this statement true or false? The cat is on the mat. | true",
    ),
    "cc12m": ({"train": 1}, "<image> | a very typical bus station"),
    "cc3m": ({"train": 1}, "<image> | a very typical bus station"),
    "cc_sbu": ({"train": 2}, "<image> | A Photo (of) dog 1."),
    "cc_sbu_align": (
        {"train": 1},
        "<image>Could you describe the contents of this image for me? | The image shows (a) Dog.",
    ),
    "clotho": (
        {"train": 1, "val": 1, "test": 1},
        "<audio>Say in one sentence what can be heard. | A bell rings in the development 3, twice",
    ),
    "clotho_aqa": (
        {"train": 2, "val": 2, "test": 2},
        "<audio>Are there any wolves in the sound? Answer in a word or two. | yes",
    ),
    "coco_caption": (
        {"train": 1, "val": 1, "test": 1},
        "<image>[caption] Could you use a few words to describe what you perceive in the photo? | A Dog.",
    ),
    "coco_vqa": (
        {"train": 1},
        "<image>[vqa] Based on the image, respond to this question with a short answer: What is (this)? | cat",
    ),
    "easy_vqa": ({"train": 72, "val": 2, "test": 6}, "<image>what shape is there? | circle"),
    "easy_vqa_rounds": ({"train": 36, "val": 1, "test": 3}, "<image>what shape is there? | circle | is it red? | no"),
    "easy_vqa_text": ({"train": 36, "val": 1, "test": 3}, "what shape is there? | circle | is it red? | no"),
    "esc50": ({"train": 2, "val": 1, "test": 1}, "<audio>Name this sound. | dog"),
    "flickr_CaptionToPhrase": ({"train": 1}, "<image>[detection] a man with dogs | <p>man</p> {<1><2><3><4>}"),
    "flickr_ObjectToPhrase": (
        {"train": 1},
        "<image>[detection] dogs | <p>dogs</p> {<1><2><3><4>}<delim>{<5><6><7><8>}",
    ),
    "flickr_grounded_caption": (
        {"train": 1},
        "<image>[grounding] give a thorough description of what you see in this image | <p>A man</p> "
        "{<1><2><3><4>} with <p>dogs</p> {<1><2><3><4>}<delim>{<5><6><7><8>} .",
    ),
    "gqa": (
        {"train": 1},
        "<image>[vqa] Based on the image, respond to this question with a short answer: Is it? | Yes",
    ),
    "invrefcoco": (
        {"train": 1, "val": 1, "testA": 1, "testB": 1},
        "<image>[identify] the object in {<16><25><47><75>} is | The Man!",
    ),
    "invrefcocog": (
        {"train": 1, "val": 1, "test": 1},
        "<image>[identify] the object in {<16><25><47><75>} is | The Man!",
    ),
    "invrefcocop": (
        {"train": 1, "val": 1, "testA": 1, "testB": 1},
        "<image>[identify] the object in {<16><25><47><75>} is | The Man!",
    ),
    "invrefvg": ({"train": 2}, "<image>[identify] the object in {<16><25><47><75>} is | The Clock."),
    "ja_vg_vqa": ({"train": 792, "val": 2, "test": 6}, "<image>何色ですか？一言で答えてください。 | 緑色"),
    "laion": ({"train": 2}, "<image> | A Photo (of) dog 1."),
    "librispeech": (
        {"train": 4, "val": 2, "test": 2},
        "<audio>Transcribe this recording. | CHAPTER ONE MISSUS RACHEL LYNDE IS SURPRISED",
    ),
    "llava_conversation": ({"train": 1}, "What is it?<image> | A dog. | Why? | Because."),
    "llava_detail": ({"train": 1}, "What is it?<image> | A dog."),
    "llava_reason": ({"train": 1}, "What is it?<image> | A dog."),
    "multitask_conversation": ({"train": 1}, "What is it?<image> | A dog. | Why? | Because."),
    "ocrvqa": (
        {"train": 1, "val": 1, "test": 1},
        "<image>[vqa] Based on the image, respond to this question with a short answer: Who Wrote this? | A. B. Smith",
    ),
    "ok_vqa": (
        {"train": 1},
        "<image>[vqa] Based on the image, respond to this question with a short answer: What is (this)? | cat",
    ),
    "own_boxes": (
        {"train": 44, "val": 12, "test": 4},
        "<image>[refer] where can I locate the dog ? | {<25><25><75><75>}",
    ),
    "own_coco": ({"train": 44, "val": 12, "test": 4}, "<image>Say in one sentence what you see. | a dog"),
    "own_coco_boxes": (
        {"train": 44, "val": 12, "test": 4},
        "<image>[refer] where can I locate the dog ? | {<25><25><75><75>}",
    ),
    "own_folder": ({"train": 51, "val": 2, "test": 7}, "<image>What does the picture show? | cat"),
    "own_hf": ({"train": 46, "val": 8, "test": 6}, "<image>Say in one sentence what you see. | a dog"),
    "own_llava": ({"train": 44, "val": 12, "test": 4}, "<image>What is it? | A dog."),
    "own_messages": ({"train": 44, "val": 12, "test": 4}, "<image>What is it? | A dog."),
    "own_parquet": ({"train": 46, "val": 8, "test": 6}, "<image>Say in one sentence what you see. | a dog"),
    "own_questions": ({"train": 44, "val": 12, "test": 4}, "<image>what is it? Answer in a word or two. | dog"),
    "own_sharegpt": ({"train": 44, "val": 12, "test": 4}, "Be short. | <image>What is it? | A dog."),
    "own_sounds": ({"train": 44, "val": 4, "test": 12}, "<audio>Say in one sentence what can be heard. | a bell"),
    "own_table": ({"train": 44, "val": 12, "test": 4}, "<image>Say in one sentence what you see. | a dog, sitting"),
    "own_webdataset": ({"train": 52, "val": 2, "test": 6}, "<image>Say in one sentence what you see. | a dog"),
    "refcoco": (
        {"train": 1, "val": 1, "testA": 1, "testB": 1},
        "<image>[refer] where can I locate the Man! ? | {<16><25><47><75>}",
    ),
    "refcocog": (
        {"train": 1, "val": 1, "test": 1},
        "<image>[refer] where can I locate the Man! ? | {<16><25><47><75>}",
    ),
    "refcocop": (
        {"train": 1, "val": 1, "testA": 1, "testB": 1},
        "<image>[refer] where can I locate the Man! ? | {<16><25><47><75>}",
    ),
    "refvg": ({"train": 1}, "<image>[refer] where can I locate the Clock. ? | {<16><25><47><75>}"),
    "same_digit": (
        {"train": 215, "val": 35, "test": 50},
        "<image><audio>are the written and the spoken digit the same? | yes",
    ),
    "spoken_digits": ({"train": 252, "val": 23, "test": 25}, "<audio>which digit is spoken? | zero"),
    "stair_captions": ({"train": 1, "val": 1}, "<image>見えるものを一文で述べてください。 | 茶色い犬が座っている。"),
    "textcaps": (
        {"train": 1, "val": 1},
        "<image>[caption] Could you use a few words to describe what you perceive in the photo? | A Sign.",
    ),
    "textcaps_caption": (
        {"train": 1, "val": 1},
        "<image>[caption] Could you use a few words to describe what you perceive in the photo? | A Sign.",
    ),
    "toy_audio_caption_en": (
        {"train": 30, "val": 8, "test": 8},
        "<audio>what do you hear in the sound? | a low bell twice",
    ),
    "toy_audio_caption_ja": (
        {"train": 30, "val": 8, "test": 8},
        "<audio>音には何が聞こえますか？ | 低いベルの音が二回",
    ),
    "toy_audio_qa_en": ({"train": 90, "val": 24, "test": 24}, "<audio>do you hear a falling tone? | no"),
    "toy_audio_qa_ja": ({"train": 90, "val": 24, "test": 24}, "<audio>ベルの音は聞こえますか？ | はい"),
    "toy_caption_en": (
        {"train": 60, "val": 16, "test": 16},
        "<image>what do you see in the picture? | a big yellow triangle at the top and a big green square "
        "at the bottom",
    ),
    "toy_caption_ja": (
        {"train": 60, "val": 16, "test": 16},
        "<image>絵には何が見えますか？ | 上に大きい黄色い三角、下に大きい緑の四角",
    ),
    "toy_dialogue_en": (
        {"train": 60, "val": 16, "test": 16},
        "<image>what shape is the object at the bottom? | square | what colour is the object at the bottom? | green",
    ),
    "toy_dialogue_ja": (
        {"train": 60, "val": 16, "test": 16},
        "<image>絵には何が見えますか？ | 上に大きい黄色い三角、下に大きい緑の四角 | "
        "上の物は大きいですか、小さいですか？ | 大きい | 上の物は何の形ですか？ | 三角",
    ),
    "toy_grounded_en": (
        {"train": 60, "val": 16, "test": 16},
        "<image>[grounding] what do you see in the picture? | <p>a big yellow triangle</p> "
        "{<28><2><67><41>} at the top and <p>a big green square</p> {<28><56><70><98>} at the bottom",
    ),
    "toy_grounded_ja": (
        {"train": 60, "val": 16, "test": 16},
        "<image>[grounding] 絵には何が見えますか？ | "
        "上に<p>大きい黄色い三角</p> {<28><2><67><41>}、下に<p>大きい緑の四角</p> "
        "{<28><56><70><98>}",
    ),
    "toy_identify_en": (
        {"train": 60, "val": 16, "test": 16},
        "<image>what is it? {<28><53><72><100>} | a big green square",
    ),
    "toy_identify_ja": (
        {"train": 60, "val": 16, "test": 16},
        "<image>それは何ですか？ {<27><55><67><100>} | 大きい緑の四角",
    ),
    "toy_laion": ({"train": 60}, "<image> | a big yellow triangle at the top and a big green square at the bottom"),
    "toy_language": (
        {"train": 200, "val": 20},
        "<Img> small orange circle {<11><38><34><61>} left; big red ring {<56><33><98><75>} "
        "right</Img><Aud> low buzz three times three</Aud>how many times do you hear the sound? | three | "
        "is there a green triangle? | no | is there a red object? | yes | [refer] the ring | "
        "{<56><33><98><75>} | what do you hear in the sound? | a low buzz three times | where is the "
        "orange circle? | left",
    ),
    "toy_refer_en": (
        {"train": 60, "val": 16, "test": 16},
        "<image>[refer] give the box of the triangle | {<28><2><67><41>}",
    ),
    "toy_refer_ja": ({"train": 60, "val": 16, "test": 16}, "<image>[refer] 黄色い三角の枠は？ | {<28><2><67><41>}"),
    "toy_talk_en": (
        {"train": 62, "val": 17, "test": 17},
        "<audio>how many times do you hear the sound? | two | what sound is it? | bell | is the sound "
        "high or low? | low",
    ),
    "toy_talk_ja": (
        {"train": 62, "val": 17, "test": 17},
        "<audio>音は高いですか、低いですか？ | 低い | 下降音は聞こえますか？ | いいえ | 音は何回聞こえますか？ | 二回",
    ),
    "toy_vqa_en": ({"train": 180, "val": 48, "test": 48}, "<image>is there a triangle? | yes"),
    "toy_vqa_ja": ({"train": 180, "val": 48, "test": 48}, "<image>下の物は何の形ですか？ | 四角"),
    "unnatural_instruction": ({"train": 1}, "Sort: 3, 1. None. | 1, 3."),
    "vg_caption": ({"train": 1}, "<image>Say in one sentence what you see. | the clock is green in colour"),
    "wavcaps": ({"train": 4}, "<audio>Say in one sentence what can be heard. | Wind and a man speaking are heard."),
    "written_digits": ({"train": 215, "val": 35, "test": 50}, "<image>which digit is written? | zero"),
}
