"""The smallest files of benchmarks beyond MiniGPT-v2's own, as published, and what they must be read as.

`SAME_FILES` are benchmarks that read the files of another set; `richer` writes those anew, with enough to score.
"""

import csv
import io
import json
import pickle

import minigpt4_files as minigpt4

COCO = "coco/images"
SHORT = "<image>[vqa] Based on the image, respond to this question with a short answer: "
LETTER = "Answer with the letter of the right option."
NAMES = ("dog", "cat", "red bus")  # three pictures, numbered from 1


def put(path, data):
    minigpt4.put(path, data if isinstance(data, bytes) else data.encode())


def put_json(path, tree):
    put(path, json.dumps(tree, ensure_ascii=False))


def put_lines(path, rows):
    put(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def put_table(path, head, rows, delimiter=","):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([head.split(","), *rows])
    put(path, text.getvalue())


def sound():
    from published_sets import sound

    return sound()


def pictures(root, *names):
    for name in names:
        put(root / name, minigpt4.picture())


def ten(word):
    return [{"answer_id": i, "answer": word, "answer_confidence": "yes"} for i in range(1, 10)] + [
        {"answer_id": 10, "answer": f"a {word}", "answer_confidence": "maybe"}
    ]


def vqav2(root):
    questions = [
        {"image_id": i, "question": "What is it?", "question_id": 10 * i} for i, _ in enumerate(NAMES, start=1)
    ]
    told = [
        {"question_id": 10 * i, "image_id": i, "question_type": "what is", "answer_type": "other", "answers": ten(word)}
        | {"multiple_choice_answer": word}
        for i, word in enumerate(NAMES, start=1)
    ]
    head = {"info": {}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {}, "data_subtype": "val2014"}
    put_json(root / "eval/vqav2/v2_OpenEnded_mscoco_val2014_questions.json", head | {"questions": questions})
    put_json(root / "eval/vqav2/v2_mscoco_val2014_annotations.json", head | {"annotations": told})
    pictures(root, *(f"{COCO}/val2014/COCO_val2014_{i:012d}.jpg" for i in (1, 2, 3)))


def aokvqa(root):
    rows = [
        {
            "split": "val",
            "image_id": i,
            "question_id": f"2{i}MexNk",
            "question": "What is it?",
            "choices": ["pot", *NAMES],
            "correct_choice_idx": i,
            "direct_answers": [word] * 8 + ["thing"] * 2,
            "difficult_direct_answer": i == 3,
            "rationales": ["It is seen."],
        }
        for i, word in enumerate(NAMES, start=1)
    ]
    put_json(root / "eval/aokvqa/aokvqa_v1p0_val.json", rows)
    pictures(root, *(f"{COCO}/val2017/{i:012d}.jpg" for i in (1, 2, 3)))


def textvqa(root):
    rows = [
        {"question": "what does it say?", "image_id": f"00{i}a", "question_id": 34602 + i, "answers": [word] * 10}
        | {"image_classes": ["Sign"], "set_name": "val"}
        for i, word in enumerate(("stop", "exit 12"), start=1)
    ]
    put_json(root / "eval/textvqa/TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": rows})
    pictures(root, "eval/textvqa/train_images/001a.jpg", "eval/textvqa/train_images/002a.jpg")


def scienceqa(root):
    one = {"question": "Which is it?", "choices": list(NAMES), "answer": 1, "hint": "Look at it.", "image": "image.png"}
    one |= {"task": "closed choice", "grade": "grade2", "subject": "natural science", "topic": "biology"}
    problems = {"1": one | {"split": "train"}, "4": one | {"split": "test"}, "5": one | {"split": "test"}}
    problems |= {"6": one | {"split": "test", "image": None}, "9": one | {"split": "test", "hint": "", "answer": 2}}
    put_json(root / "eval/scienceqa/problems.json", problems)
    pictures(root, *(f"eval/scienceqa/images/test/{number}/image.png" for number in (4, 5, 9)))


