"""The compiled form of the one-pass engine: the same numbers, one graph for each kind of batch."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn
from torch._dynamo.utils import counters

from dpmed.errors import UserError
from dpmed.privacy.clipping import convolution
from dpmed.privacy.startup import prove_clipping
from tests.privacy.clipping.conftest import clip, losses_of, private

# Traces and partitions as inductor does, but runs the graphs without generating code.
TRACE_ONLY = "aot_eager"

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler"
)


@pytest.fixture(autouse=True)
def _no_graphs_of_others() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Block(nn.Module):
    """As little as must be compiled to show a ConvNeXt block: patches, block, head."""

    def __init__(self, drop_path: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 4, stride=4)
        self.block = ConvNeXtBlock(8, ls_init_value=0.5, drop_path=drop_path)
        self.head = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.block(self.stem(images)).mean((2, 3)))


def weights_after_training(model: nn.Module, num_steps: int, **kwargs: Any) -> dict[str, Tensor]:
    model = copy.deepcopy(model)
    clipper = clip(model, **kwargs)
    optimizer = private(
        torch.optim.SGD(model.parameters(), lr=0.1),
        clipper,
        noise_multiplier=0.1,
        expected_batch_size=3,
    )
    torch.manual_seed(1)
    for images in torch.randn(num_steps, 4, 1, 16, 16, dtype=next(model.parameters()).dtype):
        clipper.backward(losses_of(clipper, images), torch.tensor([1.0, 1.0, 1.0, 0.0]))
        optimizer.step()
        optimizer.zero_grad()
    return {name: p.detach() for name, p in model.named_parameters()}


# -- the same numbers ----------------------------------------------------------------------------


@needs_compiler
def test_equals_the_loop_with_inductor(exactness: Any) -> None:
    model = exactness.randomise(Block()).double()
    images = torch.randn(6, 1, 16, 16, dtype=torch.float64)
    comparison = exactness.compare(
        model, images, views=2, num_padding_units=1, compile_backend="inductor"
    )
    comparison.assert_below(1e-12)


def test_equals_the_loop_on_a_second_version_model_in_float32(exactness: Any) -> None:
    model = timm.create_model(
        "convnextv2_atto", in_chans=1, num_classes=3, depths=(1, 0, 0, 0), dims=(16, 16, 16, 16)
    )
    images = torch.randn(4, 1, 32, 32)
    comparison = exactness.compare(exactness.randomise(model), images, compile_backend=TRACE_ONLY)
    comparison.assert_below(5e-6)


def test_equals_the_loop_and_the_eager_form_with_maps_of_one_pixel(exactness: Any) -> None:
    # Blocks in the last stage only, which has one pixel left of 32.
    model = timm.create_model("test_convnext", in_chans=1, num_classes=3, depths=(0, 0, 0, 1))
    model = exactness.randomise(model).double()
    images = torch.randn(4, 1, 32, 32, dtype=torch.float64)
    assert model.forward_features(images).shape[2:] == (1, 1)
    sums = []
    for backend in (None, TRACE_ONLY):
        ours = copy.deepcopy(model)
        exactness.compare(ours, images, views=2, compile_backend=backend).assert_below(1e-12)
        sums.append(torch.cat([p.summed_grad.flatten() for p in ours.parameters()]))
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-9, atol=1e-12)


class OtherRules(nn.Module):
    """Rules beside a ConvNeXt's; a shared layer; a frozen one; a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.shared = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 2)
        self.head.bias.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(0.3))

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.tanh(self.norm(self.conv(images - self.mean)))
        rows = self.shared(self.shared(maps.flatten(2).transpose(1, 2)))
        return self.head(self.frozen(rows).mean(1))


def test_equals_the_loop_on_other_layers(exactness: Any) -> None:
    model = OtherRules().double()
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    exactness.compare(model, images, views=2, compile_backend=TRACE_ONLY).assert_below(1e-12)
    assert model.frozen.weight.grad is None


@pytest.mark.parametrize("backend", [TRACE_ONLY, pytest.param("inductor", marks=needs_compiler)])
def test_training_ends_in_the_same_weights_and_drops_the_same(backend: str) -> None:
    if backend == "inductor":
        model = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.Dropout(0.5)).double()
    else:
        model = Block(drop_path=0.5).double()
    expected = weights_after_training(model, num_steps=3)
    counters.clear()
    actual = weights_after_training(model, num_steps=3, compile_backend=backend)
    assert counters["stats"]["unique_graphs"] == 1
    for name, weight in expected.items():
        torch.testing.assert_close(actual[name], weight, rtol=1e-9, atol=1e-12)


def test_bf16_stays_near_the_eager_form() -> None:
    model = Block()
    images = torch.randn(4, 1, 16, 16)
    sums = []
    for backend in (None, TRACE_ONLY):
        ours = copy.deepcopy(model)
        clipper = clip(ours, dtype=torch.bfloat16, compile_backend=backend)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses_V = losses_of(clipper, images)
        clipper.backward(losses_V.float(), torch.ones(4))
        sums.append(torch.cat([p.summed_grad.flatten() for p in ours.parameters()]))
    assert (sums[1] - sums[0]).norm() <= 1e-2 * sums[0].norm()


