"""Claims about what goes with the weights: the card, the files, tokenizers of SentencePiece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import exporting
import pytest
import yaml

from minigpt4o.cli import main
from minigpt4o.common.files import MANIFEST, find_checkpoint, sha256_of

SCORE = {"value": 0.75, "low": 0.5, "high": 0.9, "n": 40}


@pytest.fixture(scope="module")
def exported(own_run: Path, tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's newest checkpoint, with scores of an evaluation that asked it."""
    folder = tmp_path_factory.mktemp("card")
    mark = sha256_of(find_checkpoint(own_run) / MANIFEST)
    file = results(folder, {"base": {"checkpoint_sha256": "other"}, "mine": {"checkpoint_sha256": mark}})
    flags = ["--results", str(file), "--licence", "cc-by-4.0"]
    exporting.export(str(own_run), folder / "own", *flags, options=tiny.plain)
    return folder / "own"


def results(folder: Path, variants: dict[str, Any]) -> Path:
    told = {
        "conditions": {"seen": {"scores": {"accuracy": SCORE, "f1": SCORE}}, "blind": {"scores": {"accuracy": SCORE}}}
    }
    other = {"conditions": {"seen": {"scores": {"accuracy": {**SCORE, "value": 0.111}}}}}
    sets = {"task": "vqa", "headline": "accuracy", "variants": {v: told if v == "mine" else other for v in variants}}
    file = folder / "results.json"
    file.write_text(json.dumps({"variants": variants, "datasets": {"coco_vqa": sets}}))
    return file


def test_the_card_tells_scores_with_intervals_of_this_checkpoint_alone(exported) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert "| coco_vqa | accuracy | with its media | 0.750 [0.500, 0.900] | 40 |" in card
    assert "| coco_vqa | accuracy | no media (baseline) | 0.750 [0.500, 0.900] | 40 |" in card
    assert "0.111" not in card
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc-by-4.0" and front["pipeline_tag"] == "image-text-to-text"
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert [(m["name"], m["value"]) for m in metrics] == [("accuracy", 0.75), ("f1", 0.75)]


def test_the_card_names_parts_data_limits_and_how_to_load(exported) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    for words in ("| bridges.image | 2,080 | yes |", "| encoders.image |", "Llama-2-7b-chat-hf", "eva_vit_g.pth"):
        assert words in card
    assert "| own | data of its maker | not stated |" in card
    assert "at most 2048 places" in card and "compared with the model it was made of: max |difference|" in card
    block = card.split("```python\n")[1].split("```")[0]
    compile(block, "card", "exec")
    assert 'AutoModelForMultimodalLM.from_pretrained("own", dtype="auto", trust_remote_code=True)' in block


def test_the_folder_is_whole_and_holds_no_path_of_this_machine(exported, own_run) -> None:
    assert {file.name for file in exported.iterdir()} >= {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("processor_config.json", "chat_template.jinja", "README.md", "minigpt4o_aligned.py"),
    }
    for file in exported.rglob("*"):
        if file.suffix in (".json", ".md", ".jinja", ".py"):
            assert str(own_run.parents[2]) not in file.read_text(encoding="utf-8"), file
        assert file.stat().st_mode & 0o044 == 0o044


def test_licences_of_known_sets_stand_on_the_card(words, tmp_path) -> None:
    from minigpt4o.datasets.known import known_set

    node = {"name": "blip2_image_eval", "image_size": 28}
    tree = {
        "model": exporting.qformer_node(words),
        "datasets": {"cc_sbu_align": {"vis_processor": {"train": node, "eval": node}}},
        "run": {"task": "image_text_pretrain"},
    }
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump(tree))
    exporting.export(str(tmp_path / "eval.yaml"), tmp_path / "out", "--no-check", "--as", "code")
    licence = " ".join(known_set("cc_sbu_align").about["licence"].split()).replace("|", "\\|")
    assert licence and f"| {licence} |" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "No evaluation was given" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_scores_of_another_checkpoint_are_refused_unless_named(own_run, tiny, tmp_path, capsys) -> None:
    file = results(tmp_path, {"mine": {"checkpoint_sha256": "another"}})
    command = ["export", str(own_run), str(tmp_path / "out"), "--no-check", "--options", *tiny.plain]
    assert main([*command, "--results", str(file)]) == 2
    assert f"--results {file}:mine" in capsys.readouterr().err
    assert main([*command, "--results", f"{file}:yours"]) == 2
    assert "there are: mine" in capsys.readouterr().err
    assert main([*command, "--results", f"{file}:mine"]) == 0
    assert "0.750 [0.500, 0.900]" in (tmp_path / "out" / "README.md").read_text()


