"""How many planted duplicates `dpmed overlap` finds, and how many other people it takes for them.

    python -m benchmarks.overlap --kermany DIR --chestxray14 DIR --output results/overlap

Patients are split once: the constants of the comparison were chosen on 40 % of them, and this
measures on the other 60 %. Controls and corpus have no patient in common, so every flagged control
is false unless the two pictures are one: pairs that a person has looked at and found to be the same
picture stand in OUTPUT/true_duplicates.csv and are left out, as are pictures with the same pixels.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from dpmed.data.overlap.pairs import encode_corpus, find_pairs, gradient_encoder
from dpmed.data.overlap.pictures import Pictures, from_arrays
from dpmed.data.overlap.planted import Change, changed_copy, draw_change
from dpmed.stages.overlap import network_encoder

SPLIT_SEED, SEED = 1, 11
TUNING_SHARE = 0.4


@dataclass(frozen=True, kw_only=True)
class Source:
    """One image of one of the two data sets."""

    collection: str
    name: str
    patient: str
    pixels: NDArray[np.uint8]


def main() -> None:
    """Measures, and writes `figures.csv` and `flagged.csv`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kermany", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--chestxray14", type=Path, required=True, help="folder with images/")
    parser.add_argument("--output", type=Path, default=Path("results/overlap"))
    parser.add_argument("--controls", type=int, default=2000)
    parser.add_argument("--planted", type=int, default=600)
    words = parser.parse_args()
    controls, searched = _final_patients(
        [*_kermany(words.kermany), *_chestxray14(words.chestxray14)], words.controls
    )
    start = time.process_time()
    corpus = encode_corpus(
        _pictures(searched), {"network": network_encoder(), "gradients": gradient_encoder}
    )
    rows, copies, changes = _planted(searched, words.planted)
    found = find_pairs(from_arrays(copies, [str(row) for row in rows]), corpus, title="planted")
    flagged = find_pairs(_pictures(controls), corpus, title="controls")
    seconds = (time.process_time() - start) / (len(copies) + len(controls))
    listed = _named(flagged, controls, searched)
    known = _true_duplicates(words.output / "true_duplicates.csv")
    is_true = (listed["kind"] == "exact") | pd.Series(
        [pair in known for pair in zip(listed["control"], listed["corpus"], strict=True)],
        index=listed.index,
        dtype=bool,
    )
    figures = [
        *_recall(rows, changes, searched, found),
        *_false_flags(listed, is_true, controls),
        _figure("CPU seconds an image", seconds),
        _figure("images in the corpus", len(corpus.pictures)),
    ]
    words.output.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(figures).to_csv(words.output / "figures.csv", index=False)
    listed.assign(is_true_duplicate=is_true).to_csv(words.output / "flagged.csv", index=False)
    print(pd.DataFrame(figures).to_string(index=False))


def _kermany(folder: Path) -> list[Source]:
    table = pd.read_csv(folder / "labels.csv")
    return [
        Source(collection="kermany", name=name, patient=f"k-{patient}", pixels=_read(folder / name))
        for name, patient in zip(table["path"], table["patient"], strict=True)
    ]


def _chestxray14(folder: Path) -> list[Source]:
    table = pd.read_csv(folder / "Data_Entry_2017_v2020.csv")
    return [
        Source(
            collection="chestxray14",
            name=name,
            patient=f"n-{patient}",
            pixels=_read(folder / "images" / name),
        )
        for name, patient in zip(table["Image Index"], table["Patient ID"], strict=True)
    ]


def _read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("L"))


def _final_patients(sources: list[Source], num_controls: int) -> tuple[list[Source], list[Source]]:
    """Controls and corpus of patients that no constant was chosen on, without a common patient."""
    patients = np.array(sorted({source.patient for source in sources}))
    np.random.default_rng(SPLIT_SEED).shuffle(patients)
    final = patients[int(len(patients) * TUNING_SHARE) :]
    by_patient: dict[str, list[Source]] = {}
    for source in sources:
        by_patient.setdefault(source.patient, []).append(source)
    controls: list[Source] = []
    searched: list[Source] = []
    for patient in final:
        (controls if len(controls) < num_controls else searched).extend(by_patient[patient])
    return controls[:num_controls], searched


def _pictures(sources: list[Source]) -> Pictures:
    return from_arrays([source.pixels for source in sources], [source.name for source in sources])


def _planted(
    searched: list[Source], count: int
) -> tuple[NDArray[np.int64], list[NDArray[np.uint8]], list[Change]]:
    generator = np.random.default_rng(SEED)
    rows = generator.choice(len(searched), count, replace=False)
    changes = [draw_change(generator) for _ in rows]
    copies = [
        changed_copy(searched[row].pixels, change)
        for row, change in zip(rows, changes, strict=True)
    ]
    return rows, copies, changes


def _recall(
    rows: NDArray[np.int64], changes: list[Change], searched: list[Source], found: pd.DataFrame
) -> list[dict[str, object]]:
    right = found[rows[found["image"]] == found["other"]]
    is_found = np.isin(np.arange(len(rows)), right["image"])
    collection = np.array([searched[row].collection for row in rows])
    scale = np.array([change.scale for change in changes])
    degrees = np.abs([change.degrees for change in changes])
    quality = np.array([change.quality for change in changes])
    parts = {
        "recall": np.ones(len(rows), bool),
        **{f"recall, {name}": collection == name for name in ("kermany", "chestxray14")},
        "recall, scale .5 to .71": scale < 0.71,
        "recall, scale .71 to 1.41": (scale >= 0.71) & (scale < 1.41),
        "recall, scale 1.41 to 2": scale >= 1.41,
        "recall, rotation above 3 degrees": degrees > 3,
        "recall, JPEG quality 50 to 64": quality < 65,
    }
    return [
        *(_rate(name, int(is_found[part].sum()), int(part.sum())) for name, part in parts.items()),
        _figure("lowest score of a planted duplicate that was found", right["score"].min()),
    ]


def _false_flags(
    listed: pd.DataFrame, is_true: pd.Series, controls: list[Source]
) -> list[dict[str, object]]:
    false = listed[~is_true]
    num_cleared = int(listed[is_true]["control"].nunique())
    total = len(controls) - num_cleared
    return [
        _rate("controls flagged falsely", int(false["control"].nunique()), total),
        _figure("controls left out as true duplicates", num_cleared),
    ]


def _named(flagged: pd.DataFrame, controls: list[Source], searched: list[Source]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "control": [controls[row].name for row in flagged["image"]],
            "corpus": [searched[row].name for row in flagged["other"]],
            "kind": flagged["kind"],
            "score": flagged["score"].astype(float).round(4),
            "scale": flagged["scale"].astype(float).round(4),
            "degrees": flagged["degrees"].astype(float).round(3),
        }
    )


def _true_duplicates(path: Path) -> set[tuple[str, str]]:
    if not path.is_file():
        return set()
    table = pd.read_csv(path)
    return set(zip(table["control"], table["corpus"], strict=True))


def _rate(name: str, count: int, total: int) -> dict[str, object]:
    low = stats.beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = stats.beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return {"figure": name, "value": count / total, "ci_low": low, "ci_high": high,
            "count": count, "total": total}  # fmt: skip


def _figure(name: str, value: float) -> dict[str, object]:
    return {"figure": name, "value": value}


if __name__ == "__main__":
    main()
