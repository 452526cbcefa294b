"""The smallest files of every known set in the form in which it is published: one writer for each set or family.

`WRITTEN_BY` says who writes which set. The data lie below one root, which MINIGPT4O_DATA and OWN_DATA name.
"""

import csv
import gzip
import io
import json
import struct
import tarfile
import wave

import minigpt4_files as minigpt4
import published_benchmarks as more
import test_benchmarks as benchmarks
from PIL import Image

from minigpt4o.datasets.toy_world.write import write_toy_world

COCO = "coco/images"
JA_CAPTIONS = ["犬が一匹います。", "茶色い犬が座っている。"]
VIDEO = "rqfQRErjfk8"
ESC_NAMES = ["1-100032-A-0.wav", "2-102435-A-37.wav", "4-100648-1-43.wav", "5-103415-A-2.wav"]
SHAPES = {"images": [{"id": 9, "file_name": "a.jpg", "width": 64, "height": 48}]}


def put(path, data):
    minigpt4.put(path, data if isinstance(data, bytes) else data.encode())


def put_json(path, tree):
    put(path, json.dumps(tree, ensure_ascii=False))


def put_lines(path, rows):
    put(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def put_table(path, head, *rows, delimiter=","):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([head.split(","), *rows])
    put(path, text.getvalue())


def put_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def sound(seconds=0.2, rate=16000):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        frames = int(seconds * rate)
        out.writeframes(b"".join(struct.pack("<h", (i * 997) % 20000 - 10000) for i in range(frames)))
    return file.getvalue()


def flac():
    import soundfile

    waves, rate = soundfile.read(io.BytesIO(sound()))
    file = io.BytesIO()
    soundfile.write(file, waves, rate, format="FLAC")
    return file.getvalue()


def minigpt4_sets(root):
    minigpt4.write(root)
    for name in ("aokvqa/aokvqa_v1p0_val.json", "textcaps/TextCaps_0.1_val.json"):
        put_json(root / name, minigpt4.JSON_FILES[name.replace("val", "train")])
    rows = [{"image": minigpt4.VAL_NAME, "caption": ["A Dog.", "A puppy."], "image_id": "coco_9"}]
    for split in ("val", "test"):
        put_json(root / f"coco/annotations/coco_karpathy_{split}.json", rows)
    put(root / COCO / "val2014/COCO_val2014_000000000009.jpg", minigpt4.picture())


def benchmark_sets(root):
    for name, tree in benchmarks.FILES.items():
        put_json(root / name, tree)
    for name in benchmarks.PICTURES:
        put(root / name, minigpt4.picture())


def img2dataset_tars(root):
    """As img2dataset writes them: the caption in KEY.txt and in KEY.json beside what it knows of the download."""
    for name in ("cc3m", "cc12m"):
        told = {
            "url": "http://x/y.jpg",
            "caption": "a very typical bus station",
            "key": "000000000",
            "status": "success",
        }
        members = {"jpg": minigpt4.picture(), "txt": told["caption"].encode(), "json": json.dumps(told).encode()}
        put_tar(root / f"{name}/00000.tar", {f"000000000.{end}": data for end, data in members.items()})


def visual_genome(root):
    rows = [{"image": "VG_100K_2/2.jpg", "caption": "the clock is green in colour", "dataset": "vg"}]
    put_json(root / "visual_genome/vg_caption.json", rows)
    put(root / "visual_genome/VG_100K_2/2.jpg", minigpt4.picture())
    qas = [
        {"qa_id": 7 + i, "image_id": 2, "question": "何色ですか？", "answer": "緑色", "a_objects": [], "q_objects": []}
        for i in range(2)
    ]
    rows = [{"image_id": number, "qas": [qa | {"image_id": number} for qa in qas]} for number in range(2, 402)]
    put_json(root / "ja_vg_vqa/question_answers.json", rows)
    for number in range(3, 402):
        put(root / f"visual_genome/VG_100K/{number}.jpg", minigpt4.picture())


def stair(root):
    for split, number in (("train", 9), ("val", 42)):
        captions = [
            {"id": i, "image_id": number, "caption": text, "tokenized_caption": text}
            for i, text in enumerate(JA_CAPTIONS)
        ]
        name = f"COCO_{split}2014_{number:012d}.jpg"
        image = {"id": number, "file_name": name, "width": 64, "height": 48, "license": 1}
        tree = {"info": {}, "licenses": [], "images": [image], "annotations": captions}
        put_json(root / f"stair_captions/stair_captions_v1.2_{split}.json", tree)
        put(root / COCO / f"{split}2014" / name, minigpt4.picture())


def audiocaps(root):
    head = "audiocap_id,youtube_id,start_time,caption"
    put_table(root / "audiocaps/train.csv", head, [91139, VIDEO, 14, "Constant rattling noise, and sharp vibrations"])
    for split, one in (("val", "vfY_TJq7n_U"), ("test", "6BJ455B1aAs")):
        captions = [[97151 + i, one, 130, f"Rustling occurs {i}"] for i in range(5)]
        put_table(root / f"audiocaps/{split}.csv", head, *captions)
        put(root / f"audiocaps/audio/{one}.wav", sound())
    put(root / "audiocaps/audio/91139.flac", flac())


def clotho(root):
    head = "file_name," + ",".join(f"caption_{i}" for i in range(1, 6))
    for split in ("development", "validation", "evaluation"):
        texts = [f"A bell rings in the {split} {i}, twice" for i in range(5)]
        put_table(root / f"clotho/clotho_captions_{split}.csv", head, ["Distorted AM Radio noise.wav", *texts])
        put(root / f"clotho/{split}/Distorted AM Radio noise.wav", sound())


def wavcaps(root):
    sources = {
        "AudioSet_SL/as": ("Yb0RFKhbpFJA.wav", "Wind and a man speaking are heard."),
        "BBC_Sound_Effects/bbc": ("07066104", "Someone is using a rip saw."),
        "FreeSound/fsd": ("2219", "A traditional ringtone is playing."),
        "SoundBible/sb": ("2219", "An airplane is landing."),
    }
    for place, (name, caption) in sources.items():
        row = {"id": name, "caption": caption, "duration": 10.0, "audio": "wav_path", "download_link": "http://x/y"}
        put_json(root / f"wavcaps/json_files/{place}_final.json", {"num_captions_per_audio": 1, "data": [row]})
        source = place.split("/")[0]
        folder = source if source == "FreeSound" else f"{source}_flac"
        put(root / f"wavcaps/{folder}/{name.removesuffix('.wav')}.flac", flac())


def clotho_aqa(root):
    question = "Are there any wolves in the sound?"
    rows = [["dogs, barking.wav", question, answer, "yes"] for answer in ("yes", "no", "yes")]
    more = [["dogs, barking.wav", "What is heard?", answer, "maybe"] for answer in ("dog", "dogs", "barking")]
    for split in ("train", "val", "test"):
        put_table(root / f"clotho_aqa/clotho_aqa_{split}.csv", "file_name,QuestionText,answer,confidence", *rows, *more)
    put(root / "clotho_aqa/audio_files/dogs, barking.wav", sound())


def esc50(root):
    words = {"0": "dog", "37": "clock_alarm", "43": "car_horn", "2": "pig"}
    rows = []
    for name in ESC_NAMES:
        fold, clip, take, target = name.removesuffix(".wav").split("-")
        rows.append([name, fold, target, words[target], target == "0", clip, take])
        put(root / "esc50/audio" / name, sound())
    put_table(root / "esc50/meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take", *rows)


def librispeech(root):
    for part in ("train-clean-100", "train-other-500", "dev-clean", "test-clean"):
        folder = root / f"LibriSpeech/{part}/103/1240"
        lines = [f"103-1240-{i:04d} CHAPTER ONE MISSUS RACHEL LYNDE IS SURPRISED\n" for i in range(2)]
        put(folder / "103-1240.trans.txt", "".join(lines))
        for i in range(2):
            put(folder / f"103-1240-{i:04d}.flac", flac())


def small_sets(root):
    """OWN_DATA is the same root."""
    members = {}
    for i in range(40):
        members[f"{i}.png"] = png(64)
        members[f"{i}.json"] = json.dumps({"qa": [["what shape is there?", "circle"], ["is it red?", "no"]]}).encode()
    put_tar(root / "easy_vqa/train.tar", members)
    count = 300
    put(
        root / "digits/t-images-idx3-ubyte.gz",
        gzip.compress(struct.pack(">iiii", 0x803, count, 28, 28) + bytes(784 * count)),
    )
    labels = bytes(i % 10 for i in range(count))
    put(root / "digits/t-labels-idx1-ubyte.gz", gzip.compress(struct.pack(">ii", 0x801, count) + labels))
    put_tar(root / "digits/spoken.tar", {f"{i % 10}_jackson_{i // 10}.wav": sound(0.1, 8000) for i in range(count)})


def toy(root):
    write_toy_world(root / "data/toy", "tiny")


def png(side):
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 40)).save(file, format="PNG")
    return file.getvalue()


