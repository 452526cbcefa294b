"""Tokenizers of several kinds and a short way to write a conversation."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.conversation.template import load_template

DATA = Path(os.environ.get("MINIGPT4O_TEST_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))
TEXT = [
    "what colour is the star? red",
    "ASSISTANT: ###Human: [INST] </Img> {<10><20><30><40>}",
    "何色ですか。赤い丸です。ユーザー: システム: ",
    "a dog and a cat on the mat",
] * 8


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with special tokens of its own."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>", "<user>", "<assistant>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator(TEXT, trainer)
    core.add_tokens([AddedToken(t, special=False) for t in ("<Img>", "</Img>", "<Aud>", "</Aud>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=specials[3:],
    )


@pytest.fixture(scope="session")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """SentencePiece's unigram model with byte fallback, as T5 and GPT-NeoX of Japan have it; learned on the spot."""
    import sentencepiece

    from minigpt4o.models.llms.tokenizer_files import load_tokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=model,
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        minloglevel=2,
    )
    file = tmp_path_factory.mktemp("unigram") / "tokenizer.model"
    file.write_bytes(model.getvalue())
    return load_tokenizer(str(file))


@pytest.fixture(scope="session")
def words() -> PreTrainedTokenizerFast:
    """Whole words and an unknown one; no BOS."""
    core = Tokenizer(models.WordLevel(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.train_from_iterator(TEXT, trainers.WordLevelTrainer(special_tokens=["<unk>", "</s>", "<pad>"]))
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>", pad_token="<pad>")


@pytest.fixture(scope="session")
def llama() -> Any:
    """The tokenizer of Llama 1 and 2 with MiniGPT-4's padding token."""
    folder = DATA / "tokenizers" / "llama"
    if not folder.is_dir():
        pytest.skip(f"no Llama tokenizer at {folder} (MINIGPT4O_TEST_DATA)")
    from minigpt4o.models.llms.tokenizer_files import load_tokenizer

    return load_tokenizer(str(folder), pad_token="$$")


def open_media(media: Media, rng: random.Random) -> torch.Tensor:
    return torch.full((3, 2, 2), float(len(media.name)))


@pytest.fixture(scope="session")
def encode() -> Callable[..., SampleEncoder]:
    """`encode(tokenizer, template="toy", profile="default", slots=..., **more of open_encoder)`."""

    def make(tokenizer: Any, template: str = "toy", profile: str = "default", **more: Any) -> SampleEncoder:
        slots = more.pop("slots", {"image": 4, "audio": 2})
        processors = {"image": open_media, "audio": open_media}
        return open_encoder(tokenizer, load_template(template, profile), slots, processors, **more)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def dialogue() -> Callable[..., Sample]:
    """`dialogue("question", "answer", ..., images=1)`: turns of user and assistant by turns."""

    def make(*texts: str, images: int = 0, audios: int = 0, system: str = "") -> Sample:
        roles = ["user", "assistant"] * len(texts)
        turns = [Turn(role, text) for role, text in zip(roles, texts, strict=False)]  # type: ignore[arg-type]
        head = [Turn("system", system)] if system else []
        media = [Media(data=b"x", name=f"m{i}") for i in range(max(images, audios))]
        return Sample("s1", head + turns, images=media[:images], audios=media[:audios], where="rows.json:7")

    return make
