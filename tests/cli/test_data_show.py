"""`data show`: a page that asks for nothing and runs nothing, and tells token by token what a model would learn."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

from minigpt4o.cli import main
from minigpt4o.conversation.batch import IGNORE
from minigpt4o.conversation.template import load_template
from minigpt4o.runners.data_sheet_tokens import pieces_of

TEXT = "a small red circle is at the top left. what is there? 小さな赤い丸が左上にあります。 0123456789 " * 30
TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>", "<Img>", "</Img>", "<Aud>", "</Aud>"]
SMALL = {"width": 16, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from minigpt4o.models.llms.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("words")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    return train_tokenizer([folder / "text.txt"], folder / "tokenizer", 300, special_tokens=TOKENS)


@pytest.fixture
def model(tokenizer):
    """The node of a model whose weights nobody has: only its tokenizer is here."""
    options = {"hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": 256}
    return {
        "arch": "aligned",
        "llm": {"name": "causal_lm", "tokenizer": str(tokenizer), "options": options},
        "encoders": {
            "image": {"name": "timm_vit", "image_size": 32, "patch_size": 8, **SMALL, "weights": "not/here"},
            "audio": {"name": "spectrogram_transformer", "frames": 12, "mels": 8, **SMALL, "weights": "not/here"},
        },
        "bridges": {"image": {"name": "grouped", "group": 4}, "audio": "linear"},
        "template": "toy",
    }


@pytest.fixture
def world(tmp_path, monkeypatch, model):
    """`world(rows, **changes)` writes rows (messages) and the YAML c.yaml that reads them."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 20), "red").save("red.png")
    soundfile.write("tone.wav", 0.3 * np.sin(np.arange(1600) / 5), 16000)

    def write(rows, **changes):
        Path("rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        pixels = {"name": "image_augment", "image_size": 32, "keep_aspect": "pad"}
        frames = {"name": "log_mel", "n_mels": 8, "seconds": 0.12}
        node = {
            "builder": "conversations",
            "annotations": {"train": "rows.jsonl", "val": "rows.jsonl"},
            "vis_processor": {"train": pixels, "eval": pixels},
            "audio_processor": {"train": frames, "eval": frames},
            "about": {"licence": "CC0 <b>"},
        }
        Path("c.yaml").write_text(yaml.safe_dump({"model": {**model, **changes}, "datasets": {"mine": node}}))
        return ["data", "show", "--cfg-path", "c.yaml", "--json", "sheet.json"]

    return write


def said(question, answer, **more):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **more}


def shown(number=0):
    return json.loads(Path("sheet.json").read_text())["sheets"][0]["shown"][number]


def joined(pieces, *kinds):
    return "".join(p["text"] or f"[{p['kind']}]" for p in pieces if not kinds or p["kind"] in kinds)


def test_the_row_is_shown_as_the_template_renders_it_and_only_the_answer_is_learned(world, capsys):
    assert main(world([said("<image>what is there?", "a red circle", images=["red.png"])])) == 0
    pieces = shown()["pieces"]
    assert joined(pieces) == "<s><user><Img>[image]</Img>what is there?<assistant> a red circle</s>"
    assert joined([p for p in pieces if p["learned"]]) == " a red circle</s>"
    assert {p["text"] for p in pieces if p["kind"] == "special"} == {*TOKENS[1:3], *TOKENS[4:8]}
    assert [p["places"] for p in pieces if p["kind"] == "image"] == [4]  # 16 patches, grouped by 4
    counts = shown()
    assert counts["text"] == sum(p["places"] for p in pieces) - 4
    assert counts["learned"] == sum(p["places"] for p in pieces if p["learned"]) < counts["text"]
    page = Path("sheet.html").read_text()
    assert 'class="t-special t-learned"' in page and "256 positions" in page and "CC0 &lt;b&gt;" in page
    assert "1 shown of 1" in capsys.readouterr().out


def test_nothing_in_a_text_can_run_or_reach_out_or_hide(world):
    nasty = '<script>alert("1")</script><img src=x onerror=alert(2)> $title ${x} \u202etxt.exe'
    rows = [said("<image>" + nasty, nasty, id=nasty, images=[name]) for name in ("red.png", "rows.jsonl")]
    assert main(world(rows)) == 0
    page = Path("sheet.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"<script|<img src=x|(?:src|href)=\"(?!data:|#)", page)
    assert re.sub("</?span[^>]*>", "", page).count("&lt;script&gt;") == 6  # of both samples: id, question, answer
    assert "\u202e" not in page and r"\u202e" in page
    assert "${x}" in page


