"""What the clipper promises beside exactness: the bound, bad units, misuse, life in a trainer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import lightning
import pytest
import timm
import torch
from opacus.grad_sample.gsm_base import AbstractGradSampleModule
from torch import Tensor, nn

from dpmed.errors import UserError
from dpmed.privacy.clipping.clipper import CLIPPING_ENGINES, Clipper
from tests.privacy.clipping.conftest import clip, losses_of, private


def small_convnext(**kwargs: Any) -> nn.Module:
    options = {"depths": (1, 1, 1, 1), "ls_init_value": 0.5, **kwargs}
    return timm.create_model("convnext_atto", in_chans=1, num_classes=5, **options)


def summed_grads(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.summed_grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def clear(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.summed_grad = None


# -- bad units and empty batches -----------------------------------------------------------------


@pytest.mark.parametrize("engine", CLIPPING_ENGINES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_unit_contributes_nothing_and_is_counted(engine: str, bad: float) -> None:
    model = small_convnext(ls_init_value=None) if engine != "onepass" else small_convnext()
    clipper = clip(model, engine=engine, views_per_unit=2)
    images, weights_V = torch.randn(6, 1, 64, 64), torch.full((6,), 0.5)
    clipper.backward(losses_of(clipper, images[[0, 1, 4, 5]]), weights_V[:4])
    expected = summed_grads(model)
    clear(model)
    images[3, 0, 5, 5] = bad
    stats = clipper.backward(losses_of(clipper, images), weights_V)
    assert stats.num_nonfinite == 1
    for name, total in summed_grads(model).items():
        torch.testing.assert_close(total, expected[name], rtol=1e-4, atol=1e-6)


def test_only_the_gradient_is_non_finite() -> None:
    model = nn.Linear(3, 1)
    clipper = clip(model)
    inputs = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    outputs = clipper.module(inputs)[:, 0]
    losses_V = torch.stack([torch.sqrt(outputs[0] - outputs[0].detach()), outputs[1]])
    stats = clipper.backward(losses_V, torch.ones(2))
    assert stats.num_nonfinite == 1
    assert torch.isfinite(model.weight.summed_grad).all()
    assert model.weight.summed_grad.norm() > 0


def test_padding_and_empty_batches_add_nothing() -> None:
    model = small_convnext()
    clipper = clip(model)
    images = torch.randn(4, 1, 64, 64)
    stats = clipper.backward(losses_of(clipper, images), torch.zeros(4))
    assert stats.num_nonfinite == 0
    assert all(not total.any() for total in summed_grads(model).values())
    stats = clipper.backward(losses_of(clipper, images[:0]), torch.zeros(0))
    assert stats.norms_B.shape == (0,)
    assert all(not total.any() for total in summed_grads(model).values())


def test_physical_batches_add_up() -> None:
    model = small_convnext().double()
    clipper = clip(model)
    images = torch.randn(6, 1, 64, 64, dtype=torch.float64)
    clipper.backward(losses_of(clipper, images), torch.ones(6))
    whole = summed_grads(model)
    clear(model)
    for part in images.split(2):
        clipper.backward(losses_of(clipper, part), torch.ones(2))
    for name, total in summed_grads(model).items():
        torch.testing.assert_close(total, whole[name], rtol=1e-11, atol=1e-13)


# -- the bound -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["flat", "automatic"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_no_unit_exceeds_the_sensitivity(rule: str, precision: str) -> None:
    model = small_convnext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    clipper = clip(model, rule=rule, max_grad_norm=0.3, dtype=dtype)
    images = torch.randn(4, 1, 64, 64)
    for unit in range(4):
        weights_V = torch.zeros(4)
        weights_V[unit] = 1.0
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            losses_V = losses_of(clipper, images)
        stats = clipper.backward(losses_V.float(), weights_V)
        assert stats.norms_B[unit] > 0.3
        grads = summed_grads(model).values()
        contribution = torch.stack([g.double().norm() for g in grads]).norm()
        assert 0.9 * 0.3 < contribution <= clipper.sensitivity
        clear(model)


class OverTokens(nn.Module):
    """Two layers over 49 positions: records in Gram form."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)).mean(1))