def pope(root):
    for kind in ("random", "popular", "adversarial"):
        rows = [
            {"question_id": i, "image": "COCO_val2014_000000000001.jpg", "image_id": 1}
            | {"text": f"Is there a {kind} {i} in the image?", "label": ("yes", "no")[i % 2]}
            for i in range(4)
        ]
        put_lines(root / f"eval/pope/coco_pope_{kind}.json", rows)
    pictures(root, f"{COCO}/val2014/COCO_val2014_000000000001.jpg")


def nocaps(root):
    images = [
        {"id": i, "open_images_id": f"00{i}a", "file_name": f"00{i}a.jpg", "width": 64, "height": 48, "domain": domain}
        for i, domain in enumerate(("in-domain", "near-domain", "out-domain"))
    ]
    captions = [
        {"id": 10 * i + n, "image_id": i, "caption": f"A {word} stands there."}
        for i, word in enumerate(NAMES)
        for n in range(10)
    ]
    tree = {"licenses": [], "info": {}, "images": images, "annotations": captions}
    put_json(root / "eval/nocaps/nocaps_val_4500_captions.json", tree)
    pictures(root, *(f"eval/nocaps/images/{image['file_name']}" for image in images))


def flickr30k(root):
    rows = [
        {"image": f"flickr30k-images/100712981{i}.jpg", "caption": [f"A {word} stands there."] * 5}
        for i, word in enumerate(NAMES)
    ]
    put_json(root / "eval/flickr30k/flickr30k_test.json", rows)
    pictures(root, *(f"eval/flickr30k/images/{row['image']}" for row in rows))


def ja_vg_vqa_500(root):
    import pyarrow
    import pyarrow.parquet

    empty = pyarrow.array([], pyarrow.null()).to_pylist()
    qas = [
        [
            {
                "a_objects": empty,
                "answer": "緑色",
                "q_objects": empty,
                "qa_id": 100 + 2 * i,
                "question": "何色ですか？",
            },
            {
                "a_objects": empty,
                "answer": "二人",
                "q_objects": empty,
                "qa_id": 101 + 2 * i,
                "question": "何人いますか？",
            },
        ]
        for i in range(2)
    ]
    image = [{"bytes": minigpt4.picture(), "path": f"{i}.jpg"} for i in range(2)]
    table = pyarrow.table({"image_id": [1, 2], "url": ["http://x"] * 2, "qas": qas, "image": image})
    path = root / "eval/ja_vg_vqa_500/test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path)


def common_voice(root):
    head = "client_id,path,sentence,up_votes,down_votes,age,gender,accents,locale,segment"
    texts = ("今日はいい天気です。", "駅はどこですか。")
    rows = [["c", f"common_voice_ja_{i}.wav", text, 2, 0, "", "", "", "ja", ""] for i, text in enumerate(texts)]
    put_table(root / "eval/common_voice_ja/test.tsv", head, rows, "\t")
    for row in rows:
        put(root / "eval/common_voice_ja/clips" / row[1], sound())


def llava_bench(root):
    folder = root / "eval/llava_bench"
    questions = [
        {"question_id": i, "image": f"00{i // 2 + 1}.jpg", "category": kind, "text": f"What is this ({kind})?"}
        for i, kind in enumerate(("conv", "detail", "complex"))
    ]
    put_lines(folder / "questions.jsonl", questions)
    captions = [{"id": i, "image": f"00{i}.jpg", "caption": f"An aerial view of {i}."} for i in (1, 2)]
    put_lines(folder / "context.jsonl", captions)
    answers = [
        {"question_id": i, "answer_id": f"a{i}", "model_id": "gpt-4", "text": f"Diamond Head {i}"} for i in range(3)
    ]
    put_lines(folder / "answers_gpt4.jsonl", answers)
    pictures(root, *(f"eval/llava_bench/images/00{i}.jpg" for i in (1, 2)))


