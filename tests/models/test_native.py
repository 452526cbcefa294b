"""Claims about Minigpt4o in our runner: exact loss, exact freezing, answers that neighbours do not change, folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_native import BINS, FRAMES, SIDE, make_batch, make_native, make_tokenizer

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.files import write_bytes
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import IGNORE, Batch, Decoding
from minigpt4o.models import padding

ROWS = ["t3 i t4 l6", "t2 a l3 t1 l2", "t5 l9", "i i t1 l2", "t2 i t1 a l4"]
PROMPTS = ["t3 i t2", "t1 a t9", "t6", "i i t1", "t2 i t1 a t4", "t12"]
GREEDY = Decoding(max_new_tokens=12)
EMBEDDERS = ["embed_vision", "embed_audio"]
EVERYTHING = ["vision_tower", "audio_tower", "embed_vision", "embed_audio", "language_model"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("native"))


def soft_ids(model: Any, batch: Batch) -> torch.Tensor:
    """The ids as transformers wants them: soft tokens where our slots are."""
    config, ids = model.whole.config, batch.input_ids
    return ids.masked_fill(ids == -1, config.image_token_id).masked_fill(ids == -2, config.audio_token_id)


def plain_logits(model: Any, batch: Batch) -> torch.Tensor:
    """What a user of transformers does: the whole model, all logits."""
    sounds = batch.audios
    positions = (batch.attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
    return model.whole(
        input_ids=soft_ids(model, batch),
        attention_mask=batch.attention_mask,
        position_ids=positions,
        pixel_values=batch.images,
        input_features=None if sounds is None else sounds.nan_to_num(0.0),
        input_features_mask=None if sounds is None else ~sounds.isnan().any(-1),
    ).logits


def plain_loss(model: Any, batch: Batch) -> torch.Tensor:
    logits = plain_logits(model, batch)
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), batch.labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="sum"
    )


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.trained_parameters().items() if p.grad is not None}


def one_by_one(model: Any, batch: Batch, decoding: Decoding, stop: tuple[str, ...] = ()) -> list[str]:
    answers, pictures, sounds = [], 0, 0
    for i, sample in enumerate(batch.samples):
        real = batch.attention_mask[i].bool()
        images = batch.images[pictures : pictures + len(sample.images)] if sample.images else None
        audios = batch.audios[sounds : sounds + len(sample.audios)] if sample.audios else None
        pictures, sounds = pictures + len(sample.images), sounds + len(sample.audios)
        row = [t[i : i + 1, real] for t in (batch.input_ids, batch.attention_mask, batch.labels)]
        answers += model.generate(Batch(*row, images, audios, [sample]), decoding, stop=stop)
    return answers


@pytest.mark.parametrize("text", [{}, {"hidden_size_per_layer_input": 0}, {"final_logit_softcapping": None}])
@pytest.mark.parametrize("train", [None, EVERYTHING, ["language_model.norm"]], ids=["projections", "all", "one"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_loss_and_its_gradients_are_those_of_all_logits(tokenizer, monkeypatch, text, train, side):
    monkeypatch.setattr(padding, "MIN_TOKENS", 1)  # rows of like length in groups, even so small
    model = make_native(tokenizer, text=text, loss_chunk=7, **({"train": train} if train else {}))
    batch = make_batch(model, ROWS, side)
    found = model(batch)
    assert int(found.count) == int((batch.labels != IGNORE).sum())
    plain = plain_loss(model, batch)
    torch.testing.assert_close(found.loss_sum, plain, rtol=1e-5, atol=1e-4)
    ours, theirs = gradients(model, found.loss_sum), gradients(model, plain)
    assert ours.keys() == theirs.keys()
    assert ours
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_no_tensor_of_all_positions_times_all_words_is_made(tokenizer, monkeypatch):
    model = make_native(tokenizer, train=["language_model"], loss_chunk=5)
    batch = make_batch(model, ROWS)
    biggest = 0
    real = F.linear

    def linear(x, weight, bias=None):
        nonlocal biggest
        out = real(x, weight, bias)
        if out.shape[-1] == len(model.tokenizer):
            biggest = max(biggest, out.numel() // out.shape[-1])
        return out

    monkeypatch.setattr(F, "linear", linear)
    model(batch).loss_sum.backward()
    assert biggest == 5


def test_only_the_two_projections_learn_by_default(tokenizer):
    model = make_native(tokenizer)
    assert set(model.trained_parameters()) == {
        f"embed_{kind}.embedding_projection.weight" for kind in ("vision", "audio")
    }
    assert [row.part for row in model.freeze_report()] == EVERYTHING
    assert [row.state for row in model.freeze_report()] == [
        "frozen",
        "frozen",
        "partly trained",
        "partly trained",
        "frozen",
    ]
    model.train()
    assert model.embed_vision.embedding_projection.training
    assert not model.vision_tower.training
    assert not model.language_model.layers[0].training


@pytest.mark.parametrize("rows", [["t5 l9"], ["t2 i l3"], ["t2 a l3"], ["t2 i t1 a l4"]])
def test_every_learning_parameter_gets_a_gradient_whatever_media_a_batch_holds(tokenizer, rows):
    train = [
        f"{part}.{leaf}"
        for part in ("embed_vision", "embed_audio")
        for leaf in ("embedding_projection", "soft_embedding_norm")
    ]
    model = make_native(tokenizer, train=[*train, "vision_tower", "audio_tower"])
    found = gradients(model, model(make_batch(model, rows)).loss_sum)
    assert set(found) == set(model.trained_parameters())


def test_a_step_of_training_leaves_what_is_frozen_bit_for_bit(tokenizer):
    torch.manual_seed(0)  # adapters
    model = make_native(tokenizer, lora_r=2, train=["lora", "embed_vision.embedding_projection"])
    before, batch = model.frozen_fingerprints(), make_batch(model, ROWS)
    optimizer = torch.optim.SGD(model.trained_parameters().values(), lr=1e-3)
    first = model(batch)
    (first.loss_sum / first.count).backward()
    optimizer.step()
    assert model.frozen_fingerprints() == before
    assert model(batch).loss_sum.item() < first.loss_sum.item()


def test_checkpointed_layers_give_the_same_gradients(tokenizer):
    plain, saving = (make_native(tokenizer, train=["language_model"], gradient_checkpointing=g) for g in (False, True))
    batch = make_batch(plain, ROWS)
    plain.train(), saving.train()
    ours, theirs = (gradients(model, model(batch).loss_sum) for model in (saving, plain))
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "decoding",
    [
        GREEDY,
        Decoding(max_new_tokens=12, repetition_penalty=1.5, min_new_tokens=3),
        Decoding(max_new_tokens=12, do_sample=True, temperature=0.8, top_p=0.9, seed=3),
        Decoding(max_new_tokens=6, num_beams=3),
    ],
    ids=["greedy", "penalty", "sampling", "beams"],
)
def test_a_row_answers_the_same_alone_and_among_others(tokenizer, decoding):
    model = make_native(tokenizer)
    batch = make_batch(model, PROMPTS, side="left")
    together = model.generate(batch, decoding)
    assert together == one_by_one(model, batch, decoding)
    assert len(set(together)) > 1


def test_greedy_takes_the_likeliest_token_of_the_full_forward_pass(tokenizer):
    model = make_native(tokenizer)
    batch = make_batch(model, ["t3 i t1 a t20"], side="left")
    ids: list[int] = []
    longer = batch
    for _ in range(GREEDY.max_new_tokens):
        token = int(plain_logits(model, longer)[0, -1].argmax())
        if token in model.llm.eos_ids:
            break
        ids.append(token)
        more = torch.tensor([[token]])
        longer = Batch(
            torch.cat([longer.input_ids, more], 1),
            torch.cat([longer.attention_mask, torch.ones_like(more)], 1),
            torch.cat([longer.labels, more], 1),
            batch.images,
            batch.audios,
            batch.samples,
        )
    assert len(ids) > 2
    assert model.generate(batch, GREEDY) == [model.tokenizer.decode(ids, skip_special_tokens=True).strip()]


def test_each_row_stops_at_its_own_stop_string_and_streams_its_own_text(tokenizer):
    model = make_native(tokenizer)
    batch = make_batch(model, PROMPTS, side="left")
    free = model.generate(batch, GREEDY)
    stop = next(c for text in free for c in text[1:] if c != "\ufffd" and c.strip())
    pieces: dict[int, list[str]] = {row: [] for row in range(len(PROMPTS))}
    stopped = model.generate(batch, GREEDY, lambda row, text: pieces[row].append(text), [stop])
    assert stopped == [text.partition(stop)[0].strip() for text in free]
    assert ["".join(pieces[row]) for row in range(len(PROMPTS))] == stopped


def test_an_answer_is_as_likely_among_others_as_in_a_plain_forward_pass(tokenizer):
    from minigpt4o.models.ranking import rank_batch

    model = make_native(tokenizer)
    batch = make_batch(model, PROMPTS[:4], side="left")
    answers = [[[20, 21, 22], [23]], [[24, 25]], [[20], [20, 20, 20]], [[30, 31, 32, 33], [30]]]
    found = rank_batch(model, batch, answers)
    for row, given in enumerate(answers):
        for ids, likelihood in zip(given, found[row], strict=True):
            more = torch.tensor([ids] * len(batch))
            whole = Batch(
                torch.cat([batch.input_ids, more], dim=1),
                torch.cat([batch.attention_mask, torch.ones_like(more)], dim=1),
                torch.cat([batch.labels, more], dim=1),
                batch.images,
                batch.audios,
                batch.samples,
            )
            with torch.no_grad():
                logs = plain_logits(model.eval(), whole)[row, -len(ids) - 1 : -1].log_softmax(-1)
            total = float(sum(logs[i, token] for i, token in enumerate(ids)))
            assert likelihood.total == pytest.approx(total, abs=5e-5)


def test_frames_without_sound_become_the_filler(tokenizer):
    model = make_native(tokenizer)
    sounds = make_batch(model, ["a", "a"]).audios
    assert sounds[1].isnan().any()
    soft = model.soft_tokens("audio", sounds)
    assert torch.isfinite(soft).all()
    last = model.whole.model.embed_audio(input_ids=torch.tensor([[len(model.tokenizer) - 1]]))
    torch.testing.assert_close(soft[1, 2:], last[0].expand(2, -1))
    assert not torch.allclose(soft[1, 1], last[0, 0])


def test_places_and_features_that_disagree_name_the_sample(tokenizer):
    model = make_native(tokenizer)
    batch = make_batch(model, ["t2 i l3", "t2 i l3"])
    batch.input_ids[1, 2] = 9
    with pytest.raises(
        DataError, match=r"3 places for picture features \(sample train/1\) but its 1 picture give 1 x 4"
    ):
        model(batch)
    batch = make_batch(model, ["t2 i l3"])
    batch.images = torch.zeros(1, 3, SIDE * 2, SIDE)
    with pytest.raises(DataError, match="pixels came to an encoder of image_size 32"):
        model(batch)


def save(model: Any, folder: Path) -> Path:
    """What a checkpoint holds of it, as a file."""
    from safetensors.torch import save as as_bytes

    write_bytes(folder, as_bytes({name: p.detach().contiguous() for name, p in model.trained_parameters().items()}))
    return folder


def test_an_exported_folder_gives_the_same_answers_here_and_in_transformers(tokenizer, tmp_path):
    model = make_native(tokenizer, lora_r=3, train=["lora", "embed_vision.embedding_projection"])
    for name, parameter in model.trained_parameters().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    batch = make_batch(model, PROMPTS, side="left")
    answers = model.generate(batch, GREEDY)
    model.export(tmp_path)
    again = make_native(tokenizer, path=str(tmp_path))
    assert again.generate(batch, GREEDY) == answers
    assert not any(".lora_" in name for name in again.state_dict())

    import transformers

    whole = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "minigpt4o")
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "minigpt4o")
    assert processor.image_seq_length == model.slots["image"]
    assert processor.audio_seq_length == model.slots["audio"]
    with torch.no_grad():
        torch.testing.assert_close(whole.lm_head.weight, model.llm.head.weight)
    assert sorted(whole.state_dict()) == sorted(again.whole.state_dict())


def test_the_processor_of_transformers_and_ours_write_the_same_row(tokenizer, tmp_path):
    import random

    import numpy as np
    import soundfile
    from PIL import Image

    from minigpt4o.conversation.encode import SampleEncoder
    from minigpt4o.conversation.sample import Media, Sample, Turn
    from minigpt4o.models.native_export import processor_of

    model = make_native(tokenizer)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(1).normal(0, 0.1, 3000), 16000)
    pixels = {"image_size": SIDE, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    processors = {
        "image": registry.build(Part("processor", "blip2_image_eval", pixels)),
        "audio": registry.build(Part("processor", "minigpt4o_audio", {"seconds": 0.25, "feature_size": BINS})),
    }
    encoder = SampleEncoder(model.tokenizer, model.conversation, model.slots, processors)
    turns = [
        Turn("system", "Be brief."),
        Turn("user", "what?<image>and<audio>now?"),
        Turn("assistant", "a ring"),
        Turn("user", "more"),
    ]
    media = {"images": [Media(path=str(tmp_path / "a.png"))], "audios": [Media(path=str(tmp_path / "a.wav"))]}
    ours = encoder.prompt(Sample(id="x", turns=turns, **media), random.Random(0))

    blocks = [
        {"type": "text", "text": "what?"},
        {"type": "image", "path": str(tmp_path / "a.png")},
        {"type": "text", "text": "and"},
        {"type": "audio", "path": str(tmp_path / "a.wav")},
        {"type": "text", "text": "now?"},
    ]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": blocks},
        {"role": "assistant", "content": [{"type": "text", "text": "a ring"}]},
        {"role": "user", "content": [{"type": "text", "text": "more"}]},
    ]
    theirs = processor_of(model).apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    expected = theirs["input_ids"][0].tolist()
    found = soft_ids(model, Batch(ours.input_ids[None], None, None, None, None))[0].tolist()
    assert model.tokenizer.decode(found) == model.tokenizer.decode(expected)
    assert found == expected
    torch.testing.assert_close(theirs["pixel_values"], torch.stack(ours.images), atol=1e-6, rtol=0)
    valid = theirs["input_features_mask"][0].bool()
    torch.testing.assert_close(theirs["input_features"][0][valid], ours.audios[0][: int(valid.sum())])


def test_a_checkpoint_is_laid_over_the_model_and_leaves_the_rest(tokenizer, tmp_path):
    trained, fresh = make_native(tokenizer, seed=1), make_native(tokenizer)
    file = save(trained, tmp_path / "trained.safetensors")
    model = make_native(tokenizer, ckpt=str(file))
    for name, parameter in model.named_parameters():
        source = trained if "embedding_projection" in name else fresh
        assert torch.equal(parameter, source.get_parameter(name)), name
    assert not torch.equal(*(m.embed_vision.embedding_projection.weight for m in (model, fresh)))


def test_towers_trained_by_a_tagger_are_loaded_by_weights(tokenizer, tmp_path):
    from tiny_native import AUDIO, VISION

    encoders = {
        "image": Part("encoder", "minigpt4o_vision", {"options": VISION, "image_size": SIDE, "seed": 5}),
        "audio": Part("encoder", "minigpt4o_audio", {"options": AUDIO, "frames": FRAMES, "seed": 5}),
    }
    tagger = registry.build(Part("model", "tagger", {"encoders": encoders, "tokenizer": str(tokenizer)}))
    batch = make_batch(make_native(tokenizer), ["i l3", "a l2", "a l4"])
    for row, kind in enumerate(["image", "audio", "audio"]):  # one place for a medium, as the tagger wants it
        assert tagger.slots[kind] == 1
        assert batch.samples[row].id
    assert torch.isfinite(tagger(batch).loss_sum)
    file = save(tagger, tmp_path / "trained.safetensors")
    model = make_native(tokenizer, weights={"vision_tower": str(file), "audio_tower": str(file)})
    features = tagger.encoders["image"](batch.images)
    ours = model.vision_tower(pixel_values=batch.images).last_hidden_state.flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, features)
    assert torch.equal(
        model.audio_tower.conformer[0].norm.weight, tagger.encoders["audio"].tower.conformer[0].norm.weight
    )
    assert tagger.encoders["audio"](batch.audios).shape == (2, 3, 16)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tokenizer": ""}, "needs the folder of its tokenizer"),
        ({"preset": "huge"}, "no preset 'huge'; known: tiny, e2b, e4b"),
        ({"options": {"text_confg": {}}}, "unknown key 'text_confg'; did you mean text_config"),
        ({"options": {"text_config": {"hiden_size": 4}}}, "unknown key 'hiden_size'; did you mean hidden_size"),
        (
            {"options": {"text_config": {"num_hidden_layers": 9}}},
            "holds 4 values but num_hidden_layers is 9",
        ),
        ({"weights": {"eyes": "x"}}, "no part 'eyes'; parts: vision_tower"),
        ({"train": ["vision"]}, "nearest: .*vision_tower"),
        ({"train": ["lora"]}, "model.lora_r is 0"),
        ({"path": "/nowhere/at/all"}, "does not exist"),
    ],
)
def test_a_wrong_word_in_the_configuration_says_what_is_wrong(tokenizer, values, said):
    given = {"tokenizer": str(tokenizer), "image_size": SIDE, **values}
    with pytest.raises(ConfigError, match=said):
        registry.build(Part("model", "minigpt4o", given))


def test_a_tokenizer_without_media_rows_is_refused(tmp_path):
    from minigpt4o.models.llms.tokenizer import train_tokenizer

    (tmp_path / "text.txt").write_text("a b c " * 50)
    folder = train_tokenizer([tmp_path / "text.txt"], tmp_path / "other", vocab_size=270)
    with pytest.raises(ConfigError, match="does not end with the rows that Minigpt4o keeps"):
        registry.build(Part("model", "minigpt4o", {"tokenizer": str(folder)}))


def test_the_processor_is_found_in_its_second_home_and_counts_frames():
    assert "minigpt4o_audio" in registry.names("processor")
    assert "log_mel" in registry.names("processor")
    processor = registry.build(Part("processor", "minigpt4o_audio", {"seconds": 1.2}))
    import numpy as np

    short, long = (processor.tensor(np.ones(n, np.float32), 16000) for n in (8000, 40000))
    assert short.shape == long.shape == (processor.frames, 128) == (117, 128)
    absent = short.isnan().any(-1)
    assert absent.tolist() == [False] * 50 + [True] * 67
    assert not long.isnan().any()
    assert processor.tensor(np.ones(4000, np.float32), 8000).isnan().any(-1).tolist() == absent.tolist()
