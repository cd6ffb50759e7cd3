"""Where curves and results go: a CSV file in the run folder, and Weights & Biases where asked for.

What leaves the machine through a logger is aggregate: settings, epsilon, learning rate, the test
figures with their intervals, and the report. Never a patient id, an image, or a side output of
training unless `logger.log_nonprivate_side_outputs` says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from dpmed.config import RunConfig, to_mapping
from dpmed.report.wandb_keys import CONDITION
from dpmed.stages.wandb_results import upload


def make_loggers(config: RunConfig, run_dir: Path) -> list[Logger]:
    """The CSV logger always; W&B beside it for `logger=wandb`, offline unless told otherwise."""
    loggers: list[Logger] = [CSVLogger(save_dir=run_dir, name="logs", version="")]
    if config.logger.name == "wandb":
        loggers.append(
            WandbLogger(
                project=config.logger.project,
                entity=config.logger.entity,
                name=f"{config.name}-{run_dir.name}",
                group=run_dir.parent.name,
                job_type="train",
                tags=_tags(config),
                save_dir=run_dir,
                offline=config.logger.mode == "offline",
                config=_public_settings(config),
                settings=wandb.Settings(
                    console="off", x_disable_stats=True, disable_git=True, save_code=False
                ),
            )
        )
    return loggers


def upload_results(loggers: list[Logger], run_dir: Path, report: Path) -> None:
    """Puts figures, tables, curves, the page and its files into the W&B run and closes it."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            upload(logger.experiment, run_dir, report)
            logger.experiment.finish()


def _public_settings(config: RunConfig) -> dict[str, Any]:
    settings = to_mapping(config)
    settings["privacy"] = {
        key: value for key, value in settings["privacy"].items() if key != "injected_key"
    }
    # Runs of one condition differ in their seed alone: W&B groups by this one word.
    settings[CONDITION] = ", ".join(_tags(config))
    return settings


def _tags(config: RunConfig) -> list[str]:
    guarantee = f"epsilon={config.privacy.epsilon:g}" if config.privacy.enabled else "non-private"
    return [config.name, guarantee, config.data.id, f"init={config.init.source}", config.model.name]
