"""Where volumes lie and how they are read: NIfTI files, folders of DICOM slices, MedMNIST files.

A source names volumes, says when one changed, and reads one; the array cache asks it. Nothing here
knows labels.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from dpmed.data.decoding import DICOM_SUFFIXES, UnreadableImageError
from dpmed.data.dicom_grey import DicomError
from dpmed.data.volumes.preprocessing import MAX_VOXELS, RawVolume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
HASH_BLOCK_BYTES = 1 << 20
MAX_DEPTH = 4  # patient/study/series/ is the usual depth
ABSENT = (-1, -1)
_LARGEST_STAMP = 2**62


class VolumeSource(Protocol):
    """Gives the volumes of a data set by name."""

    def stamp(self, name: str) -> tuple[int, int]:
        """Size in bytes and a number that changes with modification; -1, -1 where absent."""

    def content_hash(self, name: str) -> str:
        """Hash of what the volume is read from."""

    def read(self, name: str) -> RawVolume:
        """The volume as its file holds it; UnreadableImageError with a reason."""


@dataclass(frozen=True, kw_only=True)
class VolumeFolder:
    """NIfTI files and folders of DICOM slices below `root`, named by their relative paths."""

    root: Path

    def stamp(self, name: str) -> tuple[int, int]:
        """Sums over the slices of a series, so that a change of any of them shows."""
        stamps = [os.stat(file) for file in self._files(name)]
        if not stamps:
            return ABSENT
        times = sum(stamp.st_mtime_ns for stamp in stamps) % _LARGEST_STAMP
        return sum(stamp.st_size for stamp in stamps), times

    def content_hash(self, name: str) -> str:
        """Over all files of the volume, in the order of their names."""
        digest = hashlib.blake2b(digest_size=16)
        for file in self._files(name):
            with file.open("rb") as stream:
                while block := stream.read(HASH_BLOCK_BYTES):
                    digest.update(block)
        return digest.hexdigest()

    def read(self, name: str) -> RawVolume:
        """A NIfTI file, or the one DICOM series of a folder."""
        path = self.root / name
        try:
            if path.is_dir():
                from dpmed.data.volumes.dicom_series import read_series

                return read_series([file for file in self._files(name) if _is_dicom(file)])
            return _read_nifti(path)
        except DicomError as error:
            raise UnreadableImageError(path, str(error)) from None
        except UnreadableImageError:
            raise
        # A broken file makes a decoder raise nearly anything, and each of them means the same.
        except Exception as error:
            raise UnreadableImageError(path, f"it is broken ({type(error).__name__})") from None

    def names(self) -> list[str]:
        """Every volume below the root: NIfTI files, and folders that hold DICOM files."""
        return sorted(_volumes_below(self.root, "", 0))

    def _files(self, name: str) -> list[Path]:
        path = self.root / name
        if not path.is_dir():
            return [path] if path.is_file() else []
        return sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != ".")


@dataclass(frozen=True, kw_only=True)
class MedMnistVolumes:
    """Volumes of a MedMNIST .npz file, named `<split>/<number>`, as `readers.medmnist` does."""

    path: Path
    _arrays: dict[str, NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    def stamp(self, name: str) -> tuple[int, int]:
        """Of the whole file."""
        status = os.stat(self.path)
        return status.st_size, status.st_mtime_ns

    def content_hash(self, name: str) -> str:
        """Of the volume itself."""
        return hashlib.blake2b(self._stored(name).tobytes(), digest_size=16).hexdigest()

    def read(self, name: str) -> RawVolume:
        """A cube without positions."""
        return RawVolume(voxels_XYZ=self._stored(name).astype(np.float32), affine=None)

    def _stored(self, name: str) -> NDArray[np.uint8]:
        part, _, number = name.partition("/")
        volumes = self._arrays.get(part)
        if volumes is None:
            try:
                with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                    volumes = file[f"{part}_images"]
            except (OSError, ValueError, KeyError, BadZipFile, zlib.error) as error:
                reason = f"its array {part}_images is damaged ({type(error).__name__})"
                raise UnreadableImageError(self.path, reason) from None
            self._arrays.clear()  # one part at a time: they hold up to a gigabyte
            self._arrays[part] = volumes
        if volumes.ndim != 4 or int(number) >= len(volumes):
            raise UnreadableImageError(
                self.path, f"its array {part}_images has the shape {volumes.shape}"
            )
        return volumes[int(number)]


def _read_nifti(path: Path) -> RawVolume:
    """Through MONAI, after a look at the header: a broken one may claim any size."""
    import nibabel
    from monai.transforms import LoadImage

    header: Any = nibabel.load(path)
    shape = tuple(int(side) for side in header.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        described = "x".join(map(str, header.shape))
        raise UnreadableImageError(path, f"it has {described} values: not one 3-D volume")
    if not 0 < np.prod(shape, dtype=np.float64) <= MAX_VOXELS:
        raise UnreadableImageError(path, f"its header claims {'x'.join(map(str, shape))} voxels")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MONAI, about readers of other formats
        load = LoadImage(reader="NibabelReader", image_only=True, dtype=np.float32)
    volume = load(path)
    affine = np.asarray(volume.affine, dtype=np.float64)
    if affine.shape != (4, 4) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UnreadableImageError(path, "its affine matrix maps voxels to no place")
    return RawVolume(voxels_XYZ=np.asarray(volume).reshape(shape), affine=affine)


def _volumes_below(root: Path, folder: str, depth: int) -> Iterator[str]:
    holds_slices = False
    for entry in sorted(os.scandir(root / folder), key=lambda each: each.name):
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if depth < MAX_DEPTH:
                yield from _volumes_below(root, path, depth + 1)
        elif entry.name.lower().endswith(NIFTI_SUFFIXES):
            yield path
        elif not holds_slices and folder and _is_dicom(Path(entry.path)):
            holds_slices = True
            yield folder


def _is_dicom(file: Path) -> bool:
    if file.suffix.lower() in DICOM_SUFFIXES:
        return True
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
