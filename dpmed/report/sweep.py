"""Gathers a multirun when its last job has ended, so that nobody has to ask for the table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from dpmed.report.collect import collect

logger = logging.getLogger(__name__)


class CollectAtEnd(Callback):
    """Hydra calls it; see `hydra.callbacks` in `conf/config.yaml`."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Writes the table, the plot and the page of the sweep folder."""
        folder = Path(config.hydra.sweep.dir)
        if folder.is_dir():
            logger.warning("sweep collected: %s", collect(folder))
