"""Claims about generation: neighbours do not matter, each row stops by itself, what streams is the answer."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.conversation.batch import Batch, Decoding
from minigpt4o.models.answer import Answer

ROWS = ["t3 i t2", "t1 a t9", "t6", "i i t1", "t2 i t1 a l4", "t12"]
GREEDY = Decoding(max_new_tokens=12)


def one_by_one(model, batch: Batch, decoding: Decoding, stop=()) -> list[str]:
    answers, pictures, sounds = [], 0, 0
    for i, sample in enumerate(batch.samples):
        real = batch.attention_mask[i].bool()
        images = batch.images[pictures : pictures + len(sample.images)] if sample.images else None
        audios = batch.audios[sounds : sounds + len(sample.audios)] if sample.audios else None
        pictures, sounds = pictures + len(sample.images), sounds + len(sample.audios)
        row = [t[i : i + 1, real] for t in (batch.input_ids, batch.attention_mask, batch.labels)]
        answers += model.generate(Batch(*row, images, audios, [sample]), decoding, stop=stop)
    return answers


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen2"])
@pytest.mark.parametrize(
    "decoding",
    [
        GREEDY,
        Decoding(max_new_tokens=12, repetition_penalty=1.5, min_new_tokens=3),
        Decoding(max_new_tokens=12, do_sample=True, temperature=0.8, top_p=0.9, seed=3),
        Decoding(max_new_tokens=6, num_beams=3),
        Decoding(max_new_tokens=12, num_beams=2, repetition_penalty=1.5),
        Decoding(max_new_tokens=12, num_beams=2, do_sample=True, temperature=2.0, seed=3),
    ],
    ids=["greedy", "penalty", "sampling", "beams", "beams_penalty", "sampled_beams"],
)
def test_a_row_answers_the_same_alone_and_among_others(make_model, make_batch, family, decoding):
    model = make_model(family)
    batch = make_batch(model, ROWS, side="left")
    together = model.generate(batch, decoding)
    assert together == one_by_one(model, batch, decoding)
    assert len(set(together)) > 1


def test_greedy_takes_the_likeliest_token_of_the_full_forward_pass(make_model, make_batch):
    model = make_model()
    batch = make_batch(model, ["t3 i t2"], side="left")
    embeddings = model.embed(batch)
    ids: list[int] = []
    for _ in range(GREEDY.max_new_tokens):
        token = int(model.llm.model(inputs_embeds=embeddings).logits[0, -1].argmax())
        if token in model.llm.eos_ids:
            break
        ids.append(token)
        embeddings = torch.cat([embeddings, model.llm.embed(torch.tensor([[token]]))], dim=1)
    assert model.generate(batch, GREEDY) == [model.tokenizer.decode(ids, skip_special_tokens=True).strip()]


def test_each_row_stops_at_its_own_stop_string_and_the_others_go_on(make_model, make_batch):
    model = make_model()
    batch = make_batch(model, ROWS, side="left")
    free = model.generate(batch, GREEDY)
    stop = next(c for text in free for c in text[1:] if c != "\ufffd" and c.strip())
    stopped = model.generate(batch, GREEDY, stop=[stop])
    assert stopped == [text.partition(stop)[0].strip() for text in free]
    assert any(stop in text for text in free)
    assert any(stop not in text for text in free)


def test_a_special_token_named_as_stop_ends_the_answer(make_model, make_batch):
    model = make_model()
    batch = make_batch(model, ROWS, side="left")
    with torch.no_grad():  # make <s> the likeliest token everywhere
        model.llm.model.lm_head.weight.zero_()
        model.llm.model.lm_head.weight[1] = 0.0
        model.llm.model.lm_head.bias = torch.nn.Parameter(torch.zeros(300))
        model.llm.model.lm_head.bias[1] = 9.0
    seen: list[str] = []
    assert model.generate(batch, GREEDY, lambda row, text: seen.append(text), stop=["<s>"]) == [""] * len(ROWS)
    assert seen == []


@pytest.mark.parametrize("stop", [(), ("e", "。")])
@pytest.mark.parametrize("beams", [1, 2])
def test_what_streams_is_the_answer_piece_by_piece(make_model, make_batch, stop, beams):
    model = make_model()
    batch = make_batch(model, ROWS, side="left")
    pieces: dict[int, list[str]] = {row: [] for row in range(len(ROWS))}
    decoding = Decoding(max_new_tokens=20, num_beams=beams)
    answers = model.generate(batch, decoding, lambda row, text: pieces[row].append(text), stop)
    assert ["".join(pieces[row]) for row in range(len(ROWS))] == answers
    if beams == 1 and not stop:
        assert max(len(p) for p in pieces.values()) > 2


def feed(tokenizer, text: str, **values) -> tuple[Answer, list[str]]:
    shown: list[str] = []
    answer = Answer(tokenizer, on_text=shown.append, **values)
    for token in tokenizer.encode(text, add_special_tokens=False):
        answer.add(token)
    return answer, shown


def test_streaming_never_splits_a_character(make_model):
    tokenizer = make_model(media=()).tokenizer
    text = "丸と🙂 red"
    assert len(tokenizer.encode("🙂", add_special_tokens=False)) > 1
    answer, shown = feed(tokenizer, text)
    answer.finish()
    assert "".join(shown) == answer.text == text
    assert not any("\ufffd" in piece for piece in shown)


@pytest.mark.parametrize("stop", ["", "###", "§"])
def test_a_long_answer_streams_as_it_is_read_in_the_end(make_model, stop):
    tokenizer = make_model(media=()).tokenizer
    draw = random.Random(1)
    words = ["red", " circle", "丸", "🙂", "  ", "\n", "é", "{<12><34>}", " of", "。"]
    text = "a " + "".join(draw.choice(words) for _ in range(400)) + " end"
    ids = tokenizer.encode(text + stop + " more", add_special_tokens=False)
    decoded: list[int] = []
    decode = tokenizer.decode
    reader = SimpleNamespace(decode=lambda ids, **more: decoded.append(len(ids)) or decode(ids, **more))
    shown: list[str] = []
    answer = Answer(reader, stop=[stop] if stop else [], on_text=shown.append)
    for token in ids:
        answer.add(token)
    answer.finish()
    assert "".join(shown) == answer.text == text + ("" if stop else " more")
    assert len(ids) > 1000 and sum(size > 200 for size in decoded) <= 2  # whole answers are decoded at the end only


def test_the_blank_that_leads_an_answer_is_neither_shown_nor_kept(make_model):
    tokenizer = make_model(media=()).tokenizer
    answer, shown = feed(tokenizer, " red circle", end_ids=frozenset([tokenizer.eos_token_id]))
    answer.add(tokenizer.eos_token_id)
    assert answer.done
    assert answer.text == "".join(shown) == "red circle"
    assert len(shown) > 1  # piece by piece, the blank inside included
    silent = Answer(tokenizer, end_ids=frozenset([tokenizer.eos_token_id]))
    for token in [*tokenizer.encode(" red circle", add_special_tokens=False), tokenizer.eos_token_id]:
        silent.add(token)
    assert silent.text == "red circle"


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_known(make_model):
    tokenizer = make_model(media=()).tokenizer
    answer, shown = feed(tokenizer, "red #", stop=["###"])
    assert "".join(shown) == "red"
    assert not answer.done
    answer.finish()
    assert answer.text == "red #" == "".join(shown)
    answer, shown = feed(tokenizer, "red ### blue", stop=["###"])
    assert answer.done
    assert answer.text == "red" == "".join(shown)


def test_nothing_ends_an_answer_before_min_new_tokens(make_model, make_batch):
    model = make_model()
    batch = make_batch(model, ROWS, side="left")
    with torch.no_grad():
        model.llm.model.lm_head.bias = torch.nn.Parameter(torch.zeros(300))
        model.llm.model.lm_head.bias[2] = 99.0  # </s>
    assert model.generate(batch, GREEDY) == [""] * len(ROWS)
    assert all(model.generate(batch, Decoding(max_new_tokens=9, min_new_tokens=5)))


def test_a_seed_repeats_a_sample_and_another_seed_changes_it(make_model, make_batch):
    model = make_model()
    batch = make_batch(model, ROWS, side="left")
    drawn = [model.generate(batch, Decoding(12, do_sample=True, seed=seed)) for seed in (1, 1, 2)]
    first, again, other = drawn
    assert first == again != other


def test_a_tiny_top_p_is_greedy(make_model, make_batch):
    model = make_model()
    batch = make_batch(model, ROWS, side="left")
    assert model.generate(batch, Decoding(12, do_sample=True, top_p=1e-6)) == model.generate(batch, Decoding(12))


def test_generation_leaves_the_mode_and_the_global_random_state_alone(make_model, make_batch):
    model = make_model().train()
    state = torch.get_rng_state()
    modes = [m.training for m in model.modules()]
    model.generate(make_batch(model, ROWS, side="left"), Decoding(3, do_sample=True))
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [m.training for m in model.modules()]


@pytest.mark.parametrize(
    "decoding", [Decoding(0), Decoding(do_sample=True, temperature=0), Decoding(do_sample=True, top_p=0)]
)
def test_impossible_decoding_is_refused(make_model, make_batch, decoding):
    model = make_model()
    with pytest.raises(ConfigError):
        model.generate(make_batch(model, ROWS, side="left"), decoding)


def test_an_answer_ends_where_the_models_positions_end_and_a_longer_prompt_is_refused(make_model, make_batch):
    model = make_model("gpt2")  # 128 positions
    batch = make_batch(model, ["t120"], side="left")
    assert model.generate(batch, Decoding(100)) == model.generate(batch, Decoding(9))
    with pytest.raises(DataError, match=r"130 places .* 128 positions"):
        model.generate(make_batch(model, ["t130"], side="left"), GREEDY)


def test_a_stop_string_inside_the_first_tokens_does_not_count_under_min_new_tokens(make_model):
    tokenizer = make_model(media=()).tokenizer
    first = len(tokenizer.encode("red # blue", add_special_tokens=False))
    answer, shown = feed(tokenizer, "red # blue two # x", stop=["#"], min_tokens=first)
    assert answer.text == "red # blue two" == "".join(shown)


def test_the_last_row_going_is_not_disturbed_by_the_others_leaving(make_model, make_batch):
    model = make_model()
    batch = make_batch(model, ROWS, side="left")
    free = model.generate(batch, GREEDY)
    last = max(range(1, len(free)), key=lambda row: len(set(free[row])))  # not the first row
    stops = sorted({c for row, text in enumerate(free) if row != last for c in text} - {*free[last], "\ufffd"})
    stopped = model.generate(batch, GREEDY, stop=stops)
    assert stopped[last] == free[last]
    ends = [len(text) for row, text in enumerate(stopped) if row != last and text != free[row]]
    assert len(ends) >= 3


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty`")
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen2"])
def test_tokens_are_those_of_transformers_own_generate(make_model, make_batch, family):
    model = make_model(family)
    for row in ROWS:
        batch = make_batch(model, [row], side="left")
        found = model.llm.model.generate(
            inputs_embeds=model.embed(batch),
            attention_mask=batch.attention_mask,
            max_new_tokens=16,
            min_new_tokens=4,
            do_sample=False,
            repetition_penalty=1.3,
            pad_token_id=model.llm.pad_id,
        )
        ours = model.generate(batch, Decoding(16, min_new_tokens=4, repetition_penalty=1.3))
        assert ours == [model.tokenizer.decode(found[0], skip_special_tokens=True).strip()]
