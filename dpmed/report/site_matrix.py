"""The train-site x test-site matrix of finished runs: CSV, Markdown, heat map and a page.

Works from the runs' `metrics.json` and predictions. Runs that differ in their seed alone share a
row: their mean, with Student's interval over seeds; a single run shows its own interval over
patients. Must not train, predict or rank.

Source: METHODS P7 (Tayebi Arasteh et al. 2024, Radiology AI, ryai.230212).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import dpmed
from dpmed.errors import UserError
from dpmed.evaluation.run_metrics import EXTERNAL
from dpmed.report.figures import write_figures
from dpmed.report.headline import mapping
from dpmed.report.numbers import Estimate, estimate, label_name
from dpmed.report.page import make_environment
from dpmed.report.plot_matrix import matrix_figure
from dpmed.report.run_files import RunFiles, is_number, read_run
from dpmed.report.site_transfer import transfer_difference
from dpmed.report.sweep_means import OVER_PATIENTS, OVER_SEEDS, student_interval
from dpmed.report.sweep_runs import read_sweep

MACRO = "macro"
_OWN = "own test patients"


@dataclass(frozen=True, kw_only=True)
class SiteRun:
    """One run as a row of the matrix.

    Attributes:
        train_site: id of the data set that it was trained on.
        condition: epsilon and the settings that differ between the runs besides site and seed.
    """

    files: RunFiles
    train_site: str
    condition: str
    seed: int

    def auroc(self, test_site: str) -> Mapping[str, Any]:
        """AUROC entries by label on one site; empty where the run was not evaluated there."""
        if test_site == self.train_site:
            return mapping(self.files.metrics, "splits", "test", "auroc")
        return mapping(self.files.metrics, "external", file_name(test_site), "auroc")

    def predictions(self, test_site: str) -> Path:
        """The predictions that these figures were computed from."""
        own = test_site == self.train_site
        name = "test" if own else f"{EXTERNAL}{file_name(test_site)}"
        return self.files.folder / "predictions" / f"{name}.parquet"


def write_site_matrix(folders: Mapping[str, Path], output: Path) -> Path:
    """Writes `matrix.csv`, `matrix.md`, `figures/` and `index.html`.

    Args:
        folders: complete runs by name, evaluated on one another's data sets.
        output: created where it is missing.

    Returns:
        The page.

    Raises:
        UserError: a run's metrics cannot be read.
    """
    runs = _read(folders)
    table = matrix_table(runs)
    macro = table[table["label"] == MACRO]
    rows = list(dict.fromkeys(_row_name(row) for _, row in macro.iterrows()))
    columns = list(dict.fromkeys(macro["test_site"]))
    figures = [
        matrix_figure(
            {(_row_name(row), row["test_site"]): _as_estimate(row) for _, row in part.iterrows()},
            rows=rows,
            columns=columns,
            name=f"site_matrix_{label}",
            title=f"AUROC, {_label(str(label))}; trained on the row, tested on the column",
        )
        for label, part in table.groupby("label", sort=False)
    ]
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / "matrix.csv", index=False)
    (output / "matrix.md").write_text(_markdown(macro, columns), encoding="utf-8")
    write_figures(figures, output / "figures")
    page = (
        make_environment()
        .get_template("site_matrix.html")
        .render(
            main=figures[0],
            by_label=figures[1:],
            transfer=_transfer_rows(macro),
            over_seeds=bool((macro["interval_over"] == OVER_SEEDS).any()),
            num_runs=len(runs),
            num_sites=len(columns),
            version=dpmed.__version__,
        )
    )
    path = output / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def matrix_table(runs: list[SiteRun]) -> pd.DataFrame:
    """One row a condition, train site, test site and label, the mean over labels first.

    Returns:
        `condition`, `train_site`, `test_site`, `label`, `value`, `ci_low`, `ci_high`,
        `interval_over`, `num_runs`, `num_positive`, `num_negative`, `reason`; and for the mean over
        labels away from home `minus_home`, `minus_home_low`, `minus_home_high`, `minus_home_p`:
        paired by patient against the model that was trained on the test site.
    """
    labels = [label for label in _labels(runs) if label != MACRO]
    rows = []
    for group in _groups(runs):
        for site in _sites(runs):
            for label in (MACRO, *labels):
                row: dict[str, Any] = {
                    "condition": group[0].condition,
                    "train_site": group[0].train_site,
                    "test_site": site,
                    "label": label,
                    **_mean([estimate(run.auroc(site).get(label)) for run in group]),
                    "num_runs": len(group),
                }
                if label == MACRO and site != group[0].train_site:
                    row |= _minus_home(group, runs, site)
                rows.append(row)
    table = pd.DataFrame(rows)
    order = {label: index for index, label in enumerate((MACRO, *labels))}
    return table.sort_values("label", key=lambda names: names.map(order), kind="stable")


def file_name(site: str) -> str:
    """A data set's id as `dpmed evaluate` writes it into file names and `metrics.json`."""
    return "".join(mark if mark.isascii() and (mark.isalnum() or mark in "._-") else "_"
                   for mark in site)  # fmt: skip


