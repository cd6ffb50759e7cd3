"""Every ConvNeXt is built, normalises its input, embeds, and explains bad settings."""

from __future__ import annotations

import logging

import pytest
import timm
import torch

from dpmed.errors import UserError
from dpmed.models.backbone import (
    IMAGENET_GREY_MEAN,
    IMAGENET_GREY_STD,
    architecture_of,
    backbone_names,
    build_model,
    embed,
)


def build(**changes):
    settings = {"name": "test_convnext", "num_labels": 5, "image_size": 64}
    return build_model(**{**settings, **changes})


def test_every_size_of_both_versions_is_offered():
    names = backbone_names()
    v1 = ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge", "xxlarge")
    assert {f"convnext_{size}" for size in v1} <= set(names)
    v2 = ("atto", "femto", "pico", "nano", "tiny", "base", "large", "huge")
    assert {f"convnextv2_{size}" for size in v2} <= set(names)


@pytest.mark.parametrize("name", backbone_names())
def test_every_architecture_is_built(name):
    with torch.device("meta"):
        model = build(name=name)
        assert model(torch.empty(2, 1, 64, 64)).shape == (2, 5)
    assert architecture_of(model) == name


@pytest.mark.parametrize("name", ["test_convnext", "convnext_atto", "convnextv2_atto"])
def test_embedding_is_what_the_last_layer_sees(name):
    model = build(name=name).eval()
    images = torch.rand(3, 1, 64, 64)
    features = embed(model, images)
    assert features.shape == (3, model.num_features)
    torch.testing.assert_close(model.head.fc(features), model(images))


@pytest.mark.parametrize("in_chans", [1, 3])
def test_normalisation_equals_a_plain_timm_model_on_normalised_images(in_chans):
    mean, std = [0.4, 0.5, 0.6][:in_chans], [0.2, 0.3, 0.4][:in_chans]
    model = build(in_chans=in_chans, mean=mean, std=std).eval()
    plain = timm.create_model("test_convnext", num_classes=5, in_chans=in_chans).eval()
    plain.load_state_dict(model.state_dict())  # strict: the names are timm's
    images = torch.rand(2, 1, 64, 64)
    repeated = images.expand(-1, in_chans, -1, -1)
    shape = (in_chans, 1, 1)
    normalised = (repeated - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    torch.testing.assert_close(model(images), plain(normalised))


def test_default_literals_are_the_means_of_imagenets_channels():
    assert pytest.approx(sum((0.485, 0.456, 0.406)) / 3, abs=1e-3) == IMAGENET_GREY_MEAN
    assert pytest.approx(sum((0.229, 0.224, 0.225)) / 3, abs=1e-3) == IMAGENET_GREY_STD


def test_no_buffers_and_no_batch_statistics():
    model = build(name="convnext_atto")
    assert not list(model.buffers())


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "stages.0.blocks.0.conv_dw.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_layer_scale_and_drop_path_reach_the_blocks():
    model = build(ls_init_value=0.5, drop_path_rate=0.2)
    assert torch.all(model.stages[0].blocks[0].gamma == 0.5)
    assert model.stages[3].blocks[-1].drop_path.drop_prob == pytest.approx(0.2)
    assert torch.all(build().stages[0].blocks[0].gamma == 1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "convnext_tinny"}, r"model.name=convnext_tinny.*Did you mean 'convnext_tiny'"),
        ({"name": "resnet18"}, r"model.name=resnet18 is no ConvNeXt.*convnext_atto"),
        ({"name": "convnext_tiny.fb_in1k"}, r"model.name=convnext_tiny .*init.tag=fb_in1k"),
        ({"image_size": 31}, r"image_size=31.*at least 32"),
        ({"num_labels": 0}, r"num_labels=0"),
        ({"drop_path_rate": 1.0}, r"model.drop_path_rate=1.0"),
        ({"std": 0.0}, r"model.input_std=0.0.*positive"),
        ({"mean": [0.1, 0.2]}, r"model.input_mean=\[0.1, 0.2\].*in_chans=1"),
    ],
)
def test_bad_settings_are_explained(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)


def test_smallest_image_works_and_a_lost_margin_is_said(caplog):
    assert build(image_size=32)(torch.rand(1, 1, 32, 32)).shape == (1, 5)
    with caplog.at_level(logging.WARNING):
        build(image_size=100)
    assert "up to 4 pixels" in caplog.text


def test_only_single_channel_float_images_pass():
    model = build()
    with pytest.raises(AssertionError, match="one channel"):
        model(torch.rand(1, 3, 64, 64))
    with pytest.raises(AssertionError, match="float"):
        model(torch.zeros(1, 1, 64, 64, dtype=torch.uint8))
