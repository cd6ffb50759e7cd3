"""The training steps that the clipping benchmark compares, each from the same model and batch.

A step is zero_grad + forward + backward (+ clip + sum); no noise and no update, which are the same
for all. The Opacus variants run with its Conv2d defect corrected (`reference.py`), except those
whose name ends in `_as_released`, whose sums are wrong on ConvNeXt and which are there for their
time only.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from dpmed.privacy.clipping.clipper import make_clipper
from dpmed.privacy.clipping.depthwise import depthwise_weight_grads
from dpmed.privacy.clipping.reference import CorrectedGradSampleModule

Step = Callable[[], None]
MAX_GRAD_NORM = 1.0
BACKEND = "inductor"  # of torch.compile, in the variants that end in `_compiled`


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One model, size and machine setting; the same for every variant."""

    model: str
    pixels: int
    batch: int
    dtype: str
    device: str

    def build(self) -> nn.Module:
        """The model, seeded."""
        torch.manual_seed(0)
        model = timm.create_model(self.model, in_chans=1, num_classes=5)
        model = model.to(self.device, torch.float64 if self.dtype == "float64" else torch.float32)
        return model.to(memory_format=torch.channels_last) if self.device == "cuda" else model

    def data(self) -> tuple[Tensor, Tensor]:
        """Images [B, 1, pixels, pixels] and labels [B, 5]."""
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(self.batch, 1, self.pixels, self.pixels, generator=generator)
        labels = torch.rand(self.batch, 5, generator=generator) > 0.5
        dtype = torch.float64 if self.dtype == "float64" else torch.float32
        return images.to(self.device, dtype), labels.to(self.device, dtype)

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 autocast where asked."""
        if self.dtype == "bfloat16":
            return torch.autocast(self.device, dtype=torch.bfloat16)
        return nullcontext()


def losses_of(outputs: Tensor, labels: Tensor) -> Tensor:
    """One loss an image: mean binary cross-entropy over labels."""
    return F.binary_cross_entropy_with_logits(outputs.float(), labels, reduction="none").mean(1)


def plain(setting: Setting) -> Step:
    """Ordinary training."""
    return _ordinary(setting, setting.build())


def plain_compiled(setting: Setting) -> Step:
    """Ordinary training under torch.compile."""
    model = setting.build()
    model.compile(backend=BACKEND, dynamic=False)
    return _ordinary(setting, model)


def plain_fast_depthwise(setting: Setting) -> Step:
    """Ordinary training with this engine's depthwise weight gradient: the fair comparison."""
    model = setting.build()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.__class__ = _FastDepthwise
    return _ordinary(setting, model)


def onepass(setting: Setting) -> Step:
    """The one-pass engine."""
    return _with_clipper(setting, "onepass")


def onepass_compiled(setting: Setting) -> Step:
    """The one-pass engine under torch.compile."""
    return _with_clipper(setting, "onepass", compile_backend=BACKEND)


def onepass_automatic(setting: Setting) -> Step:
    """The one-pass engine with automatic clipping."""
    return _with_clipper(setting, "onepass", rule="automatic")


def opacus_hooks(setting: Setting) -> Step:
    """Opacus `hooks` with its own optimizer, corrected."""
    return _opacus(setting, CorrectedGradSampleModule(setting.build(), force_functorch=False))


def opacus_hooks_as_released(setting: Setting) -> Step:
    """Opacus `hooks` as released: wrong sums."""
    return _opacus(setting, GradSampleModule(setting.build(), loss_reduction="sum"))


def opacus_functorch(setting: Setting) -> Step:
    """Opacus `functorch`; the defect does not touch it."""
    return _opacus(setting, CorrectedGradSampleModule(setting.build(), force_functorch=True))


def opacus_ghost(setting: Setting) -> Step:
    """Opacus `ghost` (norms, then a second backward), corrected."""
    return _ghost(setting, _CorrectedGhost)


def opacus_ghost_as_released(setting: Setting) -> Step:
    """Opacus `ghost` as released: wrong norms, the bound is violated."""
    return _ghost(setting, GradSampleModuleFastGradientClipping)


