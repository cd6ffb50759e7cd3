"""Logistic regression on average-pooled masks: what a model of AdrenalMNIST3D has to beat.

    python -m benchmarks.adrenal_baseline adrenalmnist3d_64.npz [--runs RUN_DIR ...]

Resolution and penalty are chosen on the official validation split; the test split is scored once,
with the bootstrap that runs are reported with. No differential privacy. With `--runs`, the folders
of finished runs (seeds of one setting), also their mean AUROC less the baseline's on the same test
volumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from dpmed import data
from dpmed.evaluation.metrics import evaluate
from dpmed.evaluation.predictions import make_predictions, match_predictions, read_predictions

LABEL = "adrenal_mass"
SIDES = (4, 8, 16)  # voxels of the pooled cube
PENALTIES = (0.01, 0.1, 1.0, 10.0)  # C of scikit-learn
NUM_BOOTSTRAP = 2000


def main() -> None:
    """Prints the choice and the test AUROC as one line of CSV with a header, then the gain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="adrenalmnist3d_64.npz of MedMNIST+")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of runs")
    arguments = parser.parse_args()
    path = arguments.path
    table = data.read_medmnist(path, labels=[LABEL])
    with np.load(path) as file:
        volumes = np.concatenate([file[f"{part}_images"] for part in ("train", "val", "test")])
    side, penalty, probabilities_N = _best(volumes, table)
    test = (table["split"] == "test").to_numpy()
    predictions = make_predictions(table[test], probabilities_N[test, None], labels=[LABEL])
    auroc = evaluate({"test": predictions}, labels=[LABEL], subgroups=())["splits"]["test"]["auroc"]
    row = {"side": side, "C": penalty, **auroc[LABEL]}
    print(pd.DataFrame([row]).to_csv(index=False, float_format="%.4f"), end="")
    if arguments.runs:
        gain = _gain(predictions, arguments.runs)
        print(pd.DataFrame([gain]).to_csv(index=False, float_format="%.4f"), end="")


def _best(
    volumes: NDArray[np.uint8], table: pd.DataFrame
) -> tuple[int, float, NDArray[np.float64]]:
    """Resolution, penalty and probabilities of the best model on the validation split."""
    targets_N = table[LABEL].to_numpy()
    train, validation = ((table["split"] == name).to_numpy() for name in ("train", "validation"))
    best = (-1.0, 0, 0.0, np.zeros(0))
    for side in SIDES:
        inputs_ND = _pooled(volumes, side)
        for penalty in PENALTIES:
            model = LogisticRegression(C=penalty, max_iter=300)
            model.fit(inputs_ND[train], targets_N[train])
            probabilities_N = model.predict_proba(inputs_ND)[:, 1]
            score = float(roc_auc_score(targets_N[validation], probabilities_N[validation]))
            if score > best[0]:
                best = (score, side, penalty, probabilities_N)
    return best[1:]


def _gain(baseline: pd.DataFrame, folders: list[Path]) -> dict[str, float]:
    """Mean AUROC of runs less the baseline's, with 95 % intervals: the same volumes are drawn for
    all, and for the wider one also runs.
    """
    tables = [read_predictions(folder / "predictions" / "test.parquet") for folder in folders]
    models = [match_predictions(table, baseline["image"], source="run") for table in tables]
    scores = [model[f"prob_{LABEL}"].to_numpy() for model in [baseline, *models]]
    targets_N = baseline[f"label_{LABEL}"].to_numpy()
    random = np.random.default_rng(0)
    gains = []
    for _ in range(NUM_BOOTSTRAP):
        drawn = random.integers(0, len(targets_N), len(targets_N))
        aurocs = [float(roc_auc_score(targets_N[drawn], each[drawn])) for each in scores]
        runs = np.array(aurocs[1:])
        resampled = random.choice(runs, len(runs))
        gains.append((runs.mean() - aurocs[0], resampled.mean() - aurocs[0]))
    aurocs = [float(roc_auc_score(targets_N, each)) for each in scores]
    low, high = np.quantile(np.array(gains), [0.025, 0.975], axis=0)
    mean = float(np.mean(aurocs[1:]))
    return {
        "num_runs": len(folders),
        "mean_auroc": mean,
        "gain": mean - aurocs[0],
        "ci_low": low[0],
        "ci_high": high[0],
        "runs_and_volumes_low": low[1],
        "runs_and_volumes_high": high[1],
    }


def _pooled(volumes: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Share of the mask in each of side³ boxes, (N, side³)."""
    width = volumes.shape[1] // side
    boxes = [
        volume.reshape(side, width, side, width, side, width).mean((1, 3, 5), dtype=np.float32)
        for volume in volumes
    ]
    return (np.stack(boxes).reshape(len(volumes), -1) / 255.0).astype(np.float32)


if __name__ == "__main__":
    main()
