"""Makes transformers' Auto classes know Minigpt4o after `import minigpt4o`, whichever of the two is imported first.

`import minigpt4o` loads neither torch nor transformers, so the classes cannot be registered there and then. `install`
registers with those parts of transformers that are loaded already and leaves a watch on the import system for the rest.
The watch waits until the outermost import of transformers (or of this model) is over: before that, modules that our
classes need may be half made. Only the public `Auto*.register` is used. The models, which take a second to load, are
registered when the first configuration of ours is made: before that nobody can ask for one.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

HOME = "minigpt4o.models.minigpt4o"
AUTO = "transformers.models.auto"
WATCHED = ("transformers.", HOME + ".")

CONFIGS = ("Config", "TextConfig", "VisionConfig", "AudioConfig")
# Auto class -> configuration -> what it builds; names without "Minigpt4o", modules without "minigpt4o".
MODELS: dict[str, dict[str, tuple[str, str]]] = {
    "AutoModel": {
        "Config": ("modeling_", "Model"),
        "TextConfig": ("modeling_text", "TextModel"),
        "VisionConfig": ("modeling_vision", "VisionEncoder"),
        "AudioConfig": ("modeling_audio", "AudioEncoder"),
    },
    "AutoModelForCausalLM": {
        "Config": ("modeling_", "ForConditionalGeneration"),
        "TextConfig": ("modeling_text", "ForCausalLM"),
    },
    "AutoModelForImageTextToText": {"Config": ("modeling_", "ForConditionalGeneration")},
    "AutoModelForMultimodalLM": {"Config": ("modeling_", "ForConditionalGeneration")},
}


def ours(module: str, name: str) -> Any:
    """A class of this folder: ours("modeling_", "Model") is modeling_minigpt4o.Minigpt4oModel."""
    module = f"{module}minigpt4o" if module.endswith("_") else module
    return getattr(importlib.import_module(f"{HOME}.{module}"), f"Minigpt4o{name}")


def config(name: str) -> Any:
    return ours("configuration_", name)


def register_configs(auto: Any) -> None:
    for name in CONFIGS:
        auto.AutoConfig.register(config(name).model_type, config(name), exist_ok=True)
        call_at_first_use(config(name))


def call_at_first_use(config_class: Any) -> None:
    """Have the models registered before the first object of this class is made."""
    original = config_class.__init__

    @functools.wraps(original)
    def first(self: Any, *args: Any, **kwargs: Any) -> None:
        config_class.__init__ = original
        Wish.models = True
        register_what_is_there()
        original(self, *args, **kwargs)

    config_class.__init__ = first


def register_models(auto: Any) -> None:
    for auto_class, builds in MODELS.items():
        for name, target in builds.items():
            getattr(auto, auto_class).register(config(name), ours(*target), exist_ok=True)


def register_tokenizer(auto: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    for name in ("Config", "TextConfig"):
        auto.AutoTokenizer.register(config(name), tokenizer_class=PreTrainedTokenizerFast, exist_ok=True)


def register_feature_extractor(auto: Any) -> None:
    auto.AutoFeatureExtractor.register(
        config("Config"), ours("feature_extraction_", "AudioFeatureExtractor"), exist_ok=True
    )


def register_image_processor(auto: Any) -> None:
    processors = {"torchvision": ours("image_processing_", "ImageProcessor")}
    auto.AutoImageProcessor.register(config("Config"), image_processor_classes=processors, exist_ok=True)


def register_processor(auto: Any) -> None:
    auto.AutoProcessor.register(config("Config"), ours("processing_", "Processor"), exist_ok=True)


MODELS_WHERE = f"{AUTO}.modeling_auto"
# Once this module of transformers is there, call this with it. Taken out when done.
PENDING: dict[str, Callable[[Any], None]] = {
    f"{AUTO}.configuration_auto": register_configs,
    MODELS_WHERE: register_models,
    f"{AUTO}.tokenization_auto": register_tokenizer,
    f"{AUTO}.feature_extraction_auto": register_feature_extractor,
    f"{AUTO}.image_processing_auto": register_image_processor,
    f"{AUTO}.processing_auto": register_processor,
}


class State(threading.local):
    depth = 0  # watched imports under way in this thread
    busy = False  # registering


class Wish:
    """Whether somebody has use for the models, in whatever thread."""

    models = False


STATE = State()


def ready() -> list[str]:
    models = Wish.models or f"{HOME}.modeling_minigpt4o" in sys.modules
    return [name for name in PENDING if name in sys.modules and (models or name != MODELS_WHERE)]


def register_what_is_there() -> None:
    """Register with every part of transformers that is loaded, unless an import is still under way."""
    if STATE.depth or STATE.busy:
        return
    STATE.busy = True
    try:
        while names := ready():
            register = PENDING.pop(names[0])
            try:
                register(importlib.import_module(names[0]))
            except ImportError as error:  # an optional package is missing: transformers itself must go on working
                warnings.warn(f"Minigpt4o is not registered with {names[0]}: {error}", stacklevel=2)
    finally:
        STATE.busy = False


class Loader(importlib.abc.Loader):
    """The module's own loader, with a look at what can be registered afterwards."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.real  # nobody shall see that we were here
        STATE.depth += 1
        try:
            self.real.exec_module(module)
        finally:
            STATE.depth -= 1
        register_what_is_there()


class Watch(importlib.abc.MetaPathFinder):
    """Finds watched modules as Python does and hangs our loader over theirs, until everything is registered."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not PENDING or not fullname.startswith(WATCHED):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(spec.loader)
        return spec


def install() -> None:
    """Called once, by `import minigpt4o`."""
    if not any(isinstance(finder, Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, Watch())
    register_what_is_there()
