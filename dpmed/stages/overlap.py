"""`dpmed overlap`: which patients of a private data set are already in a public corpus.

Two encoders propose candidates, registration decides (`dpmed.data.overlap`). Two kinds of controls
run through the same comparison and stand beside its result: synthetic radiographs, of which none
may be flagged, and copies made of the corpus' own images, all of which should be.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from dpmed import data, models
from dpmed.config_data import DataConfig, SyntheticData
from dpmed.data.decoding import DICOM_SUFFIXES, RASTER_SUFFIXES, read_pixels
from dpmed.data.overlap.contrast import SIZE
from dpmed.data.overlap.pairs import (
    GATE,
    NUM_NEIGHBOURS,
    THRESHOLD,
    Corpus,
    Encoder,
    encode_corpus,
    find_pairs,
    gradient_encoder,
)
from dpmed.data.overlap.pictures import Pictures, from_arrays, read_pictures
from dpmed.data.overlap.planted import changed_copy, draw_change
from dpmed.errors import UserError
from dpmed.report.overlap_page import write_overlap_page
from dpmed.stages.tables import image_root, read_table

logger = logging.getLogger(__name__)

_SUFFIXES = RASTER_SUFFIXES | DICOM_SUFFIXES
_BATCH = 256
_NETWORK, _NETWORK_PIXELS = "convnext_atto", 64
_CONTROL_SEED = 7
_CONTROL_PIXELS = 192


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """The images of one side: where they lie, their names, and whose they are."""

    title: str
    root: Path
    names: list[str]
    patients: list[str]


def find_overlap(
    private: ImageSet,
    public: ImageSet,
    output: Path,
    *,
    num_controls: int = 200,
    num_planted: int = 100,
    num_workers: int = 1,
) -> Path:
    """Compares two sets, and writes `pairs.csv`, `summary.json`, `summary.md` and `index.html`.

    Args:
        private: the set whose patients are looked for.
        public: the set that they are looked for in, such as a pretraining corpus.
        output: created where it is missing. `pairs.csv` names private images; the other files
            hold counts only.
        num_controls: synthetic radiographs looked for in the public set.
        num_planted: changed copies of public images looked for in it.
        num_workers: threads that decode.

    Returns:
        The page.

    Raises:
        UserError: a set without a single image that can be decoded.
    """
    queries = _read(private, num_workers)
    corpus = encode_corpus(
        _read(public, num_workers), {"network": network_encoder(), "gradients": gradient_encoder}
    )
    pairs = find_pairs(queries, corpus, title="comparing")
    summary = {
        "private": _counts(private, queries, pairs["image"]),
        "public": _counts(public, corpus.pictures, pairs["other"]),
        "num_pairs": {kind: int((pairs["kind"] == kind).sum()) for kind in ("exact", "near")},
        "controls": _controls(corpus, public, num_controls, num_planted),
        "settings": {"neighbours": NUM_NEIGHBOURS, "gate": GATE, "threshold": THRESHOLD},
    }
    output.mkdir(parents=True, exist_ok=True)
    _named(pairs, queries, corpus.pictures).to_csv(output / "pairs.csv", index=False)
    text = json.dumps(summary, indent=2)
    (output / "summary.json").write_text(f"{text}\n", encoding="utf-8")
    return write_overlap_page(summary, output)


def folder_of_images(folder: Path) -> ImageSet:
    """Every PNG, JPEG and DICOM file below a folder; each counts as a patient of its own."""
    names = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES
    )
    if not names:
        raise UserError(f"{folder} holds no image ({', '.join(sorted(_SUFFIXES))}).")
    return ImageSet(title=folder.name, root=folder, names=names, patients=names)


def data_set(config: DataConfig) -> ImageSet:
    """The images of a configured data set."""
    if isinstance(config, SyntheticData):
        raise UserError(
            "data=synthetic has no patients, so it overlaps with nothing. Name a real data set or "
            "a folder of images."
        )
    table = read_table(config)
    return ImageSet(
        title=config.id,
        root=image_root(config),
        names=table["image"].astype(str).tolist(),
        patients=table["patient_id"].fillna(table["image"]).astype(str).tolist(),
    )


def network_encoder() -> Encoder:
    """The shipped ConvNeXt, which has seen synthetic radiographs only, as an encoder."""
    model = models.build_model(
        name=_NETWORK, num_labels=1, image_size=_NETWORK_PIXELS, ls_init_value=0.1
    )
    models.initialise(model, init="synthetic", labels=["none of them"])
    model.eval()

    @torch.inference_mode()
    def encode(images_NHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        step = SIZE // _NETWORK_PIXELS
        batches = []
        for start in range(0, len(images_NHW), _BATCH):
            images_N1HW = torch.from_numpy(images_NHW[start : start + _BATCH])[:, None] / 255
            small_N1HW = torch.nn.functional.avg_pool2d(images_N1HW, step)
            batches.append(models.embed(model, small_N1HW).numpy())
        vectors_ND = np.concatenate(batches)
        vectors_ND = vectors_ND - vectors_ND.mean(axis=1, keepdims=True)
        return vectors_ND / (np.linalg.norm(vectors_ND, axis=1, keepdims=True) + 1e-9)

    return encode


def _read(images: ImageSet, num_workers: int) -> Pictures:
    return read_pictures(
        images.root,
        images.names,
        images.patients,
        num_workers=num_workers,
        title=f"reading {images.title}",
    )


def _counts(images: ImageSet, pictures: Pictures, flagged: pd.Series) -> dict[str, Any]:
    rows = flagged.unique()
    patients = {pictures.patients[row] for row in rows}
    num_patients = len(set(pictures.patients))
    return {
        "name": images.title,
        "num_images": len(pictures),
        "num_patients": num_patients,
        "num_unreadable": len(pictures.unreadable),
        "num_flagged_images": len(rows),
        "num_flagged_patients": len(patients),
        "rate_images": len(rows) / len(pictures),
        "rate_patients": len(patients) / num_patients,
    }


def _controls(
    corpus: Corpus, public: ImageSet, num_controls: int, num_planted: int
) -> dict[str, dict[str, int]]:
    """How many of each kind of control were flagged, or found in the right place."""
    controls = {}
    if num_controls:
        flagged = find_pairs(_synthetic(num_controls), corpus, title="synthetic controls")
        controls["synthetic"] = {
            "num_images": num_controls,
            "num_flagged": int(flagged["image"].nunique()),
        }
    num_planted = min(num_planted, len(corpus.pictures))
    if num_planted:
        generator = np.random.default_rng(_CONTROL_SEED)
        rows = generator.choice(len(corpus.pictures), num_planted, replace=False)
        copies = [
            changed_copy(_grey(public, corpus.pictures.names[row]), draw_change(generator))
            for row in rows
        ]
        names = [f"copy {index}" for index in range(num_planted)]
        found = find_pairs(from_arrays(copies, names), corpus, title="planted duplicates")
        right = found[rows[found["image"]] == found["other"]]
        controls["planted"] = {
            "num_images": num_planted,
            "num_found": int(right["image"].nunique()),
        }
    return controls


def _synthetic(num_images: int) -> Pictures:
    table = data.synthetic_cohort(num_patients=num_images, seed=_CONTROL_SEED).head(num_images)
    images = data.render_radiographs(
        table, seed=_CONTROL_SEED, image_size=_CONTROL_PIXELS, num_workers=1
    )
    return from_arrays(list(images), [f"synthetic {index}" for index in range(num_images)])


def _grey(images: ImageSet, name: str) -> NDArray[np.uint8]:
    """An image's pixels as uint8, for making a copy of it."""
    pixels = read_pixels(images.root / name, data.Preprocessing(image_size=SIZE))
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _named(pairs: pd.DataFrame, queries: Pictures, corpus: Pictures) -> pd.DataFrame:
    """The flagged pairs by file name and patient."""
    named = pairs.rename(columns={"image": "private_image", "other": "public_image"})
    named.insert(1, "private_patient", [queries.patients[row] for row in pairs["image"]])
    named.insert(3, "public_patient", [corpus.patients[row] for row in pairs["other"]])
    named["private_image"] = [queries.names[row] for row in pairs["image"]]
    named["public_image"] = [corpus.names[row] for row in pairs["other"]]
    return named