def media(folder, count, end="jpg"):
    for i in range(count):
        put(folder / f"{i}.{end}", sound() if end == "wav" else minigpt4.picture())


MANY = 60  # rows of an own set, so that every one of ten folds has some


def own_dialogues(root):
    said = [("human", "<image>\nWhat is it?"), ("gpt", "A dog.")]
    turns = [{"from": who, "value": text} for who, text in said]
    put_json(
        root / "own_llava/a.json", [{"id": str(i), "image": f"{i}.jpg", "conversations": turns} for i in range(MANY)]
    )
    system = {"system": "Be short.", "conversations": turns}
    put_json(root / "own_sharegpt/a.json", [system | {"images": [f"{i}.jpg"]} for i in range(MANY)])
    messages = [{"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": "A dog."}]
    put_lines(root / "own_messages/a.jsonl", [{"messages": messages, "images": [f"{i}.jpg"]} for i in range(MANY)])
    for name in ("own_llava", "own_sharegpt", "own_messages"):
        media(root / name / "media", MANY)


def own_rows(root):
    put_table(root / "own_table/a.csv", "image,caption", *[[f"{i}.jpg", "a dog, sitting"] for i in range(30)])
    rows = [[f"{i}.jpg", "a dog, sitting"] for i in range(30, MANY)]
    put_table(root / "own_table/b.tsv", "image,caption", *rows, delimiter="\t")
    put_lines(root / "own_sounds/a.jsonl", [{"audio": f"{i}.wav", "caption": "a bell"} for i in range(MANY)])
    rows = [
        {"question_id": i, "image": f"{i}.jpg", "question": "what is it?", "answer": ["dog"] * 3} for i in range(MANY)
    ]
    put_json(root / "own_questions/a.json", rows)
    rows = [{"image": f"{i}.jpg", "sents": ["the dog"], "bbox": [16, 12, 32, 24]} for i in range(MANY)]
    put_json(root / "own_boxes/a.json", rows)
    for name in ("own_table", "own_questions", "own_boxes"):
        media(root / name / "media", MANY)
    media(root / "own_sounds/media", MANY, "wav")