def librispeech_other(root):
    from published_sets import flac

    folder = root / "LibriSpeech/test-other/367/130732"
    lines = [
        f"367-130732-{i:04d} {text}\n" for i, text in enumerate(("LOBSTERS AND LOBSTERS", "THE BREED IS WELL KNOWN"))
    ]
    put(folder / "367-130732.trans.txt", "".join(lines))
    for i in range(2):
        put(folder / f"367-130732-{i:04d}.flac", flac())


WRITTEN_BY = {
    "benchmark_vqav2": vqav2,
    "benchmark_aokvqa": aokvqa,
    "benchmark_aokvqa_mc": aokvqa,
    "benchmark_textvqa": textvqa,
    "benchmark_scienceqa": scienceqa,
    **{f"benchmark_pope_{kind}": pope for kind in ("random", "popular", "adversarial")},
    "benchmark_nocaps": nocaps,
    "benchmark_flickr30k": flickr30k,
    "benchmark_ja_vg_vqa_500": ja_vg_vqa_500,
    "benchmark_common_voice_ja": common_voice,
    "benchmark_llava_bench": llava_bench,
    "benchmark_librispeech_other": librispeech_other,
}
_REG = {"refcoco": ("val", "testA", "testB"), "refcocop": ("val", "testA", "testB"), "refcocog": ("val", "test")}
SAME_FILES = {  # benchmark -> the set whose files it reads
    "benchmark_hm_auroc": "benchmark_hm",
    "benchmark_ocrvqa": "ocrvqa",
    "benchmark_coco_caption": "coco_caption",
    "benchmark_stair_captions": "stair_captions",
    "benchmark_ja_vg_vqa": "ja_vg_vqa",
    "benchmark_audiocaps": "audiocaps",
    "benchmark_clotho": "clotho",
    "benchmark_clotho_aqa": "clotho_aqa",
    "benchmark_esc50": "esc50",
    "benchmark_librispeech_clean": "librispeech",
    **{f"benchmark_reg_{name}_{split}": f"inv{name}" for name, splits in _REG.items() for split in splits},
}
_REG_SAID = "<image>[identify] describe this object in {<16><25><47><75>} | The Man!"
EXPECTED = {
    "benchmark_aokvqa": ({"test": 2}, SHORT + "What is it? | dog"),
    "benchmark_aokvqa_mc": (
        {"test": 3},
        f"<image>[vqa] What is it? Options: A. pot B. dog C. cat D. red bus {LETTER} | dog",
    ),
    "benchmark_audiocaps": ({"test": 1}, "<audio>Describe this sound briefly. | Rustling occurs 3"),
    "benchmark_clotho": ({"test": 1}, "<audio>Describe this sound briefly. | A bell rings in the evaluation 3, twice"),
    "benchmark_clotho_aqa": (
        {"test": 2},
        "<audio>Are there any wolves in the sound? Answer in a word or two. | yes",
    ),
    "benchmark_coco_caption": ({"test": 1}, "<image>[caption] Briefly describe this image. | A puppy."),
    "benchmark_common_voice_ja": (
        {"test": 2},
        "<audio>話されている内容を書き起こしてください。 | 今日はいい天気です。",
    ),
    "benchmark_esc50": ({"test": 4}, "<audio>Which sound is this? | dog"),
    "benchmark_flickr30k": ({"test": 3}, "<image>[caption] Briefly describe this image. | A dog stands there."),
    "benchmark_hm_auroc": (
        {"test": 1},
        "<image>This is an image writting 'it's a dog'. Is this image hateful? Answer yes or no. Answer: | no",
    ),
    "benchmark_ja_vg_vqa": ({"test": 6, "train": 792, "val": 2}, "<image>何色ですか？一言で答えてください。 | 緑色"),
    "benchmark_ja_vg_vqa_500": ({"test": 4}, "<image>何色ですか？一言で答えてください。 | 緑色"),
    "benchmark_librispeech_clean": (
        {"test": 2},
        "<audio>Write down what is said. | CHAPTER ONE MISSUS RACHEL LYNDE IS SURPRISED",
    ),
    "benchmark_librispeech_other": ({"test": 2}, "<audio>Write down what is said. | LOBSTERS AND LOBSTERS"),
    "benchmark_llava_bench": ({"test": 3}, "<image>What is this (conv)? | Diamond Head 0"),
    "benchmark_nocaps": ({"test": 3}, "<image>[caption] Briefly describe this image. | A dog stands there."),
    "benchmark_ocrvqa": ({"test": 1}, SHORT + "Who Wrote this? | A. B. Smith"),
    "benchmark_scienceqa": (
        {"test": 3},
        f"<image>[vqa] Look at it. Which is it? Options: A. dog B. cat C. red bus {LETTER} | cat",
    ),
    "benchmark_stair_captions": ({"test": 1}, "<image>この画像を簡潔に説明してください。 | 茶色い犬が座っている。"),
    "benchmark_textvqa": ({"test": 2}, SHORT + "what does it say? | stop"),
    "benchmark_vqav2": ({"test": 3}, SHORT + "What is it? | dog"),
    **{
        f"benchmark_pope_{kind}": (
            {"test": 4},
            f"<image>[vqa] Is there a {kind} 0 in the image? Answer yes or no. | yes",
        )
        for kind in ("random", "popular", "adversarial")
    },
    **{name: ({"test": 1}, _REG_SAID) for name in SAME_FILES if "_reg_" in name},
}


