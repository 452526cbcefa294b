"""Claims about the forward pass: exact loss, no matter how rows are padded, grouped, chunked or mixed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part
from minigpt4o.conversation.batch import IGNORE, Batch, Decoding
from minigpt4o.models import padding

DECODING = Decoding(max_new_tokens=2)
ROWS = ["t3 i t4 l6", "t2 a l3 t1 l2", "t5 l9", "i i t1 l2", "t2 i t1 a l4"]


def plain_loss(model, batch: Batch) -> torch.Tensor:
    """What a textbook does: the model's own logits at every position, one shifted cross entropy."""
    logits = model.llm.model(inputs_embeds=model.embed(batch), attention_mask=batch.attention_mask).logits
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), batch.labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="sum"
    )


def gradients(model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.trained_parameters().items()}


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert ours
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen2"])
@pytest.mark.parametrize("train", [["bridges"], ["bridges", "llm", "encoders"]], ids=["frozen", "trained"])
@pytest.mark.parametrize("chunk", [1024, 4])
def test_loss_and_gradients_equal_the_plain_full_logits_loss(make_model, make_batch, family, train, chunk):
    model = make_model(family, train=train, loss_chunk=chunk).train()
    model.llm.eval()  # GPT-2 has dropout; both sides must see the same numbers
    batch = make_batch(model, ROWS)
    out = model(batch)
    assert out.loss_sum.dtype == torch.float32
    assert out.count.dtype == torch.int64
    assert int(out.count) == int((batch.labels[:, 1:] != IGNORE).sum())
    expected = plain_loss(model, batch)
    torch.testing.assert_close(out.loss_sum, expected, rtol=1e-5, atol=1e-5)
    assert_same(gradients(model, out.loss_sum), gradients(model, expected))


def test_the_soft_cap_of_a_frozen_head_is_differentiated_exactly(make_model, make_batch):
    model = make_model().train()
    model.llm.model.config.final_logit_softcapping = 2.0
    batch = make_batch(model, ROWS)
    head = model.llm.head
    states, targets = model._states(model.embed(batch), batch)
    expected = F.cross_entropy(torch.tanh(states @ head.weight.T / 2.0) * 2.0, targets, reduction="sum")
    out = model(batch)
    torch.testing.assert_close(out.loss_sum, expected, rtol=1e-5, atol=1e-5)
    assert_same(gradients(model, out.loss_sum), gradients(model, expected))


def test_the_loss_of_a_batch_is_the_sum_of_the_losses_of_its_rows(make_model, make_batch):
    model = make_model().train()
    batch = make_batch(model, ROWS)
    whole = model(batch)
    rows = []
    pictures = sounds = 0
    for i, sample in enumerate(batch.samples):
        n = int(batch.attention_mask[i].sum())
        images = batch.images[pictures : pictures + len(sample.images)] if sample.images else None
        audios = batch.audios[sounds : sounds + len(sample.audios)] if sample.audios else None
        pictures, sounds = pictures + len(sample.images), sounds + len(sample.audios)
        one = (batch.input_ids[i : i + 1, :n], batch.attention_mask[i : i + 1, :n], batch.labels[i : i + 1, :n])
        rows.append(model(Batch(*one, images, audios, [sample])))
    torch.testing.assert_close(whole.loss_sum, torch.stack([r.loss_sum for r in rows]).sum(), rtol=1e-5, atol=1e-5)
    assert int(whole.count) == sum(int(r.count) for r in rows)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen2"])
def test_padding_on_the_left_and_on_the_right_give_the_same_loss(make_model, make_batch, family):
    model = make_model(family)
    right, left = model(make_batch(model, ROWS)), model(make_batch(model, ROWS, side="left"))
    torch.testing.assert_close(right.loss_sum, left.loss_sum, rtol=1e-5, atol=1e-5)


def test_rows_grouped_by_length_give_the_same_loss_and_gradients(make_model, make_batch, monkeypatch):
    model = make_model().train()
    batch = make_batch(model, [*ROWS, "t1 l1", "t20 l20", "i t10 l10"])
    whole = model(batch)
    expected = gradients(model, whole.loss_sum)
    monkeypatch.setattr(padding, "MIN_TOKENS", 1)
    _, groups = padding.length_groups(batch.attention_mask.sum(dim=1))
    assert len(groups) > 1
    grouped = model(batch)
    torch.testing.assert_close(grouped.loss_sum, whole.loss_sum, rtol=1e-5, atol=1e-5)
    assert_same(gradients(model, grouped.loss_sum), expected)


