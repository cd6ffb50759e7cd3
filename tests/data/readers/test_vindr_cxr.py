import time

import numpy as np
import pytest

from dpmed.data import has_patient_ids, read_vindr_cxr
from dpmed.errors import UserError

HEADER = "image_id,rad_id,Cardiomegaly,Nodule/Mass,Pleural effusion,Pneumonia,No finding"
TEST_HEADER = HEADER.replace("rad_id,", "")
LABELS = {
    "cardiomegaly": ["Cardiomegaly"],
    "no_finding": ["No finding"],
    "atelectasis": [],
}


@pytest.fixture
def root(tmp_path):
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    lines = [
        "a,R1,1,0,0,0,0",
        "a,R2,1,0,0,0,1",
        "b,R1,0,0,0,0,1",
        "a,R3,0,0,0,0,0",
        "b,R2,1,0,0,0,1",
    ]
    (annotations / "image_labels_train.csv").write_text("\n".join([HEADER, *lines]))
    (annotations / "image_labels_test.csv").write_text("\n".join([TEST_HEADER, "c,0,1,0,0,0"]))
    for split, name in [("train", "a"), ("train", "b"), ("test", "c")]:
        (tmp_path / split).mkdir(exist_ok=True)
        (tmp_path / split / f"{name}.dicom").touch()
    return tmp_path


def test_majority_of_readers(root):
    table = read_vindr_cxr(root, labels=LABELS)
    assert table["image"].tolist() == ["train/a.dicom", "train/b.dicom", "test/c.dicom"]
    assert table["split"].tolist() == ["train", "train", "test"]
    np.testing.assert_array_equal(table["cardiomegaly"], [1, np.nan, 0])  # b: one of two readers
    np.testing.assert_array_equal(table["no_finding"], [0, 1, 0])
    assert table["atelectasis"].isna().all()
    assert any("1 train labels without a majority" in note for note in table.attrs["notes"])


def test_no_patients_are_named(root):
    table = read_vindr_cxr(root, labels=LABELS)
    assert not has_patient_ids(table)
    assert table["sex"].isna().all()


def test_a_wrong_guess_of_a_header_lists_what_there_is(root):
    with pytest.raises(UserError, match=r"lacks the column 'Edema'. It has: image_id, rad_id"):
        read_vindr_cxr(root, labels={"edema": ["Edema"]})
    with pytest.raises(UserError, match=r"'No Finding'. Did you mean 'No finding'"):
        read_vindr_cxr(root, labels={"no_finding": ["No Finding"]})


def test_bad_rows_are_named(root):
    path = root / "annotations" / "image_labels_train.csv"
    path.write_text("\n".join([HEADER, "a,R1,2,0,0,0,0"]))
    with pytest.raises(UserError, match=r"labels other than 0 and 1 .1 row: 1"):
        read_vindr_cxr(root, labels=LABELS)
    path.write_text("\n".join([HEADER, *["a,R1,1,0,0,0,0"] * 2]))
    with pytest.raises(UserError, match=r"a reader twice for an image .1 row: 2"):
        read_vindr_cxr(root, labels=LABELS)
    path.unlink()
    with pytest.raises(UserError, match=r"image_labels_train.csv"):
        read_vindr_cxr(root, labels=LABELS)


def test_fast_enough(root):
    rows = [f"{i // 3},R{i % 3},1,0,0,0,1" for i in range(39_999)]
    path = root / "annotations" / "image_labels_train.csv"
    path.write_text("\n".join([HEADER, *rows]))
    started = time.process_time()
    assert len(read_vindr_cxr(root, labels=LABELS, max_skipped_images=13_333)) == 1
    assert time.process_time() - started < 3
