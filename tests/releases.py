"""Small made-up releases in the official layouts, with images that show their label faintly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from dpmed.data.readers import taixray, vindr_cxr
from dpmed.data.readers.chexpert_labels import CHEXPERT_LABELS

NUM_PATIENTS = 40
IMAGES_PER_PATIENT = 3


def chexpert(root: Path) -> None:
    """Blank, uncertain, positive and negative labels; every third image is lateral."""
    lines = [",".join(["Path,Sex,Age,Frontal/Lateral,AP/PA", *CHEXPERT_LABELS])]
    for patient, number, sick in _rows():
        lateral = number == 2
        path = f"train/patient{patient:05d}/study1/view{number + 1}.jpg"
        labels = dict.fromkeys(CHEXPERT_LABELS, "")
        labels["Pneumonia"], labels["No Finding"] = ("1.0", "") if sick else ("0.0", "1.0")
        labels["Cardiomegaly"] = ("1.0", "-1.0", "0.0", "")[patient % 4]
        labels["Atelectasis"] = labels["Pleural Effusion"] = f"{float(patient % 2)}"
        view = "Lateral," if lateral else "Frontal,AP"
        fields = [f"CheXpert-v1.0/{path}", "FM"[patient % 2], str(20 + patient), view]
        lines.append(",".join([*fields, *labels.values()]))
        _draw(root / path, sick)
    (root / "train.csv").write_text("\n".join(lines))


def mimic_cxr_jpg(root: Path) -> None:
    """Official splits by subject; the metadata is zipped as in the release."""
    images, studies, splits = [], [], []
    for patient, number, sick in _rows():
        subject, study = 10000000 + patient, 50000000 + IMAGES_PER_PATIENT * patient + number
        name = f"image{subject}-{number}"
        images.append(f"{name},{subject},{study},{('PA', 'AP', 'LATERAL')[number]},21800506")
        values = [str(float(sick)) if label == "Pneumonia" else "" for label in CHEXPERT_LABELS]
        studies.append(",".join([str(subject), str(study), *values]))
        splits.append(f"{name},{study},{subject},{('train', 'validate', 'test')[patient % 3]}")
        _draw(root / f"files/p10/p{subject}/s{study}/{name}.jpg", sick)
    for part, header, lines in (
        ("metadata", "dicom_id,subject_id,study_id,ViewPosition,StudyDate", images),
        ("chexpert", ",".join(["subject_id,study_id", *CHEXPERT_LABELS]), studies),
        ("split", "dicom_id,study_id,subject_id,split", splits),
    ):
        (root / f"mimic-cxr-2.0.0-{part}.csv").write_text("\n".join([header, *lines]))


def padchest(root: Path) -> None:
    """16-bit images; findings as a Python list."""
    lines = [
        "ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
        "Projection,Labels"
    ]
    for patient, number, sick in _rows():
        name = f"{patient}_{number}.png"
        findings = "['pneumonia', 'laminar atelectasis']" if sick else "['normal']"
        view = ("PA", "AP_horizontal", "L")[number]
        lines.append(f'{name},0,20140915,s{patient},p{patient},1950,F,{view},"{findings}"')
        _draw(root / "0" / name, sick, bits=16)
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    (root / name).write_text("\n".join(lines))


def vindr_cxr_release(root: Path) -> None:
    """Three readers a training image, one row a test image; DICOM, MONOCHROME1."""
    train = [",".join(["image_id,rad_id", *vindr_cxr.FINDINGS])]
    test = [",".join(["image_id", *vindr_cxr.FINDINGS])]
    for patient, number, sick in _rows():
        name, part = f"image{patient}-{number}", "test" if patient % 4 == 0 else "train"
        finding = "Pneumonia" if sick else "No finding"
        values = ",".join(str(int(label == finding)) for label in vindr_cxr.FINDINGS)
        if part == "test":
            test.append(f"{name},{values}")
        else:
            train += [f"{name},R{reader},{values}" for reader in range(3)]
        _draw(root / part / f"{name}.dicom", sick)
    (root / "annotations").mkdir()
    (root / "annotations" / "image_labels_train.csv").write_text("\n".join(train))
    (root / "annotations" / "image_labels_test.csv").write_text("\n".join(test))


def taixray_release(root: Path) -> None:
    """Grades by side, ages in days, one fold."""
    lines = [",".join(["UID,PatientID,Age,Sex", *taixray.FINDINGS])]
    splits = ["UID,Fold,Split"]
    for patient, number, sick in _rows():
        grades = ["3" if sick and name == "Atelectasis_Left" else "0" for name in taixray.FINDINGS]
        lines.append(",".join([f"u{patient}-{number},p{patient},25000,M", *grades]))
        splits.append(f"u{patient}-{number},0,{('train', 'val', 'test')[patient % 3]}")
        _draw(root / "data" / f"u{patient}-{number}.png", sick)
    (root / "metadata").mkdir()
    (root / "metadata" / "annotation.csv").write_text("\n".join(lines))
    (root / "metadata" / "split.csv").write_text("\n".join(splits))


RELEASES: dict[str, Callable[[Path], None]] = {
    "chexpert": chexpert,
    "mimic_cxr_jpg": mimic_cxr_jpg,
    "padchest": padchest,
    "vindr_cxr": vindr_cxr_release,
    "taixray": taixray_release,
}


def _rows() -> list[tuple[int, int, bool]]:
    """Patient, number of the image, and whether there is something to find."""
    return [
        (patient, number, (patient // 2) % 2 == 0)
        for patient in range(NUM_PATIENTS)
        for number in range(IMAGES_PER_PATIENT)
    ]


def _draw(path: Path, sick: bool, *, bits: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes("/".join(path.parts[-3:]).encode(), "big") % 2**61
    pixels = np.random.default_rng(seed).integers(0, 160, (40, 36))
    pixels[10:20, 10:20] += 90 * sick
    if path.suffix == ".dicom":
        _write_dicom(path, (255 - pixels).astype(np.uint8))
    else:
        scaled = pixels.astype(np.uint8) if bits == 8 else (257 * pixels).astype(np.uint16)
        Image.fromarray(scaled).save(path)


def _write_dicom(path: Path, pixels: np.ndarray) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    content = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    content.Rows, content.Columns = pixels.shape
    content.SamplesPerPixel, content.PhotometricInterpretation = 1, "MONOCHROME1"
    content.BitsAllocated = content.BitsStored = 8
    content.HighBit, content.PixelRepresentation = 7, 0
    content.PixelData = pixels.tobytes()
    content.save_as(path)
