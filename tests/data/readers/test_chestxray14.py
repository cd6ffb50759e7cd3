import gzip
import hashlib
import time

import numpy as np
import pytest

from dpmed.data import (
    chestxray14_metadata_sha256,
    has_split_lists,
    read_chestxray14,
)
from dpmed.data.readers import chestxray14
from dpmed.data.readers.chestxray14 import read_chestxray14_metadata
from dpmed.errors import UserError

NAIVE = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
QUOTED = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    '"OriginalImage[Width,Height]","OriginalImagePixelSpacing[x,y]"'
)
KAGGLE = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y"
)
SIZES = "2682,2749,0.143,0.143"
ROWS = [
    ("00000001_000.png", "Cardiomegaly|Effusion", 0, 1, "58", "M", "PA"),
    ("00000001_001.png", "No Finding", 1, 1, "59", "M", "AP"),
    ("00000002_000.png", "Pneumonia", 0, 2, "414", "F", "PA"),
    ("00000003_000.png", "", 0, 3, "7", "F", "PA"),
]
SHARED_LABELS = {
    "pleural_effusion": ["Effusion"],
    "no_finding": ["No Finding"],
    "tuberculosis": [],
}


def write_release(
    root, *, header=NAIVE, rows=ROWS, ages=None, name="Data_Entry_2017_v2020.csv", end=""
):
    lines = [header + end]
    for row, age in zip(rows, ages or [row[4] for row in rows], strict=True):
        lines.append(",".join(map(str, (*row[:4], age, *row[5:], SIZES))) + end)
    (root / name).write_text("\n".join(lines) + "\n")
    return root / name


def put_images(folder, rows=ROWS):
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        (folder / row[0]).touch()


@pytest.mark.parametrize(
    ("header", "ages", "name", "end"),
    [
        (NAIVE, None, "Data_Entry_2017_v2020.csv", ""),
        (QUOTED, None, "Data_Entry_2017_v2020.csv", ""),
        (NAIVE, ["058Y", "059Y", "414Y", "007Y"], "Data_Entry_2017.csv", ","),
        (KAGGLE, ["058Y", "059Y", "414Y", "007Y"], "sample_labels.csv", ""),
        ("\ufeff" + NAIVE, None, "Data_Entry_2017_v2020.csv", ""),
    ],
)
def test_every_known_header_gives_the_same_table(tmp_path, header, ages, name, end):
    write_release(tmp_path, header=header, ages=ages, name=name, end=end)
    put_images(tmp_path / "images")
    table = read_chestxray14(tmp_path, labels=SHARED_LABELS)
    assert table["image"].tolist() == [f"images/{row[0]}" for row in ROWS]
    assert table["patient_id"].tolist() == ["1", "1", "2", "3"]
    assert table["study_id"].tolist() == ["1_0", "1_1", "2_0", "3_0"]
    assert table["sex"].tolist() == ["M", "M", "F", "F"]
    assert table["view"].tolist() == ["PA", "AP", "PA", "PA"]
    np.testing.assert_array_equal(table["age"], [58, 59, np.nan, 7])
    assert table.attrs["notes"] == ["1 impossible age turned into missing"]
    np.testing.assert_array_equal(table["pleural_effusion"], [1, 0, 0, np.nan])
    np.testing.assert_array_equal(table["no_finding"], [0, 1, 0, np.nan])
    assert table["tuberculosis"].isna().all()


def test_months_and_days_of_older_releases(tmp_path):
    path = write_release(tmp_path, ages=["058Y", "006M", "073D", "1"])
    years = read_chestxray14_metadata(path)["age"]
    np.testing.assert_allclose(years, [58, 0.5, 0.2, 1], atol=1e-3)


@pytest.mark.parametrize("layout", ["", "images", "split over archives"])
def test_layouts(tmp_path, layout):
    write_release(tmp_path)
    if layout == "split over archives":
        put_images(tmp_path / "images_001" / "images", ROWS[:2])
        put_images(tmp_path / "images_012" / "images", ROWS[2:])
    else:
        put_images(tmp_path / layout)
    table = read_chestxray14(tmp_path)
    assert all((tmp_path / image).is_file() for image in table["image"])


