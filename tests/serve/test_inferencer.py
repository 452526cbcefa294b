"""mmpretrain's way in, on tiny weights laid out as the published ones."""

import numpy as np
import pytest
from PIL import Image

import minigpt4o
from minigpt4o import forget_models, get_model, inference_model, list_models
from minigpt4o.common.errors import ConfigError, DataError

NAME = "minigpt-4_vicuna-7b_caption"
V2 = "minigpt-v2_llama2-7b_vqa"


@pytest.fixture(autouse=True)
def no_model_is_kept():
    yield
    forget_models()


@pytest.fixture(scope="module")
def model(weights, tiny):
    return get_model(NAME, device="cpu", weights=weights, options=tiny.qformer)


@pytest.fixture
def photo(tmp_path):
    file = tmp_path / "cat-dog.png"
    Image.new("RGB", (40, 30), "green").save(file)
    return file


def test_a_name_and_a_picture_give_a_caption(weights, photo, monkeypatch, tiny) -> None:
    given = inference_model(NAME, str(photo), device="cpu", weights=weights, options=tiny.qformer, max_new_tokens=6)
    assert list(given) == ["pred_caption"]
    assert given["pred_caption"]
    monkeypatch.setenv("MINIGPT4O_WEIGHTS", str(weights))
    assert inference_model(NAME, str(photo), device="cpu", options=tiny.qformer, max_new_tokens=6) == given


def test_the_published_tensors_are_the_ones_that_answer(weights, model, photo, tiny) -> None:
    import torch

    held = torch.load(weights / "prerained_minigpt4_7b.pth", weights_only=True)["model"]
    assert model.aligned.bridges["image"].proj.weight.equal(held["llama_proj.weight"])
    vit = torch.load(weights / "eva_vit_g.pth", weights_only=True)
    assert model.aligned.encoders["image"].vit.cls_token.equal(vit["cls_token"])
    fresh = get_model(NAME, pretrained=False, device="cpu", weights=weights, options=tiny.qformer)
    assert not fresh.aligned.bridges["image"].proj.weight.equal(held["llama_proj.weight"])


def test_paths_arrays_pil_and_lists_of_them_are_one(model, photo) -> None:
    picture = Image.open(photo)
    given = [str(photo), photo, photo.read_bytes(), picture, np.asarray(picture)]
    results = inference_model(model, given, max_new_tokens=5)
    assert len(results) == 5
    assert results == [results[0]] * 5
    assert inference_model(model, given, max_new_tokens=5, batch_size=3) == results
    assert inference_model(model, photo, max_new_tokens=5) == results[0]


def test_a_question_gives_an_answer(model, photo) -> None:
    given = inference_model(model, photo, "what is there?", max_new_tokens=5)
    assert given["question"] == "what is there?"
    assert given["pred_answer"]
    two = inference_model(model, [photo, photo], ["what is there?", "where?"], max_new_tokens=5)
    assert [g["question"] for g in two] == ["what is there?", "where?"]
    assert two[0] == given
    with pytest.raises(DataError, match="2 question.* 1 picture"):
        inference_model(model, [photo], ["a", "b"])


def test_words_language_and_decoding_reach_the_model(model, photo, monkeypatch) -> None:
    seen = []
    answer = model.answer
    monkeypatch.setattr(model, "answer", lambda rows, decoding: seen.append((rows, decoding)) or answer(rows, decoding))
    inference_model(model, photo, max_new_tokens=3, num_beams=2, min_length=2, top_p=0.5)
    inference_model(model, photo, language="ja", max_new_tokens=3)
    inference_model(model, photo, prompt="Write a poem.", max_new_tokens=3)
    assert [rows[0].text for rows, _ in seen][::2] == ["Describe this image in detail.", "Write a poem."]
    assert "説明" in seen[1][0][0].text
    chosen = seen[0][1]
    assert (chosen.max_new_tokens, chosen.num_beams, chosen.min_new_tokens, chosen.top_p) == (3, 2, 2, 0.5)
    with pytest.raises(ConfigError, match="did you mean 'num_beams'"):
        inference_model(model, photo, num_beam=3)
    with pytest.raises(ConfigError, match="max_new_tokens is 'many'; it must be a int"):
        inference_model(model, photo, max_new_tokens="many")
    with pytest.raises(ConfigError, match="language 'fr': this task has en, ja"):
        inference_model(model, photo, language="fr")


def test_the_model_stays_for_the_next_call_and_can_be_forgotten(weights, photo, tiny) -> None:
    from minigpt4o.serve import inferencer

    kwargs = {"device": "cpu", "weights": weights, "max_new_tokens": 3}
    inference_model(V2, photo, "what?", options=tiny.v2, **kwargs)
    (first,) = inferencer._KEPT.values()
    inference_model(V2.replace("vqa", "caption"), photo, options=tiny.v2, **kwargs)  # another task, the same model
    assert list(inferencer._KEPT.values()) == [first]
    inference_model(NAME, photo, options=tiny.qformer, **kwargs)
    assert first not in inferencer._KEPT.values()
    assert len(inferencer._KEPT) == 1
    forget_models()
    assert not inferencer._KEPT


