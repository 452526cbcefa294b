"""Text, pictures and sounds together: as Gemma 3n with the same weights, and the habits of a transformers model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_minigpt4o import (
    AUDIO,
    AUDIO_TOKEN,
    AUDIO_TOKENS,
    IMAGE_SIZE,
    IMAGE_TOKEN,
    IMAGE_TOKENS,
    MELS,
    VISION,
    VOCAB,
    oracle_config,
    scatter_weights,
    tiny_config,
)

from minigpt4o.models.minigpt4o.modeling_minigpt4o import Minigpt4oForConditionalGeneration

TEXT_LIMIT, MIXED_LIMIT, TOWER_LIMIT = 2e-4, 2e-3, 1e-4
QUIET = {"do_sample": False, "eos_token_id": None, "suppress_tokens": [IMAGE_TOKEN, AUDIO_TOKEN]}
PICTURE = [6, *[IMAGE_TOKEN] * IMAGE_TOKENS, VISION]
SOUND = [7, *[AUDIO_TOKEN] * AUDIO_TOKENS, AUDIO]


def oracle_and_ours(**text: Any) -> tuple[Any, Minigpt4oForConditionalGeneration]:
    from transformers import Gemma3nForConditionalGeneration

    oracle = Gemma3nForConditionalGeneration(oracle_config(**text)).eval()
    scatter_weights(oracle)
    oracle.tie_weights()
    ours = Minigpt4oForConditionalGeneration(tiny_config(**text)).eval()
    ours.load_state_dict(oracle.state_dict(), strict=True)
    ours.tie_weights()
    return oracle, ours


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Minigpt4oForConditionalGeneration]:
    return oracle_and_ours()


@pytest.fixture(scope="module")
def model(pair: tuple[Any, Minigpt4oForConditionalGeneration]) -> Minigpt4oForConditionalGeneration:
    return pair[1]


def media(pictures: int, frames: list[int]) -> dict[str, torch.Tensor]:
    """Pictures, and sounds of so many frames each in one padded batch."""
    generator = torch.Generator().manual_seed(pictures + 10 * len(frames))
    given: dict[str, torch.Tensor] = {}
    if pictures:
        given["pixel_values"] = torch.rand(pictures, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    if frames:
        given["input_features"] = torch.randn(len(frames), max(frames), MELS, generator=generator)
        given["input_features_mask"] = torch.arange(max(frames))[None] < torch.tensor(frames)[:, None]
    return given


def batch(rows: list[list[int]], side: str = "left", **given: Any) -> dict[str, torch.Tensor]:
    length = max(map(len, rows))
    holes = [[0] * (length - len(row)) for row in rows]
    ids = [hole + row if side == "left" else row + hole for hole, row in zip(holes, rows, strict=True)]
    seen = [
        [0] * len(hole) + [1] * len(row) if side == "left" else [1] * len(row) + [0] * len(hole)
        for hole, row in zip(holes, rows, strict=True)
    ]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(seen), **given}


def words(count: int, start: int = 0) -> list[int]:
    return [8 + (7 * i + start) % (VISION - 8) for i in range(count)]


CASES: dict[str, dict[str, torch.Tensor]] = {
    "text": batch([words(20), words(13, 3), words(4, 9)]),
    "text, padded on the right": batch([words(20), words(13, 3)], side="right"),
    "picture": batch([[2, *PICTURE, *words(5)], [2, *words(9), *PICTURE]], **media(2, [])),
    "sound": batch([[2, *SOUND, *words(5)], [2, *words(3), *SOUND]], **media(0, [40, 25])),
    "mixed": batch(
        [
            [2, *PICTURE, *words(4), *SOUND, *words(3)],
            [2, *PICTURE, *PICTURE, *words(6, 5)],
            words(12, 2),
            [*words(3), *SOUND, *SOUND, 7, VISION + 5, AUDIO + 6],  # hard tokens too
        ],
        **media(3, [40, 33, 12]),
    ),
}


def distance(one: torch.Tensor, other: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    gap = (one - other).abs()
    return float((gap if mask is None else gap[mask.bool()]).max())


@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_answers_are_gemma_3ns(pair: tuple[Any, Any], case: str) -> None:
    oracle, ours = pair
    given = CASES[case]
    with torch.no_grad():
        theirs, mine = oracle(**given), ours(**given)
    limit = TEXT_LIMIT if case.startswith("text") else MIXED_LIMIT
    assert distance(mine.logits, theirs.logits, given["attention_mask"]) < limit
    if "right" not in case:
        answers = [m.generate(**given, max_new_tokens=8, **QUIET) for m in (oracle, ours)]
        assert torch.equal(*answers)


def test_the_towers_and_what_they_put_into_the_text_are_gemma_3ns(pair: tuple[Any, Any]) -> None:
    given = media(2, [40, 25])
    with torch.no_grad():
        theirs, mine = (m.model.get_image_features(given["pixel_values"]) for m in pair)
        assert distance(mine.last_hidden_state, theirs.last_hidden_state) < TOWER_LIMIT * 10  # scaled by 45
        assert mine.pooler_output.shape == (2, IMAGE_TOKENS, 32)
        assert distance(mine.pooler_output, theirs.pooler_output) < TOWER_LIMIT
        padding = ~given["input_features_mask"]
        theirs, mine = (m.model.get_audio_features(given["input_features"], padding) for m in pair)
        assert torch.equal(mine.audio_mel_mask, theirs.audio_mel_mask) and mine.audio_mel_mask.any()
        assert distance(mine.pooler_output, theirs.pooler_output) < TOWER_LIMIT
        theirs, mine = (m(**CASES["mixed"]) for m in pair)
        assert distance(mine.audio_hidden_states, theirs.audio_hidden_states) < TOWER_LIMIT
        assert distance(mine.image_hidden_states, theirs.image_hidden_states) < TOWER_LIMIT


SWITCHES: dict[str, dict[str, Any]] = {
    "sparsity": {"activation_sparsity_pattern": [0.0] * 6},
    "window": {"sliding_window": 64},
    "soft cap": {"final_logit_softcapping": 1e6},
    "sharing": {"num_kv_shared_layers": 0},
    "all local": {"layer_types": ["sliding_attention"] * 6},
    "rope base": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 100.0}}},
    "correction": {"altup_correct_scale": False},
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_what_is_switched_off_changes_both_alike(pair: tuple[Any, Any], switch: str) -> None:
    given = CASES["mixed"]
    oracle, ours = oracle_and_ours(**copy.deepcopy(SWITCHES[switch]))
    with torch.no_grad():
        before, theirs, mine = (m(**given).logits for m in (pair[0], oracle, ours))
    assert distance(mine, theirs, given["attention_mask"]) < MIXED_LIMIT
    assert distance(before, theirs, given["attention_mask"]) > 10 * MIXED_LIMIT


@pytest.mark.parametrize(
    "part", ["altup.correct_output_scale", "laurel.linear_right.weight", "per_layer_projection.weight"]
)
def test_each_part_matters_and_matters_alike(pair: tuple[Any, Any], part: str) -> None:
    given = CASES["mixed"]
    without = [copy.deepcopy(m) for m in pair]
    for m in without:
        for layer in m.model.language_model.layers:
            layer.get_parameter(part).data.zero_()
    with torch.no_grad():
        before, theirs, mine = (m(**given).logits for m in (pair[0], *without))
    assert distance(mine, theirs, given["attention_mask"]) < MIXED_LIMIT
    assert distance(before, theirs, given["attention_mask"]) > 10 * MIXED_LIMIT


def test_loss_and_gradients_are_gemma_3ns(pair: tuple[Any, Any]) -> None:
    given = CASES["mixed"]
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    slopes = []
    for m in pair:
        m.zero_grad()
        out = m(**given, labels=labels)
        out.loss.backward()
        slopes.append((out.loss.detach(), {name: w.grad for name, w in m.named_parameters()}))
        m.zero_grad()
    (theirs, their_grads), (mine, my_grads) = slopes
    assert abs(theirs - mine) < 1e-4
    for name, grad in their_grads.items():
        assert my_grads[name] is not None, name
        assert distance(my_grads[name], grad) < 1e-3 * float(grad.abs().max()) + 1e-6, name


def test_gradient_checkpointing_changes_no_gradient(model: Minigpt4oForConditionalGeneration) -> None:
    given = CASES["mixed"]
    slopes = []
    for checkpointing in (False, True):
        learner = copy.deepcopy(model).train()
        if checkpointing:
            learner.gradient_checkpointing_enable()
            assert learner.model.vision_tower.gradient_checkpointing
        learner(**given, labels=given["input_ids"]).loss.backward()
        slopes.append({name: w.grad for name, w in learner.named_parameters()})
    for name, grad in slopes[0].items():
        torch.testing.assert_close(slopes[1][name], grad, msg=name)


def test_every_way_to_the_answer_is_the_same(model: Minigpt4oForConditionalGeneration) -> None:
    given = CASES["mixed"]
    wanted = model.generate(**given, max_new_tokens=10, **QUIET)
    for way in ({"use_cache": False}, {"cache_implementation": "static"}):
        assert torch.equal(model.generate(**given, max_new_tokens=10, **QUIET, **way), wanted), way
    alone = {
        0: batch([given["input_ids"][0].tolist()], **{k: v[:1] for k, v in media(3, [40, 33, 12]).items()}),
        2: batch([words(12, 2)]),
    }
    for row, inputs in alone.items():
        assert torch.equal(model.generate(**inputs, max_new_tokens=10, **QUIET)[0, -10:], wanted[row, -10:]), row


def test_pictures_worked_out_beforehand_serve_as_well(model: Minigpt4oForConditionalGeneration) -> None:
    given = dict(CASES["picture"])
    with torch.no_grad():
        wanted = model(**given).logits
        seen = model.get_image_features(given.pop("pixel_values"))
        assert torch.equal(model(**given, mm_encoder_outputs={"image": seen}).logits, wanted)


def test_beams_keep_each_rows_media_together(pair: tuple[Any, Any]) -> None:
    _, ours = pair
    rows = [[2, *SOUND, *SOUND, *words(3)], [2, *PICTURE, *PICTURE, *words(5, 1)], [2, *SOUND, *words(2)]]
    given = batch(rows, **media(2, [40, 12, 20]))
    wanted = ours.generate(**given, max_new_tokens=6, **QUIET)
    many = ours.generate(**given, max_new_tokens=6, **{**QUIET, "do_sample": True}, top_k=1, num_return_sequences=2)
    assert torch.equal(many[::2], wanted) and torch.equal(many[1::2], wanted)
    assert ours.generate(**given, max_new_tokens=6, num_beams=3, **QUIET).shape == wanted.shape


def test_embeddings_in_place_of_ids_give_the_same(model: Minigpt4oForConditionalGeneration) -> None:
    given = dict(CASES["text"])
    with torch.no_grad():
        wanted = model(**given).logits
        ids = given.pop("input_ids")
        embeds = model.get_input_embeddings()(ids)
        told = model.model.language_model.get_per_layer_inputs(ids)
        assert distance(model(inputs_embeds=embeds, per_layer_inputs=told, **given).logits, wanted) < 1e-5
    answer = model.generate(input_ids=ids, max_new_tokens=5, **given, **QUIET)
    again = model.generate(inputs_embeds=embeds, per_layer_inputs=told, max_new_tokens=5, **given, **QUIET)
    assert torch.equal(again, answer[:, ids.shape[1] :])


def test_where_text_and_media_disagree_both_counts_are_named(model: Minigpt4oForConditionalGeneration) -> None:
    given = CASES["mixed"]
    with pytest.raises(
        ValueError, match=r"Image features and image tokens do not match: .* 12 places.* 2 picture.* 8;"
    ):
        model(**{**given, "pixel_values": given["pixel_values"][:2]})
    with pytest.raises(ValueError, match=r"Audio features and audio tokens do not match: .* 18 places.* 1 sound.* 6;"):
        model(**{**given, **media(0, [30])})
    with pytest.raises(
        ValueError, match=r"900 audio frames become \d+ soft tokens but .*audio_soft_tokens_per_image 6"
    ):
        model(**{**given, **media(0, [900, 900, 900])})
    with pytest.raises(ValueError, match=r"pixel_values has shape \(1, 3, 3, 32, 32\)"):
        model(**{**given, "pixel_values": given["pixel_values"][None]})
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(pixel_values=given["pixel_values"])


def test_a_picture_of_another_size_serves_and_a_wrong_tower_is_named(model: Minigpt4oForConditionalGeneration) -> None:
    assert model.get_image_features(torch.rand(1, 3, 64, 48)).pooler_output.shape == (1, IMAGE_TOKENS, 32)
    config = tiny_config()
    config.vision_soft_tokens_per_image = 9
    with pytest.raises(ValueError, match="gives 4 features of width 2048 .* vision_soft_tokens_per_image 9"):
        Minigpt4oForConditionalGeneration(config).get_image_features(torch.rand(1, 3, 32, 32))
    config.vision_config.architecture = "mobilenetv5_300m_enk"
    with pytest.raises(ValueError, match=r"knows no architecture 'mobilenetv5_300m_enk'; near: mobilenetv5_300m_enc"):
        Minigpt4oForConditionalGeneration(config)


def test_a_folder_written_in_shards_gives_the_model_back(
    model: Minigpt4oForConditionalGeneration, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path, max_shard_size="300KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    given = CASES["mixed"]
    for options in ({}, {"device_map": "auto"}, {"attn_implementation": "eager"}):
        loaded, report = Minigpt4oForConditionalGeneration.from_pretrained(
            tmp_path, output_loading_info=True, **options
        )
        assert not any(report.values()), report
        assert loaded.lm_head.weight is loaded.model.language_model.embed_tokens.weight
        assert not loaded.training
        with torch.no_grad():
            assert distance(loaded(**given).logits, model(**given).logits, given["attention_mask"]) < 1e-4
    half = Minigpt4oForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    logits = half(**given, output_hidden_states=True, use_cache=False).logits
    assert logits.dtype == torch.bfloat16 and bool(torch.isfinite(logits).all())


def test_a_grown_vocabulary_keeps_what_was_said_of_the_old_tokens(
    model: Minigpt4oForConditionalGeneration, tmp_path: Path
) -> None:
    given = CASES["mixed"]
    grown = copy.deepcopy(model)
    grown.resize_token_embeddings(VOCAB + 10)
    grown.save_pretrained(tmp_path)
    again = Minigpt4oForConditionalGeneration.from_pretrained(tmp_path)
    with torch.no_grad():
        wanted = model(**given).logits
        for m in (grown, again):
            logits = m(**given).logits
            assert logits.shape[-1] == VOCAB + 10
            assert distance(logits[..., :VOCAB], wanted, given["attention_mask"]) < 1e-4
        ids = given["input_ids"].clone()
        ids[2, -1] = VOCAB + 3
        assert bool(torch.isfinite(grown(**{**given, "input_ids": ids}).logits).all())


def test_weights_that_a_checkpoint_lacks_start_as_in_a_new_model() -> None:
    torch.manual_seed(0)
    fresh = Minigpt4oForConditionalGeneration(tiny_config())
    empty = Minigpt4oForConditionalGeneration.from_pretrained(None, config=tiny_config(), state_dict={})
    for name, weight in fresh.named_parameters():
        other = empty.get_parameter(name)
        assert bool(torch.isfinite(other).all()), name
        if weight.numel() > 500:
            assert float(other.detach().std()) == pytest.approx(float(weight.detach().std()), rel=0.3, abs=1e-6), name
        elif float(weight.detach().std()) == 0:
            assert torch.equal(other, weight), name


def test_the_forward_is_one_graph(model: Minigpt4oForConditionalGeneration) -> None:
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for case in ("text", "mixed"):
        given = CASES[case]
        with torch.no_grad():
            assert distance(compiled(**given).logits, model(**given).logits, given["attention_mask"]) < 1e-4


def test_hidden_states_and_attentions_come_when_asked_for(pair: tuple[Any, Any]) -> None:
    oracle, ours = (copy.deepcopy(m) for m in pair)
    given = CASES["mixed"]
    outputs = []
    for m in (oracle, ours):
        m.set_attn_implementation("eager")
        with torch.no_grad():
            outputs.append(m(**given, output_hidden_states=True, output_attentions=True))
    for name in ("hidden_states", "attentions"):
        theirs, mine = (getattr(out, name) for out in outputs)
        assert [part.shape for part in mine] == [part.shape for part in theirs], name
    assert ours(**given, return_dict=False)[0].shape == outputs[1].logits.shape
