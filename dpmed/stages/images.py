"""From the data settings and a study table to its pixels: decoded or drawn once, then cached."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpmed import data
from dpmed.config import DataConfig, SyntheticData, VolumeData
from dpmed.data import synthetic
from dpmed.stages.tables import image_root, is_medmnist, volume_source


def load_images(
    config: DataConfig, table: pd.DataFrame, *, num_workers: int | None, max_skipped: int
) -> data.ImageStore:
    """The images of a table, from the cache where they are in it.

    Args:
        config: where images lie or how they are drawn, and what is done to each.
        table: the rows, as `split_table` gives them.
        num_workers: processes that decode or draw; None for all cores where there is enough to do.
        max_skipped: how many images may be left out, those that the reader did not find included.

    Raises:
        UserError: too many unreadable images, or a cache folder that cannot be written.
    """
    cache_dir = Path(config.cache_dir).expanduser()
    skipped_before = [data.SkippedImage(**item) for item in table.attrs.get("skipped", [])]
    if isinstance(config, VolumeData):
        is_one_file = is_medmnist(config)  # which each process would have to unpack
        return data.prepare_volumes(
            table["image"].tolist(),
            volume_source(config),
            data.VolumePreprocessing(**asdict(config.preprocessing)),
            cache_dir=cache_dir,
            num_workers=0 if is_one_file else num_workers,
            max_skipped=max_skipped,
            skipped_before=skipped_before,
        )
    preprocessing = data.Preprocessing(**asdict(config.preprocessing))
    if isinstance(config, SyntheticData):
        return data.prepare_generated(
            table,
            render=_renderer(config, num_workers),
            content_key=f"synthetic/{_generator_version()}/{config.seed}",
            preprocessing=preprocessing,
            cache_dir=cache_dir,
        )
    return data.prepare_images(
        table,
        image_root(config),
        preprocessing,
        cache_dir=cache_dir,
        num_workers=num_workers,
        max_skipped=max_skipped,
        skipped_before=skipped_before,
    )


def _renderer(
    config: SyntheticData, num_workers: int | None
) -> Callable[[pd.DataFrame], NDArray[np.uint8]]:
    def render(rows: pd.DataFrame) -> NDArray[np.uint8]:
        return data.render_radiographs(
            rows,
            seed=config.seed,
            image_size=config.preprocessing.image_size,
            num_workers=max(1, os.cpu_count() or 1 if num_workers is None else num_workers),
        )

    return render


def _generator_version() -> str:
    """Hash of the generator's source: another drawing must not meet cached pictures."""
    digest = hashlib.sha256()
    for path in sorted(Path(synthetic.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
