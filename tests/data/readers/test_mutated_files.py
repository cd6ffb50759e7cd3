"""Every reader, given a damaged file, reads a table or raises one error that a user can act on."""

import gzip
import warnings

import numpy as np
import pandas as pd
import pytest

from dpmed import data
from dpmed.data.readers.chexpert_labels import CHEXPERT_LABELS
from dpmed.errors import UserError

NUM_MUTATIONS = 30  # of each of nine files
NUM_ROWS = 12
BLANKS = "," * 13


def chestxray14(root):
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    rows = [f"{i}.png,Mass|Edema,0,{i},5{i % 10},M,PA,1,1,0.1,0.1" for i in range(NUM_ROWS)]
    images(root, "images", ".png")
    return write(root / "Data_Entry_2017_v2020.csv", header, rows), data.read_chestxray14


def chexpert(root):
    header = ",".join(["Path,Sex,Age,Frontal/Lateral,AP/PA", *CHEXPERT_LABELS])
    rows = [
        f"C/train/patient{i}/study1/view1_frontal.jpg,Male,5{i % 10},Frontal,AP,1.0{BLANKS}"
        for i in range(NUM_ROWS)
    ]
    (root / "train").mkdir()
    return write(root / "train.csv", header, rows), data.read_chexpert


def mimic(root):
    (root / "files").mkdir()
    write(
        root / "mimic-cxr-2.0.0-chexpert.csv",
        ",".join(["subject_id", "study_id", *CHEXPERT_LABELS]),
        [f"1,{i},1.0{BLANKS}" for i in range(NUM_ROWS)],
    )
    write(
        root / "mimic-cxr-2.0.0-split.csv",
        "dicom_id,study_id,subject_id,split",
        [f"d{i},{i},1,train" for i in range(NUM_ROWS)],
    )
    rows = [f"d{i},1,{i},PA,21800506" for i in range(NUM_ROWS)]
    header = "dicom_id,subject_id,study_id,ViewPosition,StudyDate"
    return write(root / "mimic-cxr-2.0.0-metadata.csv", header, rows), data.read_mimic_cxr_jpg


def padchest(root):
    header = (
        "ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
        "Projection,Labels"
    )
    rows = [f"{i}.png,0,20140915,s{i},p{i},1930,F,PA,\"['normal']\"" for i in range(NUM_ROWS)]
    images(root, "0", ".png")
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    return write(root / name, header, rows), data.read_padchest


def vindr_cxr(root):
    write(root / "image_labels_test.csv", "image_id,Pneumonia", ["test0,1"])
    rows = [f"{i // 3},R{i % 3},1" for i in range(NUM_ROWS)]
    images(root, "train", ".dicom")
    path = write(root / "image_labels_train.csv", "image_id,rad_id,Pneumonia", rows)

    def read(folder, **options):
        return data.read_vindr_cxr(folder, labels={"pneumonia": ["Pneumonia"]}, **options)

    return path, read


def taixray(root):
    header = (
        "UID,PatientID,Age,Sex,HeartSize,PulmonaryCongestion,PleuralEffusion_Right,"
        "PleuralEffusion_Left,PulmonaryOpacities_Right,PulmonaryOpacities_Left,"
        "Atelectasis_Right,Atelectasis_Left"
    )
    rows = [f"{i},p{i},20000,M,0,1,2,3,4,0,1,2" for i in range(NUM_ROWS)]
    images(root, "data", ".png")
    return write(root / "annotation.csv", header, rows), data.read_taixray


def manifest_csv(root):
    rows = [f"{i}.png,p{i},F,50,1" for i in range(NUM_ROWS)]
    return write(root / "my.csv", "image,patient_id,sex,age,edema", rows), read_manifest_in(
        "my.csv"
    )


def manifest_zipped(root):
    path, _ = manifest_csv(root)
    (root / "my.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    return root / "my.csv.gz", read_manifest_in("my.csv.gz")


def manifest_parquet(root):
    path, _ = manifest_csv(root)
    pd.read_csv(path).to_parquet(root / "my.parquet")
    return root / "my.parquet", read_manifest_in("my.parquet")


def read_manifest_in(name):
    def read(folder, **_):
        columns = {column: column for column in ("image", "patient_id", "sex", "age")}
        return data.read_manifest(folder / name, columns=columns, labels=["edema"])

    return read


def write(path, header, rows):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def images(root, folder, suffix):
    (root / folder).mkdir()
    for i in range(NUM_ROWS):
        (root / folder / f"{i}{suffix}").touch()


def mutated(content, rng):
    """Bytes overwritten, cut, repeated or moved; half of the time in the header."""
    changed = bytearray(content)
    kind = int(rng.integers(4))
    reach = 150 if rng.integers(2) else len(changed)
    place = int(rng.integers(min(reach, len(changed))))
    if kind == 0:
        return bytes(changed[:place])
    if kind == 1:
        changed[place] = int(rng.choice([*b'\x00\xff",\n\r9-|[]', int(rng.integers(256))]))
    elif kind == 2:
        changed[place:place] = changed[place : place + 30]
    else:
        for spot in rng.integers(0, len(changed), 5):
            changed[spot] = int(rng.integers(256))
    return bytes(changed)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "release",
    [
        chestxray14, chexpert, mimic, padchest, vindr_cxr, taixray, manifest_csv, manifest_zipped,
        manifest_parquet,
    ],
)  # fmt: skip
def test_a_damaged_file_gives_a_table_or_one_clear_error(tmp_path, release):
    path, read = release(tmp_path)
    whole = path.read_bytes()
    options = {} if release in (chexpert, mimic) else {"max_skipped_images": 2 * NUM_ROWS}
    assert len(read(tmp_path, **options)) > 0
    rng = np.random.default_rng(0)
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(NUM_MUTATIONS):
            path.write_bytes(mutated(whole, rng))
            try:
                table = read(tmp_path, **options)
            except UserError as error:
                refused += bool(str(error))
            else:
                assert list(table.columns[:8]) == list(data.COLUMNS)
    assert 3 < refused <= NUM_MUTATIONS
