"""Physical batches become tensors: the right rows, black padding, and the right place to resume."""

from __future__ import annotations

import numpy as np

from dpmed.privacy.randomness import SecretStream
from dpmed.privacy.sampling import PoissonSampler, unit_rows
from dpmed.training.augmentation import Augmentation, image_keys
from dpmed.training.batches import LogicalStepLoader, TrainingBatch


def _loader(*, completed: int = 0, sample_rate: float = 0.5) -> LogicalStepLoader:
    """Ten patients with two images each; image i is filled with i + 1, its label is i."""
    images = np.arange(1, 31, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint8)
    rows = np.arange(5, 25)  # the training rows are a part of the study
    sampler = PoissonSampler(
        stream=SecretStream.from_key(bytes(32)),
        units=unit_rows(np.repeat(np.arange(10), 2)),
        sample_rate=sample_rate,
        views_per_unit=2,
        physical_batch_size=3,
    )
    return LogicalStepLoader(
        sampler=sampler,
        images_NHW=images,
        image_rows=rows,
        targets_NL=rows[:, None].astype(np.float32),
        num_steps=4,
        completed_steps=lambda: completed,
        augmentation=Augmentation(
            rotation_degrees=7.0,
            translation=0.05,
            scale=0.08,
            contrast=0.15,
            horizontal_flip=False,
            seed=0,
            keys_N=image_keys(str(row) for row in rows),
        ),
    )


def _steps(batches: list[TrainingBatch]) -> list[int]:
    return [batch.step for batch in batches if batch.is_last]


def test_images_and_labels_belong_together_and_padding_is_black() -> None:
    for batch in _loader():
        assert batch.images_V1HW.shape == (6, 1, 4, 4)
        real = batch.weights_V > 0
        shown = batch.images_V1HW[real][:, 0, 0, 0].float() - 1
        assert shown.tolist() == batch.targets_VL[real][:, 0].tolist()
        assert not batch.images_V1HW[~real].any()


def test_every_logical_step_ends_once_even_when_empty() -> None:
    assert _steps(list(_loader())) == [0, 1, 2, 3]
    empty = list(_loader(sample_rate=1e-15))
    assert _steps(empty) == [0, 1, 2, 3]
    assert all(float(batch.weights_V.sum()) == 0 for batch in empty)


def test_iteration_begins_after_the_completed_steps() -> None:
    whole = [batch for batch in _loader() if batch.step >= 2]
    resumed = list(_loader(completed=2))
    assert _steps(resumed) == [2, 3]
    for first, second in zip(whole, resumed, strict=True):
        assert first.images_V1HW.equal(second.images_V1HW)
        assert first.draws_VP is not None
        assert second.draws_VP is not None
        assert first.draws_VP.equal(second.draws_VP), "a resumed run augments otherwise"
