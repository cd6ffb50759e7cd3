"""Defects of the installed Opacus that concern clipping, ten lines each, and their absence here.

A failure of a test marked `opacus_defect` is good news: Opacus has mended it, and docs/clipping.md
and METHODS need a new line.
"""

from __future__ import annotations

import pytest
import timm
import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from dpmed.privacy.clipping.clipper import make_clipper

pytestmark = [
    pytest.mark.opacus_defect,
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),
]


def convnext(**kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    options = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), **kwargs}
    return timm.create_model("convnext_atto", in_chans=1, num_classes=3, **options).double()


def images(num_images: int = 2, size: int = 64) -> Tensor:
    return torch.randn(num_images, 1, size, size, dtype=torch.float64)


def our_sum(model: nn.Module, batch: Tensor, max_grad_norm: float) -> list[Tensor]:
    clipper = make_clipper(
        model, engine="onepass", rule="flat", max_grad_norm=max_grad_norm, views_per_unit=1
    )
    clipper.backward(clipper.module(batch).square().sum(1), torch.ones(len(batch)))
    return [p.summed_grad for p in model.parameters()]


def test_strided_conv2d_gradients_are_wrong_unless_the_input_is_contiguous() -> None:
    module = GradSampleModule(conv := nn.Conv2d(4, 3, 2, stride=2).double(), loss_reduction="sum")
    batch = torch.randn(2, 4, 6, 6, dtype=torch.float64).to(memory_format=torch.channels_last)
    module(batch).square().sum().backward()
    wrong = (conv.weight.grad_sample.sum(0) - conv.weight.grad).norm() / conv.weight.grad.norm()
    assert wrong > 0.1
    ours = nn.Conv2d(4, 3, 2, stride=2).double()
    ours.load_state_dict(conv.state_dict())
    clipper = make_clipper(ours, engine="onepass", rule="flat", max_grad_norm=1e9, views_per_unit=1)
    clipper.backward(clipper.module(batch).square().flatten(1).sum(1), torch.ones(2))
    torch.testing.assert_close(ours.weight.summed_grad, conv.weight.grad)


def test_every_downsampling_of_a_convnext_meets_that() -> None:
    model = convnext(ls_init_value=None)
    module = GradSampleModule(model, loss_reduction="sum")
    module(images()).square().sum().backward()
    for stage in model.stages[1:]:
        weight = stage.downsample[1].weight
        assert (weight.grad_sample.sum(0) - weight.grad).norm() > 0.05 * weight.grad.norm()


def test_ghost_clipping_violates_its_bound_there() -> None:
    torch.manual_seed(0)
    conv, bound = nn.Conv2d(4, 3, 2, stride=2, bias=False).double(), 1.0
    module = GradSampleModuleFastGradientClipping(conv, max_grad_norm=bound, loss_reduction="sum")
    batch = torch.randn(1, 4, 6, 6, dtype=torch.float64).to(memory_format=torch.channels_last)
    module(batch).square().sum().backward()
    contribution = module.get_clipping_coef() * conv.weight.grad.norm()
    assert contribution > 1.5 * bound


def test_a_block_with_layer_scale_cannot_drop_paths() -> None:
    model = convnext(drop_path_rate=0.5)
    module = GradSampleModule(model, loss_reduction="sum")
    with pytest.raises(RuntimeError, match="random"):
        module(images()).square().sum().backward()
    assert all(torch.isfinite(g).all() for g in our_sum(convnext(drop_path_rate=0.5), images(), 1))


def test_depthwise_gradients_go_through_a_dense_tensor() -> None:
    conv = nn.Conv2d(64, 64, 7, padding=3, groups=64)
    module = GradSampleModule(conv, loss_reduction="sum")
    with torch.profiler.profile(profile_memory=True) as profile:
        module(torch.randn(1, 64, 8, 8)).sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    # [n, C, 49·C] instead of [n, C, 49].
    assert largest >= 64 * 49 * 64 * 4


def test_ghost_clipping_has_no_norm_for_linear_inputs_with_height_and_width() -> None:
    module = GradSampleModuleFastGradientClipping(nn.Linear(3, 2), loss_reduction="sum")
    module(torch.randn(2, 4, 4, 3)).sum().backward()
    with pytest.raises(AttributeError, match="_norm_sample"):
        module.get_norm_sample()


def test_one_infinite_sample_poisons_every_parameter() -> None:
    module = GradSampleModule(layer := nn.Linear(2, 1), loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(layer.parameters(), lr=0.1),
        noise_multiplier=0.0, max_grad_norm=1.0, expected_batch_size=2, loss_reduction="sum",
    )  # fmt: skip
    batch = torch.tensor([[1.0, 2.0], [float("inf"), 1.0]])
    module(batch).sum().backward()
    optimizer.step()
    assert torch.isnan(layer.weight).any()
    ours = make_clipper(
        nn.Linear(2, 1), engine="onepass", rule="flat", max_grad_norm=1.0, views_per_unit=1
    )
    stats = ours.backward(ours.module(batch).sum(1), torch.ones(2))
    assert stats.num_nonfinite == 1
    assert all(torch.isfinite(p.summed_grad).all() for p in ours.module.parameters())
