"""LAVIS's and MiniGPT-4's own ways in, on tiny weights laid out as the published ones."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from minigpt4o import load_model, load_model_and_preprocess, load_preprocess, model_zoo, registry
from minigpt4o.common.errors import ConfigError, DataError, Minigpt4oError
from minigpt4o.conversation.batch import IMAGE_SLOT, Decoding
from minigpt4o.serve.rows import Row

ROOT = Path(__file__).resolve().parents[2]
RAW = "<s>[INST] <Img><ImageHere></Img> {} [/INST]"


@pytest.fixture(scope="module")
def opened(weights, tiny):
    return load_model_and_preprocess(
        name="minigpt4",
        model_type="pretrain_vicuna0",
        is_eval=True,
        device="cpu",
        weights=weights,
        options=tiny.qformer,
    )


@pytest.fixture(scope="module")
def model(opened):
    return opened[0]


@pytest.fixture(scope="module")
def v2(weights, tiny):
    return load_model("minigpt_v2", "pretrain", is_eval=True, weights=weights, options=tiny.v2, profile="compat")


@pytest.fixture
def images(opened):
    vis = opened[1]["eval"]
    return torch.stack([vis(Image.new("RGB", (30, 20), colour)) for colour in ("red", "blue", "white")])


def test_the_readme_of_lavis_works(opened) -> None:
    model, vis_processors, txt_processors = opened
    assert not model.training
    picture = vis_processors["eval"](Image.new("RGB", (50, 40), "red"))
    assert picture.shape == (3, 28, 28)
    assert vis_processors["train"](Image.new("RGB", (50, 40), "red")).equal(picture)
    assert txt_processors["eval"]("What IS this?") == "what is this?"
    answers = model.generate({"image": picture[None], "prompt": "what is there?"}, max_new_tokens=5)
    assert len(answers) == 1 and answers[0]
    assert model.to("cpu").eval() is model
    assert model.device == torch.device("cpu")


def test_both_calls_mean_the_same_and_rows_do_not_see_each_other(model, images) -> None:
    asked = ["what is there?", "a much longer question: what is at the top left?", "what?"]
    together = model.generate(images, asked, max_new_tokens=8)
    assert model.generate({"image": images, "prompt": asked}, max_new_tokens=8) == together
    alone = [
        model.generate(image[None], [text], max_new_tokens=8)[0] for image, text in zip(images, asked, strict=True)
    ]
    assert alone == together
    assert model.generate(images, "what?", max_new_tokens=8)[2] == together[2]
    assert model.generate(None, ["hello"], max_new_tokens=4)


def test_defaults_are_those_of_the_reference(model, images, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(model.aligned, "generate", lambda batch, decoding, *rest: seen.append(decoding) or ["x"] * 3)
    model.generate(images, ["a"] * 3)
    model.generate(images, ["a"] * 3, num_beams=3, max_new_tokens=7, min_length=2, use_nucleus_sampling=True, seed=5)
    first, second = seen
    assert first == Decoding(max_new_tokens=20, min_new_tokens=1, top_p=0.9)
    assert second == Decoding(max_new_tokens=7, min_new_tokens=2, top_p=0.9, num_beams=3, do_sample=True, seed=5)
    with pytest.raises(ConfigError, match="did you mean 'num_beams'"):
        model.generate(images, ["a"] * 3, num_beam=2)
    with pytest.raises(ConfigError, match="num_captions is 3"):
        model.generate(images, ["a"] * 3, num_captions=3)


def test_a_whole_prompt_is_sent_as_it_stands_with_bos_in_front(v2) -> None:
    tokenizer, picture = v2.aligned.tokenizer, torch.zeros(3, 28, 28)
    ids = v2.rows.example(Row(RAW.format("hello"), (picture,))).input_ids.tolist()
    before, after = RAW.format("hello").split("<ImageHere>")
    words = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, after)]
    assert ids == [tokenizer.bos_token_id, *words[0], *[IMAGE_SLOT] * v2.aligned.slots["image"], *words[1]]
    assert ids[:2] == [tokenizer.bos_token_id] * 2
    plain = v2.rows.example(Row("hello", (picture,))).input_ids.tolist()
    assert plain == ids  # compat: a plain question becomes the reference's own serving prompt


def test_several_pictures_of_a_row_go_to_its_places_in_order(model, images) -> None:
    text = "###Human: <Img><ImageHere></Img> and <Img><ImageHere></Img> differ how? ###Assistant: "
    (one,) = model.generate(images[None, :2], [text], max_new_tokens=6)
    (other,) = model.generate([[images[0], images[1]]], [text], max_new_tokens=6)
    (cut,) = model.generate(images[None], [text], lengths=[2], max_new_tokens=6)
    assert one == other == cut == model.generate(images[:2], text, max_new_tokens=6)[0]
    batch = model._batch([model.rows.example(Row(text, (images[0], images[1])))], "left")
    assert batch.images.equal(images[:2])


def test_features_behind_the_bridge(model, images) -> None:
    features = model.encode_img(images)
    assert features.shape == (3, 4, 32)
    assert torch.allclose(features[1:2], model.encode_img(images[1:2]), atol=1e-6)
    assert model.encode_img(images[None]).equal(features)
    with pytest.raises(DataError, match=r"\(3, 14, 14\).*\(3, 28, 28\)"):
        model.encode_img(torch.zeros(1, 3, 14, 14))


def test_the_loss_of_a_batch_can_be_learned_from(model, images) -> None:
    samples = {"image": images, "text_input": ["what?"] * 3, "answer": ["red", "blue", "white as snow"]}
    loss = model.train()(samples)["loss"]
    loss.backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    model.eval()
    assert trained == {"aligned.bridges.image.proj.weight", "aligned.bridges.image.proj.bias"}
    rows = [Row("what?", (image,), answer=a) for image, a in zip(images, samples["answer"], strict=True)]
    found = model.aligned(model._batch([model.rows.example(row) for row in rows], "right"))
    assert loss.item() == pytest.approx((found.loss_sum / found.count).item(), rel=1e-6)
    with pytest.raises(DataError, match="no answer or text_output; there are: image, prompt"):
        model({"image": images, "prompt": "a"})


def test_candidates_are_ranked_by_their_own_tokens_whatever_stands_beside(model, v2, images) -> None:
    texts = ["what colour is it?", "and what else is there to be seen in it?", "what?"]
    answers = ["red", ["a very long answer about blue", "blue", "it"], "white"]
    ranks = model.multi_select(images, texts, answers)
    assert all(sorted(rank) == [0, 1, 2] for rank in ranks)
    for row in range(3):
        mine = [a if isinstance(a, str) else a[row] for a in answers]
        assert model.multi_select(images[row : row + 1], texts[row : row + 1], mine) == [ranks[row]]
        for number, answer in enumerate(mine):
            loss = model({"image": images[row : row + 1], "prompt": texts[row], "answer": [answer]})["loss"].item()
            rows = [Row(t, (i,)) for t, i in zip(texts, images, strict=True)]
            assert model._losses(rows, answers[number])[row].item() == pytest.approx(loss, rel=1e-4)
    assert [rank[-1] for rank in model.multi_select(images, texts, answers, num_cand=[2, 2, 2])] == [2, 2, 2]


def test_in_compat_the_ranking_averages_over_padding_as_the_reference_does(v2) -> None:
    pictures = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    texts = [RAW.format("what?"), RAW.format("a far longer question about nearly everything")]
    rows = [Row(t, (p,)) for t, p in zip(texts, pictures, strict=True)]
    beside, alone = v2._losses(rows, "red")[0].item(), v2._losses(rows[:1], "red")[0].item()
    lengths = [len(v2.rows.example(row).input_ids) for row in rows]
    answer = len(v2.rows.example(Row(texts[0], (pictures[0],), "red")).input_ids) - lengths[0]
    assert beside * (lengths[1] + answer - 1) == pytest.approx(alone * (lengths[0] + answer - 1), rel=1e-5)


@pytest.mark.parametrize(
    ("images", "texts", "told"),
    [
        (torch.zeros(1, 3, 28, 28), ["<s>[INST] hello [/INST]", "x"], "row 0: the text has 0 place.*1 picture"),
        (torch.zeros(1, 3, 28, 28), [RAW.format("a") + RAW.format("b")], "2 place.*<ImageHere>, but 1 picture"),
        (torch.zeros(1, 3, 28, 28), ["<image><image>what?"], "2 place.*<image>, but 1 picture"),
        (None, [RAW.format("a")], "1 place.*0 picture"),
        (torch.zeros(1, 3, 14, 14), ["what?"], r"shape \(3, 14, 14\).*\(3, 28, 28\).*image_size"),
        (torch.zeros(2, 3, 28, 28), ["a", "b", "c"], "3 text.* 2 picture"),
        (["cat.png"], ["what?"], "type str.*vis_processors"),
        (torch.zeros(1, 3, 28, 28), ["word " * 20000], r"row 0: the prompt takes \d+ places.*100,000 characters.*2048"),
        (torch.zeros(1, 3, 28, 28), None, "no text"),
    ],
)
def test_bad_input_is_told_with_both_sides_and_before_the_model_runs(v2, monkeypatch, images, texts, told) -> None:
    monkeypatch.setattr(v2.aligned, "embed", lambda batch: pytest.fail("the model ran"))
    with pytest.raises(DataError, match=told):
        v2.generate(images, texts)


def test_names_and_types_are_listed_and_the_nearest_is_told() -> None:
    types = dict(model_zoo)
    assert {"pretrain_vicuna0", "pretrain_llama2"} <= set(types["minigpt4"])
    assert types["minigpt_v2"] == ["pretrain"]
    assert "minigpt4" in str(model_zoo) and "pretrain_vicuna0" in str(model_zoo)
    assert "minigpt4" in registry.names("model")
    with pytest.raises(ConfigError, match="unknown model 'minigpt5'; did you mean 'minigpt4'"):
        load_model("minigpt5")
    with pytest.raises(ConfigError, match="did you mean 'pretrain_vicuna0'"):
        load_model("minigpt4", "pretrain_vicuna")


def test_missing_weights_are_named_at_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("MINIGPT4O_WEIGHTS", raising=False)
    with pytest.raises(
        ConfigError, match=r"3 weight file(?s:.*)model.ckpt: minigptv2_checkpoint.pth or checkpoint_stage3"
    ):
        load_model_and_preprocess("minigpt_v2", "pretrain")
    with pytest.raises(ConfigError, match=r"2 weight file") as caught:
        load_model("minigpt_v2", "pretrain", checkpoint="")
    assert "ckpt" not in str(caught.value)


def test_processors_can_be_opened_alone() -> None:
    vis, txt = load_preprocess(
        {
            "vis_processor": {"train": {"name": "blip2_image_train", "image_size": 16}, "eval": None},
            "text_processor": {"train": "blip_caption"},
        }
    )
    assert vis["train"](Image.new("L", (9, 9))).shape == (3, 16, 16)
    assert "eval" not in vis
    assert txt["train"]("A dog!") == "a dog"
    with pytest.raises(ConfigError, match="takes no 'image_sise'; did you mean 'image_size'"):
        load_preprocess({"vis_processor": {"train": {"name": "blip2_image_train", "image_sise": 16}}})
    with pytest.raises(Minigpt4oError, match="unknown processor"):
        load_preprocess({"vis_processor": {"train": "blip9"}})


def test_a_checkpoint_of_the_reference_is_laid_over(model, weights) -> None:
    report = model.load_checkpoint(str(weights / "prerained_minigpt4_7b.pth"))
    assert sorted(report.matched) == ["bridges.image.proj.bias", "bridges.image.proj.weight"]


def test_a_published_model_is_asked_in_the_words_it_was_taught_with(model, v2, weights, tiny) -> None:
    assert model.aligned.template == "vicuna_v0"  # the preset alone is that of stage 1
    assert v2.aligned.template == "minigpt_v2"
    llama2 = load_model("minigpt4", "pretrain_llama2", checkpoint="", weights=weights, options=tiny.plain)
    assert llama2.aligned.template == "llama2"


def test_a_prompt_of_the_references_evaluation_has_its_ids() -> None:
    """Measured by running MiniGPT-v2's own code: double BOS, one space before [/INST]."""
    from published import TINY_V2, drawn

    from minigpt4o.serve.served import ServedModel

    folder = Path(os.environ.get("MINIGPT4O_TEST_DATA", ROOT.parent / "shared" / "data")) / "tokenizers" / "llama"
    if not (folder / "tokenizer.model").is_file():
        pytest.skip(f"no {folder}")
    options = [*TINY_V2, "model.profile=compat"]
    model = ServedModel(drawn("minigpt_v2", "pretrain", options, folder))
    picture = torch.zeros(3, 28, 28)
    before = [1, 1, 518, 25580, 29962, 529, 25518, 29958]
    after = [1533, 25518, 29958, 518, 20275, 29962, 2367, 592, 278, 4423, 310, 11203, 518, 29914, 25580, 29962]
    question = "[refer] give me the location of dog"
    for text in (RAW.format(question), question):
        ids = model.rows.example(Row(text, (picture,))).input_ids.tolist()
        assert ids == [*before, *[IMAGE_SLOT] * model.aligned.slots["image"], *after]
    with pytest.raises(DataError, match=r"places.*100,000 characters"):
        model.generate(picture, ["abcde fghi" * 10_000])
