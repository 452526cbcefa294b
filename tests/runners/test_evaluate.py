"""The evaluation: honest baselines, answers that survive a kill to the last byte, refusal of foreign answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import CheckpointError, ConfigError, DataError
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.runners.evaluate_items import Item, blind, shuffled, under
from minigpt4o.runners.evaluate_journal import Journal
from minigpt4o.runners.evaluate_model import variant_part

YAML = """
model:
  arch: aligned
  template: toy
  llm:
    name: causal_lm
    tokenizer: {world}/tokenizer
    options:
      {{hidden_size: 16, intermediate_size: 24, num_hidden_layers: 1, num_attention_heads: 2, initializer_range: 0.4}}
  encoders:
    image: {{name: timm_vit, image_size: 16, patch_size: 8, width: 16, depth: 1, heads: 2}}
    audio: {{name: spectrogram_transformer, frames: 120, mels: 16, patch_frames: 20, width: 16, depth: 1, heads: 2}}
  bridges: {{image: linear, audio: linear}}
datasets:
  caption:
    builder: pairs
    annotations: {{test: {world}/data/captions/en_test.json}}
    media_root: {world}/data
    prompts: ["describe the picture."]
    keep: [attributes]
    task: {{name: captioning, max_new_tokens: 5}}
    vis_processor: {{eval: {{name: blip2_image_eval, image_size: 16}}}}
  sounds:
    builder: questions
    annotations: {{test: {world}/data/audio_qa/ja_test.jsonl}}
    fields: {{id: question_id, audio: audio, question: question, answer: answer, language: language}}
    media_root: {world}/data
    task: {{name: audio_qa, max_new_tokens: 3}}
    audio_processor: {{eval: {{name: log_mel, seconds: 1.2, n_mels: 16}}}}
  talk:
    builder: conversations
    annotations: {{test: {world}/data/llava/en_test.json}}
    media_root: {world}/data
    language: en
    task: {{name: conversation, max_new_tokens: 3}}
    vis_processor: {{eval: {{name: blip2_image_eval, image_size: 16}}}}
run:
  runner: evaluate
  device: cpu
  threads: 1
  batch_size_eval: 4
  bootstrap: 20
  report: false
  limit: 6
  baseline_limit: 4
