"""Claims about exports as LLaVA and about text models with adapters: what transformers alone makes of the folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import exporting
import pytest
import torch
from exporting import png

from minigpt4o.cli import main
from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.batch import SLOTS
from minigpt4o.conversation.sample import Media, Sample, Turn

SCRIPT = Path(__file__).with_name("fresh_export.py")
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LORA = {"lora_r": 2, "train": ["lora"]}


def encoder(folder: Path, kind: str) -> Path:
    """A folder of a tiny CLIP or SigLIP whose norms do something."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}VisionConfig")(**SMALL, image_size=32, patch_size=8)
    model = getattr(transformers, f"{kind}VisionModel")(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder / kind)
    return folder / kind


def node(words: Path, clip: Path | None, bridge: Any = "mlp", llm: dict[str, Any] | None = None, **more: Any) -> dict:
    """A model of one picture encoder of transformers, or of text alone."""
    options = exporting.qformer_node(words)["llm"]["options"]
    language = {"name": "causal_lm", "tokenizer": str(words), "seed": 3, "options": {**options, **(llm or {})}}
    tree = {"arch": "aligned", "template": "toy", "llm": language, "precision": "fp32", **more}
    if clip is not None:
        seen = {"skip": int("CLIP" in clip.name), "layer": -2 if "CLIP" in clip.name else -1}
        image = {"name": "transformers_vision", "path": str(clip), "image_size": 32, **seen}
        tree |= {"encoders": {"image": image}, "bridges": {"image": bridge}}
    return tree


def with_adapters(folder: Path, tree: dict[str, Any], name: str) -> Path:
    """The YAML of the same model with adapters that say something, from a checkpoint of ours."""
    from minigpt4o.serve.opening import Source, build, settings_of

    run = {"runner": "chat", **({"vis_processor": _pictures()} if "encoders" in tree else {})}
    torch.manual_seed(0)
    model = build(Source(settings_of({"model": tree, "run": run}, "tiny", [])), "cpu")
    torch.manual_seed(7)
    kept = {}
    for parameter_name, parameter in model.named_parameters():
        if ".lora_" in parameter_name or parameter_name.startswith("bridges."):
            kept[parameter_name] = torch.nn.init.normal_(parameter, std=0.2).detach().contiguous()
    place = folder / f"{name}_step"
    place.mkdir()
    from safetensors.torch import save_file

    save_file(kept, place / "trained.safetensors")
    return exporting.settings_file(folder, {**tree, "ckpt": str(place / "trained.safetensors")}, run, name)


def _pictures() -> dict[str, Any]:
    return {"name": "blip2_image_eval", "image_size": 32}


