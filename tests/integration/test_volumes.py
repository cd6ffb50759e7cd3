"""`experiment=ct_eps8` as a user runs it, on a file drawn in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from dpmed.compose import compose
from dpmed.errors import UserError
from dpmed.pipeline import run
from dpmed.report.tables import summary_table
from dpmed.stages.declared_size import declared_num_units
from dpmed.stages.study import load_study
from tests.integration.conftest import SMALL

SHORT = [word for word in SMALL if not word.startswith(("data.", "init", "model."))]


def _write_volumes(path: Path) -> Path:
    """Cubes of two sizes: the larger ones are positive."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, number in (("train", 24), ("val", 12), ("test", 16)):
        classes = np.arange(number) % 2
        volumes = np.zeros((number, 8, 8, 8), np.uint8)
        for volume, positive in zip(volumes, classes, strict=True):
            corner, side = random.integers(0, 3), 2 + 3 * positive
            volume[corner : corner + side, corner : corner + side, corner : corner + side] = 255
        arrays |= {f"{part}_images": volumes, f"{part}_labels": classes[:, None].astype(np.uint8)}
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("model", ["convnext_2p5d", "convnext3d"])
def test_a_private_run_on_volumes_reaches_its_report(model: str, tmp_path: Path) -> None:
    path = _write_volumes(tmp_path / "volumes.npz")
    words = [
        "experiment=ct_eps8",
        f"model={model}",
        *SHORT,
        "data.id=drawn",
        f"data.path={path}",
        "privacy.num_units=24",
        "privacy.expected_batch_size=6",
        "training.num_steps=2",
        "training.warmup_steps=0",
        f"data.cache_dir={tmp_path}/cache",
        f"privacy.ledger_dir={tmp_path}/ledger",
    ]
    report = run(compose(words), run_dir=tmp_path / "run")
    assert report is not None
    assert report.is_file()
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (plan["unit"], plan["private"], plan["num_units"]) == ("image", True, 24)
    assert plan["epsilon"] <= 8
    assert record["generic_modules"] == []
    assert "units isolated" in record["clipping_proof"]
    sheet = json.loads((tmp_path / "run" / "data_sheet.json").read_text())
    assert sheet["splits"]["test"]["num_images"] == 16
    assert sheet["splits"]["test"]["num_patients"] is None
    assert summary_table(tmp_path / "run").startswith("Results on 16 test images\n")


def test_a_table_of_nifti_files_becomes_a_study(tmp_path: Path) -> None:
    lines = ["image,patient,abnormal,split"]
    for number, split in enumerate(["train", "train", "validation", "test"]):
        volume = np.full((8, 8, 8), number, np.int16)
        volume[0] = 100
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{number}.nii.gz")
        lines.append(f"{number}.nii.gz,p{number},{number % 2},{split}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    config = compose(
        [
            "data=volumes",
            "model=convnext3d",
            "data.id=hospital",
            f"data.path={tmp_path}/table.csv",
            "data.columns.patient_id=patient",
            "data.columns.split=split",
            "data.preprocessing.image_size=16",
            f"data.cache_dir={tmp_path}/cache",
        ]
    )
    study = load_study(config.data, unit="patient", num_workers=0)
    assert study.images_NHW.shape == (4, 16, 16, 16)
    assert study.rows_of("train").tolist() == [0, 1]
    assert [int(cube.max()) for cube in study.images_NHW] == [255] * 4
    (tmp_path / "2.nii.gz").unlink()
    with pytest.raises(UserError, match=r"2\.nii\.gz: No such file"):
        load_study(config.data, unit="patient", num_workers=0)


def test_the_number_of_volumes_is_published_or_declared(shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "adrenalmnist3d" / "adrenalmnist3d_64.npz"
    config = compose(["experiment=ct_eps8", f"data.path={real}"])
    size, origin = declared_num_units(config.data, unit="image", num_units=None)
    assert size == 1188
    assert "AdrenalMNIST3D" in origin
    unknown = _write_volumes(tmp_path / "volumes.npz")
    config = compose(["experiment=ct_eps8", f"data.path={unknown}"])
    with pytest.raises(UserError, match=r"privacy\.num_units is missing"):
        declared_num_units(config.data, unit="image", num_units=None)
