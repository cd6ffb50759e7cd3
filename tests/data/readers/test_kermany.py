"""Kermany's release is read from its file names, in its folders or flat."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpmed.data import read_kermany
from dpmed.errors import UserError

NAMES = {
    "train/NORMAL/IM-0115-0001.jpeg": ("N-0115", 0, 0),
    "train/NORMAL/NORMAL2-IM-0115-0001-0002.jpeg": ("N2-0115", 0, 0),
    "train/PNEUMONIA/person23_virus_54.jpeg": ("person23", 1, 0),
    "test/PNEUMONIA/person23_bacteria_9.jpeg": ("person23", 1, 1),
    "test/PNEUMONIA/person4_virus_9_1.jpeg": ("person4", 1, 0),
}


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_names_say_patient_and_finding(tmp_path: Path) -> None:
    root = write(tmp_path / "chest_xray", *NAMES, "train/NORMAL/.DS_Store")
    labels = {"pneumonia": ["Pneumonia"], "bacterial": ["Bacterial Pneumonia"]}
    table = read_kermany(root, labels=labels).set_index("image")
    found = {row: tuple(table.loc[row, ["patient_id", *labels]]) for row in table.index}
    assert found == NAMES


def test_foreign_repeated_and_absent_files_are_named(tmp_path: Path) -> None:
    for folder, names, message in (
        ("a", ["x/scan7.jpeg"], "1 of 1 images .* not named as in this release: scan7.jpeg"),
        ("b", ["x/IM-0115-0001.jpeg", "y/IM-0115-0001.jpeg"], "have one name"),
        ("c", ["readme.txt"], "holds no .jpg"),
        ("d", [], "is not a folder"),
    ):
        with pytest.raises(UserError, match=message):
            read_kermany(write(tmp_path / folder, *names))


def test_the_real_files(shared_data: Path) -> None:
    table = read_kermany(shared_data / "kermany")
    assert len(table) == 5200
    assert table["patient_id"].nunique() == 2846
    assert table["normal"].sum() == 1340
    assert table["bacterial_pneumonia"].sum() == 2517
