"""Tensors into a model: the two differences that are bridged, and words for the others."""

from __future__ import annotations

import pytest
import timm
import torch

from dpmed.errors import UserError
from dpmed.models import fitting
from dpmed.models.backbone import build_model
from dpmed.models.fitting import fit_weights


def model_of(seed=0, **changes):
    settings = {"name": "test_convnext", "num_labels": 5, "image_size": 64, "seed": seed}
    return build_model(**{**settings, **changes})


def copy_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def fit(model, tensors, *, keep_head=True):
    return fit_weights(model, tensors, keep_head=keep_head, origin="init.path=w.pth")


@pytest.fixture
def few_architectures(monkeypatch):
    """The search for an architecture that fits takes 4 s over all of them."""
    monkeypatch.setattr(fitting, "backbone_names", lambda: ["convnext_atto", "test_convnext"])


def test_same_model_is_loaded_whole():
    source, target = model_of(seed=1), model_of(seed=2)
    report = fit(target, copy_of(source))
    assert (report.num_rebuilt, report.rebuilt, report.stem) == (0, (), "unchanged")
    assert report.num_loaded == sum(p.numel() for p in target.parameters())
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name])


@pytest.mark.parametrize("keep_head", [True, False])
def test_head_is_rebuilt_for_another_number_of_labels_or_on_request(keep_head):
    source, target = model_of(seed=1, num_labels=3 if keep_head else 5), model_of(seed=2)
    head_before = target.head.fc.weight.clone()
    report = fit(target, copy_of(source), keep_head=keep_head)
    assert report.rebuilt == ("head.fc.weight", "head.fc.bias")
    assert report.num_rebuilt == target.head.fc.weight.numel() + 5
    assert torch.equal(target.head.fc.weight, head_before)
    assert torch.equal(target.head.norm.weight, source.head.norm.weight)


def test_three_stem_channels_are_summed():
    """A grey image through the summed stem equals the repeated image through the original."""
    colour = model_of(seed=1, in_chans=3, mean=0.5, std=0.25).eval()
    grey = model_of(seed=2, mean=0.5, std=0.25).eval()
    report = fit(grey, copy_of(colour))
    assert report.stem == "summed 3 -> 1 channels"
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(grey(images), colour(images), rtol=1e-4, atol=1e-5)


def test_one_stem_channel_is_repeated_for_three():
    grey = model_of(seed=1, mean=0.5, std=0.25).eval()
    colour = model_of(seed=2, in_chans=3, mean=0.5, std=0.25).eval()
    report = fit(colour, copy_of(grey))
    assert report.stem == "repeated 1 -> 3 channels"
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(colour(images), grey(images), rtol=1e-4, atol=1e-5)


def test_names_of_the_convnext_authors_are_understood():
    source = model_of(seed=1)
    renamed = {_authors_name(name): tensor for name, tensor in source.state_dict().items()}
    assert "downsample_layers.0.0.weight" in renamed
    target = model_of(seed=2)
    assert fit(target, renamed).num_rebuilt == 0
    assert torch.equal(
        target.stages[2].blocks[1].mlp.fc1.weight, source.stages[2].blocks[1].mlp.fc1.weight
    )


def _authors_name(name):
    for timms, authors in (
        ("stem.", "downsample_layers.0."),
        (".blocks", ""),
        ("conv_dw", "dwconv"),
        ("mlp.fc", "pwconv"),
        ("head.norm", "norm"),
        ("head.fc", "head"),
    ):
        name = name.replace(timms, authors)
    if ".downsample." in name:
        _, stage, _, rest = name.split(".", 3)
        name = f"downsample_layers.{stage}.{rest}"
    return name


def test_half_precision_files_become_float32():
    source, target = model_of(seed=1), model_of(seed=2)
    fit(target, {name: tensor.bfloat16() for name, tensor in source.state_dict().items()})
    assert target.head.fc.weight.dtype == torch.float32
    torch.testing.assert_close(target.head.fc.weight, source.head.fc.weight, rtol=1e-2, atol=1e-3)


def test_wrong_architecture_names_tensors_and_the_one_that_fits():
    target = model_of(name="convnext_atto")
    before = copy_of(target)
    with pytest.raises(UserError) as caught:
        fit(target, copy_of(model_of(in_chans=3, num_labels=7)))
    message = str(caught.value)
    assert "init.path=w.pth does not fit model.name=convnext_atto" in message
    assert "27 missing (stages.0.blocks.1.gamma" in message
    assert "is (24,), not (40,)" in message
    assert "They fit model.name=test_convnext." in message
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.usefixtures("few_architectures")
def test_unexpected_tensors_are_never_skipped():
    tensors = {**copy_of(model_of()), "adapter.weight": torch.ones(2)}
    with pytest.raises(UserError, match=r"1 unexpected \(adapter.weight\)"):
        fit(model_of(), tensors)


@pytest.mark.usefixtures("few_architectures")
def test_a_missing_body_tensor_is_an_error_but_a_missing_head_norm_is_rebuilt():
    tensors = copy_of(model_of(seed=1))
    del tensors["head.norm.weight"], tensors["head.norm.bias"]
    assert fit(model_of(), tensors).rebuilt == ("head.norm.weight", "head.norm.bias")
    del tensors["stem.0.bias"]
    with pytest.raises(UserError, match=r"1 missing \(stem.0.bias\)"):
        fit(model_of(), tensors)


@pytest.mark.usefixtures("few_architectures")
def test_another_kind_of_network_is_explained():
    resnet = timm.create_model("test_resnet", num_classes=5)
    with pytest.raises(UserError, match=r"init.path=w.pth"):
        fit(model_of(), copy_of(resnet))


def test_nan_weights_are_refused():
    tensors = copy_of(model_of())
    tensors["stem.1.weight"][0] = torch.nan
    with pytest.raises(UserError, match=r"NaN or infinite weights in stem.1.weight"):
        fit(model_of(), tensors)
