"""The Auto classes know Minigpt4o whoever is imported first; an exported folder carries its own code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from tiny_minigpt4o import VOCAB, tiny_config
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

import minigpt4o
from minigpt4o.models.minigpt4o import auto, export

ROOT = Path(__file__).resolve().parents[3]
TOKENIZER = Path(__file__).parent / "tokenizer"


def run(code: str, **environment: str) -> str:
    """What another Python writes; an error shows what it said."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with processor, saved together with the code."""
    place = tmp_path_factory.mktemp("exported") / "model"
    torch.manual_seed(0)
    config = minigpt4o.Minigpt4oConfig.preset("tiny", vocab_size=768, media_rows=16)
    processor = minigpt4o.Minigpt4oProcessor(
        minigpt4o.Minigpt4oAudioFeatureExtractor(),
        minigpt4o.Minigpt4oImageProcessor(size={"height": 64, "width": 64}),
        AutoTokenizer.from_pretrained(TOKENIZER),
    )
    return export.export_with_code(minigpt4o.Minigpt4oForConditionalGeneration(config), processor, place)


FIRST = {
    "ours, by name only": "import minigpt4o; assert not {'torch', 'transformers'} & set(sys.modules)",
    "ours, by a class": "from minigpt4o import Minigpt4oForConditionalGeneration",
    "ours, by a module": "from minigpt4o.models.minigpt4o.modeling_text import Minigpt4oTextModel",
    "theirs": "from transformers import AutoModel, AutoConfig, AutoProcessor, AutoModelForCausalLM; import minigpt4o",
    # loading this model's layers loads the Auto classes half-way through, when ours could not be made yet
    "ours, then another model": "import minigpt4o; from transformers import Gemma3ForCausalLM",
    "ours, then pipelines": "import minigpt4o; from transformers import pipeline",
}
THEN = """
from transformers import AutoModel, AutoConfig, AutoProcessor, AutoModelForCausalLM, AutoModelForImageTextToText, CONFIG_MAPPING, MODEL_MAPPING
from minigpt4o.models.minigpt4o import auto
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING
config = AutoConfig.for_model('minigpt4o')
names = [MODEL_MAPPING[type(c)].__name__ for c in (config, config.text_config, config.vision_config, config.audio_config)]
names += [kind._model_mapping[type(config)].__name__ for kind in (AutoModelForCausalLM, AutoModelForImageTextToText)]
names += [PROCESSOR_MAPPING[type(config)].__name__, str(type(config) in TOKENIZER_MAPPING)]
print(*[name.removeprefix('Minigpt4o') for name in names], type(sys.modules['transformers.modeling_utils'].__loader__).__name__)
"""  # noqa: E501


@pytest.mark.parametrize("order", FIRST)
def test_the_order_of_imports_does_not_matter(order: str) -> None:
    told = run(f"import sys\n{FIRST[order]}\n{THEN}")
    assert told == (
        "Model TextModel VisionEncoder AudioEncoder ForConditionalGeneration ForConditionalGeneration "
        "Processor True SourceFileLoader"
    )


def test_what_is_not_asked_for_is_not_loaded() -> None:
    told = run("import sys, minigpt4o\nfrom transformers import AutoTokenizer\nprint(*sys.modules, sep='\\n')").split()
    assert "minigpt4o.models.minigpt4o.configuration_minigpt4o" in told
    assert "timm" not in told and not [name for name in told if name.startswith("minigpt4o") and "modeling" in name]


def test_a_missing_package_is_told_and_transformers_goes_on_working() -> None:
    told = run(
        "import sys, warnings\nsys.modules['minigpt4o.models.minigpt4o.modeling_audio'] = None\nimport minigpt4o\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    from transformers import AutoConfig, AutoModel, LlamaConfig\n"
        "    AutoConfig.for_model('minigpt4o_text')\n"
        "print(*[w.message for w in seen if 'Minigpt4o is not registered' in str(w.message)])\n"
        "values = dict(hidden_size=8, num_hidden_layers=1, intermediate_size=8, num_attention_heads=1, vocab_size=9)\n"
        "print(type(AutoModel.from_config(LlamaConfig(**values))).__name__)"
    )
    assert "modeling_auto: import of minigpt4o.models.minigpt4o.modeling_audio halted" in told
    assert told.endswith("LlamaModel")