@pytest.mark.parametrize("name", list_models("minigpt-v2*"))
def test_every_task_of_minigpt_v2_answers(name, weights, photo, tiny) -> None:
    from minigpt4o.serve.zoo import known_model

    asked = known_model(name).asked
    question = "the star" if asked.takes_question else None
    options = [*tiny.v2, "model.max_txt_len=99"]
    given = inference_model(name, photo, question, weights=weights, device="cpu", options=options, max_new_tokens=4)
    assert given[asked.key] is not None
    assert ("pred_bboxes" in given) == asked.boxes
    if asked.takes_question:
        with pytest.raises(DataError, match="needs a question"):
            inference_model(name, photo, weights=weights, device="cpu", options=options)


def test_boxes_of_an_answer_are_in_pixels_of_the_picture() -> None:
    from minigpt4o.serve.inferencer import boxes_of

    assert boxes_of("<p>dog</p> {<10><20><50><100>}", (200, 50)) == [(20.0, 10.0, 100.0, 50.0)]
    assert boxes_of("nothing here", (200, 50)) == []


@pytest.mark.parametrize(
    ("name", "size"), [("minigpt-4_llama2-7b_caption", "plain"), ("bilingual-gpt-neox-4b-minigpt4_caption", "qformer")]
)
def test_the_other_families_answer_too(name, size, weights, photo, tiny) -> None:
    checkpoint, options = "" if "llama2" in name else None, getattr(tiny, size)
    given = inference_model(
        name, photo, device="cpu", weights=weights, checkpoint=checkpoint, options=options, max_new_tokens=4
    )
    assert given["pred_caption"]


def test_names_can_be_listed_and_the_nearest_is_told() -> None:
    assert {NAME, "minigpt-4_vicuna-13b_caption", V2, "bilingual-gpt-neox-4b-minigpt4_caption"} <= set(list_models())
    assert list_models("*v2*_vqa") == [V2]
    assert all("_vqa" in name for name in list_models(task="vqa"))
    with pytest.raises(ConfigError, match="did you mean 'minigpt-4_vicuna-7b_caption'"):
        inference_model("minigpt4_vicuna-7b_caption", "cat-dog.png")
    with pytest.raises(ConfigError, match="unknown model"):
        get_model("resnet50")


def test_every_missing_file_is_named_at_once(tmp_path, photo) -> None:
    with pytest.raises(ConfigError) as caught:
        inference_model(NAME, photo, weights=tmp_path, device="cpu")
    told = str(caught.value)
    for word in (
        "model.ckpt: prerained_minigpt4_7b.pth or pretrained_minigpt4_7b.pth",
        "model.encoders.image.weights: eva_vit_g.pth",
        "model.feature_norm_weights and model.bridges.image.weights: blip2_pretrained_flant5xxl.pth",
        "model.llm.path: vicuna-7b",
        "https://storage.googleapis.com",
        f"looked in: {tmp_path}",
        "MINIGPT4O_WEIGHTS",
        "weights=",
    ):
        assert word in told
    with pytest.raises(ConfigError, match="does not exist; give the folder"):
        inference_model(NAME, photo, weights=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        ("nowhere.png", "nowhere.png does not exist"),
        ("https://example.org/cat.png", "addresses are not fetched"),
        (np.zeros((4, 4, 3)), r"shape \(4, 4, 3\) and type float64"),
        (np.zeros((4, 4, 7), np.uint8), r"shape \(4, 4, 7\)"),
        (7, "type int is not understood"),
        (b"no picture", "unreadable_image"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(model, picture, told) -> None:
    with pytest.raises(DataError, match=told):
        inference_model(model, picture)


def test_orientation_and_transparency_of_a_pil_picture_count(model) -> None:
    from minigpt4o.serve.lavis import load_preprocess

    vis, _ = load_preprocess({"vis_processor": {"eval": {"name": "blip2_image_eval", "image_size": 28}}})
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (30, 20, 3), dtype=np.uint8))
    turned = picture.copy()
    turned.getexif()[0x0112] = 6
    assert vis["eval"](turned).equal(vis["eval"](picture.rotate(-90, expand=True)))
    clear = picture.convert("RGBA")
    clear.putalpha(0)
    assert vis["eval"](clear).equal(vis["eval"](Image.new("RGB", (20, 30), "white")))
    for mode in ("L", "P", "CMYK", "I", "F", "1", "LA", "YCbCr", "HSV"):
        assert (
            vis["eval"](picture.convert("RGB").convert("L" if mode in "IFLA" else "RGB").convert(mode)).isfinite().all()
        )


def test_the_light_names_stay_light() -> None:
    assert minigpt4o.list_models is list_models
