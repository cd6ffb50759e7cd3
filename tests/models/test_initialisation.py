"""Initialisation: scratch, a file, and timm's tags through a hub cache made by the test."""

from __future__ import annotations

import logging
import time

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from dpmed.errors import UserError
from dpmed.models import pretrained
from dpmed.models.backbone import build_model
from dpmed.models.initialisation import check_available, initialise
from dpmed.models.provenance import Provenance, SeenDataSet, refuse_if_seen
from dpmed.models.weights import save_weights, sha256_of

LABELS = ("a", "b", "c", "d", "e")


def model_of(seed=0, **changes):
    settings = {"name": "test_convnext", "num_labels": 5, "image_size": 64, "seed": seed}
    return build_model(**{**settings, **changes})


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache folder of the hub's client, without network."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def put_into_cache(cache, repository, tensors):
    """Lays a file out as the hub's client does, so that its own code finds it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    save_file(tensors, snapshot / "model.safetensors")
    return snapshot / "model.safetensors"


@pytest.mark.parametrize("init", ["imagenet", "dinov3"])
def test_default_tags_exist_in_timm_and_name_their_data(init):
    for name, tag in pretrained.DEFAULT_TAGS[init].items():
        weights = pretrained.find_pretrained(name=name, init=init)
        assert f"{name}.{tag}" in timm.list_pretrained()
        assert weights.licence
        assert weights.data_sets
        assert weights.repository.startswith("timm/")


def test_every_architecture_with_imagenet_weights_has_a_default():
    published = {full.split(".")[0] for full in timm.list_pretrained(["convnext*"])}
    assert published == {n for n in pretrained.DEFAULT_TAGS["imagenet"] if "test_" not in n}


def test_scratch_has_seen_nothing():
    model = model_of()
    history = initialise(model, init="scratch")
    assert (history.source, history.data_sets, history.num_loaded) == ("scratch", (), 0)
    assert history.num_rebuilt == sum(p.numel() for p in model.parameters())


def test_timm_weights_from_the_cache_equal_timms_own_loader(hub_cache):
    """The same file through dpmed and through timm's loader gives the same embedding."""
    published = timm.create_model("test_convnext")  # three channels, 1000 classes
    path = put_into_cache(hub_cache, "timm/test_convnext.r160_in1k", published.state_dict())
    check_available(name="test_convnext", init="imagenet")
    model = model_of(seed=3)
    history = initialise(model, init="imagenet")
    by_timm = timm.create_model(
        "test_convnext",
        pretrained=True,
        num_classes=5,
        in_chans=1,
        pretrained_cfg_overlay={"file": str(path)},
    )
    for name, tensor in by_timm.state_dict().items():
        if not name.startswith("head.fc"):
            assert torch.equal(model.state_dict()[name], tensor), name
    assert (history.source, history.tag) == ("timm", "r160_in1k")
    assert history.licence == "apache-2.0"
    assert history.url == "https://huggingface.co/timm/test_convnext.r160_in1k"
    assert [seen.name for seen in history.data_sets] == ["ImageNet-1k"]
    assert history.sha256 == sha256_of(path)
    assert history.stem == "summed 3 -> 1 channels"
    assert history.rebuilt == ("head.fc.weight", "head.fc.bias")


def test_dinov3_weights_come_without_a_classifier(hub_cache):
    headless = timm.create_model("convnext_tiny", num_classes=0).state_dict()
    put_into_cache(hub_cache, "timm/convnext_tiny.dinov3_lvd1689m", headless)
    history = initialise(model_of(name="convnext_tiny"), init="dinov3")
    assert history.licence == "dinov3-license"
    assert [seen.name for seen in history.data_sets] == ["LVD-1689M"]
    assert history.rebuilt == ("head.fc.weight", "head.fc.bias")


def test_without_network_the_check_fails_at_once_and_says_what_to_do(hub_cache):
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        check_available(name="convnext_tiny", init="imagenet")
    assert time.monotonic() - started < 2 * pretrained.PROBE_TIMEOUT_SECONDS
    message = str(caught.value)
    assert str(hub_cache) in message
    for advice in (
        "hf download timm/convnext_tiny.fb_in22k_ft_in1k model.safetensors",
        "HF_HOME",
        "init=file init.path=",
        "init=scratch",
    ):
        assert advice in message
    with pytest.raises(UserError, match="hf download"):
        initialise(model_of(name="convnext_atto"), init="imagenet")


