"""NIfTI files and DICOM series become the same cube; what is not one whole volume is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpmed import data
from dpmed.data.volumes.files import VolumeFolder
from dpmed.data.volumes.preprocessing import RawVolume, VolumePreprocessing, preprocess_volume
from dpmed.errors import UserError
from tests.data.volumes.conftest import PATIENT, Write, head_XYZ

CT = VolumePreprocessing(image_size=12, intensity_range=(-1000.0, 300.0))


def _read(path: Path, preprocessing: VolumePreprocessing = CT) -> np.ndarray:
    source = VolumeFolder(root=path.parent)
    return preprocess_volume(source.read(path.name), preprocessing)


def _reason(path: Path) -> str:
    with pytest.raises(data.UnreadableImageError) as error:
        _read(path)
    assert PATIENT not in str(error.value)
    return error.value.reason


def test_nifti_and_dicom_of_one_head_give_the_same_cube(
    tmp_path: Path, write_nifti: Write, write_series: Write
) -> None:
    cube = _read(write_nifti(tmp_path / "head.nii.gz"))
    assert cube.shape == (12, 12, 12)
    assert cube.dtype == np.uint8
    assert (cube.min(), cube.max()) == (0, 255)
    depth, height, width = (float(axis.mean()) for axis in np.nonzero(cube > 128))
    assert depth > 7, "the box is at the top"
    assert height > 7, "the box is in front"
    assert width < 4, "the box is to the left"
    np.testing.assert_array_equal(_read(write_series(tmp_path / "series")), cube)


def test_a_volume_stored_the_other_way_round_is_turned(tmp_path: Path, write_nifti: Write) -> None:
    flipped = np.diag([-1.0, -1.0, 2.0, 1.0])
    other = write_nifti(tmp_path / "lps.nii", head_XYZ()[::-1, ::-1].copy(), flipped)
    expected = _read(write_nifti(tmp_path / "ras.nii"))
    np.testing.assert_array_equal(_read(other), expected)


def test_spacing_and_aspect_ratio(tmp_path: Path, write_nifti: Write) -> None:
    path = write_nifti(tmp_path / "head.nii")
    isotropic = VolumePreprocessing(
        image_size=24,
        keep_aspect_ratio=True,
        spacing_mm=(1.0, 1.0, 1.0),
        intensity_range=(-1000.0, 300.0),
    )
    cube = _read(path, isotropic)
    sides = [int(np.ptp(axis)) + 1 for axis in np.nonzero(cube > 128)]
    # 4 x 4 x 3 voxels of 1 x 1 x 2 mm: the box is 6 mm high and 4 mm wide and deep.
    assert sides[0] > sides[1] == sides[2]


def test_a_mask_can_show_how_deep_its_voxels_lie() -> None:
    mask = np.zeros((24, 24, 24), np.float32)
    mask[0:9, 8:17, 8:17] = 255.0  # touches the border, beyond which is outside
    setting = VolumePreprocessing(image_size=24, intensity_range=(0.0, 255.0), mask_depth=3.0)
    depth = preprocess_volume(RawVolume(voxels_XYZ=mask, affine=None), setting)
    line = depth[:, 12, 12].astype(int)
    assert line[:10].tolist() == [85, 170, 255, 255, 255, 255, 255, 170, 85, 0]
    assert not depth[9:].any()
    empty = preprocess_volume(RawVolume(voxels_XYZ=mask * 0, affine=None), setting)
    assert not empty.any()


def _drop(number: int) -> Callable[[int, object], bool]:
    return lambda each, dataset: each != number


def _set(number: int, **elements: object) -> Callable[..., None]:
    def change(each: int, dataset: object) -> None:
        if each == number:
            for name, value in elements.items():
                setattr(dataset, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_drop(5), "slices are missing or unevenly spaced: 2.00 to 4.00 mm"),
        (_set(5, ImagePositionPatient=[0, 0, 8]), "two slices in one place"),
        (_set(5, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "mixed orientations"),
        (_set(5, PixelSpacing=[2, 2]), "different pixel spacings"),
        (_set(5, SeriesInstanceUID="1.2.3"), "slices of 2 series"),
        (_set(5, NumberOfFrames=3), "IM035.dcm: it holds 3 frames"),
        (_set(5, Rows=9, PixelData=b"\0" * 360), "different sizes (9x20 and 18x20 pixels)"),
        (_set(5, PixelData=b"\0" * 10), "IM035.dcm: it is truncated"),
        (_set(5, ImagePositionPatient=None), "IM035.dcm does not say where it lies"),
        (lambda n, d: setattr(d, "ImagePositionPatient", [0, n, 2 * n]), "tilted"),
        (lambda n, d: n == 0, "it holds 1 DICOM slices"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_series_that_is_no_whole_volume_is_refused(
    change: Callable, expected: str, tmp_path: Path, write_series: Write
) -> None:
    assert expected in _reason(write_series(tmp_path / "series", change))


def test_broken_nifti_files_are_refused(tmp_path: Path, write_nifti: Write) -> None:
    whole = write_nifti(tmp_path / "whole.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.nii").write_bytes(b"")
    (tmp_path / "text.nii").write_text("not a volume " * 100)
    assert "broken" in _reason(tmp_path / "cut.nii.gz")
    assert "broken" in _reason(tmp_path / "empty.nii")
    assert "broken" in _reason(tmp_path / "text.nii")
    film = write_nifti(tmp_path / "4d.nii", np.zeros((4, 4, 4, 3), np.float32))
    assert "4x4x4x3" in _reason(film)
    hole = head_XYZ().astype(np.float32)
    hole[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        _read(write_nifti(tmp_path / "hole.nii", hole))


def test_cache_is_reused_rebuilt_and_names_what_is_missing(
    tmp_path: Path, write_nifti: Write, write_series: Write, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "data"
    write_nifti(root / "a.nii")
    write_series(root / "p2" / "s1")
    write_nifti(root / "spare.nii.gz")
    (root / "table.csv").write_text("image,ill\na.nii,1\np2/s1,0\n")
    caplog.set_level(logging.DEBUG)
    table = data.read_volume_table(
        root / "table.csv", root, columns={"image": "image"}, labels={"ill": "ill"}
    )
    assert "1 volumes in the folder have no row" in table.attrs["notes"][0]
    assert "spare.nii.gz" in table.attrs["notes"][0]

    def prepare(names: list[str], **options: int) -> data.ImageStore:
        return data.prepare_volumes(
            names,
            VolumeFolder(root=root),
            CT,
            cache_dir=tmp_path / "cache",
            num_workers=0,
            progress=False,
            **options,
        )

    names = table["image"].tolist()
    store = prepare(names)
    assert store.array.shape == (2, 12, 12, 12)
    np.testing.assert_array_equal(store.array[0], store.array[1])
    hashes = store.pixel_hashes()
    assert len(hashes) == 2
    slice_file = next((root / "p2" / "s1").glob("*.dcm"))
    slice_file.write_bytes(slice_file.read_bytes()[:-700])
    with pytest.raises(UserError, match=r"p2/s1: its slice .* truncated"):
        prepare(names)
    assert prepare(names, max_skipped=1).kept_rows.tolist() == [0]
    with pytest.raises(UserError, match=r"gone\.nii: No such file"):
        prepare(["a.nii", "gone.nii"])
    assert PATIENT not in caplog.text
    for file in (tmp_path / "cache").rglob("*"):
        assert not file.is_file() or PATIENT.encode() not in file.read_bytes()


def _write_npz(path: Path, **changes: np.ndarray | None) -> Path:
    arrays: dict[str, np.ndarray | None] = {}
    for part, number in (("train", 4), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = np.full((number, 8, 8, 8), 255, np.uint8)
        arrays[f"{part}_labels"] = (np.arange(number) % 2)[:, None].astype(np.uint8)
    kept = {name: array for name, array in (arrays | changes).items() if array is not None}
    np.savez_compressed(path, **kept)  # type: ignore[arg-type]
    return path


def test_medmnist_has_its_official_splits_and_classes(tmp_path: Path) -> None:
    table = data.read_medmnist(_write_npz(tmp_path / "x.npz"), labels=["ill"])
    assert table["split"].value_counts().to_dict() == {"train": 4, "test": 3, "validation": 2}
    assert table["image"].iloc[[0, 4]].tolist() == ["train/0", "val/0"]
    assert table["ill"].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    both = data.read_medmnist(tmp_path / "x.npz", labels=["well", "ill"])
    pd.testing.assert_series_equal(both["well"], 1 - both["ill"], check_names=False)


@pytest.mark.parametrize(
    ("changes", "labels", "expected"),
    [
        ({"val_labels": None}, ["ill"], "lacks 'val_labels'"),
        ({}, ["a", "b", "c"], "has 2 classes and data.labels names 3"),
        ({"test_labels": np.zeros((3, 2))}, ["ill"], "one class number a volume"),
    ],
)
def test_bad_medmnist_files_are_named(
    changes: dict, labels: list[str], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=expected):
        data.read_medmnist(_write_npz(tmp_path / "x.npz", **changes), labels=labels)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:100])
    with pytest.raises(UserError, match=r"cut.npz as \.npz"):
        data.read_medmnist(tmp_path / "cut.npz", labels=labels)


@pytest.mark.parametrize(
    "options", [{"orientation": "RRS"}, {"orientation": "RA"}, {"image_size": 4}]
)
def test_impossible_settings_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        VolumePreprocessing(**({"image_size": 12} | options))
