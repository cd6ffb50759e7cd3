"""The truth that the clipping tests compare with: a float64 loop over single units."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpmed.privacy.clipping.clipper import Clipper, make_clipper
from dpmed.privacy.optimizer import SecretNoiseOptimizer
from dpmed.privacy.randomness import SecretStream


@pytest.fixture(autouse=True)
def _own_seed_and_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def clip(model: nn.Module, **kwargs: Any) -> Clipper:
    settings = {"engine": "onepass", "rule": "flat", "max_grad_norm": 1.0, "views_per_unit": 1}
    return make_clipper(model, **{**settings, **kwargs})


def losses_of(clipper: Clipper, images: Tensor) -> Tensor:
    return clipper.module(images).square().mean(1)


def private(
    optimizer: torch.optim.Optimizer,
    clipper: Clipper,
    *,
    noise_multiplier: float,
    expected_batch_size: int,
) -> SecretNoiseOptimizer:
    """Noise of one key, so that two runs add the same."""
    return SecretNoiseOptimizer(
        optimizer,
        noise_multiplier=noise_multiplier,
        max_grad_norm=clipper.sensitivity,
        expected_batch_size=expected_batch_size,
        noise=SecretStream.from_key(bytes(32)),
    )


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Clipped sums by parameter name, and every unit's gradient norm, in float64."""

    sums: dict[str, Tensor]
    norms_B: Tensor


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Relative errors of a clipper against the loop."""

    clipper: Clipper
    errors: dict[str, float]
    total_error: float
    norm_error: float

    def assert_below(self, tolerance: float) -> None:
        worst = max(self.errors, key=lambda name: self.errors[name])
        assert self.errors[worst] < tolerance, (worst, self.errors[worst])
        assert self.total_error < tolerance, self.total_error
        assert self.norm_error < tolerance, self.norm_error


class Exactness:
    """Compares a clipper with the loop on one model, images and loss."""

    def randomise(self, model: nn.Module) -> nn.Module:
        """Random gamma, biases and head: their initial values hide every error inside a block."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn_like(parameter)
                if "gamma" in name or "head" in name or "grn" in name:
                    parameter.copy_(noise)
                elif parameter.dim() == 1:
                    parameter.add_(0.1 * noise)
        return model

    def losses(self, outputs: Tensor) -> Tensor:
        """One loss a row, of any output."""
        return nn.functional.softplus(outputs.flatten(1)).square().mean(1)

    def loop(
        self,
        model: nn.Module,
        images: Tensor,
        weights_V: Tensor,
        views: int,
        coefficient: Callable[[float], float],
    ) -> Loop:
        """Σ_b c(n_b) Σ_k w_bk ∇loss_bk with plain autograd, one unit at a time."""
        model = copy.deepcopy(model).double()
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
        norms = []
        for start in range(0, len(images), views):
            rows = slice(start, start + views)
            loss = (self.losses(model(images[rows].double())) * weights_V[rows].double()).sum()
            grads = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
            norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
            norms.append(norm)
            for name, grad in zip(parameters, grads, strict=True):
                sums[name] += coefficient(float(norm)) * grad
        return Loop(sums=sums, norms_B=torch.stack(norms))

    def compare(
        self,
        model: nn.Module,
        images: Tensor,
        *,
        engine: str = "onepass",
        rule: str = "flat",
        max_grad_norm: float = 1.0,
        views: int = 1,
        num_padding_units: int = 0,
        compile_backend: str | None = None,
    ) -> Comparison:
        """Clip one batch and compare every parameter's sum and every unit's norm."""
        weights_V = torch.full((len(images),), 1.0 / views)
        if num_padding_units:
            weights_V[-num_padding_units * views :] = 0.0
        bound = max_grad_norm
        coefficients = {
            "flat": lambda n: min(1.0, bound / n) if n else 1.0,
            "automatic": lambda n: bound / (n + 0.01),
        }
        expected = self.loop(model, images, weights_V, views, coefficients[rule])
        clipper = make_clipper(
            model,
            engine=engine,
            rule=rule,
            max_grad_norm=max_grad_norm,
            views_per_unit=views,
            compile_backend=compile_backend,
        )
        stats = clipper.backward(self.losses(clipper.module(images)), weights_V)
        assert stats.num_nonfinite == 0
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert all(p.grad is None for p in parameters.values())
        actual = {name: p.summed_grad.double() for name, p in parameters.items()}
        return Comparison(
            clipper=clipper,
            errors={name: _relative(actual[name], total) for name, total in expected.sums.items()},
            total_error=_relative(_flat(actual), _flat(expected.sums)),
            norm_error=_relative(stats.norms_B, expected.norms_B),
        )


def _relative(actual: Tensor, expected: Tensor) -> float:
    size = float(expected.norm())
    return float((actual - expected).norm()) / (size or 1.0)


def _flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


@pytest.fixture
def exactness() -> Exactness:
    """See `Exactness`."""
    return Exactness()