def test_reachable_hub_passes_the_check_without_a_download(hub_cache, monkeypatch):
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "get_hf_file_metadata", lambda url, timeout: asked.append((url, timeout))
    )
    check_available(name="convnext_tiny", init="dinov3")
    [(url, timeout)] = asked
    assert url.endswith("timm/convnext_tiny.dinov3_lvd1689m/resolve/main/model.safetensors")
    assert timeout == pretrained.PROBE_TIMEOUT_SECONDS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "imagenett"}, r"init=imagenett.*Did you mean 'imagenet'"),
        ({"init": "imagenett", "tag": "fb_in1k"}, r"init=imagenett.*Did you mean 'imagenet'"),
        (
            {"init": "dinov3", "name": "convnext_atto"},
            r"timm has them for convnext_tiny, convnext_",
        ),
        ({"init": "imagenet", "tag": "fb_in22"}, r"init.tag=fb_in22 .*Did you mean 'fb_in22k'"),
        ({"init": "file"}, r"init.path=WEIGHTS"),
        ({"init": "file", "path": "absent.safetensors"}, r"absent.safetensors is not there"),
        ({"init": "scratch", "name": "convnext_tinny"}, r"Did you mean 'convnext_tiny'"),
    ],
)
def test_bad_settings_are_explained_before_any_work(settings, message):
    with pytest.raises(UserError, match=message):
        check_available(**{"name": "convnext_tiny", **settings})


def saved_file(path, *, data_set, labels=LABELS, **changes):
    model = model_of(seed=1, **changes)
    history = initialise(model, init="scratch").after_training_on(data_set, labels=labels)
    save_weights(model, path, history)
    return model


def test_file_brings_its_history_and_its_head(tmp_path):
    path = tmp_path / "w.safetensors"
    public = SeenDataSet(name="public_site", data_id="42")
    source = saved_file(path, data_set=public)
    check_available(name="test_convnext", init="file", path=path, sha256=sha256_of(path))
    model = model_of(seed=2)
    history = initialise(model, init="file", path=path, sha256=sha256_of(path), labels=LABELS)
    assert (history.source, history.url, history.is_declared) == ("file", "w.safetensors", True)
    assert history.data_sets == (public,)
    assert history.num_rebuilt == 0
    assert torch.equal(model.head.fc.weight, source.head.fc.weight)
    with pytest.raises(UserError, match="public_site"):
        refuse_if_seen(history, data_id="42")


def test_head_for_other_labels_is_rebuilt_though_their_number_agrees(tmp_path):
    path = tmp_path / "w.safetensors"
    saved_file(path, data_set=SeenDataSet(name="public"))
    history = initialise(model_of(seed=2), init="file", path=path, labels=tuple(reversed(LABELS)))
    assert history.rebuilt == ("head.fc.weight", "head.fc.bias")


def test_history_accumulates_over_two_trainings(tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    saved_file(first, data_set=SeenDataSet(name="one"))
    model = model_of(seed=2)
    history = initialise(model, init="file", path=first, labels=LABELS)
    save_weights(model, second, history.after_training_on(SeenDataSet(name="two"), labels=LABELS))
    again = initialise(model_of(seed=3), init="file", path=second, labels=LABELS)
    assert [seen.name for seen in again.data_sets] == ["one", "two"]


def test_undeclared_file_is_marked_and_said(tmp_path, caplog):
    path = tmp_path / "w.pth"
    torch.save(model_of(seed=1).state_dict(), path)
    with caplog.at_level(logging.WARNING):
        history = initialise(model_of(seed=2), init="file", path=path)
    assert not history.is_declared
    assert "does not say which data" in caplog.text


def test_wrong_sum_is_caught_by_the_early_check_and_by_loading(tmp_path):
    path = tmp_path / "w.safetensors"
    saved_file(path, data_set=SeenDataSet(name="public"))
    with pytest.raises(UserError, match="sha256"):
        check_available(name="test_convnext", init="file", path=path, sha256="ab" * 32)
    with pytest.raises(UserError, match="sha256"):
        initialise(model_of(), init="file", path=path, sha256="ab" * 32)


def test_provenance_of_a_pretrained_start_reaches_the_saved_file(tmp_path, hub_cache):
    published = timm.create_model("test_convnext").state_dict()
    put_into_cache(hub_cache, "timm/test_convnext.r160_in1k", published)
    model = model_of()
    history = initialise(model, init="imagenet")
    assert isinstance(history, Provenance)
    path = tmp_path / "w.safetensors"
    save_weights(model, path, history)
    again = initialise(model_of(), init="file", path=path)
    assert [seen.name for seen in again.data_sets] == ["ImageNet-1k"]
    assert again.licence == "apache-2.0"
