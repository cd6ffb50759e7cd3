"""A finished run measured and shown again, from its files: no model, no torch, no GPU.

What `dpmed report` does. A part that the files no longer give is said in its place on the page.
"""

from __future__ import annotations

import logging
from pathlib import Path

import yaml

from dpmed.config import RunConfig, load_config
from dpmed.errors import UserError
from dpmed.evaluation.run_metrics import write_run_metrics
from dpmed.report.page import build_report

logger = logging.getLogger(__name__)


def rebuild(run_dir: Path, *, twin: Path | None = None, page_only: bool = False) -> Path:
    """Writes `metrics.json` anew from predictions and embeddings, then every table and plot.

    Args:
        run_dir: a run folder.
        twin: the run without DP (or any other) that this one is compared with, by patient.
        page_only: leave `metrics.json` as it is.

    Returns:
        The page.
    """
    if not page_only:
        try:
            write_run_metrics(read_config(run_dir), run_dir)
        except UserError as error:
            logger.warning("metrics.json stays as it is: %s", error)
    return build_report(run_dir, twin=twin)


def read_config(run_dir: Path) -> RunConfig:
    """The configuration that a run was started with.

    Raises:
        UserError: there is none, or it is not one of this version.
    """
    path = run_dir / "config.yaml"
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}).") from error
    if not isinstance(mapping, dict):
        raise UserError(f"{path} holds no settings. It may be truncated.")
    return load_config(mapping)