@pytest.mark.parametrize("shape", [(4,), (49, 16)])
def test_in_bf16_one_more_unit_moves_the_sum_by_no_more_than_the_sensitivity(
    shape: tuple[int, ...],
) -> None:
    # Few parameters, so that roundings do not average out; many units, whose sum rounds coarsely.
    torch.manual_seed(0)
    model = nn.Linear(4, 2) if len(shape) == 1 else OverTokens()
    clipper = clip(model, max_grad_norm=0.01, dtype=torch.bfloat16)
    images = 3 * torch.randn(24, *shape)

    def total(weights_V: Tensor) -> Tensor:
        clear(model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses_V = losses_of(clipper, images)
        stats = clipper.backward(losses_V.float(), weights_V)
        assert (stats.norms_B[weights_V > 0] > 0.01).all()
        return torch.cat([p.summed_grad.double().flatten() for p in model.parameters()])

    everybody = torch.ones(24)
    for unit in torch.eye(24):
        assert 0.99 * 0.01 < total(unit).norm() <= clipper.sensitivity
        moved = (total(everybody) - total(everybody - unit)).norm()
        assert 0.99 * 0.01 < moved <= clipper.sensitivity


class Differences(nn.Module):
    """Its output gradients add up to nothing over the positions, so that a Gram norm's terms cancel
    where the inputs have a large common mean.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, rows: Tensor) -> Tensor:
        mapped = self.linear(rows)
        return (mapped - mapped.mean(1, keepdim=True)).square().mean(1)


@pytest.mark.parametrize("mean", [10.0, 100.0])
@pytest.mark.parametrize("num_positions", [4, 49])
def test_the_bound_holds_where_large_terms_cancel(num_positions: int, mean: float) -> None:
    rows = torch.randn(8, num_positions, 64) + mean
    model, bound = Differences(), 1e-3
    clipper = clip(model, max_grad_norm=bound)
    for unit in range(len(rows)):
        weights = torch.zeros(len(rows))
        weights[unit] = 1.0
        clipper.backward(losses_of(clipper, rows), weights)
        total = torch.cat([each.double().flatten() for each in summed_grads(model).values()])
        assert 0.9 * bound < float(total.norm()) <= bound
        clear(model)


def test_bf16_says_its_slack_and_stays_near_float32() -> None:
    torch.manual_seed(0)
    model = small_convnext()
    images = torch.randn(4, 1, 64, 64)
    exact = clip(copy.deepcopy(model))
    exact.backward(losses_of(exact, images), torch.ones(4))
    clipper = clip(model, dtype=torch.bfloat16)
    assert clipper.slack == pytest.approx(1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses_V = losses_of(clipper, images)
    clipper.backward(losses_V.float(), torch.ones(4))
    expected = [p.summed_grad for p in exact.module.parameters()]
    for parameter, total in zip(model.parameters(), expected, strict=True):
        assert parameter.summed_grad.dtype == torch.float32
        assert (parameter.summed_grad - total).norm() <= 0.1 * total.norm() + 1e-4


# -- gradient checkpointing and randomness inside the model --------------------------------------


def test_gradient_checkpointing_changes_nothing() -> None:
    torch.manual_seed(0)
    model = small_convnext(depths=(1, 1, 2, 1)).double()
    images = torch.randn(3, 1, 64, 64, dtype=torch.float64)
    clipper = clip(model)
    clipper.backward(losses_of(clipper, images), torch.ones(3))
    expected = summed_grads(model)
    clear(model)
    model.set_grad_checkpointing(True)
    clipper.backward(losses_of(clipper, images), torch.ones(3))
    for name, total in summed_grads(model).items():
        torch.testing.assert_close(total, expected[name], rtol=1e-12, atol=1e-14)


def test_drop_path_and_dropout_draw_as_plain_training_does() -> None:
    torch.manual_seed(0)
    model = small_convnext(drop_path_rate=0.5, drop_rate=0.5, depths=(1, 1, 2, 1)).double()
    plain = copy.deepcopy(model)
    images = torch.randn(4, 1, 64, 64, dtype=torch.float64)
    torch.manual_seed(1)
    plain(images).square().mean(1).sum().backward()
    clipper = clip(model, max_grad_norm=1e9)
    torch.manual_seed(1)
    clipper.backward(losses_of(clipper, images), torch.ones(4))
    for parameter, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.summed_grad, other.grad, rtol=1e-10, atol=1e-12)


# -- life inside a trainer -----------------------------------------------------------------------


def test_names_states_and_copies_are_the_models_own() -> None:
    model = small_convnext()
    names = list(model.state_dict())
    clipper = clip(model)
    assert isinstance(clipper.module, AbstractGradSampleModule)
    assert list(model.state_dict()) == names
    assert list(clipper.module.state_dict()) == names
    assert [name for name, _ in clipper.module.named_parameters()] == [
        name for name, _ in model.named_parameters()
    ]
    clipper.module.load_state_dict(model.state_dict())
    assert isinstance(model.stem[0], nn.Conv2d)
    assert "ghost" not in type(clipper.module).__name__.lower()


def test_an_averaged_copy_evaluates_its_own_weights_and_records_nothing() -> None:
    model = small_convnext()
    clipper = clip(model)
    average = torch.optim.swa_utils.AveragedModel(model)
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        before = average(images)
        for parameter in model.parameters():
            parameter.add_(1.0)
        torch.testing.assert_close(average(images), before)
        assert not torch.allclose(model(images), before)
    clipper.backward(losses_of(clipper, images), torch.ones(2))
    with (
        clipper.module.tape.recording(2),
        pytest.raises(RuntimeError, match="copied model was asked for outside the clipper"),
    ):
        average(images).sum().backward()


def test_the_standard_module_comes_back() -> None:
    model = small_convnext()
    plain = copy.deepcopy(model)
    clipper = clip(model)
    returned = clipper.module.to_standard_module()
    assert returned is model
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    images = torch.randn(2, 1, 64, 64)
    model(images).sum().backward()
    plain(images).sum().backward()
    torch.testing.assert_close(model.stem[0].weight.grad, plain.stem[0].weight.grad)


class Training(lightning.LightningModule):
    """Two logical steps of two physical batches, manual optimisation."""

    def __init__(self, model: nn.Module, clipper: Clipper, optimizer: torch.optim.Optimizer):
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.clippers = [clipper]
        self.chosen = optimizer

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.chosen

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        clipper = self.clippers[0]
        clipper.backward(losses_of(clipper, batch), torch.ones(len(batch)))
        if batch_idx % 2:
            self.optimizers().step()
            self.optimizers().zero_grad()


def test_under_lightning_manual_optimisation(tmp_path: Any) -> None:
    model = small_convnext()
    clipper = clip(model)
    before = model.head.fc.weight.detach().clone()
    optimizer = private(
        torch.optim.AdamW(model.parameters(), lr=1e-3),
        clipper,
        noise_multiplier=1.0,
        expected_batch_size=4,
    )
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    batches = torch.utils.data.DataLoader(list(torch.randn(4, 2, 1, 64, 64)), batch_size=None)
    trainer.fit(Training(model, clipper, optimizer), batches)
    assert optimizer.logical_step == 2
    assert not torch.equal(before, model.head.fc.weight)


# -- misuse --------------------------------------------------------------------------------------


def test_backward_outside_the_clipper_is_refused() -> None:
    clipper = clip(small_convnext())
    with pytest.raises(RuntimeError, match=r"head\.fc.* outside the clipper"):
        losses_of(clipper, torch.randn(2, 1, 64, 64)).sum().backward()


def test_a_loss_that_is_one_number_is_refused() -> None:
    clipper = clip(small_convnext())
    loss = losses_of(clipper, torch.randn(2, 1, 64, 64)).mean()
    with pytest.raises(UserError, match="one loss an image"):
        clipper.backward(loss, torch.ones(2))


def test_part_of_a_unit_is_refused() -> None:
    clipper = clip(small_convnext(), views_per_unit=2)
    losses_V = losses_of(clipper, torch.randn(3, 1, 64, 64))
    with pytest.raises(UserError, match="views_per_unit=2"):
        clipper.backward(losses_V, torch.ones(3))


def test_a_batch_above_the_physical_size_is_refused() -> None:
    clipper = clip(small_convnext(), max_units=2)
    losses_V = losses_of(clipper, torch.randn(3, 1, 64, 64))
    with pytest.raises(UserError, match=r"3 units.*at most 2"):
        clipper.backward(losses_V, torch.ones(3))


def test_a_second_backward_on_one_forward_is_refused() -> None:
    clipper = clip(small_convnext())
    losses_V = losses_of(clipper, torch.randn(2, 1, 64, 64))
    clipper.backward(losses_V, torch.ones(2))
    with pytest.raises(RuntimeError, match="second time"):
        clipper.backward(losses_V, torch.ones(2))


def test_a_backward_after_a_step_without_zero_grad_is_refused() -> None:
    model = small_convnext()
    clipper = clip(model)
    images = torch.randn(2, 1, 64, 64)
    optimizer = private(
        torch.optim.SGD(model.parameters(), lr=0.1),
        clipper,
        noise_multiplier=1.0,
        expected_batch_size=2,
    )
    clipper.backward(losses_of(clipper, images), torch.ones(2))
    optimizer.step()
    with pytest.raises(RuntimeError, match="zero_grad"):
        clipper.backward(losses_of(clipper, images), torch.ones(2))


def _freeze(model: nn.Module) -> None:
    model.stem.requires_grad_(False)


def _replace(model: nn.Module) -> None:
    model.load_state_dict({n: v.clone() for n, v in model.state_dict().items()}, assign=True)


def _convert(model: nn.Module) -> None:
    model.to(torch.bfloat16)


@pytest.mark.parametrize("change", [_freeze, _replace, _convert])
def test_other_parameters_than_the_clippers_are_refused(
    change: Callable[[nn.Module], None],
) -> None:
    model = small_convnext()
    clipper = clip(model)
    change(model)
    losses_V = losses_of(clipper, torch.randn(2, 1, 64, 64, dtype=model.stem[0].weight.dtype))
    with pytest.raises(RuntimeError, match="frozen, unfrozen, replaced or converted"):
        clipper.backward(losses_V, torch.ones(2))


def test_float16_is_refused_where_it_is_met() -> None:
    clipper = clip(small_convnext())
    images = torch.randn(2, 1, 64, 64)
    with (
        torch.autocast("cpu", dtype=torch.float16),
        pytest.raises(UserError, match=r"float16.*performance\.precision=bf16-mixed"),
    ):
        clipper.module(images)
    clipper.module.half()
    with pytest.raises(UserError, match=r"float16.*performance\.precision=bf16-mixed"):
        clipper.module(images.half())


class Leaky(nn.Module):
    """Uses another module's parameter behind its back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) @ self.layer.weight


def test_a_parameter_used_outside_its_module_is_refused() -> None:
    model = Leaky()
    clipper = clip(model)
    with pytest.raises(RuntimeError, match=r"layer\.weight is used outside"):
        clipper.backward(losses_of(clipper, torch.randn(2, 3)), torch.ones(2))


def test_rows_that_do_not_belong_to_units_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Flatten(0, 1), nn.Linear(3, 3))
    clipper = clip(model)
    outputs = clipper.module(torch.randn(2, 3, 3))
    losses_V = outputs.square().mean(1)
    with pytest.raises(UserError, match=r"2\.weight saw 6 rows|0\.weight saw 2 rows"):
        clipper.backward(losses_V[:4], torch.ones(4))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"engine": "onepas"}, "Did you mean 'onepass'"),
        ({"rule": "flatt"}, "Did you mean 'flat'"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm=nan"),
        ({"views_per_unit": 0}, "views_per_unit=0"),
        ({"dtype": torch.float16}, "float16"),
    ],
)
def test_bad_settings_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        clip(small_convnext(), **kwargs)