def test_a_box_is_drawn_and_written_where_the_model_sees_it(world):
    row = said("<image>find it", "<ref-object><bbox>", images=["red.png"])
    assert main(world([{**row, "objects": {"ref": ["a dog"], "bbox": [[10, 0, 30, 20]]}}])) == 0
    assert "<p>a dog</p> {<25><25><75><75>}" in joined(shown()["pieces"])  # letterbox: 40 x 20 in the middle of 32 x 32
    page = Path("sheet.html").read_text()
    drawn = re.findall(r'<rect class="box k0" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', page)
    assert [[float(v) for v in box] for box in drawn] == [[8, 8, 16, 16], [10, 0, 20, 20]]
    views = re.findall(r'viewBox="0 0 (\d+) (\d+)"><image href="data:image/png;base64,([^"]+)"', page)
    assert [view[:2] for view in views] == [("32", "32"), ("40", "20")]
    seen = Image.open(io.BytesIO(base64.b64decode(views[0][2])))
    assert seen.getpixel((16, 16)) == (255, 0, 0) and seen.getpixel((16, 2)) != (255, 0, 0)


def test_a_sound_can_be_heard_as_far_as_the_model_hears_it(world):
    soundfile.write("long.wav", np.stack([0.1 * np.ones(44100), np.zeros(44100)], axis=1), 44100)
    assert main(world([said("what is it?<audio>", "a tone", audios=["long.wav"])])) == 0
    page = Path("sheet.html").read_text()
    (heard,) = re.findall(r'<audio controls preload="metadata" src="data:audio/wav;base64,([^"]+)"', page)
    with wave.open(io.BytesIO(base64.b64decode(heard))) as file:
        assert (file.getnchannels(), file.getframerate()) == (1, 16000)
        assert abs(file.getnframes() - 0.12 * 16000) <= 2
    assert "12 frames of 8 mel bins of 0.12 s: the beginning; 0.9 s are not heard" in page
    (mel,) = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="log-mel frames"', page)
    assert Image.open(io.BytesIO(base64.b64decode(mel))).size == (12, 8)


def test_what_cannot_be_used_stands_at_the_end_with_its_reason(world, capsys):
    good = said("<image>what?", "a circle", images=["red.png"])
    bad = said("<image>what <b>?", "a cat", images=["gone.png"])
    long = said("<image>" + "what is there? " * 200, "a cat", images=["red.png"])
    command = world([*[good] * 30, bad, long, *[good] * 30])
    assert main([*command, "--count", "40", "--seed", "3"]) == 0
    sheet = json.loads(Path("sheet.json").read_text())["sheets"][0]
    assert (len(sheet["shown"]), sheet["skipped"]) == (40, {"missing_file": 1, "too_long": 1})
    page = Path("sheet.html").read_text()
    end = page[page.index('id="skipped"') :]
    assert "missing_file" in end and "gone.png" in end and "too_long" in end and "what is there? what" in end
    assert "too_long 1" in capsys.readouterr().out


def test_if_nothing_can_be_used_the_page_says_why_and_the_command_ends_with_1(world):
    assert main(world([said("<image>what?", "a circle", images=["gone.png"])])) == 1
    assert "none of the 1 samples looked at can be used" in Path("sheet.html").read_text()


def test_in_an_evaluation_the_prompt_is_shown_as_it_is_sent(world):
    assert main([*world([said("<image>what is there?", "a <b>cat", images=["red.png"])]), "--split", "val"]) == 0
    look = shown()
    assert joined(look["pieces"]) == "<s><user><Img>[image]</Img>what is there?<assistant>"
    assert look["learned"] == 0 and look["answers"] == ["a <b>cat"]
    assert "accepted answers: a &lt;b&gt;cat" in Path("sheet.html").read_text()


def test_words_of_the_template_are_told_from_the_same_words_of_a_person(world):
    command = world([said("<image>###Human: who?", "me", images=["red.png"])], template="vicuna_v0", max_txt_len=400)
    assert main(command) == 0
    pieces = shown()["pieces"]
    assert joined(pieces, "text") == "###Human: who? me###"
    assert joined(pieces, "control").endswith("###Human:  ###Assistant: ")
    assert main([*command, "--options", "model.profile=compat"]) == 0
    assert joined(shown()["pieces"]) == "<s>###Human: <Img>[image]</Img> ###Human: who? ###Assistant: me###"


def test_signs_of_several_tokens_are_shown_whole_and_say_how_many(world):
    assert main(world([said("<image>何?", "鬱だ🙂 e\u0301", images=["red.png"])])) == 0
    learned = [p for p in shown()["pieces"] if p["learned"]]
    assert joined(learned) == " 鬱だ🙂 e\u0301</s>"
    assert [p["places"] for p in learned if p["text"] == "🙂"] == [4]