def test_autocast_may_come_and_go() -> None:
    model, images = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), torch.randn(4, 8)
    sums = []
    for backend in (None, TRACE_ONLY):
        ours = copy.deepcopy(model)
        clipper = clip(ours, dtype=torch.bfloat16, compile_backend=backend)
        for is_on in (False, True, False):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_on):
                losses_V = losses_of(clipper, images)
            clipper.backward(losses_V.float(), torch.ones(4))
            sums.append(torch.cat([p.summed_grad.flatten() for p in ours.parameters()]))
            for parameter in ours.parameters():
                parameter.summed_grad = None
    for eager, compiled, tolerance in zip(sums[:3], sums[3:], (1e-6, 1e-2, 1e-6), strict=True):
        assert (compiled - eager).norm() <= tolerance * eager.norm()
    assert (sums[4] - sums[3]).norm() > 1e-3 * sums[3].norm()


# -- one graph for each kind of batch ------------------------------------------------------------


def test_compiles_once_for_all_batches_and_again_for_evaluation_mode() -> None:
    model = Block()
    clipper = clip(model, compile_backend=TRACE_ONLY)
    counters.clear()
    for _ in range(3):
        clipper.backward(losses_of(clipper, torch.randn(3, 1, 16, 16)), torch.ones(3))
    assert counters["stats"]["unique_graphs"] == 1
    model.eval()
    clipper.backward(losses_of(clipper, torch.randn(3, 1, 16, 16)), torch.ones(3))
    assert counters["stats"]["unique_graphs"] == 2


def _drop_more(model: nn.Module) -> None:
    model.block.drop_path.drop_prob = 0.9


def _other_activation(model: nn.Module) -> None:
    model.block.mlp.act = nn.ReLU()


def _hook(model: nn.Module) -> None:
    model.head.register_forward_hook(lambda module, inputs, output: output.sin())


@pytest.mark.parametrize("change", [_drop_more, _other_activation, _hook])
def test_no_graph_outlives_a_change_of_the_model(change: Callable[[nn.Module], None]) -> None:
    model = Block(drop_path=0.5)
    images = torch.randn(4, 1, 16, 16)
    sums = []
    for backend in (TRACE_ONLY, None):
        ours = copy.deepcopy(model).double()
        clipper = clip(ours, compile_backend=backend)
        losses_of(clipper, images.double())
        change(ours)
        torch.manual_seed(1)
        clipper.backward(losses_of(clipper, images.double()), torch.ones(4))
        sums.append(torch.cat([p.summed_grad.flatten() for p in ours.parameters()]))
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-9, atol=1e-12)


def test_freezing_after_the_graph_was_made_is_refused_as_without_it() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    clipper = clip(model, compile_backend=TRACE_ONLY)
    images = torch.randn(2, 3)
    clipper.backward(losses_of(clipper, images), torch.ones(2))
    model[0].requires_grad_(False)
    with pytest.raises(RuntimeError, match="frozen, unfrozen"):
        clipper.backward(losses_of(clipper, images), torch.ones(2))


def test_the_model_is_given_back_as_it_was() -> None:
    model = Block()
    parameters = list(model.parameters())
    clipper = clip(model, compile_backend=TRACE_ONLY)
    anchor = clipper.module.tape.anchor
    clipper.backward(losses_of(clipper, torch.randn(2, 1, 16, 16)), torch.ones(2))
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert clipper.module.tape.anchor is anchor
    assert all(parameter.grad is None for parameter in parameters)
    with torch.no_grad():
        clipper.module(torch.randn(5, 1, 16, 16))


def test_the_start_up_proof_runs_on_the_compiled_form_and_sees_a_wrong_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Block()
    clipper = clip(model, compile_backend=TRACE_ONLY)
    batch = {"inputs_V": torch.rand(4, 1, 16, 16), "targets_V": torch.eye(2)[[0, 1, 1, 0]]}

    def losses(images: Tensor, targets: Tensor) -> Tensor:
        return (clipper.module(images) - targets).square().mean(1)

    assert prove_clipping(clipper, losses=losses, **batch).worst_relative_error < 1e-5
    rule = convolution.depthwise_weight_grads
    monkeypatch.setattr(convolution, "depthwise_weight_grads", lambda *a, **k: 2.0 * rule(*a, **k))
    clipper = clip(model, compile_backend=TRACE_ONLY)
    with pytest.raises(UserError, match=r"Start-up check failed: in module .*conv_dw"):
        prove_clipping(clipper, losses=losses, **batch)


def test_a_recording_model_compiles_for_evaluation() -> None:
    model = Block().eval()
    images = torch.randn(2, 1, 16, 16)
    expected = model(images)
    clip(model)
    counters.clear()
    with torch.inference_mode():
        actual = torch.compile(model, backend="eager", fullgraph=True)(images)
    torch.testing.assert_close(actual, expected)
    assert counters["stats"]["unique_graphs"] == 1


# -- misuse --------------------------------------------------------------------------------------


def test_a_backward_outside_the_clipper_is_refused() -> None:
    clipper = clip(Block(), compile_backend=TRACE_ONLY)
    with pytest.raises(RuntimeError, match=r"Call clipper\.backward"):
        losses_of(clipper, torch.randn(2, 1, 16, 16)).sum().backward()


def test_what_has_no_compiled_form_is_named_with_the_setting() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.PReLU())
    with pytest.raises(UserError, match=r"generic rule: 1\..*performance.compile=false"):
        clip(model, compile_backend=TRACE_ONLY)
    with pytest.raises(UserError, match=r"compile=true has no form for .*=opacus_hooks"):
        clip(nn.Linear(3, 2), engine="opacus_hooks", compile_backend=TRACE_ONLY)


def test_a_missing_compiler_is_named_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*args: Any, **kwargs: Any) -> None:
        raise FileNotFoundError("g++")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", no_compiler)
    clipper = clip(nn.Linear(3, 2), compile_backend="inductor")
    with pytest.raises(UserError, match=r"g\+\+.*\n.*performance.compile=false"):
        clipper.module(torch.randn(2, 3))
