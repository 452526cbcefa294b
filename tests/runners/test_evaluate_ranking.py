"""Multiple choice by likelihood: the likeliest choice is the answer, whoever is asked beside, and all are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from evaluate_world import Ranked
from tiny_world import tiny_settings

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.models.ranking import Likelihood
from minigpt4o.runners.build import build_encoders
from minigpt4o.runners.evaluate_answers import MediaCache, Questioner
from minigpt4o.runners.evaluate_items import Item
from minigpt4o.runners.evaluate_ranking import score

CHOICES = ["a red square", "blue", "a white square and one more", "green"]


@pytest.fixture(scope="module")
def asked(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = tiny_settings(world, tmp_path_factory.mktemp("out"), model={"max_txt_len": 99})
    torch.manual_seed(3)
    model = registry.build(settings.model).eval()
    encoder = build_encoders(settings, model, "val")["colours"]
    pictures = [Media(str(world / f"{name}.png")) for name in ("red", "green", "blue", "white")]
    items = []
    for i in range(16):
        turns = [Turn("user", "<image>what is there? " + "look again " * (i % 5)), Turn("assistant", CHOICES[i % 4])]
        meta = {"choices": CHOICES[: 2 + i % 3]} if i % 7 != 6 else {}
        items.append(Item(Sample(f"q{i}", turns, [pictures[i % 4]], meta=meta)))

    def ask(size: int, **options: Any) -> dict[str, Any]:
        task = Ranked(Ranked.Config(**options))
        one = Questioner(model, encoder, task, size, torch.device("cpu"), MediaCache())
        return {row["id"]: row for batch in one.batches(items) for row in one.ask(batch, Decoding(max_new_tokens=4))}

    return model, encoder, items, ask


def test_the_likeliest_choice_is_the_answer_and_every_likelihood_is_kept(asked: Any) -> None:
    rows = asked[3](4)
    for item in asked[2]:
        row, choices = rows[item.sample.id], item.sample.meta.get("choices")
        if not choices:
            assert "likelihoods" not in row["meta"]  # generated
            continue
        told = row["meta"]["likelihoods"]
        assert list(told) == choices
        assert row["answer"] == max(choices, key=lambda c: told[c][0] / told[c][1])
        assert "generated" not in row["meta"]


def test_a_likelihood_is_what_training_would_charge_for_that_answer_with_its_end(asked: Any) -> None:
    import random
    from dataclasses import replace

    from minigpt4o.datasets.collate import collate

    model, encoder, items, ask = asked
    sample = items[3].sample
    told = ask(4)["q3"]["meta"]["likelihoods"]
    for choice, (total, tokens) in told.items():
        learned = replace(sample, turns=[sample.turns[0], Turn("assistant", choice)])
        with torch.no_grad():
            found = model(collate([encoder.example(learned, random.Random(0))], model.tokenizer.pad_token_id))
        assert int(found.count) == tokens
        assert float(found.loss_sum) == pytest.approx(-total, abs=1e-4)


def test_who_is_asked_beside_changes_nothing(asked: Any) -> None:
    alone, together = asked[3](1), asked[3](16)
    for name, row in alone.items():
        other = together[name]
        assert row["answer"] == other["answer"]
        for choice, (total, tokens) in row["meta"].get("likelihoods", {}).items():
            assert other["meta"]["likelihoods"][choice] == [pytest.approx(total, abs=1e-4), tokens]


def test_each_picture_goes_through_the_encoder_once_for_all_choices(asked: Any) -> None:
    seen: list[int] = []
    handle = asked[0].encoders["image"].register_forward_hook(lambda m, given, out: seen.append(len(given[0])))
    try:
        asked[3](16)
    finally:
        handle.remove()
    assert sum(seen) == 16 if len(seen) == 1 else sum(seen) <= 16 + 2  # the two without choices are generated


def test_both_ranks_and_generates(asked: Any) -> None:
    rows = asked[3](4, by="both")
    assert all(("generated" in row["meta"]) == ("likelihoods" in row["meta"]) for row in rows.values())
    assert {name: row["answer"] for name, row in rows.items()} == {n: r["answer"] for n, r in asked[3](4).items()}


def test_mean_sum_and_the_references_way_order_differently(asked: Any) -> None:
    from dataclasses import replace

    encoder = asked[1]
    short, long = Likelihood(-4.0, 2, True), Likelihood(-6.0, 6, False)
    mean, total = (Ranked(Ranked.Config(normalise=how)) for how in ("mean", "sum"))
    assert score(long, encoder, mean, 9) > score(short, encoder, mean, 9)
    assert score(long, encoder, total, 9) < score(short, encoder, total, 9)
    compat = type("Compat", (), {"template": replace(encoder.template, profile="compat")})()
    assert score(short, compat, mean, 9) == -4.0 / (9 + 2 - 1)
    with pytest.raises(ConfigError, match="mean, sum"):
        score(short, encoder, Ranked(Ranked.Config(normalise="max")), 9)