def own_coco(root):
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(MANY)]
    captions = [{"id": i, "image_id": i // 2, "caption": "a dog"} for i in range(2 * MANY)]
    put_json(root / "own_coco/a.json", {"images": images, "annotations": captions})
    boxes = [{"id": i, "image_id": i, "category_id": 3, "bbox": [16, 12, 32, 24], "area": 768} for i in range(MANY)]
    tree = {"images": images, "annotations": boxes, "categories": [{"id": 3, "name": "dog"}]}
    put_json(root / "own_coco_boxes/a.json", tree)
    media(root / "own_coco/media", MANY)
    media(root / "own_coco_boxes/media", MANY)


def own_arrow(root):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(
        {
            "image": [{"bytes": minigpt4.picture(), "path": f"{i}.jpg"} for i in range(MANY)],
            "caption": ["a dog"] * MANY,
        }
    )
    (root / "own_parquet").mkdir()
    pyarrow.parquet.write_table(table, root / "own_parquet/a.parquet")
    (root / "own_hf").mkdir()
    with pyarrow.ipc.new_stream(root / "own_hf/data-00000-of-00001.arrow", table.schema) as out:
        out.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_format_type": None, "_split": None}
    put_json(root / "own_hf/state.json", state)
    put_json(root / "own_hf/dataset_info.json", {"features": {}})


def own_files(root):
    for i in range(MANY):
        put(root / f"own_folder/{('cat', 'dog')[i % 2]}/{i}.jpg", minigpt4.picture())
    members = {
        f"{i}.{end}": data for i in range(MANY) for end, data in (("jpg", minigpt4.picture()), ("txt", b"a dog"))
    }
    put_tar(root / "own_webdataset/a.tar", members)


_TOY = ["audio_caption", "audio_qa", "caption", "dialogue", "grounded", "identify", "refer", "talk", "vqa"]
_SPLITS = {"refcoco": "val testA testB", "refcocop": "val testA testB", "refcocog": "val test"}
FAMILIES = {
    minigpt4_sets: {*minigpt4.COMPAT, "textcaps", "invrefvg"},
    benchmark_sets: {f"benchmark_{name}" for name in benchmarks.ASKED}
    | {f"benchmark_{name}_{split}" for name, splits in _SPLITS.items() for split in splits.split()},
    img2dataset_tars: {"cc3m", "cc12m"},
    visual_genome: {"vg_caption", "ja_vg_vqa"},
    stair: {"stair_captions"},
    audiocaps: {"audiocaps"},
    clotho: {"clotho"},
    wavcaps: {"wavcaps", "audioset_caption"},
    clotho_aqa: {"clotho_aqa"},
    esc50: {"esc50"},
    librispeech: {"librispeech"},
    small_sets: {"easy_vqa", "easy_vqa_rounds", "easy_vqa_text", "written_digits", "spoken_digits", "same_digit"},
    toy: {f"toy_{name}_{language}" for name in _TOY for language in ("en", "ja")} | {"toy_laion", "toy_language"},
    own_dialogues: {"own_llava", "own_sharegpt", "own_messages"},
    own_rows: {"own_table", "own_sounds", "own_questions", "own_boxes"},
    own_coco: {"own_coco", "own_coco_boxes"},
    own_arrow: {"own_parquet", "own_hf"},
    own_files: {"own_folder", "own_webdataset"},
}
WRITTEN_BY = {name: writer for writer, names in FAMILIES.items() for name in names} | more.WRITTEN_BY
WRITTEN_BY |= {name: WRITTEN_BY[other] for name, other in more.SAME_FILES.items()}
