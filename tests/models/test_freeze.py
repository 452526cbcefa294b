"""Claims about freezing, adapters, fingerprints and laying a checkpoint over a model."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from safetensors.torch import save_file

from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.models.base import freeze, freeze_table
from minigpt4o.models.weights import lay_over

ROWS = ["t3 i t4 l6", "t2 a l3"]
LORA = {"lora_r": 2, "train": ["bridges", "lora"]}


def steps(model, batch, count: int = 3) -> None:
    model.train()
    optimizer = torch.optim.SGD(model.trained_parameters().values(), 0.1)
    for _ in range(count):
        optimizer.zero_grad()
        model(batch).loss_sum.backward()
        optimizer.step()


@pytest.mark.parametrize(
    "values", [{}, LORA, {"train": ["encoders.image", "bridges"]}], ids=["bridges", "lora", "encoder"]
)
def test_frozen_parameters_are_bit_equal_after_training_and_trained_ones_are_not(make_model, make_batch, values):
    model = make_model(**values)
    before = copy.deepcopy(model.state_dict())
    prints = model.frozen_fingerprints()
    steps(model, make_batch(model, ROWS))
    trained = model.trained_parameters()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in trained), name
    assert model.frozen_fingerprints() == prints


def test_frozen_parts_stay_in_eval_mode_after_train(make_model):
    model = make_model("gpt2").train()
    assert model.training
    assert model.bridges.image.training
    asleep = [*model.llm.modules(), *model.encoders.modules()]
    assert not any(module.training for module in asleep)
    model.eval()
    assert not any(module.training for module in model.modules())


def test_an_adapter_wakes_its_own_dropout_and_nothing_of_its_host(make_model):
    model = make_model("gpt2", lora_r=2, train=["lora"], lora_target_modules=["c_attn"]).train()
    awake = {name for name, m in model.llm.named_modules() if m.training}
    assert awake
    assert all("lora_" in name for name in awake), awake
    assert any(name.endswith("lora_dropout.default") for name in awake)


def test_a_fingerprint_sees_one_changed_bit_and_ignores_adapters(make_model):
    model = make_model()
    before = model.frozen_fingerprints()
    assert set(before) == {"llm", "encoders.image", "encoders.audio"}
    assert make_model(**LORA).frozen_fingerprints() == before
    weight = next(model.encoders.image.parameters())
    weight.data.view(torch.uint8).view(-1)[0] ^= 1
    after = model.frozen_fingerprints()
    assert [part for part in before if before[part] != after[part]] == ["encoders.image"]


def test_an_unknown_prefix_names_the_nearest(make_model):
    with pytest.raises(ConfigError, match=r"'bridge\.image'.*bridges"):
        freeze(make_model(), ["bridge.image"])


def test_the_table_names_every_part_and_adds_up(make_model):
    model = make_model(**LORA)
    rows = {row.part: row for row in model.part_rows()}
    assert rows["lora"].state == rows["bridges.audio"].state == "trained"
    assert rows["llm"].state == "frozen"
    assert sum(r.parameters for r in rows.values()) == sum(p.numel() for p in model.parameters())
    assert f"{sum(p.numel() for p in model.trained_parameters().values()):,}" in freeze_table(rows.values())


def test_a_fresh_adapter_changes_nothing_and_a_merged_one_answers_alike(make_model, make_batch, tmp_path):
    plain, adapted = make_model(), make_model(**LORA)
    batch = make_batch(plain, ROWS)
    torch.testing.assert_close(plain(batch).loss_sum, adapted(batch).loss_sum)
    steps(adapted, batch)
    adapted.eval()
    from minigpt4o.models.lora import merged

    loss = adapted(batch).loss_sum
    assert not torch.isclose(loss, plain(batch).loss_sum)
    adapted.llm.model = merged(adapted.llm.model)
    assert not any("lora_" in name for name, _ in adapted.named_parameters())
    torch.testing.assert_close(adapted(batch).loss_sum, loss, rtol=1e-4, atol=1e-4)


def saved(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.trained_parameters().items()}


def test_trained_tensors_laid_over_a_new_model_give_the_same_loss(make_model, make_batch):
    model = make_model(**LORA)
    batch = make_batch(model, ROWS)
    steps(model, batch)
    other = make_model(**LORA)
    report = lay_over(other, saved(model), "here")
    torch.testing.assert_close(other.eval()(batch).loss_sum, model.eval()(batch).loss_sum)
    assert sorted(report.matched) == sorted(saved(model))
    assert not report.unexpected


def test_a_missing_bridge_is_refused_by_name_and_shape_unless_it_is_declared_fresh(make_model):
    tensors = {n: t for n, t in saved(make_model()).items() if "audio" not in n}
    with pytest.raises(CheckpointError, match=r"lacks 2 tensor.*\n.*bridges\.audio\.proj\.weight \(32, 16\)"):
        lay_over(make_model(), tensors, "here")
    report = lay_over(make_model(), tensors, "here", fresh=["bridges.audio"])
    assert "bridges.audio.proj.weight" in report.missing


def test_an_error_lists_ten_names_and_counts_the_rest(make_model):
    model = make_model(train=["llm", "bridges"])
    tensors = dict(list(saved(model).items())[:1])
    with pytest.raises(CheckpointError) as error:
        lay_over(model, tensors, "here")
    lines = str(error.value).splitlines()
    assert sum(line.startswith("  ") for line in lines) == 11
    assert "more" in str(error.value)


def test_adapters_without_a_place_are_refused_with_the_rank_to_set(make_model):
    with pytest.raises(CheckpointError, match="lora_r: 2"):
        lay_over(make_model(), saved(make_model(**LORA)), "here")


def test_a_checkpoint_without_adapters_is_the_start_of_stage_two(make_model, caplog):
    with caplog.at_level(logging.WARNING):
        lay_over(make_model(**LORA), saved(make_model()), "stage1")
    assert "adapters start fresh" in caplog.text


def test_other_sizes_are_refused_with_both_shapes(make_model):
    tensors = saved(make_model())
    tensors["bridges.audio.proj.weight"] = torch.zeros(3, 3)
    with pytest.raises(CheckpointError, match=r"\(32, 16\), checkpoint \(3, 3\)"):
        lay_over(make_model(), tensors, "here")


def test_parts_of_media_the_model_lacks_are_left_aside_with_a_warning(make_model, caplog):
    with caplog.at_level(logging.WARNING):
        lay_over(make_model(media=("image",)), saved(make_model()), "here")
    assert "bridges.audio not used" in caplog.text


def test_a_foreign_checkpoint_is_refused(make_model, tmp_path):
    with pytest.raises(CheckpointError, match="holds no tensor of this model"):
        lay_over(make_model(), {"something.else": torch.zeros(1)}, "here")


def test_ckpt_in_the_config_is_loaded(make_model, tmp_path):
    model = make_model()
    for p in model.trained_parameters().values():
        p.data.add_(1.0)
    file = tmp_path / "trained.safetensors"
    save_file(saved(model), file)
    other = make_model(ckpt=str(file))
    assert all(torch.equal(a, b) for a, b in zip(saved(model).values(), saved(other).values(), strict=True))
    with pytest.raises(CheckpointError, match="nowhere"):
        make_model(ckpt=str(tmp_path / "nowhere"))
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="cannot be read"):
        make_model(ckpt=str(file))


def test_a_frozen_random_part_is_warned_about(make_model, caplog):
    with caplog.at_level(logging.WARNING):
        make_model(media=("image",), train=["bridges", "llm"])
    assert "encoders.image is frozen with random weights" in caplog.text
    assert "llm is frozen" not in caplog.text


def test_buffers_of_a_trained_part_are_taken_along(make_model):
    source, target = make_model(), make_model()
    for model in (source, target):
        model.bridges.image.extra = torch.nn.BatchNorm1d(2)
    source.bridges.image.extra.running_mean.fill_(7.0)
    lay_over(target, {**saved(source), **{n: t for n, t in source.state_dict().items() if "running" in n}}, "here")
    assert target.bridges.image.extra.running_mean.tolist() == [7.0, 7.0]
