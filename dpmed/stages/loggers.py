"""Where curves and results go: a CSV file in the run folder, and Weights & Biases where asked for.

What leaves the machine through a logger is aggregate: settings, epsilon, learning rate, the test
figures with their intervals, and the report. Never a patient id, an image, or a side output of
training unless `logger.log_nonprivate_side_outputs` says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from dpmed.config import RunConfig, to_mapping


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
    """Puts the test figures, the plan and the report into the W&B run and closes it."""
    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        run = logger.experiment
        metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
        plan = json.loads((run_dir / "plan.json").read_text(encoding="utf-8"))
        run.summary.update(dict(_numbers(metrics["splits"]["test"]["auroc"], "test/auroc")))
        run.summary.update({f"plan/{key}": plan[key] for key in ("epsilon", "delta", "private")})
        run.log({"report": wandb.Html(str(report), inject=False)})
        run.finish()


def _numbers(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}/{name}")
        elif isinstance(value, int | float):
            yield f"{prefix}/{name}", value


def _public_settings(config: RunConfig) -> dict[str, Any]:
    settings = to_mapping(config)
    settings["privacy"] = {
        key: value for key, value in settings["privacy"].items() if key != "injected_key"
    }
    return settings


def _tags(config: RunConfig) -> list[str]:
    guarantee = f"epsilon={config.privacy.epsilon:g}" if config.privacy.enabled else "non-private"
    return [config.name, guarantee, config.data.id, f"init={config.init.source}", config.model.name]