def test_length_groups_hold_every_row_once_and_no_longer_row_than_said(monkeypatch):
    monkeypatch.setattr(padding, "MIN_TOKENS", 1)
    lengths = torch.tensor([5, 50, 7, 49, 0, 20, 21, 6])
    order, groups = padding.length_groups(lengths)
    assert sorted(order.tolist()) == list(range(8))
    assert 1 < len(groups) <= padding.MAX_GROUPS
    assert [row for rows, _ in groups for row in order[rows].tolist()] == order.tolist()
    assert all(int(lengths[order[rows]].max()) == length for rows, length in groups)


def test_a_batch_of_text_alone_still_gives_every_bridge_a_gradient_of_zero(make_model, make_batch):
    model = make_model().train()
    out = model(make_batch(model, ["t3 l4", "t5 l2"]))
    grads = gradients(model, out.loss_sum)
    assert {name.split(".")[1] for name in grads} == {"image", "audio"}
    assert all(not g.any() for g in grads.values())


def test_a_model_without_encoders_learns_from_text(make_model, make_batch):
    model = make_model(media=(), train=["llm"]).train()
    batch = make_batch(model, ["t3 l6", "t1 l3"])
    optimizer = torch.optim.SGD(model.trained_parameters().values(), 0.01)
    losses = []
    for _ in range(8):
        out = model(batch)
        optimizer.zero_grad()
        (out.loss_sum / out.count).backward()
        optimizer.step()
        losses.append(out.loss_sum.item())
    assert losses[-1] < losses[0]


def test_a_batch_without_learned_positions_gives_zero_and_a_graph(make_model, make_batch):
    model = make_model().train()
    out = model(make_batch(model, ["i t4", "t3"]))
    assert out.loss_sum.item() == 0
    assert int(out.count) == 0
    out.loss_sum.backward()


def test_the_picture_and_its_place_in_the_row_matter(make_model, make_batch):
    model = make_model()
    batch = make_batch(model, ["t3 i t1 i t1 l5"])
    before = model(batch).loss_sum
    swapped = batch.images.flip(0)
    assert not torch.isclose(before, model(Batch(**{**vars(batch), "images": swapped})).loss_sum)


def test_gradient_checkpointing_gives_the_same_gradients(make_model, make_batch):
    plain = make_model().train()
    thrifty = make_model(gradient_checkpointing=True).train()
    batch = make_batch(plain, ROWS)
    layer = thrifty.llm.model.model.layers[0]
    calls: list[int] = []
    layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    loss = thrifty(batch).loss_sum
    before = len(calls)
    ours = gradients(thrifty, loss)
    assert len(calls) == 2 * before  # computed again in the backward pass
    assert_same(ours, gradients(plain, plain(batch).loss_sum))


def test_feature_norm_normalises_what_the_bridge_sees(make_model, make_batch):
    model = make_model(feature_norm=True)
    features = model.encode("image", torch.randn(2, 3, 16, 16))
    torch.testing.assert_close(features.mean(-1), torch.zeros(features.shape[:2]), atol=1e-5, rtol=0)
    assert "norms.image" in {row.part for row in model.part_rows()}


def test_bf16_keeps_what_learns_in_fp32_and_comes_near_the_fp32_loss(make_model, make_batch):
    full, half = (make_model(precision=p, feature_norm=True).train() for p in ("fp32", "bf16"))
    batch = make_batch(full, ROWS)
    assert {p.dtype for p in half.trained_parameters().values()} == {torch.float32}
    assert half.llm.model.lm_head.weight.dtype == torch.bfloat16
    ours, theirs = half(batch), full(batch)
    torch.testing.assert_close(ours.loss_sum, theirs.loss_sum, rtol=0.05, atol=0.5)
    ours.loss_sum.backward()
    assert len(half.generate(make_batch(half, ["t3 i t2"], side="left"), DECODING)) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bridges": {}}, "model.encoders.audio has no model.bridges.audio"),
        ({"encoders": {}, "bridges": {"image": Part("bridge", "linear")}}, "model.bridges.image has no model.encoders"),
        ({"encoders": {"smell": Part("encoder", "timm_vit")}, "bridges": {}}, "unknown medium 'smell'"),
        ({"train": ["bridges", "lora"]}, "lora_r is 0"),
        ({"lora_r": 2, "lora_target_modules": ["q_prj"]}, "q_proj"),
    ],
)
def test_a_model_that_cannot_be_built_says_which_key_is_wrong(make_model, values, said):
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        make_model(**values)


def test_slots_tell_how_many_places_each_medium_fills(make_model):
    model = make_model()
    assert model.slots == {"image": 4, "audio": 3}
    assert (model.template, model.max_txt_len) == ("plain", 160)
