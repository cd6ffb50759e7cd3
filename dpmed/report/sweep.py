"""Gathers a multirun when its last job has ended, so that nobody has to ask for the table."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from dpmed.report.collect import collect

logger = logging.getLogger(__name__)


class CollectAtEnd(Callback):
    """Hydra calls it; see `hydra.callbacks` in `conf/config.yaml`."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Writes the table, the plot and the page of the sweep folder.

        Raises:
            SystemExit: a job failed; the others ended all the same.
        """
        folder = Path(config.hydra.sweep.dir)
        if not folder.is_dir():
            return
        logger.warning("sweep collected: %s", collect(folder))
        failed = sorted(path.parent.name for path in folder.glob("*/error.txt"))
        if failed:
            sys.exit(f"error: {len(failed)} jobs failed, see their error.txt: {'; '.join(failed)}")
