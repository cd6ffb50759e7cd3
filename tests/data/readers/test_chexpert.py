import time

import numpy as np
import pandas as pd
import pytest

from dpmed.data import assign_splits, read_chexpert
from dpmed.errors import UserError

# As in the release.
HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,"
    "Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,"
    "Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
ROWS = [
    "patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
    "patient00002/study2/view1_frontal.jpg,Male,87,Frontal,PA,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,1.0,,1.0,",
    "patient00002/study2/view2_lateral.jpg,Male,87,Lateral,,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,0.0,,1.0,",
    "patient00003/study1/view1_frontal.jpg,Unknown,0,Frontal,AP,,,1.0,,,,,,,,,,,",
]
LABELS = {
    "cardiomegaly": ["Cardiomegaly"],
    "pleural_effusion": ["Pleural Effusion"],
    "no_finding": ["No Finding"],
}


@pytest.fixture
def root(tmp_path):
    lines = [f"CheXpert-v1.0-small/train/{row}" for row in ROWS]
    (tmp_path / "train.csv").write_text("\n".join([HEADER, *lines]))
    valid = f"CheXpert-v1.0-small/valid/{ROWS[0].replace('00001', '64541')}"
    (tmp_path / "valid.csv").write_text("\n".join([HEADER, valid]))
    (tmp_path / "train").mkdir()
    return tmp_path


def test_reads_the_release(root):
    table = read_chexpert(root, labels=LABELS)
    assert table["image"].tolist() == [
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00002/study2/view1_frontal.jpg",
        "train/patient00003/study1/view1_frontal.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
    ]
    assert table["patient_id"].tolist()[1] == "patient00002"
    assert table["study_id"].tolist()[1] == "patient00002_study2"
    assert table["sex"].tolist()[:2] == ["F", "M"]
    assert table["sex"].isna()[2]
    assert table["view"].tolist() == ["AP", "PA", "AP", "AP"]
    assert table["split"].tolist() == ["train"] * 3 + ["validation"]
    assert any("LATERAL 1" in note for note in table.attrs["notes"])


@pytest.mark.parametrize(
    ("uncertain", "blank", "cardiomegaly", "effusion"),
    [
        ("missing", "missing", [np.nan, np.nan, 1], [np.nan, 1, np.nan]),
        ("negative", "missing", [np.nan, 0, 1], [np.nan, 1, np.nan]),
        ("positive", "missing", [np.nan, 1, 1], [np.nan, 1, np.nan]),
        ("negative", "negative", [0, 0, 1], [0, 1, 0]),
    ],
)
def test_policies(root, uncertain, blank, cardiomegaly, effusion):
    table = read_chexpert(root, labels=LABELS, uncertain=uncertain, blank=blank)
    np.testing.assert_array_equal(table["cardiomegaly"][:3], cardiomegaly)
    np.testing.assert_array_equal(table["pleural_effusion"][:3], effusion)
    assert any(f"count as {uncertain}" in note for note in table.attrs["notes"])


def test_missing_is_never_negative_by_default(root):
    table = read_chexpert(root)
    assert table["no_finding"].isna().tolist() == [False, True, True, False]
    assert not (table["pneumonia"] == 0).any()


def test_all_views_and_no_such_view(root):
    assert len(read_chexpert(root, views=None)) == 5
    assert read_chexpert(root, views=["LATERAL"])["view"].tolist() == ["LATERAL"]
    with pytest.raises(UserError, match=r"leaves none .*AP, LATERAL, PA"):
        read_chexpert(root, views=["frontal"])


def test_the_archive_may_lie_inside(root):
    (root / "train").rmdir()
    with pytest.raises(UserError, match="neither the folder train/"):
        read_chexpert(root)
    (root / "CheXpert-v1.0-small" / "train").mkdir(parents=True)
    assert read_chexpert(root)["image"][0].startswith("CheXpert-v1.0-small/train/")


def test_a_test_part_is_taken_from_train(root):
    lines = [HEADER]
    for number in range(400):
        path = f"CheXpert-v1.0-small/train/patient{number:05}/study1/view1_frontal.jpg"
        lines.append(f"{path},Male,50,Frontal,AP,,,,,,,,,,,,,,")
    (root / "train.csv").write_text("\n".join(lines))
    table = assign_splits(
        read_chexpert(root), validation_fraction=0.1, test_fraction=0.2, salt="one"
    )
    assert table["split"].value_counts()["test"] == pytest.approx(80, abs=30)
    assert table["split"].value_counts()["validation"] == 1


def test_bad_input_is_named(root):
    with pytest.raises(UserError, match=r"data.uncertain='ignore' must be one of"):
        read_chexpert(root, uncertain="ignore")
    with pytest.raises(UserError, match=r"data.blank='positive'"):
        read_chexpert(root, blank="positive")
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text(text.replace(",1.0,,,,,,,,,0.0", ",2,,,,,,,,,0.0"))
    with pytest.raises(UserError, match=r"'No Finding'.*1 row: 1; for example '2'"):
        read_chexpert(root)
    (root / "train.csv").write_text(text.replace("Pleural Effusion", "Pleural effusion"))
    with pytest.raises(UserError, match=r"lacks the column 'Pleural Effusion'. Did you mean"):
        read_chexpert(root)
    (root / "train.csv").write_text(text.replace("patient00003/", ""))
    with pytest.raises(UserError, match=r"paths unlike .*1 row: 4"):
        read_chexpert(root)


def test_fast_enough(root):
    number = 40_000
    rows = [
        f"CheXpert-v1.0-small/train/{ROWS[1].replace('00002', f'{i:06}')}" for i in range(number)
    ]
    (root / "train.csv").write_text("\n".join([HEADER, *rows]))
    started = time.process_time()
    assert len(read_chexpert(root)) == number + 1
    assert time.process_time() - started < 3  # 10 s for 400,000 rows, with room for a slow machine


def test_columns_in_another_order(root):
    for name in ("train.csv", "valid.csv"):
        rows = pd.read_csv(root / name, dtype=str)
        rows[rows.columns[::-1]].to_csv(root / name, index=False)
    np.testing.assert_array_equal(read_chexpert(root)["cardiomegaly"], [np.nan, np.nan, 1, np.nan])
