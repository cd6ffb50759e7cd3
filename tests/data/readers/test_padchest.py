import time

import numpy as np
import pytest

from dpmed.data import read_padchest
from dpmed.errors import UserError

NAME = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
HEADER = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
    "ViewPosition_DICOM,Projection,MethodProjection,PhotometricInterpretation_DICOM,Labels,labelCUIS"
)
ROWS = [
    "0,a.png,0,20140915,s1,p1,1930.0,F,POSTEROANTERIOR,PA,Manual,MONOCHROME2,"
    "\"['pleural effusion', ' cardiomegaly ']\",\"['C1']\"",
    "1,b.png,0,20140915,s1,p1,1930.0,F,LATERAL,L,Manual,MONOCHROME2,\"['normal']\",\"['C1']\"",
    "2,c.png,1,20150101,s2,p2,,M,ANTEROPOSTERIOR,AP_horizontal,Manual,MONOCHROME1,"
    "\"['unchanged']\",\"['C1']\"",
    '3,d.png,1,20150101,s3,p3,1800,,ANTEROPOSTERIOR,AP,Manual,MONOCHROME1,"[\'normal\']","[]"',
    '4,e.png,1,20150101,s4,p4,2000,O,POSTEROANTERIOR,PA,Manual,MONOCHROME1,,"[]"',
    '5,f.png,1,20150101,s5,p5,2000,M,POSTEROANTERIOR,PA,Manual,MONOCHROME1,[],"[]"',
    "6,g.png,1,20150101,s6,p6,2000,M,POSTEROANTERIOR,PA,Manual,MONOCHROME1,"
    "\"['unchanged', 'rare thing', '']\",\"[]\"",
]
LABELS = {
    "pleural_effusion": ["pleural effusion"],
    "cardiomegaly": ["cardiomegaly"],
    "no_finding": ["normal"],
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / NAME).write_text("\n".join([HEADER, *ROWS]))
    for number, name in enumerate("abcdefg"):
        folder = tmp_path / str(min(number // 2, 1))
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.png").touch()
    return tmp_path


def test_reads_the_release(root):
    table = read_padchest(root, labels=LABELS)
    assert " ".join(table["image"]) == "0/a.png 1/c.png 1/d.png 1/e.png 1/f.png 1/g.png"
    assert table["view"].tolist() == ["PA", "AP_horizontal", "AP", "PA", "PA", "PA"]
    np.testing.assert_array_equal(table["age"], [84, np.nan, np.nan, 15, 15, 15])
    assert table["sex"].isna().tolist() == [False, False, True, True, False, False]
    nan = np.nan
    np.testing.assert_array_equal(table["pleural_effusion"], [1, nan, 0, nan, nan, 0])
    np.testing.assert_array_equal(table["cardiomegaly"], [1, nan, 0, nan, nan, 0])
    np.testing.assert_array_equal(table["no_finding"], [0, nan, 1, nan, nan, 0])
    notes = " ".join(table.attrs["notes"])
    assert "1 impossible age" in notes
    assert "3 images without a usable finding" in notes
    assert "L 1" in notes


def test_rare_findings_of_the_file_may_be_mapped(root):
    table = read_padchest(root, labels={"rare": ["rare thing"]})
    assert table["rare"].sum() == 1
    with pytest.raises(UserError, match=r"'plural effusion'.*Did you mean 'pleural effusion'"):
        read_padchest(root, labels={"x": ["plural effusion"]})


def test_all_views(root):
    assert len(read_padchest(root, views=None)) == 7


def test_lists_that_are_none(root):
    text = (root / NAME).read_text()
    (root / NAME).write_text(text.replace("\"['unchanged']\"", "__import__('os').getcwd()"))
    with pytest.raises(UserError, match=r"must hold Python lists .*1 row: 3"):
        read_padchest(root)


def test_missing_columns_and_images(root):
    (root / "1" / "e.png").unlink()
    with pytest.raises(UserError, match=r"1 listed images are not in .*: e\.png"):
        read_padchest(root)
    assert len(read_padchest(root, max_skipped_images=1)) == 5
    text = (root / NAME).read_text()
    (root / NAME).write_text(text.replace(",Projection,", ",Projektion,"))
    with pytest.raises(UserError, match=r"lacks the column 'Projection'. Did you mean 'Proj"):
        read_padchest(root)


def test_fast_enough(root):
    number = 40_000
    rows = [ROWS[0].replace("a.png", f"{i}.png") for i in range(number)]
    (root / NAME).write_text("\n".join([HEADER, *rows, ROWS[3]]))
    started = time.process_time()
    assert len(read_padchest(root, max_skipped_images=number)) == 1
    assert time.process_time() - started < 3
