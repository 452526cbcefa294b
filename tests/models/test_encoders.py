"""Claims about encoders: their shapes are what they say, wrong input is refused, weights come from where one says."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from minigpt4o.common.errors import CheckpointError, ConfigError, DataError
from minigpt4o.common.registry import Part, registry

VIT = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 1, "heads": 2}
EAR = {"frames": 12, "mels": 8, "patch_frames": 4, "width": 16, "depth": 1, "heads": 2}


def build(name: str, **values):
    return registry.build(Part("encoder", name, values))


@pytest.mark.parametrize(
    ("name", "values", "tokens"),
    [
        ("timm_vit", VIT, 16),
        ("timm_vit", {**VIT, "class_token": True, "drop_cls": False}, 17),
        ("timm_vit", {**VIT, "class_token": True}, 16),
        ("timm_vit", {"model_name": "test_vit", "image_size": 32}, 4),
        ("spectrogram_transformer", EAR, 3),
        ("spectrogram_transformer", {**EAR, "patch_mels": 2}, 12),
    ],
)
def test_an_encoder_gives_as_many_features_of_the_width_it_says(name, values, tokens):
    encoder = build(name, **values).eval()
    empty = encoder.example()
    features = encoder(empty.expand(2, *empty.shape[1:]))
    assert tuple(features.shape) == (2, encoder.tokens, encoder.width)
    assert encoder.tokens == tokens


SMALL = {"embed_dim": 16, "depth": 1, "num_heads": 2}
STAGES = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}
NETWORKS = {  # name -> side of its pictures, options that make it small, features it gives, their width
    "test_resnet": (64, {}, 4, 96),
    "resnet18": (64, {"channels": (8, 8, 16, 16)}, 4, 16),
    "convnext_tiny": (64, STAGES, 4, 16),
    "mobilenetv3_small_050": (64, {}, 4, 288),
    "swin_tiny_patch4_window7_224": (
        64, {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 2}, 4, 64,
    ),
    "vit_tiny_patch16_224": (64, SMALL, 16, 16),
    "vit_base_patch14_reg4_dinov2": (56, {**SMALL, "reg_tokens": 4}, 16, 16),
    "deit_tiny_distilled_patch16_224": (64, SMALL, 16, 16),
    "eva02_tiny_patch14_224": (56, SMALL, 16, 16),
    "vit_base_patch16_siglip_224": (64, SMALL, 16, 16),
    "levit_128s": (64, {}, 1, 384),
}  # fmt: skip


@pytest.mark.parametrize("name", list(NETWORKS))
def test_any_image_network_of_timm_plugs_in_by_name(name):
    size, options, tokens, width = NETWORKS[name]
    encoder = build("timm", model_name=name, image_size=size, options=options)
    assert (encoder.tokens, encoder.width) == (tokens, width)
    pictures = torch.randn(2, 3, size, size)
    features = encoder(pictures)
    assert tuple(features.shape) == (2, tokens, width)
    features.pow(2).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []
    assert type(encoder(pictures)) is torch.Tensor  # nothing of the twin that was measured is left


@pytest.mark.parametrize("name", ["test_resnet", "swin_tiny_patch4_window7_224"])
def test_cells_of_a_grid_come_in_raster_order(name):
    size, options, _, _ = NETWORKS[name]
    encoder = build("timm", model_name=name, image_size=size, options=options).eval()
    pictures = torch.zeros(1, 3, size, size)
    grid = encoder.vit.forward_features(pictures.normal_())
    cells = grid if encoder.channels_last else grid.permute(0, 2, 3, 1)  # (1, H, W, D)
    torch.testing.assert_close(encoder(pictures)[0, 1], cells[0, 0, 1])


def test_a_file_of_timms_own_fills_a_network_with_its_running_means(tmp_path):
    import timm

    network = timm.create_model("test_resnet", num_classes=10)
    network.train()(torch.randn(4, 3, 64, 64))
    save_file({n: t.contiguous() for n, t in network.state_dict().items()}, tmp_path / "w.safetensors")
    encoder = build("timm", model_name="test_resnet", image_size=64, weights=str(tmp_path / "w.safetensors")).eval()
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = network.eval().forward_features(picture).flatten(2).transpose(1, 2)
        torch.testing.assert_close(encoder(picture), wanted)


def test_every_parameter_of_an_encoder_receives_a_gradient():
    for name, values in (("timm_vit", {**VIT, "class_token": True}), ("spectrogram_transformer", EAR)):
        encoder = build(name, **values)
        encoder(torch.randn_like(encoder.example())).pow(2).sum().backward()
        assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_patches_of_sound_run_in_time_order():
    encoder = build("spectrogram_transformer", **{**EAR, "depth": 0}).eval()
    sound = torch.zeros(1, 12, 8)
    quiet = encoder(sound)
    sound[:, 4:8] = 1.0  # only the second patch
    changed = (encoder(sound) - quiet).abs().sum(-1)[0] > 1e-6
    assert changed.tolist() == [False, True, False]


def test_input_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(DataError, match=r"32x32.*image_size 16"):
        build("timm_vit", **VIT)(torch.zeros(1, 3, 32, 32))
    with pytest.raises(DataError, match=r"10 frames x 8 mel bins.*12 x 8"):
        build("spectrogram_transformer", **EAR)(torch.zeros(1, 10, 8))


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("timm_vit", {**VIT, "patch_size": 5}, "multiple of patch_size 5"),
        ("timm_vit", {"model_name": "vit_tiny_patch16_22"}, "vit_tiny_patch16_224"),
        ("timm", {"model_name": "test_resnet", "options": {"layer": 1}}, "unexpected keyword argument 'layer'"),
        (
            "timm",
            {"model_name": "swin_tiny_patch4_window7_224", "image_size": 2},
            "cannot take pictures of image_size 2",
        ),
        ("timm", {**VIT, "options": {"depth": 2}}, "need model_name"),
        ("spectrogram_transformer", {**EAR, "frames": 13}, "frames 13"),
    ],
)
def test_impossible_dimensions_are_refused(name, values, said):
    with pytest.raises(ConfigError, match=said):
        build(name, **values)


@pytest.mark.parametrize("prefix", ["", "encoders.image."])
def test_weights_come_from_a_file_of_the_encoder_or_of_a_whole_model(tmp_path, prefix):
    torch.manual_seed(1)
    source = build("timm_vit", **VIT)
    tensors = {prefix + name: p.detach() for name, p in source.named_parameters()}
    save_file({**tensors, "llm.other": torch.zeros(1)}, tmp_path / "w.safetensors")
    loaded = build("timm_vit", **VIT, weights=str(tmp_path / "w.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), loaded.parameters(), strict=True))
    assert not loaded.from_scratch


def test_weights_that_lack_tensors_or_do_not_exist_are_refused(tmp_path):
    tensors = {name: p.detach() for name, p in build("timm_vit", **VIT).named_parameters()}
    tensors.pop("vit.norm.weight")
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 1 of \d+ tensors.*\n.*vit.norm.weight \(16,\)"):
        build("timm_vit", **VIT, weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(CheckpointError, match="does not exist"):
        build("timm_vit", **VIT, weights=str(tmp_path / "none"))