def vmap_grad(setting: Setting) -> Step:
    """`vmap(grad)` of the whole model, in chunks that fit in memory, then clip and sum."""
    model = setting.build()
    images, labels = setting.data()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    num_entries = sum(p.numel() for p in parameters.values())
    chunk = max(1, min(setting.batch, 200_000_000 // num_entries))

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        with setting.autocast():
            outputs = functional_call(model, parameters, (image[None],))
        return losses_of(outputs, label[None]).sum()

    per_image = vmap(grad(loss), in_dims=(None, 0, 0), chunk_size=chunk)

    def step() -> None:
        grads = per_image(parameters, images, labels)
        norms_B = torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)
        factors_B = (MAX_GRAD_NORM / norms_B).clamp(max=1.0)
        for name, parameter in model.named_parameters():
            sums = torch.einsum("b,b...->...", factors_B, grads.pop(name))
            parameter.summed_grad = sums  # type: ignore[attr-defined]

    return step


VARIANTS: dict[str, Callable[[Setting], Step]] = {
    function.__name__: function
    for function in (
        plain,
        plain_compiled,
        plain_fast_depthwise,
        onepass,
        onepass_compiled,
        onepass_automatic,
        opacus_hooks,
        opacus_hooks_as_released,
        opacus_functorch,
        opacus_ghost,
        opacus_ghost_as_released,
        vmap_grad,
    )
}

DEFAULT_VARIANTS = (
    "plain",
    "plain_fast_depthwise",
    "onepass",
    "onepass_compiled",
    "opacus_hooks",
    "opacus_functorch",
    "opacus_ghost",
    "vmap_grad",
)


def _ordinary(setting: Setting, model: nn.Module) -> Step:
    images, labels = setting.data()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with setting.autocast():
            outputs = model(images)
        losses_of(outputs, labels).sum().backward()

    return step


def _with_clipper(
    setting: Setting, engine: Any, rule: Any = "flat", compile_backend: str | None = None
) -> Step:
    model = setting.build()
    images, labels = setting.data()
    clipper = make_clipper(
        model,
        engine=engine,
        rule=rule,
        max_grad_norm=MAX_GRAD_NORM,
        views_per_unit=1,
        dtype=torch.bfloat16 if setting.dtype == "bfloat16" else None,
        compile_backend=compile_backend,
    )
    weights = torch.ones(setting.batch, device=setting.device)
    parameters: list[Any] = list(model.parameters())

    def step() -> None:
        for parameter in parameters:
            parameter.summed_grad = None
        with setting.autocast():
            outputs = clipper.module(images)
        clipper.backward(losses_of(outputs, labels), weights)

    return step


def _opacus(setting: Setting, module: GradSampleModule) -> Step:
    images, labels = setting.data()
    optimizer = DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=0.1),
        noise_multiplier=0.0,
        max_grad_norm=MAX_GRAD_NORM,
        expected_batch_size=setting.batch,
        loss_reduction="sum",
    )

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with setting.autocast():
            outputs = module(images)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            losses_of(outputs, labels).sum().backward()
        optimizer.clip_and_accumulate()

    return step


class _OneLossAnImage(nn.Module):
    reduction = "sum"

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return losses_of(outputs, labels)


class _CorrectedGhost(GradSampleModuleFastGradientClipping):
    GRAD_SAMPLERS = copy.copy(CorrectedGradSampleModule.GRAD_SAMPLERS)


def _ghost(setting: Setting, kind: type[GradSampleModuleFastGradientClipping]) -> Step:
    images, labels = setting.data()
    module = kind(setting.build(), loss_reduction="sum", max_grad_norm=MAX_GRAD_NORM)
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(module.parameters(), lr=0.1),
        noise_multiplier=0.0,
        max_grad_norm=MAX_GRAD_NORM,
        expected_batch_size=setting.batch,
        loss_reduction="sum",
    )
    criterion = DPLossFastGradientClipping(module, optimizer, _OneLossAnImage(), "sum")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with setting.autocast():
            outputs = module(images)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            criterion(outputs, labels).backward()
        optimizer.accumulate()

    return step


class _FastDepthwise(nn.Conv2d):
    """A depthwise convolution whose weight gradient is this engine's, summed over the batch."""

    def forward(self, input: Tensor) -> Tensor:
        return _FastDepthwiseFunction.apply(input, self.weight, self.bias, self)


class _FastDepthwiseFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, layer: nn.Conv2d) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.layer = layer
        return nn.Conv2d._conv_forward(layer, input, weight, bias)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        layer = ctx.layer
        settings = (layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups)
        grads_input = torch.ops.aten.convolution_backward(
            grads, input, weight.to(input.dtype), None, *settings, [True, False, False]
        )[0]
        grads_weight = depthwise_weight_grads(
            input,
            grads,
            kernel_size=layer.kernel_size,
            padding=layer.padding,
            dilation=layer.dilation,
        ).sum(0)
        return grads_input, grads_weight.unsqueeze(1), grads.sum((0, 2, 3)), None