"""
RUN = "import sys; from minigpt4o.common.config import load_settings; from minigpt4o.common.registry import registry\n"
RUN += "s = load_settings(sys.argv[1], sys.argv[2:]); registry.build(s.run, settings=s).run()"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from minigpt4o.datasets.toy_world.write import write_toy_world
    from minigpt4o.models.llms.tokenizer import train_tokenizer

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("toy")
    write_toy_world(folder / "data", "tiny")
    train_tokenizer([folder / "data/tokenizer_text.txt"], folder / "tokenizer", vocab_size=320)
    (folder / "eval.yaml").write_text(YAML.format(world=folder), encoding="utf-8")
    return folder


@pytest.fixture
def evaluate(toy: Path, tmp_path: Path) -> Any:
    """Run the evaluation with options; returns its folder."""

    def run(*options: str, run_id: str = "r") -> Path:
        settings = load_settings(toy / "eval.yaml", [f"run.output_dir={tmp_path}", f"run.run_id={run_id}", *options])
        registry.build(settings.run, settings=settings).run()
        return tmp_path / "eval" / run_id

    return run


def answers(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((run / "predictions").iterdir())}


@pytest.fixture(scope="module")
def whole(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    settings = load_settings(toy / "eval.yaml", [f"run.output_dir={out}", "run.run_id=r"])
    registry.build(settings.run, settings=settings).run()
    return out / "eval/r"


def test_every_set_and_condition_is_scored_with_an_interval(whole: Path) -> None:
    results = json.loads((whole / "results.json").read_text())
    assert set(results["datasets"]) == {"caption", "sounds", "talk"}
    for dataset in results["datasets"].values():
        variant = dataset["variants"]["model"]
        assert set(variant["conditions"]) == {"seen", "blind", "shuffled"}
        assert set(variant["gain"]) == {"blind", "shuffled"}
        for condition in variant["conditions"].values():
            score = condition["scores"][dataset["headline"]]
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
            assert score["n"] == condition["n"] > 0
            assert score["variant"]
            assert (whole / condition["predictions"]).is_file()
    assert results["datasets"]["caption"]["headline"] == "attributes"
    assert results["datasets"]["caption"]["n"] == 6
    assert results["datasets"]["caption"]["variants"]["model"]["conditions"]["blind"]["n"] == 4
    assert "<image>" in results["datasets"]["caption"]["prompt_example"]
    assert list(results["datasets"]["sounds"]["variants"]["model"]["conditions"]["seen"]["by"]["language"]) == ["ja"]
    assert "turn 2" in results["datasets"]["talk"]["variants"]["model"]["conditions"]["seen"]["by"]["question_type"]
    assert not list((whole / "predictions").glob("*.part"))


def test_predictions_say_what_was_shown(whole: Path) -> None:
    rows = {
        condition: [
            json.loads(line) for line in (whole / f"predictions/model.caption.{condition}.jsonl").open(encoding="utf-8")
        ]
        for condition in ("seen", "blind", "shuffled")
    }
    seen = {row["id"]: row for row in rows["seen"][1:]}
    assert all("<image>" not in row["prompt"] and not row["media"] for row in rows["blind"][1:])
    for row in rows["shuffled"][1:]:
        assert row["donor"]
        assert row["media"]["image"] != seen[row["id"]]["media"]["image"]
        assert (row["prompt"], row["truth"]) == (seen[row["id"]]["prompt"], seen[row["id"]]["truth"])
    assert len(rows["seen"][0]["header"]["weights"]) == 64


@pytest.mark.parametrize("cut", [0, 1, 700, 1500, 2500, 100_000])
def test_cut_off_anywhere_it_ends_with_the_same_bytes(evaluate: Any, whole: Path, tmp_path: Path, cut: int) -> None:
    """`cut` bytes of one file were written when the process died, perhaps in the middle of a line."""
    folder = tmp_path / "eval/r/predictions"
    folder.mkdir(parents=True)
    done = answers(whole)
    (folder / "model.caption.seen.jsonl").write_bytes(done["model.caption.seen.jsonl"])  # finished before
    (folder / "model.caption.seen.rank0.part").write_bytes(done["model.caption.seen.jsonl"])  # merged, not yet removed
    (folder / ".tmp-model.talk.seen.jsonl-1-ab").write_bytes(b"{")  # killed while merging
    (folder / "model.sounds.seen.rank0.part").write_bytes(done["model.sounds.seen.jsonl"][:cut])
    assert answers(evaluate()) == done


def test_killed_for_real_it_continues_in_its_own_folder(toy: Path, whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, str(toy / "eval.yaml"), f"run.output_dir={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    victim = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("eval/*/predictions/*caption.seen*")) and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    (folder,) = (tmp_path / "eval").iterdir()
    assert not (folder / "results.json").exists()
    settings = load_settings(toy / "eval.yaml", [f"run.output_dir={tmp_path}"])
    registry.build(settings.run, settings=settings).run()
    assert [f.name for f in (tmp_path / "eval").iterdir()] == [folder.name]
    assert answers(folder) == answers(whole)


def test_a_finished_evaluation_asks_nothing_again(evaluate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = evaluate("run.baselines=[]")
    before = answers(run)
    monkeypatch.setattr("minigpt4o.models.aligned.AlignedModel.generate", None)  # would fail if it were called
    assert answers(evaluate("run.baselines=[]")) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("run.seed=5", "weights"),  # random weights here, so another seed is another checkpoint
        ("datasets.caption.prompts=[look at the picture.]", "config / data"),
        ("datasets.caption.task.max_new_tokens=6", "config / decoding"),
    ],
)
def test_answers_of_another_checkpoint_or_prompt_are_refused(evaluate: Any, change: str, named: str) -> None:
    evaluate("run.baselines=[]", "run.limit=null")
    with pytest.raises(CheckpointError, match=named):
        evaluate("run.baselines=[]", "run.limit=null", change)
    evaluate("run.baselines=[]", "run.limit=null", change, "run.resume=false")


def test_every_rank_asks_its_own_batches_and_the_file_is_the_same(
    evaluate: Any, whole: Path, toy: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command += [sys.executable, "-c", RUN, str(toy / "eval.yaml"), f"run.output_dir={tmp_path}", "run.run_id=r"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert answers(tmp_path / "eval/r") == answers(whole)
    assert done.stdout.count("results:") == 1


def test_answers_do_not_depend_on_the_batch(evaluate: Any) -> None:
    """One by one and sixteen together, rows of many lengths: the same words (and the same bytes but for the header)."""
    whole = ("run.limit=null", "run.baseline_limit=null")
    one, sixteen = (answers(evaluate(f"run.batch_size_eval={n}", *whole, run_id=str(n))) for n in (1, 16))
    assert set(one) == set(sixteen)
    for name, lines in one.items():
        assert lines.split(b"\n")[1:] == sixteen[name].split(b"\n")[1:], name


def test_two_variants_stand_side_by_side(evaluate: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = evaluate('run.variants={one: "", two: ""}', "run.baselines=[]")
    results = json.loads((run / "results.json").read_text())
    assert list(results["variants"]) == ["one", "two"]
    head = capsys.readouterr().out.strip().splitlines()[0]
    assert head.index("one [95 %]") < head.index("two [95 %]")


def test_a_variant_brings_its_own_weights_and_adapters(evaluate: Any, toy: Path, tmp_path: Path) -> None:
    from safetensors.torch import save

    from minigpt4o.common.files import publish

    settings = load_settings(toy / "eval.yaml", ["model.lora_r=3", "model.train=[bridges, lora]"])
    torch.manual_seed(7)
    model = registry.build(settings.model)
    tensors = {name: torch.randn_like(p) for name, p in model.trained_parameters().items()}
    folder = tmp_path / "job/run/checkpoints/step-000004"
    publish(folder, {"trained.safetensors": save(tensors)})
    (folder.parent.parent / "config.yaml").write_text("model: {lora_r: 3, lora_alpha: 48}")
    run = evaluate(f'run.variants={{plain: "", tuned: {tmp_path}/job}}', "run.baselines=[]")
    results = json.loads((run / "results.json").read_text())
    assert results["variants"]["tuned"]["checkpoint"] == str(folder)
    assert results["variants"]["plain"]["weights_sha256"] != results["variants"]["tuned"]["weights_sha256"]
    plain, tuned = (
        json.loads((run / f"predictions/{v}.talk.seen.jsonl").read_text().splitlines()[1]) for v in ("plain", "tuned")
    )
    assert plain["answer"] != tuned["answer"]
    part, _ = variant_part(settings.model, str(tmp_path / "job"))
    assert (part.values["lora_r"], part.values["lora_alpha"], part.values["train"]) == (3, 48, [])


def test_a_data_set_without_a_task_is_named(toy: Path, tmp_path: Path) -> None:
    settings = load_settings(toy / "eval.yaml", [f"run.output_dir={tmp_path}", "datasets.talk.task=null"])
    with pytest.raises(ConfigError, match=r"datasets\.talk\.task: not set(.|\n)*captioning"):
        registry.build(settings.run, settings=settings).run()


def test_missing_media_stop_the_evaluation_above_the_budget_and_are_told_below(
    evaluate: Any, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((toy / "data/captions/en_test.json").read_text())
    rows[2]["image"] = str(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "broken.json").write_text(json.dumps(rows))
    changed = (f"datasets.caption.annotations.test={tmp_path}/broken.json", "run.limit=null", "run.baselines=[]")
    with pytest.raises(DataError, match=r"1 of 16 samples .*1 unreadable_image"):
        evaluate(*changed)
    run = evaluate(*changed, "run.max_bad_fraction=0.1")
    seen = json.loads((run / "results.json").read_text())["datasets"]["caption"]["variants"]["model"]["conditions"][
        "seen"
    ]
    assert "scored 15 of 16 (1 unreadable_image)" in capsys.readouterr().out
    assert (seen["n"], seen["asked"], seen["skipped"]) == (15, 16, {"unreadable_image": 1})
    for metric, score in seen["scores"].items():  # the one without an answer stays in the denominator, as wrong
        alone = seen["scores_answered"][metric]
        assert (score["n"], alone["n"]) == (16, 15), metric
        if metric in ("attributes", "rouge_l"):
            assert score["value"] == pytest.approx(alone["value"] * 15 / 16)


def test_a_dry_run_writes_nothing(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_settings(toy / "eval.yaml", [f"run.output_dir={tmp_path}/out"])
    registry.build(settings.run, settings=settings).dry_run()
    assert "caption: task Captioning, prompts: 6 seen, 4 blind, 4 shuffled" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


# ---- conditions ----


def item(name: str, *pictures: str, text: str = "<image>what?") -> Item:
    return Item(Sample(name, [Turn("user", text), Turn("assistant", "x")], [Media(p) for p in pictures]))


def test_blind_takes_media_and_their_marks_away() -> None:
    sample = item("a", "p.png", text="<image>\nlook <audio> here").sample
    assert blind(sample).turns[0].text == "look here"
    assert not blind(sample).images


def test_shuffled_never_shows_the_own_picture_even_to_another_question_about_it() -> None:
    import random

    items = [item(f"{picture}{i}", f"{picture}.png") for picture in "abcdef" for i in range(3)]
    for seed in range(20):
        given = shuffled(items, items, random.Random(seed))
        assert len(given) == len(items)
        for before, after in zip(items, given, strict=True):
            assert after.sample.images != before.sample.images
        assert len({after.sample.images[0].path for after in given}) == 6  # everyone's picture is used


def test_what_cannot_be_shuffled_is_left_out_and_text_alone_has_no_baseline() -> None:
    lonely, texts = item("two", "a.png", "b.png"), Item(Sample("t", [Turn("user", "hello")]))
    items = [lonely, texts, item("x", "x.png"), item("y", "y.png")]
    assert [i.sample.id for i in under("shuffled", items, "set", None, 0)] == ["x", "y"]
    assert [i.sample.id for i in under("blind", items, "set", None, 0)] == ["two", "x", "y"]


# ---- the journal ----


def test_a_line_of_the_journal_is_whole_or_not_there(tmp_path: Path) -> None:
    def write(journal: Journal, ids: list[str]) -> None:
        journal.open()
        for name in ids:
            journal.write({"id": name, "answer": "すごい\n" + name})
        journal.close()

    ids = [f"s{i}" for i in range(6)]
    write(first := Journal(tmp_path / "a.jsonl", {"weights": "w"}), ids)
    whole = first.part.read_bytes()
    for cut in range(0, len(whole) + 1, 7):
        first.part.write_bytes(whole[:cut])
        again = Journal(tmp_path / "a.jsonl", {"weights": "w"})
        write(again, ids)
        assert again.part.read_bytes() == whole, cut
    with pytest.raises(CheckpointError, match="weights"):
        Journal(tmp_path / "a.jsonl", {"weights": "other"})


def test_a_missing_answer_is_not_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.jsonl", {})
    journal.open()
    journal.write({"id": "a"})
    journal.close()
    with pytest.raises(CheckpointError, match="1 of 2 answers are missing, first 'b'"):
        journal.finish(["a", "b"])


def test_the_kind_of_the_runner_is_known_without_importing_it() -> None:
    assert registry.entry("runner", "evaluate").class_name == "Evaluate"
    assert Part("runner", "evaluate").kind == "runner"
