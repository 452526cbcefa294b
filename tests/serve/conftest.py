"""A tiny real model behind a chat: random weights, its own tokenizer, real processors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import published
from small_media import png, wav

from minigpt4o.conversation.sample import Media

TEXT = "a small red circle is at the top left. what is there? 小さな赤い丸が左上にあります。 0123456789 " * 30
TEMPLATE_TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>", "<Img>", "</Img>", "<Aud>", "</Aud>"]


@pytest.fixture(scope="session")
def model_node(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The `model` node of a YAML: pictures of 16 x 16, sounds of 12 x 8, a Llama of 300 words and 256 positions."""
    from minigpt4o.models.llms.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    words = train_tokenizer([folder / "text.txt"], folder / "tokenizer", 300, special_tokens=TEMPLATE_TOKENS)
    llama = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    options = {**llama, "initializer_range": 0.2, "max_position_embeddings": 256}
    small = {"width": 16, "depth": 1, "heads": 2}
    return {
        "arch": "aligned",
        "llm": {"name": "causal_lm", "tokenizer": str(words), "options": options},
        "encoders": {
            "image": {"name": "timm_vit", "image_size": 16, "patch_size": 4, **small},
            "audio": {"name": "spectrogram_transformer", "frames": 12, "mels": 8, "patch_frames": 4, **small},
        },
        "bridges": {"image": {"name": "grouped", "group": 4}, "audio": "linear"},
        "template": "toy",
        "precision": "fp32",
    }


@pytest.fixture(scope="session")
def demo_yaml(model_node: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo YAML for the tiny model."""
    import yaml

    run = {
        "runner": "chat",
        "vis_processor": {"name": "blip2_image_eval", "image_size": 16},
        "audio_processor": {"name": "log_mel", "n_mels": 8, "seconds": 0.12},
        "max_new_tokens": 12,
        "min_new_tokens": 4,
        "server_port": 0,
    }
    file = tmp_path_factory.mktemp("demo") / "demo.yaml"
    file.write_text(yaml.safe_dump({"model": model_node, "run": run}), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def tiny_model(demo_yaml: Path) -> Any:
    """The model of the demo YAML, with random weights."""
    from minigpt4o.common.config import load_settings
    from minigpt4o.common.registry import registry

    return registry.build(load_settings(demo_yaml, []).model).eval()


@pytest.fixture(scope="session")
def tiny_encoder(tiny_model: Any) -> Any:
    """What turns samples into the prompts of the tiny model, with real processors."""
    from minigpt4o.common.registry import Part, registry
    from minigpt4o.conversation.opening import open_encoder

    processors = {
        "image": registry.build(Part("processor", "blip2_image_eval", {"image_size": 16})),
        "audio": registry.build(Part("processor", "log_mel", {"n_mels": 8, "seconds": 0.12, "n_fft": 400})),
    }
    return open_encoder(tiny_model.tokenizer, tiny_model.conversation, tiny_model.slots, processors, 256)


@pytest.fixture
def make_config() -> Callable[..., Any]:
    """The `run` node of a demo YAML for the tiny model."""
    from minigpt4o.common.registry import Part, registry

    def make(**values: Any) -> Any:
        sound = {"n_mels": 8, "seconds": 0.12, "n_fft": 400}
        parts = {
            "vis_processor": Part("processor", "blip2_image_eval", {"image_size": 16}),
            "audio_processor": Part("processor", "log_mel", sound),
        }
        defaults = {"max_new_tokens": 12, "min_new_tokens": 4, "server_port": 0}
        return registry.get("runner", "chat").Config(**{**parts, **defaults, **values})

    return make


@pytest.fixture
def make_session(tiny_model: Any, make_config: Callable[..., Any]) -> Callable[..., Any]:
    from minigpt4o.serve.inference import open_chat

    return lambda **values: open_chat(tiny_model, make_config(**values))


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small tokenizer."""
    from minigpt4o.models.llms.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("words")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    return train_tokenizer([folder / "text.txt"], folder / "tokenizer", 300)


@pytest.fixture(scope="session")
def tiny() -> Any:
    """Options that make the presets tiny: `qformer`, `v2`, `plain` (neither)."""
    return SimpleNamespace(plain=published.TINY, qformer=published.TINY_QFORMER, v2=published.TINY_V2)


@pytest.fixture(scope="session")
def weights(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every published file, in its own layout and under its own name, all tiny."""
    return published.write_weights(tmp_path_factory.mktemp("weights"), words)


@pytest.fixture(scope="session")
def own_run(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps that trained the bridge of a tiny Llama-2 variant."""
    return published.train(tmp_path_factory.mktemp("own"), weights)


@pytest.fixture
def picture() -> Media:
    return Media(data=png(), name="red.png")


@pytest.fixture
def sound() -> Media:
    return Media(data=wav(), name="tone.wav")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Files as a person may send them: good ones, and some that are not what they are called."""
    contents = {
        "red.png": png(),
        "blue.png": png("blue"),
        "tone.wav": wav(),
        "long.wav": wav(3.0),
        "program.png": b"MZ\x90\x00" + bytes(200),
        "empty.png": b"",
        "cut.png": png(side=200)[:80],
        "huge.png": png(side=3000),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in contents}


@pytest.fixture
def answerer(make_session: Callable[..., Any]) -> Any:
    """What the adapters of other people's harnesses answer with, around the tiny model."""
    from minigpt4o.serve.harness.answering import Answerer

    chat = make_session()
    return Answerer(chat.model, chat.encoder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A chromium without a window."""
    from page_visitor import CHROMIUM, sync_api

    if CHROMIUM is None:
        pytest.skip("no chromium to look with")
    calm = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=calm)
        yield found
        found.close()


@pytest.fixture(scope="module")
def tiny_url(tiny_model: Any) -> Iterator[str]:
    """The page of the tiny model."""
    from page_visitor import opened

    yield from opened(tiny_model, max_new_tokens=16, min_new_tokens=4)
