"""The schema of the `data` group: what every data set needs, and what each reader asks beside.

`dpmed.config` has the other groups and checks the whole. This module never imports torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PreprocessingConfig:
    """What happens to one image on its own, before it is cached (`dpmed.data.Preprocessing`)."""

    image_size: Annotated[int, Field(ge=16)]
    keep_aspect_ratio: bool
    intensity: Literal["none", "minmax", "percentile"]
    low_percentile: Annotated[float, Field(ge=0.0, le=100.0)]
    high_percentile: Annotated[float, Field(ge=0.0, le=100.0)]
    equalize: bool
    apply_window: bool
    photometric: Literal["tag", "monochrome1", "monochrome2"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VolumePreprocessingConfig:
    """What happens to one volume on its own (`dpmed.data.volumes.VolumePreprocessing`)."""

    image_size: Annotated[int, Field(ge=16)]
    keep_aspect_ratio: bool
    orientation: Annotated[str, Field(pattern="^[LRAPSI]{3}$")]
    spacing_mm: Annotated[list[Positive], Field(min_length=3, max_length=3)] | None
    intensity_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    mask_depth: Positive | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Data:
    """What every data set needs, whatever reads it."""

    id: str
    public_licence: str | None
    unit: Literal["patient", "image"]
    fraction: Annotated[float, Field(gt=0.0, le=1.0)]
    labels: Annotated[list[str], Field(min_length=1)]
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]
    split_salt: str
    max_skipped_images: Annotated[int, Field(ge=0)]
    cache_dir: str
    preprocessing: PreprocessingConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SyntheticData(_Data):
    """Procedural chest radiographs; their number is a public setting."""

    reader: Literal["synthetic"]
    num_patients: Count
    mean_images_per_patient: Positive
    seed: int
    sites: Annotated[list[str], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PublicRelease:
    """The published size of a release; `num_train_*` is its official training part."""

    name: str
    num_patients: Count | None
    num_images: Count
    num_train_patients: Count | None
    num_train_images: Count | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WholeRelease(PublicRelease):
    """What is published of a complete release: advice on N, taken for granted of no folder."""

    official_splits: list[Literal["validation", "test"]]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Release(_Data):
    """A public release in its official layout."""

    root: str | None
    label_map: dict[str, list[str]]
    published: WholeRelease


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ChestXray14Data(_Release):
    """ChestX-ray14; `releases` are recognised by the SHA-256 of their metadata file."""

    reader: Literal["chestxray14"]
    split_lists: str | None
    releases: dict[str, PublicRelease]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _CheXpertLabels(_Release):
    """A release whose labels are 1, 0, uncertain or blank."""

    uncertain: Literal["missing", "negative", "positive"]
    blank: Literal["missing", "negative"]
    views: list[str] | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CheXpertData(_CheXpertLabels):
    """CheXpert."""

    reader: Literal["chexpert"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MimicCxrJpgData(_CheXpertLabels):
    """MIMIC-CXR-JPG, with sex and age from MIMIC-IV."""

    reader: Literal["mimic_cxr_jpg"]
    patients_csv: str | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PadChestData(_Release):
    """PadChest."""

    reader: Literal["padchest"]
    views: list[str] | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VinDrCxrData(_Release):
    """VinDr-CXR, which names no patients."""

    reader: Literal["vindr_cxr"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TaixRayData(_Release):
    """TAIX-Ray, whose findings are graded."""

    reader: Literal["taixray"]
    positive_from_grade: Positive
    fold: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class KermanyData(_Release):
    """Kermany's paediatric radiographs, whose labels and patients are in the file names."""

    reader: Literal["kermany"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ManifestData(_Data):
    """Any hospital's table, CSV or Parquet."""

    reader: Literal["manifest"]
    path: str | None
    root: str | None
    columns: dict[str, str | None]
    label_map: dict[str, str]
    sex_values: dict[str, str] | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VolumeData(_Data):
    """A table of NIfTI files and DICOM series, or a MedMNIST file; recognised by its SHA-256."""

    reader: Literal["volumes"]
    path: str | None
    root: str | None
    columns: dict[str, str | None]
    label_map: dict[str, str]
    sex_values: dict[str, str] | None
    releases: dict[str, PublicRelease]
    preprocessing: VolumePreprocessingConfig  # type: ignore[assignment]  # volumes have their own


ReleaseData = (
    ChestXray14Data
    | KermanyData
    | CheXpertData
    | MimicCxrJpgData
    | PadChestData
    | VinDrCxrData
    | TaixRayData
)
DataConfig = Annotated[
    SyntheticData | ReleaseData | ManifestData | VolumeData, Field(discriminator="reader")
]
