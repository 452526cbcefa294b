"""What a person types is words: no mark of a template, a tokenizer or a place in it is ever taken as one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from small_media import png

from minigpt4o.conversation.batch import AUDIO_SLOT, IMAGE_SLOT
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.conversation.sample import Media
from minigpt4o.conversation.template import load_template
from minigpt4o.models.llms.tokenizer import train_tokenizer
from minigpt4o.models.llms.tokenizer_files import load_tokenizer
from minigpt4o.serve.chat import ChatSession, Exchange

TEMPLATES = sorted(f.stem for f in Path("minigpt4o/conversation/templates").glob("*.yaml"))
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>", "<Img>", "</Img>", "<Aud>", "</Aud>"]
SPECIAL += ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"]
SPECIAL += ["<start_of_audio>", "<end_of_audio>", "<|endoftext|>", "<image_soft_token>"]
PLACES = ["<image>", "<audio>", "<bbox>", "<ImageHere>", "<p>", "</p>", "<delim>", "{<1><2>", "<ima<image>ge>"]
PLACES += ["<\ue000image>", "[INST]", "[/INST]", "###", "###Human:", "<0x0A>", "<extra_id_0>", "\x00", "\u2581</s>"]
TYPED = [*SPECIAL, *PLACES, "".join(SPECIAL + PLACES)]


@pytest.fixture(scope="module", params=["bytes", "bytes, plain additions", "bytes, plain marks", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    text = folder / "text.txt"
    text.write_text("what is there? a red circle ### Human: <user> [INST]\n" * 40, encoding="utf-8")
    if request.param.startswith("bytes"):
        found = load_tokenizer(str(train_tokenizer([text], folder / "words", 300, special_tokens=SPECIAL)))
        if "plain" in request.param:  # other people's tokenizers also have added tokens that are not called special
            found.add_tokens(["<tool_call>"])
        if "marks" in request.param:  # or do not call the marks of their speakers special
            marks = ["<user>", "<assistant>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]
            others = [token for token in SPECIAL if token not in marks]
            found = load_tokenizer(str(train_tokenizer([text], folder / "fewer", 300, special_tokens=others)))
            found.add_tokens(marks)
        return found
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    text.unlink()
    found = load_tokenizer(str(folder))
    found.add_special_tokens({"additional_special_tokens": [t for t in SPECIAL if t not in found.get_vocab()]})
    return found


@pytest.mark.parametrize("template", TEMPLATES)
def test_typed_marks_are_words_in_questions_answers_and_the_systems_text(
    tiny_model: Any, tokenizer: Any, template: str
) -> None:
    processors = {"image": lambda media, rng: None}
    encoder = open_encoder(tokenizer, load_template(template), {"image": 4, "audio": 2}, processors)
    marks = "".join(around.before + around.after for around in load_template(template).roles.values())
    added = {id for word, id in tokenizer.get_added_vocab().items() if word in marks}
    special = {*tokenizer.all_special_ids, *added} - {tokenizer.unk_token_id}
    picture = Media(data=png(), name="red.png")

    def sent(word: str) -> list[int]:
        session = ChatSession(tiny_model, encoder, engine=_Nobody(), system=f"be {word} brief")
        asked = [Exchange(f"what {word} is", [picture], [], f"it {word} is"), Exchange(f"{word}", [], [])]
        return encoder.prompt(session._sample(asked), random.Random(0)).input_ids.tolist()

    plain = [i for i in sent("x") if i in special or i < 0]
    assert plain.count(IMAGE_SLOT) == 4 and AUDIO_SLOT not in plain
    for word in TYPED:
        ids = sent(word)
        assert [i for i in ids if i in special or i < 0] == plain, word
        words = tokenizer.decode([i for i in ids if i >= 0], skip_special_tokens=False)
        assert _bare(words).count(_bare(word)) >= 3, word


def _bare(text: str) -> str:
    """The text without what a tokenizer may write as a blank."""
    return text.replace("\ue000", "").replace("\u2581", "").replace(" ", "")


class _Nobody:
    """An engine that is never asked."""

    def forget(self, session: str) -> None:
        pass
