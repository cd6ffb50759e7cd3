import time

import numpy as np
import pytest

from dpmed.data import read_taixray
from dpmed.errors import UserError

HEADER = (
    "UID,PatientID,PhysicianID,StudyDate,Age,Sex,HeartSize,PulmonaryCongestion,"
    "PleuralEffusion_Right,PleuralEffusion_Left,PulmonaryOpacities_Right,PulmonaryOpacities_Left,"
    "Atelectasis_Right,Atelectasis_Left"
)
ROWS = [
    "u1,p1,d1,2012-01-01,25000,M,3,0,0,3,0,0,0,0",
    "u2,p2,d1,2012-01-01,18262.5,F,2,0,2,2,0,0,0,",
    "u3,p3,d1,2012-01-01,-5,F,0,0,0,0,0,0,4,",
]
LABELS = {
    "cardiomegaly": ["HeartSize"],
    "pleural_effusion": ["PleuralEffusion_Right", "PleuralEffusion_Left"],
    "atelectasis": ["Atelectasis_Right", "Atelectasis_Left"],
    "no_finding": [],
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "metadata").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "metadata" / "annotation.csv").write_text("\n".join([HEADER, *ROWS]))
    folds = ["UID,Fold,Split"]
    for fold in (0, 1):
        folds += [f"u1,{fold},train", f"u2,{fold},{'val' if fold else 'test'}", f"u3,{fold},train"]
    (tmp_path / "metadata" / "split.csv").write_text("\n".join(folds))
    for row in ROWS:
        (tmp_path / "data" / f"{row.split(',')[0]}.png").touch()
    return tmp_path


def test_reads_the_release(root):
    table = read_taixray(root, labels=LABELS)
    assert table["image"].tolist() == ["data/u1.png", "data/u2.png", "data/u3.png"]
    np.testing.assert_allclose(table["age"], [25000 / 365.25, 50, np.nan])
    assert table["sex"].tolist() == ["M", "F", "F"]
    assert table["split"].tolist() == ["train", "test", "train"]
    np.testing.assert_array_equal(table["cardiomegaly"], [1, 0, 0])
    np.testing.assert_array_equal(table["pleural_effusion"], [1, 0, 0])
    np.testing.assert_array_equal(table["atelectasis"], [0, np.nan, 1])
    assert table["no_finding"].isna().all()
    assert "1 impossible age turned into missing" in table.attrs["notes"]


def test_another_grade_and_another_fold(root):
    table = read_taixray(root, labels=LABELS, positive_from_grade=2, fold=1)
    np.testing.assert_array_equal(table["cardiomegaly"], [1, 1, 0])
    assert table["split"].tolist() == ["train", "validation", "train"]
    with pytest.raises(UserError, match=r"data.fold=7 .*folds 0, 1"):
        read_taixray(root, fold=7)


def test_without_split_list(root):
    (root / "metadata" / "split.csv").unlink()
    assert read_taixray(root)["split"].isna().all()


def test_bad_input_is_named(root):
    path = root / "metadata" / "annotation.csv"
    text = path.read_text()
    path.write_text(text.replace("HeartSize", "Heart size"))
    with pytest.raises(UserError, match=r"lacks the column 'HeartSize'. Did you mean 'Heart size'"):
        read_taixray(root)
    path.write_text(text.replace("F,2,0,2", "F,-1,0,2"))
    with pytest.raises(UserError, match=r"'HeartSize'.*grades from 0 .* row: 2; for example '-1'"):
        read_taixray(root)
    path.write_text(text)
    (root / "metadata" / "split.csv").write_text("UID,Fold,Split\nu1,0,holdout")
    with pytest.raises(UserError, match=r"besides train, val and test"):
        read_taixray(root)


def test_fast_enough(root):
    number = 40_000
    rows = [ROWS[1].replace("u2", f"v{i}") for i in range(number)]
    (root / "metadata" / "annotation.csv").write_text("\n".join([HEADER, *rows, ROWS[0]]))
    started = time.process_time()
    assert len(read_taixray(root, max_skipped_images=number)) == 1
    assert time.process_time() - started < 3
