"""The train-site x test-site matrix: every run on every run's test patients, then the tables.

Source: METHODS P7 (Tayebi Arasteh et al. 2024, Radiology AI, ryai.230212).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from dpmed.config import DataConfig
from dpmed.errors import UserError
from dpmed.evaluation.run_metrics import EXTERNAL, write_run_metrics
from dpmed.report.page import build_report
from dpmed.report.site_matrix import file_name, write_site_matrix
from dpmed.report.sweep_runs import find_runs
from dpmed.stages.external import predict_external
from dpmed.stages.finished_run import read_completed_record, read_config

logger = logging.getLogger(__name__)


def build_matrix(folders: Sequence[Path], other: DataConfig | None, output: Path) -> Path:
    """Evaluates what is missing, and writes the matrix.

    Args:
        folders: run folders, or folders of runs; those that trained on different data sets give
            the sites.
        other: one more data set to test on.
        output: takes `matrix.csv`, `index.html`, `matrix.md` and `figures/`.

    Returns:
        The page.

    Raises:
        UserError: fewer than two sites, or a run that cannot be evaluated somewhere.
    """
    runs = _runs(folders)
    configs = {name: read_config(folder) for name, folder in runs.items()}
    sites: dict[str, DataConfig] = {}
    for config in configs.values():
        sites.setdefault(config.data.id, config.data)
    if other is not None:
        sites.setdefault(other.id, other)
    if len(sites) < 2:
        raise UserError(
            f"All runs were trained on {', '.join(sites)}: a matrix needs two data.id, or a data "
            "set to test on, for example data=manifest data.path=other.csv data.id=other."
        )
    for name, folder in tqdm(runs.items(), desc="runs", unit="run", dynamic_ncols=True):
        missing = _missing(folder, configs[name].data, sites)
        for site in missing:
            predict_external(folder, site)
        if missing:
            write_run_metrics(configs[name], folder)
            build_report(folder)
    return write_site_matrix(runs, output)


def _missing(folder: Path, own: DataConfig, sites: Mapping[str, DataConfig]) -> list[DataConfig]:
    """Data sets on which a run has no predictions yet."""
    return [
        site
        for site in sites.values()
        if site.id != own.id
        and not (folder / "predictions" / f"{EXTERNAL}{file_name(site.id)}.parquet").is_file()
    ]


def _runs(folders: Sequence[Path]) -> dict[str, Path]:
    """Complete runs by a short name; in a folder of runs the others are left out and named."""
    runs: dict[str, Path] = {}
    for folder in folders:
        if (folder / "run.json").is_file():
            read_completed_record(folder)
            runs[str(folder)] = folder
            continue
        for path in find_runs(folder).values():
            try:
                read_completed_record(path)
                runs[str(path)] = path
            except UserError as error:
                logger.warning("left out: %s", error)
    if not runs:
        raise UserError(f"{', '.join(map(str, folders))}: no complete run there.")
    return runs