def test_bad_models_are_named() -> None:
    with pytest.raises(UserError, match="float16"):
        clip(small_convnext().half())
    with pytest.raises(UserError, match="no trainable parameter"):
        clip(small_convnext().requires_grad_(False))
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    with pytest.raises(UserError, match=r"1\.weight is on meta"):
        clip(mixed)
    with pytest.raises(UserError, match="float16"):
        clip(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).half()))
    parametrised = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    with pytest.raises(UserError, match="parametrised"):
        clip(nn.Sequential(parametrised))


class CountsItsCalls(nn.Module):
    """Cannot run under torch.func: it looks at values."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight if float(x.sum()) > 0 else x * self.weight * 2


def test_what_cannot_be_done_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 3), CountsItsCalls())
    clipper = clip(model)
    assert clipper.generic_modules == ["1"]
    with pytest.raises(UserError, match="CountsItsCalls has no per-unit gradient rule"):
        clipper.module(torch.randn(2, 3))


def test_a_second_clipper_takes_over() -> None:
    model = small_convnext()
    clip(model)
    clipper = clip(model)
    clipper.backward(losses_of(clipper, torch.randn(2, 1, 64, 64)), torch.ones(2))
    assert type(clipper.module.to_standard_module().stem[0]) is nn.Conv2d
