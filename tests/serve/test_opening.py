"""A model is opened from what a person has: a YAML of the reference, a run of their own; and a chat goes with it."""

import copy
from pathlib import Path

import pytest
import yaml
from PIL import Image

from minigpt4o import inference_model, load_model_and_preprocess, load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.batch import IMAGE_SLOT, Decoding
from minigpt4o.conversation.sample import Media
from minigpt4o.serve.inference import chat_config, load_chat
from minigpt4o.serve.opening import source_of_path

# As eval_configs/minigpt4_eval.yaml and minigptv2_eval.yaml of the reference are written.
VICUNA = {
    "model": {
        "arch": "minigpt4",
        "model_type": "pretrain_vicuna0",
        "max_txt_len": 20,
        "end_sym": "###",
        "low_resource": False,
        "prompt_template": "###Human: {} ###Assistant: ",
        "ckpt": "weights/pretrained.pth",
    },
    "datasets": {
        "cc_sbu_align": {
            "vis_processor": {"train": {"name": "blip2_image_eval", "image_size": 224}},
            "text_processor": {"train": {"name": "blip_caption"}},
        }
    },
    "run": {"task": "image_text_pretrain"},
}
V2 = {
    **VICUNA,
    "model": {
        "arch": "minigpt_v2",
        "model_type": "pretrain",
        "max_txt_len": 500,
        "end_sym": "</s>",
        "low_resource": False,
        "prompt_template": "[INST] {} [/INST]",
        "ckpt": "weights/pretrained.pth",
        "lora_r": 64,
        "lora_alpha": 16,
    },
    "datasets": {"cc_sbu_align": {"vis_processor": {"train": {"name": "blip2_image_eval", "image_size": 448}}}},
}


def written(folder: Path, tree: dict, **model) -> Path:
    file = folder / "eval.yaml"
    file.write_text(yaml.safe_dump({**tree, "model": {**tree["model"], **model}}), encoding="utf-8")
    return file


@pytest.fixture
def vicuna_chat(tmp_path, weights, tiny):
    """A chat from the reference's Vicuna file with tiny sizes; `more` are further options."""

    def open_it(*more: str):
        ckpt, llm = weights / "prerained_minigpt4_7b.pth", weights / "vicuna-7b"
        file = written(tmp_path, VICUNA, ckpt=str(ckpt), llama_model=str(llm))
        size = "datasets.cc_sbu_align.vis_processor.train.image_size=28"
        parts = [
            f"model.encoders.image.weights={weights / 'eva_vit_g.pth'}",
            f"model.bridges.image.weights={weights / 'blip2_pretrained_flant5xxl.pth'}",
            f"model.feature_norm_weights={weights / 'blip2_pretrained_flant5xxl.pth'}",
        ]
        session = load_chat(load_settings(file, [*tiny.qformer, *parts, size, "run.device=cpu", *more]))
        session.decoding = Decoding(max_new_tokens=6, min_new_tokens=4)
        return session

    return open_it


def say(session, text, *pictures) -> str:
    return "".join(session.ask(text, pictures))


def prompts_of(session, monkeypatch) -> list:
    """Every prompt the model is given from now on."""
    seen, make = [], session.engine._prompts.make

    def spy(sample):
        prompt = make(sample)
        seen.append(copy.copy(prompt))  # the engine lets its media go when the answer is there
        return prompt

    monkeypatch.setattr(session.engine._prompts, "make", spy)
    return seen


def words_of(session, prompt) -> str:
    return session.model.tokenizer.decode([i for i in prompt.ids if i >= 0])


def test_a_chat_from_the_references_file_has_the_demos_settings(tmp_path) -> None:
    config = chat_config(load_settings(written(tmp_path, VICUNA), ["run.device=cpu"]))
    assert (config.do_sample, config.top_p, config.temperature) == (True, 0.9, 1.0)
    assert (config.repetition_penalty, config.max_new_tokens, config.num_beams) == (1.05, 300, 1)
    assert config.device == "cpu"
    assert config.vis_processor.values["image_size"] == 224
    v2 = chat_config(load_settings(written(tmp_path, V2)))
    assert (v2.temperature, v2.max_new_tokens, v2.vis_processor.values["image_size"]) == (0.6, 500, 448)


