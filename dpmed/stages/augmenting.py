"""From the augmentation settings to the changes of training views, with warnings about both."""

from __future__ import annotations

import logging
from dataclasses import asdict

from dpmed.config import ImageModel, RunConfig
from dpmed.run_record import RunRecord
from dpmed.stages.study import Study
from dpmed.training.augmentation import Augmentation, image_keys

logger = logging.getLogger(__name__)


def make_augmentation(config: RunConfig, study: Study, record: RunRecord) -> Augmentation | None:
    """What is done to training views; None where every strength is zero."""
    names = study.table["image"].iloc[study.rows_of("train")]
    augmentation = Augmentation(
        **asdict(config.augmentation), seed=config.seed, keys_N=image_keys(names)
    )
    for warning in _warnings(config, augmentation):
        logger.warning(warning)
        record.warn(warning)
    return None if augmentation.changes_nothing else augmentation


def _warnings(config: RunConfig, augmentation: Augmentation) -> list[str]:
    warnings = []
    if augmentation.horizontal_flip and isinstance(config.model, ImageModel):
        warnings.append(
            "augmentation.horizontal_flip=true mirrors half of the training views: in a chest "
            "radiograph the heart is then on the wrong side, and left and right findings swap."
        )
    if config.privacy.repeat_views and augmentation.changes_nothing:
        warnings.append(
            "privacy.repeat_views=true shows the same picture of a patient several times without "
            "any change, which costs time and gains nothing: add augmentation=cxr."
        )
    if config.privacy.repeat_views and config.privacy.views_per_unit == 1:
        warnings.append(
            "privacy.repeat_views=true has no effect with privacy.views_per_unit=1: set it to the "
            "number of views of each patient and step."
        )
    return warnings