def test_every_auto_class_builds_ours() -> None:
    config = tiny_config()
    whole, text = config, config.text_config
    assert type(AutoModel.from_config(whole)) is minigpt4o.Minigpt4oModel
    assert type(AutoModel.from_config(text)) is minigpt4o.Minigpt4oTextModel
    assert type(AutoModel.from_config(config.vision_config)) is minigpt4o.Minigpt4oVisionEncoder
    assert type(AutoModel.from_config(config.audio_config)) is minigpt4o.Minigpt4oAudioEncoder
    assert type(AutoModelForCausalLM.from_config(text)) is minigpt4o.Minigpt4oForCausalLM
    for kind in (AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM):
        assert type(kind.from_config(whole)) is minigpt4o.Minigpt4oForConditionalGeneration
    assert not [name for name in auto.PENDING if name in sys.modules]


def test_every_auto_class_reads_a_folder(folder: Path) -> None:
    assert type(AutoConfig.from_pretrained(folder)) is minigpt4o.Minigpt4oConfig
    assert type(AutoModelForImageTextToText.from_pretrained(folder)) is minigpt4o.Minigpt4oForConditionalGeneration
    assert type(AutoModelForCausalLM.from_pretrained(folder)) is minigpt4o.Minigpt4oForConditionalGeneration
    assert type(AutoModel.from_pretrained(folder)) is minigpt4o.Minigpt4oModel
    assert type(AutoProcessor.from_pretrained(folder)) is minigpt4o.Minigpt4oProcessor
    assert type(AutoFeatureExtractor.from_pretrained(folder)) is minigpt4o.Minigpt4oAudioFeatureExtractor
    assert type(AutoImageProcessor.from_pretrained(folder)) is minigpt4o.Minigpt4oImageProcessor
    assert len(AutoTokenizer.from_pretrained(folder)) == 768


def test_text_generation_takes_the_whole_model(folder: Path) -> None:
    told = pipeline("text-generation", model=str(folder))("a red circle", max_new_tokens=3, do_sample=False)
    assert told[0]["generated_text"].startswith("a red circle")


ALONE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'minigpt4o':
            raise ModuleNotFoundError(f'{name} is not installed')
sys.meta_path.insert(0, Missing())
import PIL.Image, torch
from transformers import (AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, pipeline)
folder, trust = FOLDER, {'trust_remote_code': True}
model = AutoModelForImageTextToText.from_pretrained(folder, **trust)
processor = AutoProcessor.from_pretrained(folder, **trust)
assert type(model).__module__.startswith('transformers_modules') and type(processor).__name__ == 'Minigpt4oProcessor'
with torch.no_grad():
    print(model(input_ids=torch.arange(8, 40)[None]).logits.double().sum().item())
print(type(AutoModelForCausalLM.from_pretrained(folder, **trust)).__name__)
answer = pipeline('image-text-to-text', model=folder, **trust)
print(len(answer(PIL.Image.new('RGB', (40, 30)), text='<start_of_image> what?', max_new_tokens=2)))
"""


def test_an_exported_folder_needs_no_minigpt4o(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as cache:
        told = run(ALONE.replace("FOLDER", repr(str(folder))), HF_MODULES_CACHE=cache).split()
    model = AutoModelForImageTextToText.from_pretrained(folder)
    with torch.no_grad():
        wanted = model(input_ids=torch.arange(8, 40)[None]).logits.double().sum().item()
    assert float(told[0]) == pytest.approx(wanted, rel=1e-5)
    assert told[1:] == ["Minigpt4oForConditionalGeneration", "1"]


def test_only_the_top_configuration_names_code_and_no_file_names_us(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"]["AutoConfig"] == "configuration_minigpt4o.Minigpt4oConfig"
    assert not any("auto_map" in part for part in config.values() if isinstance(part, dict))
    code = list(folder.glob("*.py"))
    assert len(code) > 8 and not [file.name for file in code if f"from {export.HOME}" in file.read_text()]


def test_the_text_model_exports_alone_and_other_models_are_refused(tmp_path: Path) -> None:
    model = minigpt4o.Minigpt4oForCausalLM(tiny_config().text_config)
    assert model.config.vocab_size == VOCAB
    export.export_with_code(model, AutoTokenizer.from_pretrained(TOKENIZER), tmp_path)
    assert not (tmp_path / "modeling_audio.py").exists() and (tmp_path / "tokenizer.json").exists()
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == export.TEXT
    with pytest.raises(ValueError, match="'minigpt4o_audio' cannot be exported; known: minigpt4o, minigpt4o_text"):
        export.export_with_code(minigpt4o.Minigpt4oAudioEncoder(tiny_config().audio_config), None, tmp_path)
    with pytest.raises(ValueError, match=r"x\.py, line 1: minigpt4o\.common\.errors cannot travel"):
        export.relative("from minigpt4o.common.errors import DataError", "x")