def test_the_flags_of_the_page_serve_the_references_file_too(tmp_path) -> None:
    from minigpt4o.cli.habits import habit_options
    from minigpt4o.cli.parser import parse
    from minigpt4o.serve.web import with_arguments

    flags = ["--gpu-id", "0", "--server-port", "0", "--server-name", "127.0.0.2", "--share"]
    args = parse(["demo", "--cfg-path", str(written(tmp_path, VICUNA)), *flags])
    config = with_arguments(chat_config(load_settings(args.cfg_path, [*habit_options(args)])), args)
    assert (config.device, config.server_port, config.server_name) == ("cuda:0", 0, "127.0.0.2")
    assert config.share


def test_our_own_chat_files_keep_their_own_defaults(demo_yaml) -> None:
    config = chat_config(load_settings(demo_yaml, []))
    assert (config.do_sample, config.repetition_penalty, config.max_new_tokens) == (False, 1.0, 12)


def test_a_chat_of_several_turns_and_pictures_remembers_everything(vicuna_chat, monkeypatch, picture) -> None:
    session = vicuna_chat()
    prompts = prompts_of(session, monkeypatch)
    first = say(session, "what is there?", picture, picture)
    second = say(session, "and in this one?", picture)
    say(session, "thank you")
    said = words_of(session, prompts[-1])
    assert "what is there?" in said and "and in this one?" in said
    assert first.strip() in said and second.strip() in said
    assert len(prompts[-1].media["image"]) == 3
    assert prompts[-1].ids.count(IMAGE_SLOT) == 3 * 4
    assert said.count("###Human: ") + said.count("Human: ") >= 3


def test_a_chat_without_a_picture_works(vicuna_chat, monkeypatch) -> None:
    session = vicuna_chat()
    prompts = prompts_of(session, monkeypatch)
    say(session, "hello")
    assert prompts[0].media["image"] == []


def test_what_a_person_says_is_not_cut_at_max_txt_len(vicuna_chat, monkeypatch, picture) -> None:
    session = vicuna_chat()
    prompts = prompts_of(session, monkeypatch)
    text = "what is at the top left? " * 8
    say(session, text, picture)
    assert session.model.max_txt_len == 20
    assert text.strip() in words_of(session, prompts[0])


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_overflow_drops_the_oldest_words_and_none_of_several_pictures(
    vicuna_chat, monkeypatch, picture, profile
) -> None:
    session = vicuna_chat(f"profile={profile}")
    session.context = 300
    prompts = prompts_of(session, monkeypatch)
    for number in range(6):
        say(session, f"question {number}, what is there? " * 3, *([picture] * 2 if number < 2 else []))
    assert "oldest" in session.note and "pictures" in session.note
    last = prompts[-1]
    assert len(last.media["image"]) == 4
    assert last.ids.count(IMAGE_SLOT) == 4 * 4
    assert len(last.ids) <= 300 - 6
    assert "question 0" not in words_of(session, last)
    assert "question 5" in words_of(session, last)


def test_a_v2_file_opens_in_the_same_chat(tmp_path, weights, tiny, picture) -> None:
    ckpt, llm = weights / "minigptv2_checkpoint.pth", weights / "Llama-2-7b-chat-hf"
    file = written(tmp_path, V2, ckpt=str(ckpt), llama_model=str(llm))
    size = "datasets.cc_sbu_align.vis_processor.train.image_size=28"
    vit = f"model.encoders.image.weights={weights / 'eva_vit_g.pth'}"
    session = load_chat(load_settings(file, [*tiny.v2, vit, size, "run.device=cpu"]))
    session.decoding = Decoding(max_new_tokens=4, min_new_tokens=2)
    assert say(session, "[grounding] describe this image in detail", picture)
    assert session.encoder.template.name == "minigpt_v2"