def test_a_long_answer_is_shown_as_it_is_cut(world):
    row = said("<image>what?", "a red circle is there. " * 9, images=["red.png"])
    assert main(world([row], max_txt_len=40)) == 0
    look = shown()
    assert look["text"] == 40 and look["truncated"] > 10
    assert f"cut off: {look['truncated']} learned tokens" in Path("sheet.html").read_text()


def test_without_the_tokenizer_words_are_shown_with_their_labels_and_it_is_said(world, capsys):
    command = world([said("<image>what is there?", "a red circle", images=["red.png"])], llm={"name": "causal_lm"})
    assert main(command) == 0
    pieces = shown()["pieces"]
    assert joined(pieces) == "<user><Img>[image]</Img>what is there?<assistant> a red circle</s>"
    assert joined([p for p in pieces if p["learned"]]) == " a red circle</s>"
    assert joined(pieces, "control") == "<user><Img></Img><assistant>"
    page = Path("sheet.html").read_text()
    assert "the tokenizer is not here" in page and "picture × 4" in page  # the places are known without it
    assert capsys.readouterr().out.startswith("words: the tokenizer is not here")


def test_a_file_of_ones_own_needs_no_yaml_and_may_borrow_a_model(world):
    world([said("<image>what is there?", "a red circle", images=["red.png"])])
    command = ["data", "show", "rows.jsonl", "--json", "sheet.json"]
    assert main(command) == 0
    assert joined(shown()["pieces"]) == "<Img>[image]</Img> what is there?\na red circle</s>"  # the template `plain`
    page = Path("sheet.html").read_text()
    assert "no model was named" in page and "no vis_processor is chosen" in page and "audio_processor" not in page
    assert main([*command, "--model", "c.yaml"]) == 0
    assert joined(shown()["pieces"]).startswith("<s><user><Img>")


def test_tars_are_shown_too(world, model):
    world([])
    with tarfile.open("a.tar", "w") as tar:
        for name, data in (("1.png", Path("red.png").read_bytes()), ("1.txt", b"a red bar")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    node = {"builder": "shards", "annotations": {"train": "a.tar"}, "fields": {"image": "png", "text": "txt"}}
    Path("t.yaml").write_text(yaml.safe_dump({"model": model, "datasets": {"tars": node}}))
    assert main(["data", "show", "--cfg-path", "t.yaml", "--json", "sheet.json", "--out", "deep/t.html"]) == 0
    assert joined(shown()["pieces"]).endswith("<assistant> a red bar</s>") and Path("deep/t.html").is_file()


def test_the_seed_says_which_samples_are_drawn(world):
    command = [*world([said(f"what is {n}?", "it") for n in range(200)]), "--count", "6"]
    pages = []
    for seed in ("0", "0", "1"):
        assert main([*command, "--seed", seed]) == 0
        pages.append(json.loads(Path("sheet.json").read_text())["sheets"][0]["shown"])
    assert pages[0] == pages[1] != pages[2]
    assert len({look["id"] for look in pages[0]}) == 6


# ---- tokens of other tokenizers ----


class BlankMarked:
    """The few doors of a SentencePiece tokenizer with single bytes for what it does not know."""

    words = ("<s>", "\u2581a", "\u2581red", "<0xE8>", "<0xB5>", "<0xA4>", "dog")
    all_special_ids = (0,)

    def get_added_vocab(self):
        return {}

    def convert_ids_to_tokens(self, i):
        return self.words[i]


def test_blanks_and_single_bytes_of_sentencepiece_are_read():
    import torch

    ids = torch.tensor([0, 1, 2, 3, 4, 5, 6])
    labels = torch.tensor([IGNORE, IGNORE, 2, 3, 4, 5, 6])
    pieces = pieces_of(SimpleNamespace(input_ids=ids, labels=labels), BlankMarked(), {}, [])
    assert [(p.text, p.learned, len(p.ids)) for p in pieces] == [
        ("<s>", False, 1),
        (" a", False, 1),
        (" red", True, 1),
        ("赤", True, 3),
        ("dog", True, 1),
    ]


def test_every_template_has_words_that_can_stand_in_for_a_tokenizer():
    from minigpt4o.conversation.template import template_names
    from minigpt4o.runners.data_sheet_tokens import Words

    for name in template_names():
        words = Words(load_template(name))
        ids = words("a  b\nc ")["input_ids"]
        back = {number: word for word, number in words.known.items()}
        assert "".join(back[i] for i in ids) == "a  b\nc "