def test_zipped_metadata_and_official_lists(tmp_path):
    path = write_release(tmp_path)
    with gzip.open(f"{path}.gz", "wt") as file:
        file.write(path.read_text())
    path.unlink()
    put_images(tmp_path / "images")
    lists = tmp_path / "lists"
    lists.mkdir()
    with gzip.open(lists / "train_val_list.txt.gz", "wt") as file:
        file.write("00000001_000.png\n00000001_001.png")
    (lists / "test_list.txt").write_text("00000002_000.png\r\n00000009_000.png\r\n")
    table = read_chestxray14(tmp_path, split_lists=lists)
    assert table["split"].tolist()[:3] == ["train", "train", "test"]
    assert table["split"].isna().tolist()[3]
    (lists / "test_list.txt").unlink()
    with pytest.raises(UserError, match=r"but not test_list.txt"):
        read_chestxray14(tmp_path, split_lists=lists)
    with pytest.raises(UserError, match="names none of the images"):
        read_chestxray14(tmp_path, split_lists=tmp_path / "elsewhere")


def test_absent_images_are_counted_against_the_setting(tmp_path):
    write_release(tmp_path)
    with pytest.raises(UserError, match="none of the 4 images"):
        read_chestxray14(tmp_path, max_skipped_images=4)
    put_images(tmp_path / "images", ROWS[:3])
    with pytest.raises(
        UserError, match=r"1 listed images .* 00000003_000.png.*max_skipped_images=1"
    ):
        read_chestxray14(tmp_path)
    table = read_chestxray14(tmp_path, max_skipped_images=1)
    assert len(table) == 3
    assert table.attrs["skipped"][0]["image"] == "00000003_000.png"
    assert "1 listed images are not in the folder" in table.attrs["notes"][-1]


def test_one_name_in_two_folders(tmp_path):
    write_release(tmp_path)
    put_images(tmp_path / "images_001" / "images")
    put_images(tmp_path / "images_002" / "images", ROWS[1:2])
    with pytest.raises(UserError, match="1 image names occur in two folders"):
        read_chestxray14(tmp_path)


def test_wrong_labels_and_findings(tmp_path):
    path = write_release(tmp_path)
    with pytest.raises(UserError, match=r"'Efusion'.*Did you mean 'Effusion'"):
        read_chestxray14_metadata(path, labels={"pleural_effusion": ["Efusion"]})
    path.write_text(path.read_text().replace("Pneumonia", "Pnoimonia"))
    with pytest.raises(UserError, match="not of this release: Pnoimonia"):
        read_chestxray14_metadata(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"Image Index,Finding Labels\n", "lacks the columns 'Follow-up #'.*It has: Image Index"),
        (NAIVE.encode() + b"\n", "no rows"),
        (b"\xff\xfe\x00garbage\xff\n", "not UTF-8"),
        (NAIVE.encode() + b'\n"unclosed', "cannot read|lacks|no rows|without an image"),
    ],
)
def test_broken_metadata(tmp_path, content, message):
    (tmp_path / "Data_Entry_2017_v2020.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_chestxray14(tmp_path)


def test_truncated_zip(tmp_path):
    path = write_release(tmp_path)
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()
    with pytest.raises(UserError, match="cannot read"):
        read_chestxray14(tmp_path)


def test_no_such_folder_or_metadata(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        read_chestxray14(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"Data_Entry_2017_v2020.csv"):
        read_chestxray14(tmp_path)


def test_official_metadata_at_full_size(shared_data):
    folder = shared_data / "chestxray14_metadata"
    started = time.process_time()
    table = read_chestxray14_metadata(folder / "Data_Entry_2017_v2020.csv.gz")
    table = chestxray14._with_official_splits(table, folder)
    assert time.process_time() - started < 5
    assert len(table) == 112_120
    assert table["patient_id"].nunique() == 30_805
    assert table["no_finding"].sum() == 60_361
    assert table["pneumonia"].sum() == 1_431
    assert table["split"].value_counts().to_dict() == {"train": 86_524, "test": 25_596}
    assert set(table["sex"]) == {"F", "M"}
    assert set(table["view"]) == {"PA", "AP"}


def test_real_images_are_found(shared_data):
    root = shared_data / "nih14_dev"
    table = read_chestxray14(
        root, labels=SHARED_LABELS, split_lists=shared_data / "chestxray14_metadata"
    )
    assert len(table) == 1_020
    assert table["patient_id"].nunique() == 818
    assert table["split"].value_counts().to_dict() == {"train": 876, "test": 144}
    assert (root / table["image"][0]).is_file()


def test_releases_are_recognised_by_their_metadata(tmp_path):
    path = write_release(tmp_path)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert chestxray14_metadata_sha256(tmp_path) == expected
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert chestxray14_metadata_sha256(tmp_path) == expected


def test_split_lists_are_seen(tmp_path):
    (tmp_path / "train_val_list.txt").touch()
    assert not has_split_lists(tmp_path)
    (tmp_path / "test_list.txt.gz").touch()
    assert has_split_lists(tmp_path)
