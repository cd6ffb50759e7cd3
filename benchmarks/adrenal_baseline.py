"""Logistic regression on average-pooled masks: what a model of AdrenalMNIST3D has to beat.

    python -m benchmarks.adrenal_baseline adrenalmnist3d_64.npz

Resolution and penalty are chosen on the official validation split; the test split is scored once,
with the bootstrap that runs are reported with. No differential privacy.
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
from dpmed.evaluation.predictions import make_predictions

LABEL = "adrenal_mass"
SIDES = (4, 8, 16)  # voxels of the pooled cube
PENALTIES = (0.01, 0.1, 1.0, 10.0)  # C of scikit-learn


def main() -> None:
    """Prints the choice and the test AUROC as one line of CSV with a header."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="adrenalmnist3d_64.npz of MedMNIST+")
    path = parser.parse_args().path
    table = data.read_medmnist(path, labels=[LABEL])
    with np.load(path) as file:
        volumes = np.concatenate([file[f"{part}_images"] for part in ("train", "val", "test")])
    side, penalty, probabilities_N = _best(volumes, table)
    test = (table["split"] == "test").to_numpy()
    predictions = make_predictions(table[test], probabilities_N[test, None], labels=[LABEL])
    auroc = evaluate({"test": predictions}, labels=[LABEL], subgroups=())["splits"]["test"]["auroc"]
    row = {"side": side, "C": penalty, **auroc[LABEL]}
    print(pd.DataFrame([row]).to_csv(index=False, float_format="%.4f"), end="")


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
