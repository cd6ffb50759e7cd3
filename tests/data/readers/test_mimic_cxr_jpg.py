import gzip
import time

import numpy as np
import pandas as pd
import pytest

from dpmed.data import read_mimic_cxr_jpg
from dpmed.data.readers.chexpert_labels import CHEXPERT_LABELS
from dpmed.errors import UserError

# The metadata's header is as in the release; the others are from memory.
METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
    "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
    "PatientOrientationCodeSequence_CodeMeaning"
)
IMAGES = [
    'aa-11,10000032,50414267,"CHEST (PA AND LAT)",PA,3056,2544,21800506,213014.531,a,b,Erect',
    "bb-22,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,213014.531,a,b,Erect",
    "cc-33,10000764,57375967,CHEST,AP,3056,2544,21301001,213014.531,a,b,Erect",
    "dd-44,10000898,50771383,CHEST,AP,3056,2544,21880101,213014.531,a,b,",
]


def write(root, part, lines):
    (root / f"mimic-cxr-2.0.0-{part}.csv").write_text("\n".join(lines))


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "metadata", [METADATA, *IMAGES])
    header = ",".join(["subject_id", "study_id", *CHEXPERT_LABELS])
    blank = "," * 13
    write(
        tmp_path,
        "chexpert",
        [header, f"10000032,50414267,1.0{blank}", "10000764,57375967,,,-1.0,,,0.0" + "," * 8],
    )
    write(
        tmp_path,
        "split",
        [
            "dicom_id,study_id,subject_id,split",
            "aa-11,50414267,10000032,train",
            "bb-22,50414267,10000032,train",
            "cc-33,57375967,10000764,validate",
            "dd-44,50771383,10000898,test",
        ],
    )
    (tmp_path / "files").mkdir()
    return tmp_path


@pytest.fixture
def patients(tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text(
        "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"
        "10000032,F,52,2180,2014 - 2016,\n"
        "10000764,M,86,2132,2014 - 2016,\n"
    )
    return path


def test_reads_the_release(root, patients):
    table = read_mimic_cxr_jpg(root)
    assert table["image"].tolist() == [
        "files/p10/p10000032/s50414267/aa-11.jpg",
        "files/p10/p10000764/s57375967/cc-33.jpg",
        "files/p10/p10000898/s50771383/dd-44.jpg",
    ]
    assert table["patient_id"].tolist() == ["10000032", "10000764", "10000898"]
    assert table["split"].tolist() == ["train", "validation", "test"]
    assert table["view"].tolist() == ["PA", "AP", "AP"]
    np.testing.assert_array_equal(table["age"], [52, 84, np.nan])
    assert table["sex"].tolist()[:2] == ["F", "M"]
    assert table["sex"].isna()[2]
    np.testing.assert_array_equal(table["no_finding"], [1, np.nan, np.nan])
    np.testing.assert_array_equal(table["cardiomegaly"], [np.nan] * 3)
    np.testing.assert_array_equal(table["edema"], [np.nan, 0, np.nan])


def test_policies_leave_unlabelled_studies_missing(root):
    table = read_mimic_cxr_jpg(root, uncertain="positive", blank="negative")
    np.testing.assert_array_equal(table["cardiomegaly"], [0, 1, np.nan])
    assert any("1 images are of studies without labels" in note for note in table.attrs["notes"])


def test_without_patients_sex_and_age_are_missing(root):
    table = read_mimic_cxr_jpg(root)
    assert table["sex"].isna().all()
    assert table["age"].isna().all()
    assert any("no patients.csv" in note for note in table.attrs["notes"])


def test_patients_may_lie_elsewhere(root, patients, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("hosp") / "patients.csv.gz"
    with gzip.open(elsewhere, "wt") as file:
        file.write(patients.read_text())
    patients.unlink()
    assert read_mimic_cxr_jpg(root, patients_csv=elsewhere)["age"][0] == 52


def test_bad_input_is_named(root):
    write(root, "split", ["dicom_id,study_id,subject_id,part", "aa-11,1,1,train"])
    with pytest.raises(UserError, match=r"lacks the column 'split'. It has: dicom_id, study_id"):
        read_mimic_cxr_jpg(root)
    write(root, "split", ["dicom_id,study_id,subject_id,split", "aa-11,1,1,fold1"])
    with pytest.raises(UserError, match=r"splits other than train, validate and test .1 row: 1"):
        read_mimic_cxr_jpg(root)
    write(root, "split", ["dicom_id,study_id,subject_id,split", *["aa-11,1,1,test"] * 2])
    with pytest.raises(UserError, match=r"repeats values of 'dicom_id' .1 row: 2"):
        read_mimic_cxr_jpg(root)
    (root / "mimic-cxr-2.0.0-split.csv").unlink()
    with pytest.raises(UserError, match=r"mimic-cxr-2.0.0-split.csv"):
        read_mimic_cxr_jpg(root)


def test_images_folder_is_missing(root):
    (root / "files").rmdir()
    with pytest.raises(UserError, match="no folder files/"):
        read_mimic_cxr_jpg(root)


def test_fast_enough(root):
    number = 40_000
    ids = [f"{i:08}" for i in range(number)]
    write(root, "metadata", [METADATA, *(IMAGES[0].replace("aa-11", i) for i in ids)])
    rows = [f"{i},50414267,10000032,train" for i in ids]
    write(root, "split", ["dicom_id,study_id,subject_id,split", *rows])
    started = time.process_time()
    assert len(read_mimic_cxr_jpg(root)) == number
    assert time.process_time() - started < 3


def test_ids_stay_text(root):
    table = read_mimic_cxr_jpg(root)
    assert all(isinstance(value, str) for value in table["study_id"])
    assert pd.api.types.is_string_dtype(table["patient_id"])
