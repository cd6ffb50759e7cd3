"""What a start is worth: runs by start, share of the data and epsilon, with paired gains.

    python -m benchmarks.initialisation outputs/sweeps/cxr_small_eps8 --output results/nih14_start

Reads run folders and trains nothing. `runs.csv` has one row a run, `summary.csv` the mean of each
group and its gain over the runs from `--against` with the same epsilon, split and seed, and
`starts.svg` shows the means. Intervals are over patients, splits and seeds together: each
bootstrap resample draws test patients (the same ones for every run, all images of a patient
together), then splits, then seeds inside them.

Shapes: P patients, R resamples, G runs of a group.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from dpmed.evaluation.predictions import read_predictions
from dpmed.evaluation.ranking import WeightedAuroc
from dpmed.report.figures import Figure
from dpmed.report.numbers import Estimate
from dpmed.report.plot_intervals import IntervalRow, IntervalScale, interval_figure

NUM_RESAMPLES = 1000
_BLOCK = 50
Key = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished run and its AUROC on each resample of the patients; entry 0 is the sample."""

    start: str
    trainable: str
    epsilon: str
    split: str
    seed: int
    row: Mapping[str, Any]
    macro_R: NDArray[np.float64]


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="run folders, or folders of them")
    parser.add_argument("--output", type=Path, required=True, help="where the files are written")
    parser.add_argument("--against", default="scratch", help="start that gains are counted from")
    arguments = parser.parse_args()
    runs = read_runs(arguments.folders)
    arguments.output.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([run.row for run in runs]).to_csv(arguments.output / "runs.csv", index=False)
    summary = summarise(runs, against=arguments.against)
    summary.to_csv(arguments.output / "summary.csv", index=False)
    figure = plot(summary)
    svg = figure.drawing.standalone()
    (arguments.output / f"{figure.name}.svg").write_text(svg, encoding="utf-8")


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Every completed run below the folders, each once."""
    paths = sorted({path for folder in folders for path in folder.rglob("run.json")})
    found = [path.parent for path in paths if _is_completed(path)]
    tables = [read_predictions(folder / "predictions" / "test.parquet") for folder in found]
    patients = pd.Index(sorted({name for table in tables for name in table["patient_id"]}))
    draw = np.random.default_rng(0).multinomial
    shares = np.full(len(patients), 1 / len(patients))
    weights_PR = draw(len(patients), shares, size=NUM_RESAMPLES).T.astype(np.float32)
    weights_PR = np.concatenate([np.ones((len(patients), 1), np.float32), weights_PR], axis=1)
    return [
        _read_run(folder, table, patients, weights_PR)
        for folder, table in zip(found, tables, strict=True)
    ]


def summarise(runs: Sequence[Run], *, against: str) -> pd.DataFrame:
    """One row a start and epsilon: mean over runs and paired gain, with 95 % intervals."""
    groups: dict[tuple[str, str, str], dict[Key, Run]] = {}
    for run in runs:
        group = groups.setdefault((run.epsilon, run.trainable, run.start), {})
        assert (run.split, run.seed) not in group, f"two runs of {run.row}"
        group[run.split, run.seed] = run
    rows = []
    for (epsilon, trainable, start), group in sorted(groups.items()):
        row: dict[str, Any] = {
            "epsilon": epsilon,
            "trained": trainable,
            "start": start,
            "num_runs": len(group),
        }
        row |= _with_interval("auroc", {key: run.macro_R for key, run in group.items()})
        reference = groups.get((epsilon, trainable, against), {})
        paired = {
            key: run.macro_R - reference[key].macro_R
            for key, run in group.items()
            if key in reference
        }
        if paired and start != against:
            row |= {"num_pairs": len(paired)} | _with_interval("gain", paired)
        rows.append(row)
    return pd.DataFrame(rows)


def plot(summary: pd.DataFrame) -> Figure:
    """The means of all groups, one block an epsilon."""
    rows = [
        IntervalRow(
            name=str(row["start"]),
            heading=_words(str(row["epsilon"]), str(row["trained"])),
            estimate=Estimate(
                value=row["auroc"],
                low=row["auroc_low"],
                high=row["auroc_high"],
                num_positive=None,
                num_negative=None,
                reason="",
            ),
        )
        for _, row in summary.iterrows()
    ]
    high = min(1.0, float(np.ceil(summary["auroc_high"].max() * 20) / 20))
    return interval_figure(
        rows,
        name="starts",
        title="AUROC, mean over labels",
        scale=IntervalScale(low=0.5, high=high),
    )


def _is_completed(path: Path) -> bool:
    return bool(json.loads(path.read_text(encoding="utf-8"))["status"] == "completed")


def _read_run(
    folder: Path, table: pd.DataFrame, patients: pd.Index, weights_PR: NDArray[np.float32]
) -> Run:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    epsilon = f"{config['privacy']['epsilon']:g}" if config["privacy"]["enabled"] else "none"
    common: dict[str, Any] = {
        "start": _start(config),
        "trainable": config["model"]["trainable"],
        "epsilon": epsilon,
        "split": config["data"]["split_salt"],
        "seed": config["seed"],
    }
    per_label = {
        label: _auroc_R(
            table, label, patients.get_indexer(pd.Index(table["patient_id"])), weights_PR
        )
        for label in config["data"]["labels"]
    }
    macro_R = np.mean(list(per_label.values()), axis=0)
    row = {
        **common,
        "auroc_macro": macro_R[0],
        **{f"auroc_{label}": values_R[0] for label, values_R in per_label.items()},
        "num_images": len(table),
        "num_patients": table["patient_id"].nunique(),
        **{key: record[key] for key in ("config_hash", "split_hash", "code_version")},
    }
    return Run(**common, row=row, macro_R=macro_R)


def _start(config: Mapping[str, Any]) -> str:
    fraction = float(config["data"]["fraction"])
    source = str(config["init"]["source"])
    return source if fraction == 1 else f"{source}, {fraction:g} of patients"


def _auroc_R(
    table: pd.DataFrame, label: str, patients_N: NDArray[Any], weights_PR: NDArray[np.float32]
) -> NDArray[np.float64]:
    known = table[f"label_{label}"].notna().to_numpy()
    statistic = WeightedAuroc(
        scores_N=table[f"prob_{label}"].to_numpy()[known],
        positive_N=(table[f"label_{label}"] == 1).to_numpy()[known],
        patients_N=patients_N[known],
        num_patients=len(weights_PR),
    )
    blocks = np.array_split(weights_PR, range(_BLOCK, weights_PR.shape[1], _BLOCK), axis=1)
    return np.concatenate([statistic(np.ascontiguousarray(block)) for block in blocks])


def _with_interval(name: str, values: Mapping[Key, NDArray[np.float64]]) -> dict[str, float]:
    """The mean over runs, and its percentiles when patients, splits and seeds are drawn anew."""
    splits = sorted({split for split, _ in values})
    stacks = [
        np.stack([v for (s, _), v in sorted(values.items()) if s == split]) for split in splits
    ]
    generator = np.random.default_rng(1)
    means = []
    for resample in range(1, NUM_RESAMPLES + 1):
        drawn = generator.integers(len(splits), size=len(splits))
        chosen = [stacks[i][generator.integers(len(stacks[i]), size=len(stacks[i]))] for i in drawn]
        means.append(np.mean([runs_GR[:, resample].mean() for runs_GR in chosen]))
    low, high = np.nanquantile(means, [0.025, 0.975])
    mean = float(np.mean([runs_GR[:, 0].mean() for runs_GR in stacks]))
    return {name: mean, f"{name}_low": float(low), f"{name}_high": float(high)}


def _words(epsilon: str, trainable: str) -> str:
    guarantee = "Without DP" if epsilon == "none" else f"Epsilon {epsilon}"
    return f"{guarantee}, trained: {trainable}"


if __name__ == "__main__":
    main()