def test_a_chat_whose_processor_has_another_size_than_the_encoder_is_refused_at_once(vicuna_chat) -> None:
    with pytest.raises(ConfigError, match=r"image_size.* 32 .*28"):
        vicuna_chat("datasets.cc_sbu_align.vis_processor.eval={name: blip2_image_eval, image_size: 32}")


def test_a_chat_whose_files_are_missing_names_them_all(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("MINIGPT4O_WEIGHTS", raising=False)
    file = written(tmp_path, VICUNA, ckpt="/nowhere/minigpt4.pth", llama_model="/nowhere/vicuna")
    with pytest.raises(ConfigError, match="4 weight file") as caught:
        load_chat(load_settings(file, ["run.device=cpu"]))
    assert "/nowhere/minigpt4.pth" in str(caught.value) and "/nowhere/vicuna" in str(caught.value)


# ---- one's own run ----


def test_the_checkpoint_one_just_trained_opens_by_its_folder(own_run) -> None:
    run = next(path for path in own_run.iterdir() if (path / "checkpoints").is_dir())
    steps = sorted((run / "checkpoints").glob("step-*"))
    found = {}
    for place in (own_run, run, steps[-1], run / "last", run / "config.yaml"):
        model, vis, txt = load_model_and_preprocess(place, is_eval=True, device="cpu")
        assert vis["eval"].image_size == 28
        picture = vis["eval"](Image.new("RGB", (28, 28), "red"))
        found[place] = model.generate(picture[None], ["what is there?"], max_new_tokens=4)
        assert callable(txt["eval"])
    assert len({str(answers) for answers in found.values()}) == 1
    from safetensors.torch import load_file

    saved = load_file(steps[-1] / "trained.safetensors")
    assert model.aligned.bridges["image"].proj.weight.equal(saved["bridges.image.proj.weight"])


def test_the_config_of_a_run_means_what_it_learned_and_not_what_it_began_with(own_run) -> None:
    run = next(path for path in own_run.iterdir() if (path / "checkpoints").is_dir())
    step = max((run / "checkpoints").glob("step-*"))
    for place in (run / "config.yaml", run / "last"):
        assert source_of_path(place, None, [], "").settings.model.values["ckpt"] == str(step)
    assert source_of_path(run / "config.yaml", "other", [], "").settings.model.values["ckpt"] == "other"
    (run / "moved.yaml").write_text((run / "config.yaml").read_text())
    assert not source_of_path(run / "moved.yaml", None, [], "").settings.model.values["ckpt"]


def test_ones_own_run_and_yaml_answer_in_mmpretrains_way(own_run, tmp_path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (9, 9), "red").save(picture)
    caption = inference_model(own_run, picture, device="cpu", max_new_tokens=4)
    assert list(caption) == ["pred_caption"]
    config = next(own_run.glob("*/config.yaml"))
    answer = inference_model(config, picture, "what?", checkpoint=str(own_run), device="cpu", max_new_tokens=4)
    assert list(answer) == ["question", "pred_answer"]
    chat = load_chat(load_settings(config, [f"model.ckpt={own_run}"]))
    chat.decoding = Decoding(max_new_tokens=3, min_new_tokens=1)
    assert say(chat, "hello", Media(str(picture)))


def test_a_folder_without_a_run_is_told(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'no_such'"):
        load_model_and_preprocess("no_such")
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_model_and_preprocess(tmp_path)


def test_frozen_parts_of_another_run_are_told(own_run, weights, tiny, caplog, words) -> None:
    from published import drawn

    other = drawn("minigpt4", "pretrain_llama2", [*tiny.plain, "model.llm.seed=9"], words)
    folder = own_run.parent / "other-llm"
    other.llm.export(folder)
    load_model_and_preprocess(own_run, device="cpu")
    assert "beside other weights" not in caplog.text
    load_model_and_preprocess(own_run, device="cpu", options=[f"model.llm.path={folder}"])
    assert "beside other weights of" in caplog.text and "llm" in caplog.text
