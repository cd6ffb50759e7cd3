"""Damaged volumes: a cube, or a reason that tells nothing of the patient; never a traceback."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from dpmed.data.volumes.files import MedMnistVolumes, VolumeFolder, VolumeSource
from dpmed.data.volumes.preprocessing import VolumePreprocessing
from dpmed.data.volumes.rows import VolumeRows
from tests.data.test_decoding import mutations
from tests.data.volumes.conftest import PATIENT, Write

CT = VolumePreprocessing(image_size=8, intensity_range=(-1000.0, 300.0))
NUM_MUTATIONS = 60  # of each of four files


def _is_refused(source: VolumeSource, name: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cubes, records = VolumeRows(images=[name], source=source, preprocessing=CT).make([0])
    assert cubes.shape == (1, 8, 8, 8)
    reason = records[0].reason
    assert PATIENT not in str(reason)
    assert reason is None or len(reason) > 10
    return reason is not None


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["head.nii", "head.nii.gz", "series", "volumes.npz"])
def test_a_damaged_volume_gives_a_cube_or_one_reason(
    tmp_path: Path, write_nifti: Write, write_series: Write, kind: str
) -> None:
    path = damaged = tmp_path / kind
    name, source = kind, VolumeFolder(root=tmp_path)
    if kind == "series":
        damaged = sorted(write_series(path).iterdir())[3]
    elif kind == "volumes.npz":
        name = "train/1"
        np.savez_compressed(path, train_images=np.arange(1024, dtype=np.uint8).reshape(2, 8, 8, 8))
    else:
        write_nifti(path)

    def opened() -> VolumeSource:
        return MedMnistVolumes(path=path) if kind == "volumes.npz" else source

    assert not _is_refused(opened(), name)
    refused = 0
    for content in mutations(damaged.read_bytes(), NUM_MUTATIONS, seed=0):
        damaged.write_bytes(content)
        refused += _is_refused(opened(), name)
    assert 10 < refused <= NUM_MUTATIONS
