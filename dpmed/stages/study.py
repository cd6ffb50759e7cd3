"""From the data settings to a study: table, splits and images, checked and ready for training.

Reads nothing before the privacy plan is made, and nothing of it may reach the plan.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpmed import data
from dpmed.config import DataConfig, SyntheticData
from dpmed.data.cache.pages import blocks
from dpmed.data.synthetic.contact_sheet import captions, contact_sheet
from dpmed.errors import UserError
from dpmed.run_record import RunRecord
from dpmed.stages.images import load_images
from dpmed.stages.tables import split_table

logger = logging.getLogger(__name__)

_SHEET_COLUMNS = 5


@dataclass(frozen=True, kw_only=True)
class Study:
    """Row i of the table belongs to image i.

    Args:
        table: a study table with splits.
        images_NHW: uint8 pixels.
        labels: the label columns that the model answers, in order.
        sheet: the data sheet.
        skipped_images: what was left out, with the reason.
        suspected_inverted: images that look like a negative, used as they are.
        duplicate_images: pairs of rows with the same pixels under two patients.
        split_hash: SHA-256 of who is in which split.
        is_synthetic: whether its images may be shown in a report.
    """

    table: pd.DataFrame
    images_NHW: NDArray[np.uint8]
    labels: tuple[str, ...]
    sheet: dict[str, Any]
    skipped_images: list[dict[str, str]]
    suspected_inverted: list[str]
    duplicate_images: list[dict[str, Any]]
    split_hash: str
    is_synthetic: bool

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """Row numbers of a split."""
        return np.flatnonzero((self.table["split"] == split).to_numpy())

    def targets_NL(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Labels of some rows: 1, 0 or NaN."""
        return self.table.iloc[rows][list(self.labels)].to_numpy(dtype=np.float32)

    def data_hash(self) -> str:
        """SHA-256 of table and pixels: what a replay must have in common with the first attempt."""
        digest = hashlib.sha256(self.split_hash.encode())
        digest.update(pd.util.hash_pandas_object(self.table, index=False).to_numpy().tobytes())
        for block in blocks(self.images_NHW):
            digest.update(block.data)
        return digest.hexdigest()


def load_study(config: DataConfig, *, unit: Literal["patient", "image"], num_workers: int) -> Study:
    """Reads, splits, decodes (or draws) and checks a data set.

    Raises:
        UserError: whatever is wrong with the files, named.
    """
    table = split_table(config)
    if unit == "patient" and not data.has_patient_ids(table):
        raise UserError(
            f"privacy.unit=patient needs a patient id in every row of {config.id}. Map the column "
            "with data.columns.patient_id=NAME, or protect single images with privacy=image."
        )
    store = load_images(
        config, table, num_workers=num_workers, max_skipped=config.max_skipped_images
    )
    table = table.iloc[store.kept_rows].reset_index(drop=True)
    inverted = table["image"][store.suspected_inverted].tolist()
    if inverted:
        data.add_note(table, _about_inverted(len(inverted)))
    duplicates = data.find_duplicate_images(table, store.pixel_hashes())
    return Study(
        table=table,
        images_NHW=store.array,
        labels=tuple(config.labels),
        sheet=_sheet(config, table, store),
        skipped_images=[asdict(item) for item in store.skipped],
        suspected_inverted=inverted,
        duplicate_images=[asdict(item) for item in duplicates],
        split_hash=data.split_hash(table),
        is_synthetic=isinstance(config, SyntheticData),
    )


def write_study(study: Study, run_dir: Path, record: RunRecord) -> None:
    """Writes the splits, the data sheet, and a contact sheet of synthetic images only."""
    data.write_splits(study.table, run_dir / "splits.csv")
    sheet = json.dumps(study.sheet, indent=2, allow_nan=False)
    (run_dir / "data_sheet.json").write_text(sheet, encoding="utf-8")
    record.update(
        split_hash=study.split_hash,
        skipped_images=study.skipped_images,
        suspected_inverted=study.suspected_inverted,
    )
    if study.duplicate_images:
        listed = run_dir / "duplicate_images.csv"
        pd.DataFrame(study.duplicate_images).to_csv(listed, index=False)
        record.warn(
            f"{len(study.duplicate_images)} images have the same pixels as an image of another "
            f"patient; they are listed in {listed.name} of the run folder."
        )
    for note in study.sheet["notes"]:
        logger.info("data       %s", note)
    if study.is_synthetic:
        shown = _one_of_each(study)
        sheet_image = contact_sheet(
            study.images_NHW[shown],
            captions(study.table.iloc[shown]),
            num_columns=_SHEET_COLUMNS,
        )
        sheet_image.save(run_dir / "contact_sheet.png")


def _one_of_each(study: Study) -> NDArray[np.int64]:
    """A row of test images for every label, which show nothing else."""
    rows = study.rows_of("test")
    targets_NL = study.targets_NL(rows)
    only_NL = (targets_NL == 1) & (targets_NL.sum(axis=1, keepdims=True) == 1)
    chosen = [rows[only_NL[:, index]][:_SHEET_COLUMNS] for index in range(len(study.labels))]
    return np.concatenate(chosen)


def _about_inverted(number: int) -> str:
    return (
        f"{number} images look inverted (bright corners, dark centre): a wrong photometric tag, "
        "perhaps. They are used as they are; data.preprocessing.photometric overrides the tag"
    )


def _sheet(config: DataConfig, table: pd.DataFrame, store: data.ImageStore) -> dict[str, Any]:
    sheet = data.data_sheet(
        table,
        config.labels,
        name=config.id,
        preprocessing=asdict(config.preprocessing),
        label_harmonisation=getattr(config, "label_map", None),
        num_skipped=len(store.skipped),
    )
    return sheet | {
        "synthetic": isinstance(config, SyntheticData),
        "num_suspected_inverted": int(store.suspected_inverted.sum()),
    }
