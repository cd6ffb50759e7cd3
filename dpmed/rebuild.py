"""A finished run measured and shown again, from its files: no model, no torch, no GPU.

What `dpmed report` does. A part that the files no longer give is said in its place on the page.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml

from dpmed.compose import compose
from dpmed.config import EvaluationConfig, to_mapping
from dpmed.errors import UserError
from dpmed.evaluation.run_metrics import measure_run
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
            measure_run(run_dir, **measurement_settings(run_dir))
        except UserError as error:
            logger.warning("metrics.json stays as it is: %s", error)
    return build_report(run_dir, twin=twin)


def measurement_settings(run_dir: Path) -> dict[str, Any]:
    """Labels, seed and evaluation settings of a run, from its `config.yaml`.

    Evaluation settings that dpmed did not have then take their defaults of today, so that older
    runs can be measured again.

    Raises:
        UserError: there are none, or one of them is not of this version.
    """
    path = run_dir / "config.yaml"
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
        defaults = to_mapping(compose([]))["evaluation"]
        return {
            "labels": [str(label) for label in mapping["data"]["labels"]],
            "seed": int(mapping["seed"]),
            "settings": EvaluationConfig(**(defaults | mapping["evaluation"])),
        }
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"{path} does not say what was measured ({type(error).__name__}: {error})."
        ) from error