@pytest.fixture(scope="module")
def found(words: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """name -> (ours, what a fresh process with transformers alone found, folder, what the command told)."""
    base = tmp_path_factory.mktemp("llava")
    (base / "red.png").write_bytes(png())
    clip, siglip = encoder(base, "CLIP"), encoder(base, "Siglip")
    tied = {"tie_word_embeddings": True}
    models = {
        "mlp": (with_adapters(base, node(words, clip, "mlp", **LORA), "mlp"), ["--merge-lora"]),
        "linear": (with_adapters(base, node(words, siglip, {"name": "linear", "bias": False}, tied), "linear"), []),
        "beside": (with_adapters(base, node(words, clip, "linear", **LORA), "beside"), []),
        "text": (with_adapters(base, node(words, None, **LORA), "text"), []),
        "text_merged": (with_adapters(base, node(words, None, **LORA), "text_merged"), ["--merge-lora"]),
    }
    made = {name: _made(base, name, *given) for name, given in models.items()}
    torch.save({name: one["job"] for name, one in made.items()}, base / "jobs.pt")
    command = [sys.executable, str(SCRIPT), str(base / "jobs.pt"), str(base / "found.pt"), "--alone"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=base, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, one in torch.load(base / "found.pt", weights_only=True).items():
        made[name]["found"] = one
    return made


def _made(base: Path, name: str, file: Path, flags: list[str]) -> dict[str, Any]:
    from minigpt4o import load_chat
    from minigpt4o.datasets.collate import collate
    from minigpt4o.serve.export.check import Probe, float64_logits

    told = exporting.export(str(file), base / name, *flags)
    torch.manual_seed(0)
    session = load_chat(file, ["model.precision=fp32"])
    pictured = "image" in session.encoder.slots
    images = [Media(str(base / "red.png"))] if pictured else []
    text = ("<image>" if pictured else "") + "what is there?"
    batch = collate([session.encoder.prompt(Sample("x", [Turn("user", text)], images), None)], 0, "left")
    with torch.no_grad():
        logits = session.model.llm.logits(session.model.llm.hidden(session.model.embed(batch), batch.attention_mask))
    ids, config = batch.input_ids.clone(), json.loads((base / name / "config.json").read_text())
    ids[ids == SLOTS["image"]] = config.get("image_token_index", 0)
    inputs = {"input_ids": ids, "attention_mask": batch.attention_mask}
    inputs |= {"pixel_values": batch.images} if pictured else {}
    content: Any = [{"type": "image", "url": str(base / "red.png")}] if pictured else []
    talks = [[{"role": "user", "content": [*content, {"type": "text", "text": "what is there?"}]}]]
    job = {"folder": str(base / name), "inputs": inputs, "talks": json.dumps(talks), "exact": bool(flags)}
    if flags:  # merged: other sums than beside, which float32 rounds
        with torch.no_grad():
            logits = float64_logits(Probe(session.model, batch, logits[0], []))[None]
    return {"job": job, "logits": logits, "folder": base / name, "told": told, "session": session}


@pytest.mark.parametrize("name", ["mlp", "linear", "beside", "text", "text_merged"])
def test_transformers_alone_gives_the_same_logits_words_and_prompts(found, name) -> None:
    one = found[name]
    theirs, ours = one["found"].get("exact", one["found"]["logits"]), one["logits"]
    assert one["found"]["class"] == ("LlamaForCausalLM" if "text" in name else "LlavaForConditionalGeneration")
    assert one["found"]["alone"]
    assert (theirs[..., : ours.shape[-1]] - ours).abs().max() < 1e-5
    assert torch.equal(theirs.argmax(-1), ours.argmax(-1))  # the new word is never the likeliest
    assert one["found"]["chats"][0]["input_ids"].tolist() == one["job"]["inputs"]["input_ids"].tolist()
    assert "the same greedy tokens; the same prompt" in one["told"]


def test_adapters_of_these_exports_say_something(found) -> None:
    for name in ("beside", "text"):
        assert (found[name]["folder"] / "adapter" / "adapter_model.safetensors").is_file()
    for name in ("mlp", "text"):
        model = found[name]["session"].model
        said = [float(p.detach().abs().max()) for n, p in model.named_parameters() if ".lora_B." in n]
        assert said and min(said) > 0.1


def test_the_configuration_says_which_features_llava_takes(found) -> None:
    trees = {n: json.loads((found[n]["folder"] / "config.json").read_text()) for n in ("mlp", "linear", "beside")}
    assert [trees[n]["vision_feature_layer"] for n in trees] == [-2, -1, -2]
    assert [trees[n]["vision_feature_select_strategy"] for n in trees] == ["default", "full", "default"]
    assert [trees[n]["projector_hidden_act"] for n in trees] == ["gelu", "linear", "linear"]
    assert trees["linear"]["vision_config"]["tie_last_hidden_states"] is True  # the state behind SigLIP's last norm
    assert trees["linear"]["multimodal_projector_bias"] is False and trees["linear"]["tie_word_embeddings"] is True
    for tree in trees.values():
        assert tree["image_seq_length"] == 16 and "/" not in json.dumps(tree["vision_config"])
    processor = json.loads((found["mlp"]["folder"] / "processor_config.json").read_text())
    assert (processor["patch_size"], processor["num_additional_image_tokens"]) == (8, 1)


def test_what_llava_cannot_say_is_said_and_travels_without_the_encoders_folder(words, tmp_path, capsys) -> None:
    clip = encoder(tmp_path, "CLIP")
    run = {"vis_processor": _pictures()}
    normed = exporting.settings_file(tmp_path, node(words, clip, "mlp", feature_norm=True), run)
    assert main(["export", str(normed), str(tmp_path / "no"), "--as", "transformers"]) == 2
    assert "it has a norm behind the picture encoder (model.feature_norm)" in capsys.readouterr().err
    told = exporting.export(str(normed), tmp_path / "out")
    assert "not as LlavaForConditionalGeneration: it has a norm" in told and "form: Aligned" in told
    for file in (tmp_path / "out").glob("*.json"):
        assert str(tmp_path) not in file.read_text(encoding="utf-8"), file
    clip.rename(tmp_path / "elsewhere")
    from minigpt4o.models.aligned_hf.modeling_aligned import AlignedForConditionalGeneration

    model = AlignedForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert type(model.encoders["image"].core).__name__ == "CLIPVisionModel"


@pytest.mark.parametrize(
    ("bridge", "layer", "skip", "reason"),
    [
        ({"name": "mlp", "depth": 3}, -2, 1, "its bridge has maps of the widths 32, 32, 32; LLaVA's has 32, 32"),
        ({"name": "mlp", "hidden": 8}, -2, 1, "its bridge has maps of the widths 8, 32"),
        ({"name": "grouped", "group": 4}, -2, 1, "its bridge is Grouped"),
        ({"name": "linear"}, -2, 2, "it leaves out 2 leading features, LLaVA at most one"),
    ],
)
def test_each_reason_against_llava_is_told(words, tmp_path, bridge, layer, skip, reason) -> None:
    from minigpt4o.models.export.forms import forms_of
    from minigpt4o.serve.opening import Source, build, settings_of

    tree = node(words, encoder(tmp_path, "CLIP"), bridge)
    tree["encoders"]["image"] |= {"layer": layer, "skip": skip}
    model = build(Source(settings_of({"model": tree, "run": {"runner": "chat"}}, "tiny", [])), "cpu")
    with pytest.raises(ConfigError, match="transformers has no class for this model") as told:
        forms_of(model, "transformers")
    assert reason in str(told.value)


def test_a_processor_that_opens_other_pictures_is_not_taken(words, tmp_path) -> None:
    from minigpt4o.common.errors import CheckpointError
    from minigpt4o.common.registry import Part
    from minigpt4o.models.export.forms import LLAVA, Export
    from minigpt4o.serve.export.check_prompt import ensure_same_prompt
    from minigpt4o.serve.opening import Source, build, settings_of

    tree = node(words, encoder(tmp_path, "CLIP"))
    model = build(Source(settings_of({"model": tree, "run": {"runner": "chat"}}, "tiny", [])), "cpu")
    media = {"image": Part("processor", "blip2_image_eval", {"image_size": 32})}
    export = Export(model, LLAVA, tmp_path / "out", media, False, torch.float32)
    export.write()
    assert "the same prompt" in ensure_same_prompt(export)
    file = tmp_path / "out" / "processor_config.json"
    file.write_text(file.read_text().replace("0.481", "0.981"))
    with pytest.raises(CheckpointError, match="its processor opens another image"):
        ensure_same_prompt(export)
    (tmp_path / "out" / "chat_template.jinja").write_text("{{ messages[0].content[1].text }} <image>")
    with pytest.raises(CheckpointError, match="its processor writes another prompt: at place 0"):
        ensure_same_prompt(export)


def test_pictures_that_are_padded_travel_with_our_own_code(words, tmp_path) -> None:
    run = {"vis_processor": {"name": "image_augment", "image_size": 32, "keep_aspect": "pad"}}
    padded = exporting.settings_file(tmp_path, node(words, encoder(tmp_path, "CLIP")), run)
    told = exporting.export(str(padded), tmp_path / "out")
    assert "not as LlavaForConditionalGeneration: its pictures are opened by ImageAugment" in told
    assert "form: Aligned" in told and "the same images" in told


def test_float32_is_judged_by_what_is_left_in_float64(found) -> None:
    from minigpt4o.serve.export.check import float64_logits, probe_of

    model = found["mlp"]["session"].model
    probe = probe_of(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        exact = float64_logits(probe)
    assert exact.dtype == torch.float64 and 0 < (exact - probe.logits).abs().max() < 1e-4
    assert all(torch.equal(before[n], p) and p.dtype == torch.float32 for n, p in model.named_parameters())


@pytest.mark.parametrize(
    ("difference", "exact", "same", "taken"),
    [(9e-6, None, True, True), (2e-5, 1e-6, True, True), (2e-5, 1.1e-5, True, False), (0.0, None, False, False)],
)
def test_a_logit_may_differ_by_one_in_a_hundred_thousand_however_large_it_is(difference, exact, same, taken) -> None:
    from types import SimpleNamespace

    from minigpt4o.common.errors import CheckpointError
    from minigpt4o.models.export.forms import LLAVA
    from minigpt4o.serve.export.check import Checked, ensure_same

    export: Any = SimpleNamespace(form=LLAVA, dtype=torch.float32)
    checked = Checked(difference, 40.0, same, exact)
    if taken:
        ensure_same(checked, export)
        return
    with pytest.raises(CheckpointError, match="the exported model is another"):
        ensure_same(checked, export)


def test_sounds_travel_without_the_folder_of_their_encoder(words, tmp_path) -> None:
    import transformers

    folder = tmp_path / "wav2vec2"
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (20, 16)}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    config = transformers.Wav2Vec2Config(**SMALL, **convolutions, **positions)
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)
    part = {"name": "transformers_audio", "path": str(folder), "seconds": 0.5}
    tree = {**node(words, None), "encoders": {"audio": part}, "bridges": {"audio": "linear"}}
    told = exporting.export(str(exporting.settings_file(tmp_path, tree, {"audio_processor": part})), tmp_path / "out")
    assert "the same prompt, the same audios" in told
    for file in (tmp_path / "out").glob("*.json"):
        assert str(tmp_path) not in file.read_text(encoding="utf-8"), file
    folder.rename(tmp_path / "elsewhere")
    from minigpt4o.models.aligned_hf.modeling_aligned import AlignedForConditionalGeneration

    model = AlignedForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert type(model.encoders["audio"].core).__name__ == "Wav2Vec2Model"
