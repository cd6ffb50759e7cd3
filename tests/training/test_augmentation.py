"""Augmentation of training views: what it does to pixels, what repeats, who depends on whom.

Beside arithmetic, two claims of the privacy proof: no patient's views depend on another patient,
and a patient who is shown several times is still bounded as one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpmed.privacy.clipping.clipper import make_clipper
from dpmed.privacy.randomness import SecretStream
from dpmed.privacy.sampling import PoissonSampler, unit_rows
from dpmed.training.augmentation import NUM_PARAMETERS, Augmentation, image_keys
from dpmed.training.batches import LogicalStepLoader

NAMES = [f"patient{index % 4}/{index}.png" for index in range(7)]  # 2, 2, 2 and 1 images
CXR = {"rotation_degrees": 7.0, "translation": 0.05, "scale": 0.08, "contrast": 0.15}


def augmentation(names: list[str] = NAMES, **strengths: Any) -> Augmentation:
    none = {"rotation_degrees": 0.0, "translation": 0.0, "scale": 0.0, "contrast": 0.0}
    settings = {**none, "horizontal_flip": False, "seed": 3, **strengths}
    return Augmentation(**settings, keys_N=image_keys(names))


def draws(**values: float) -> Tensor:
    order = ["angle", "right", "down", "scale", "contrast", "flip"]
    assert len(order) == NUM_PARAMETERS
    return torch.tensor([[values.get(name, 0.0) for name in order]])


@pytest.fixture
def image() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(1, 1, 4, 4, generator=generator), size=32, mode="bilinear")
    return smooth.clamp(0.1, 0.9)


def test_zero_strength_changes_no_bit(image: Tensor) -> None:
    nothing = augmentation()
    assert nothing.changes_nothing
    torch.testing.assert_close(nothing.apply(image, torch.rand(1, 6)), image, rtol=0, atol=0)
    still = augmentation(**CXR).apply(image, draws())
    torch.testing.assert_close(still, image, rtol=0, atol=1e-5)


def test_each_parameter_does_what_its_name_says(image: Tensor) -> None:
    quarter = augmentation(rotation_degrees=90.0).apply(image, draws(angle=1.0))
    turned = torch.rot90(image, dims=(2, 3))
    assert min((quarter - turned).abs().max(), (quarter - turned.flip(2, 3)).abs().max()) < 1e-4
    moved = augmentation(translation=0.25).apply(image, draws(right=1.0))
    torch.testing.assert_close(moved[..., :24], image[..., 8:], rtol=0, atol=1e-4)
    assert not moved[..., 25:].any(), "what moves in is black"
    lowered = augmentation(translation=0.25).apply(image, draws(down=-1.0))
    torch.testing.assert_close(lowered[..., 8:, :], image[..., :24, :], rtol=0, atol=1e-4)
    mirrored = augmentation(horizontal_flip=True).apply(image, draws(flip=-0.5))
    torch.testing.assert_close(mirrored, image.flip(3), rtol=0, atol=1e-4)
    unmirrored = augmentation(horizontal_flip=True).apply(image, draws(flip=0.5))
    torch.testing.assert_close(unmirrored, image, rtol=0, atol=1e-4)
    square = torch.zeros(1, 1, 64, 64)
    square[..., 16:48, 16:48] = 1.0
    larger = augmentation(scale=0.5).apply(square, draws(scale=1.0))
    assert float(larger.sum() / square.sum()) == pytest.approx(1.5**2, rel=0.02)
    flatter = augmentation(contrast=0.5).apply(image, draws(contrast=-1.0))
    torch.testing.assert_close(flatter, (image + image.mean()) / 2, rtol=0, atol=1e-6)


def test_parameters_are_their_own_and_repeat() -> None:
    rows_BK = np.array([[0, 4, 0], [1, 5, 1]])
    drawn = augmentation(**CXR).draw(step=5, rows_BK=rows_BK)
    assert drawn.shape == (6, NUM_PARAMETERS)
    assert len(np.unique(drawn.round(6))) == drawn.size, "the same image twice is drawn twice"
    np.testing.assert_array_equal(drawn, augmentation(**CXR).draw(step=5, rows_BK=rows_BK))
    for other in (augmentation(**CXR).draw(step=6, rows_BK=rows_BK),
                  augmentation(**CXR, seed=4).draw(step=5, rows_BK=rows_BK)):  # fmt: skip
        assert not (drawn == other).any()
    rows = np.arange(7)[:, None]
    many = np.concatenate([augmentation(**CXR).draw(step=s, rows_BK=rows) for s in range(600)])
    assert abs(many.mean(axis=0)).max() < 0.05, "4,200 draws, 5.6 standard errors"
    assert abs(np.corrcoef(many.T) - np.eye(NUM_PARAMETERS)).max() < 0.09
    assert many.min() >= -1
    assert many.max() < 1


def test_another_patient_changes_nobodys_views() -> None:
    """The keys are names: with row numbers, leaving out a patient would move all that follow."""
    whole = augmentation(**CXR).draw(step=2, rows_BK=np.array([[1, 5], [3, 3]]))
    kept = [name for name in NAMES if not name.startswith("patient0/")]
    rows_BK = np.array([[kept.index(NAMES[1]), kept.index(NAMES[5])], [kept.index(NAMES[3])] * 2])
    np.testing.assert_array_equal(whole, augmentation(kept, **CXR).draw(step=2, rows_BK=rows_BK))


def test_views_of_a_batch_do_not_mix(image: Tensor) -> None:
    change = augmentation(**CXR)
    first, other = torch.rand(3, 1, 32, 32), torch.rand(3, 1, 32, 32)
    other[0] = first[0]
    drawn = torch.from_numpy(change.draw(step=0, rows_BK=np.array([[0], [1], [2]])))
    torch.testing.assert_close(
        change.apply(first, drawn)[0], change.apply(other, drawn)[0], rtol=0, atol=0
    )


def step_sum(names: list[str], images: np.ndarray, model: nn.Module) -> tuple[Tensor, float]:
    """The clipped sum of one logical step in which every patient takes part, and its bound."""
    clipper = make_clipper(
        model, engine="onepass", rule="flat", max_grad_norm=1.0, views_per_unit=3
    )
    change = augmentation(names, **CXR)
    sampler = PoissonSampler(
        stream=SecretStream.from_key(bytes(32)),
        units=unit_rows([name.split("/")[0] for name in names]),
        sample_rate=1.0,
        views_per_unit=3,
        physical_batch_size=2,
        repeat_views=True,
    )
    loader = LogicalStepLoader(
        sampler=sampler,
        images_NHW=images,
        image_rows=np.arange(len(names)),
        targets_NL=np.ones((len(names), 1), dtype=np.float32),
        num_steps=1,
        completed_steps=lambda: 0,
        augmentation=change,
    )
    for batch in loader:
        assert batch.draws_VP is not None
        shown = change.apply(batch.images_V1HW / 255, batch.draws_VP)
        losses = 50 * clipper.module(shown).square().sum(1)
        clipper.backward(losses, batch.weights_V)
    total = torch.cat([p.summed_grad.flatten() for p in model.parameters()])
    return total, clipper.sensitivity


def test_a_patient_shown_several_times_is_bounded_as_one() -> None:
    """Adding or removing a patient moves the sum of a step by no more than the accounted bound.

    The patient's single image is shown three times; its gradient is far above the bound.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 14 * 14, 1))
    images = np.random.default_rng(0).integers(0, 256, (len(NAMES), 16, 16)).astype(np.uint8)
    with_all, bound = step_sum(NAMES, images, model)
    for parameter in model.parameters():
        parameter.summed_grad = None
    kept = [place for place, name in enumerate(NAMES) if not name.startswith("patient3/")]
    without, _ = step_sum([NAMES[place] for place in kept], images[kept], model)
    moved = float((with_all - without).norm())
    assert 0.99 * bound < moved <= bound * (1 + 1e-5)


def test_every_slice_of_a_volume_is_changed_like_an_image(image: Tensor) -> None:
    volume = image[:, :, None].expand(-1, -1, 32, -1, -1)
    strengths = augmentation(
        rotation_degrees=20.0, translation=0.1, contrast=0.3, horizontal_flip=True
    )
    drawn = draws(angle=0.7, right=-0.5, down=0.3, contrast=0.5, flip=-0.5)
    expected = strengths.apply(image, drawn)
    changed = strengths.apply(volume, drawn)
    torch.testing.assert_close(changed[:, :, 16], expected, rtol=0, atol=1e-4)
    box = torch.zeros(1, 1, 32, 32, 32)
    box[..., 8:24, 8:24, 8:24] = 1.0
    grown = augmentation(scale=0.5).apply(box, draws(scale=1.0)) > 0.5
    sides = [int(grown[0, 0].any(dim=dim).any(dim=0).sum()) for dim in (0, 1)]
    sides.append(int(grown[0, 0].any(dim=2).any(dim=1).sum()))
    assert sides == [24, 24, 24]
