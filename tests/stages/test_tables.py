"""Every release with its shipped configuration, from its files to the table that a run uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpmed.compose import compose
from dpmed.config_data import DataConfig
from dpmed.data import has_patient_ids
from dpmed.stages.tables import image_root, split_table
from tests.releases import IMAGES_PER_PATIENT, NUM_PATIENTS, RELEASES

NUM_IMAGES = NUM_PATIENTS * IMAGES_PER_PATIENT
FRONTAL = {"chexpert": 2, "mimic_cxr_jpg": 2, "padchest": 2}  # images of a patient


def config_of(name: str, root: Path, *words: str) -> DataConfig:
    return compose([f"data={name}", f"data.root={root}", *words]).data


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_reads_with_its_shipped_configuration(name: str, tmp_path: Path) -> None:
    RELEASES[name](tmp_path)
    config = config_of(name, tmp_path)
    table = split_table(config)
    assert len(table) == NUM_PATIENTS * FRONTAL.get(name, IMAGES_PER_PATIENT)
    assert set(table["split"]) == {"train", "validation", "test"}
    assert all((image_root(config) / image).is_file() for image in table["image"])
    assert has_patient_ids(table) == (config.unit == "patient") == (name != "vindr_cxr")
    if config.unit == "patient":
        assert table.groupby("patient_id")["split"].nunique().max() == 1
    first = table[table["image"].str.contains("patient00000|10000000|^0/0_|image0-|u0-")]
    sick = "atelectasis" if name == "taixray" else "pneumonia"
    assert (first[sick] == 1).all(), first


def test_missing_is_negative_only_where_asked(tmp_path: Path) -> None:
    RELEASES["chexpert"](tmp_path)
    kept = split_table(config_of("chexpert", tmp_path))["cardiomegaly"]
    asked = split_table(
        config_of("chexpert", tmp_path, "data.uncertain=positive", "data.blank=negative")
    )["cardiomegaly"]
    np.testing.assert_array_equal(kept[:8:2], [1, np.nan, 0, np.nan])
    np.testing.assert_array_equal(asked[:8:2], [1, 1, 0, 0])


def test_all_views_are_a_setting(tmp_path: Path) -> None:
    RELEASES["padchest"](tmp_path)
    assert len(split_table(config_of("padchest", tmp_path, "data.views=null"))) == NUM_IMAGES


def test_a_share_of_the_training_patients(tmp_path: Path) -> None:
    """Whole patients, by their own ids: nobody enters a split, and a share is part of a larger."""
    tables = {share: table_of_share(share) for share in (1.0, 0.5, 0.25)}
    held_out = {share: table[table["split"] != "train"] for share, table in tables.items()}
    pd.testing.assert_frame_equal(
        held_out[1.0].reset_index(drop=True), held_out[0.25].reset_index(drop=True)
    )
    patients = {
        share: set(table.loc[table["split"] == "train", "patient_id"])
        for share, table in tables.items()
    }
    assert patients[0.25] < patients[0.5] < patients[1.0]
    assert 0.4 < len(patients[0.5]) / len(patients[1.0]) < 0.6
    for share, table in tables.items():
        kept = tables[1.0]["patient_id"].isin(patients[share])
        assert (table["split"] == "train").sum() == kept.sum(), "a patient lost some images"


def table_of_share(share: float) -> pd.DataFrame:
    return split_table(compose(["data.num_patients=1500", f"data.fraction={share}"]).data)