def _read(folders: Mapping[str, Path]) -> list[SiteRun]:
    sweep = read_sweep(folders)
    if sweep.unfinished:
        name, reason = sweep.unfinished[0]
        raise UserError(f"{name} has no result to show: {reason}.")
    varying = [name for name in sweep.varying if not name.startswith("data.")]
    runs = []
    for _, row in sweep.runs.iterrows():
        files = read_run(folders[str(row["run"])])
        target = files.plan.get("target_epsilon")
        epsilon = f"ε {target:g}" if files.dp_enabled and is_number(target) else "no DP"
        others = [f"{name.split('.')[-1]} {row[name]}" for name in varying]
        runs.append(
            SiteRun(
                files=files,
                train_site=str(mapping(files.config, "data")["id"]),
                condition=", ".join([epsilon, *others]),
                seed=int(files.config["seed"]),
            )
        )
    return sorted(runs, key=lambda run: (run.condition, run.seed))


def _groups(runs: list[SiteRun]) -> Iterator[list[SiteRun]]:
    """Runs that differ in their seed alone."""
    keys = dict.fromkeys((run.condition, run.train_site) for run in runs)
    for condition, site in keys:
        yield [run for run in runs if (run.condition, run.train_site) == (condition, site)]


def _sites(runs: list[SiteRun]) -> list[str]:
    """Every site that was trained on, then those that were only tested on."""
    trained = list(dict.fromkeys(run.train_site for run in runs))
    known = {file_name(site) for site in trained}
    tested = [
        site for run in runs for site in mapping(run.files.metrics, "external") if site not in known
    ]
    return [*trained, *dict.fromkeys(tested)]


def _labels(runs: list[SiteRun]) -> list[str]:
    found = (label for run in runs for label in run.auroc(run.train_site))
    return [label for label in dict.fromkeys(found) if label != "micro"]


def _mean(cells: list[Estimate]) -> dict[str, Any]:
    known = [cell for cell in cells if cell.value is not None]
    if not known:
        return {"value": None, "ci_low": None, "ci_high": None, "interval_over": OVER_PATIENTS,
                "num_positive": None, "num_negative": None,
                "reason": cells[0].reason or "not evaluated"}  # fmt: skip
    values = np.array([cell.value for cell in known], dtype=float)
    several = len(known) > 1
    low, high = student_interval(values) if several else (known[0].low, known[0].high)
    return {
        "value": float(values.mean()),
        "ci_low": low,
        "ci_high": high,
        "interval_over": OVER_SEEDS if several else OVER_PATIENTS,
        "num_positive": known[0].num_positive,
        "num_negative": known[0].num_negative,
        "reason": "",
    }


def _minus_home(group: list[SiteRun], runs: list[SiteRun], site: str) -> dict[str, Any]:
    """How much better or worse than the models trained on the test site, paired by patient."""
    home = {
        run.seed: run
        for run in runs
        if run.train_site == site and run.condition == group[0].condition
    }
    pairs = [(run, home[run.seed]) for run in group if run.seed in home]
    cells = [
        transfer_difference(
            away.predictions(site), local.predictions(site), metrics=away.files.metrics
        )
        for away, local in pairs
    ]
    if not cells:
        return {}
    mean = _mean([cell for cell, _ in cells])
    return {
        "minus_home": mean["value"],
        "minus_home_low": mean["ci_low"] if len(cells) == 1 else None,
        "minus_home_high": mean["ci_high"] if len(cells) == 1 else None,
        "minus_home_p": cells[0][1] if len(cells) == 1 else None,
    }


def _as_estimate(row: pd.Series) -> Estimate:
    def number(name: str) -> float | None:
        return None if pd.isna(row[name]) else float(row[name])

    def count(name: str) -> int | None:
        return None if pd.isna(row[name]) else int(row[name])

    return Estimate(
        value=number("value"),
        low=number("ci_low"),
        high=number("ci_high"),
        num_positive=count("num_positive"),
        num_negative=count("num_negative"),
        reason=str(row["reason"]),
    )


def _transfer_rows(macro: pd.DataFrame) -> list[dict[str, str]]:
    if "minus_home" not in macro:
        return []
    rows = []
    for _, row in macro[macro["minus_home"].notna()].iterrows():
        interval = Estimate(
            value=row["minus_home"],
            low=None if pd.isna(row["minus_home_low"]) else row["minus_home_low"],
            high=None if pd.isna(row["minus_home_high"]) else row["minus_home_high"],
            num_positive=None,
            num_negative=None,
            reason="",
        )
        p_value = "" if pd.isna(row["minus_home_p"]) else f"{row['minus_home_p']:.3g}"
        rows.append(
            {"row": _row_name(row), "site": row["test_site"], "text": interval.text, "p": p_value}
        )
    return rows


def _markdown(macro: pd.DataFrame, columns: list[str]) -> str:
    lines = [f"| Trained on | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for name, part in macro.groupby(macro.apply(_row_name, axis=1), sort=False):
        cells = {row["test_site"]: _as_estimate(row).text for _, row in part.iterrows()}
        lines.append(f"| {name} | {' | '.join(cells[column] for column in columns)} |")
    over = " and ".join(dict.fromkeys(macro["interval_over"]))
    lines += ["", f"AUROC, mean over labels, with 95 % intervals over {over}. {_OWN.capitalize()} "
              "on the diagonal."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row_name(row: pd.Series) -> str:
    return f"{row['train_site']}, {row['condition']}"


def _label(label: str) -> str:
    return "mean over labels" if label == MACRO else label_name(label)