def test_a_language_model_alone_is_written_as_its_own_class(words, tmp_path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = exporting.qformer_node(words)["llm"]["options"]
    llm = {"name": "causal_lm", "tokenizer": str(words), "options": options}
    file = exporting.settings_file(tmp_path, {"arch": "aligned", "llm": llm, "template": "plain", "train": ["llm"]})
    told = exporting.export(str(file), tmp_path / "out")
    assert "a causal language model, opened by AutoModelForCausalLM" in told
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "out")).__name__ == "LlamaForCausalLM"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    talk = [{"role": "user", "content": "what is there?"}]
    assert tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == "<s>what is there?\n"


def test_a_job_folder_of_evaluations_gives_the_newest_that_asked_this_checkpoint(tmp_path) -> None:
    from minigpt4o.common.errors import ConfigError
    from minigpt4o.serve.export.card_scores import read_results, scores_of

    for name, mark in (("20260101-a", "this"), ("20260102-b", "this"), ("20260103-c", "another")):
        (tmp_path / name).mkdir()
        file = results(tmp_path / name, {"mine": {"checkpoint_sha256": mark}})
        file.write_text(file.read_text().replace("coco_vqa", f"set_{name[-1]}"))
    found = scores_of(read_results(str(tmp_path)), {"checkpoint_sha256": "this"})
    assert {row["dataset"] for row in found} == {"set_b"}
    with pytest.raises(ConfigError, match="none of them is this checkpoint"):
        scores_of(read_results(str(tmp_path)), {"checkpoint_sha256": ""})
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match=r"neither it nor a folder in it holds a results\.json"):
        read_results(str(empty))


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ("", {"license": "other", "license_name": "of-its-parts"}),
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        ("My Lab's Terms", {"license": "other", "license_name": "my-lab-s-terms"}),
    ],
)
def test_the_hub_gets_a_licence_that_it_knows(stated, told) -> None:
    from minigpt4o.serve.export.card_licence import licence_metadata

    assert licence_metadata(stated) == told


def test_the_metadata_of_the_card_are_what_the_hub_reads(exported) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard.load(exported / "README.md").data
    assert data.model_name == "own" and [r.metric_value for r in data.eval_results] == [0.75, 0.75]
    assert {(r.task_type, r.dataset_type) for r in data.eval_results} == {("vqa", "coco_vqa")}


# ---- SentencePiece ----


def trained(folder: Path, kind: str, **more: Any) -> Any:
    import sentencepiece

    from minigpt4o.models.llms.tokenizer_files import load_tokenizer

    lines = ["a small red circle is at the top left", "two big blue squares", "ユーザー: 小さな赤い丸\nシステム: はい"]
    (folder / "t.txt").write_text("\n".join(lines * 30), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "t.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=400 if kind == "bpe" else 300,
        model_type=kind,
        byte_fallback=True,
        minloglevel=2,
        **more,
    )
    return load_tokenizer(str(folder / "tokenizer.model"), "sentencepiece")


LLAMA = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
TEXTS = [
    "a  small",
    " red",
    "circle ",
    "\n\n two\n",
    "3.14",
    "🦜 ﬁ",
    "<s>a</s> b",
    "ユーザー: 小さな",
    "x" * 60,
    "[INST] a [/INST]",
]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_llamas_tokenizer_cuts_the_same_with_transformers_alone(tmp_path, kind) -> None:
    from transformers import AutoTokenizer

    from minigpt4o.models.export.tokens import first_difference, portable

    ours = trained(tmp_path, kind, **LLAMA)
    portable(ours, ["<image>"]).save_pretrained(tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert first_difference(ours, theirs, TEXTS) is None
    assert theirs.convert_tokens_to_ids("<image>") == len(ours)
    for text in TEXTS:
        ids = ours(text, add_special_tokens=False)["input_ids"]
        assert (
            theirs.decode(ids, skip_special_tokens=True).strip() == ours.decode(ids, skip_special_tokens=True).strip()
        )
    assert theirs("red").input_ids == theirs("red", add_special_tokens=False).input_ids  # the chat template writes BOS


def test_a_tokenizer_that_would_cut_otherwise_is_refused(tmp_path) -> None:
    from minigpt4o.common.errors import ConfigError
    from minigpt4o.models.export.tokens import portable

    with pytest.raises(ConfigError, match=r"'a \$\$ b\$\$c' is .* in training and would be"):
        portable(trained(tmp_path, "bpe", user_defined_symbols="$$", **LLAMA), ["<image>"])