def richer(root):
    """Files of `SAME_FILES` with several samples, each with captions that agree: so that truth reaches the ceiling."""
    from published_sets import flac

    rows = [
        {"image": f"val2014/COCO_val2014_{i:012d}.jpg", "caption": [f"A {word} stands there."] * 5}
        for i, word in enumerate(NAMES, start=1)
    ]
    put_json(root / "coco/annotations/coco_karpathy_test.json", rows)
    pictures(root, *(f"{COCO}/{row['image']}" for row in rows))
    images = [{"id": i, "file_name": f"COCO_val2014_{i:012d}.jpg", "width": 64, "height": 48} for i in (1, 2, 3)]
    texts = ("犬が一匹います。", "赤いバスが走っている。", "二人が海辺で話す。")
    captions = [
        {"id": 10 * i + n, "image_id": i, "caption": text} for i, text in enumerate(texts, start=1) for n in range(5)
    ]
    put_json(
        root / "stair_captions/stair_captions_v1.2_val.json", {"images": images, "annotations": captions, "info": {}}
    )
    heard = ("Rain falls on a tin roof", "A man speaks and laughs", "Birds sing in a wood")
    rows = [[100 + 5 * i + n, f"tube{i}", 30, text] for i, text in enumerate(heard) for n in range(5)]
    put_table(root / "audiocaps/test.csv", "audiocap_id,youtube_id,start_time,caption", rows)
    head = "file_name," + ",".join(f"caption_{i}" for i in range(1, 6))
    put_table(
        root / "clotho/clotho_captions_evaluation.csv", head, [[f"{i}.wav", *[t] * 5] for i, t in enumerate(heard)]
    )
    for i in range(len(heard)):
        put(root / f"audiocaps/audio/tube{i}.flac", flac())
        put(root / f"clotho/evaluation/{i}.wav", sound())
    splits = ("val", "testA", "testB", "test")
    said = [
        {"sent_id": 1, "raw": text, "sent": text}
        for text in ("the tall man at the left", "a brown dog on grass", "big red bus behind it")
    ]
    refs = [
        {"ref_id": 10 * s + i, "ann_id": 7, "image_id": 9, "split": split, "sentences": [said[i]] * 2}
        for s, split in enumerate(splits)
        for i in range(len(said))
    ]
    for name, by in (("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")):
        put(root / f"refcoco_annotations/{name}/refs({by}).p", pickle.dumps(refs))
