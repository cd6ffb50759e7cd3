"""Kermany's chest radiographs of children: 5,856 JPEG files, normal or pneumonia, CC BY 4.0.

The release has no table. A file's name says who it is of and what it shows: `person23_virus_54`,
`IM-0115-0001`, `NORMAL2-IM-0529-0001-0001`. Folders are not looked at, so that the release
(`chest_xray/train/NORMAL/...`) and a flat copy read alike. The same number under another prefix is
another patient; the same number in train/ and test/ is taken for one, which can only keep images
together. Sex, age and view are missing.

Source: Kermany et al., Cell 2018; Mendeley Data rscbjbr9sj. Names verified on 5,200 files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dpmed.data.readers.harmonise import labels_from_findings, own_labels
from dpmed.data.readers.image_files import scan_images
from dpmed.data.table import validate_table
from dpmed.errors import UserError

FINDINGS = ("Normal", "Pneumonia", "Bacterial Pneumonia", "Viral Pneumonia")
SITE = "kermany"
MAX_DEPTH = 4  # chest_xray/chest_xray/train/NORMAL of the archive
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_NORMAL = re.compile(r"^(?P<series>NORMAL2-)?IM-(?P<number>\d+)-\d+(-\d+)?\.")
_PNEUMONIA = re.compile(r"^person(?P<number>\d+)_(?P<kind>bacteria|virus)_\d+(_\d+)?\.")
_OF_KIND = {"bacteria": "Bacterial Pneumonia", "virus": "Viral Pneumonia"}
_NUM_SHOWN = 3


def read_kermany(
    root: Path | str, *, labels: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """The study table of a folder of Kermany's radiographs; `image` is relative to `root`.

    Args:
        root: holds the images, in folders or not.
        labels: shared label -> findings of `FINDINGS`; None gives all four.

    Raises:
        UserError: no image, or a file whose name is not of this release or is there twice.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise UserError(f"data.root={folder} is not a folder. Give the unpacked release.")
    found = scan_images(folder, suffixes=_SUFFIXES, max_depth=MAX_DEPTH)
    _check_names(found, folder)
    names = sorted(found)
    patients, findings = zip(*(_read_name(name) for name in names), strict=True)
    mapping = own_labels(FINDINGS) if labels is None else labels
    table = pd.DataFrame(
        {
            "image": [found[name][0] for name in names],
            "patient_id": patients,
            "site": SITE,
            **labels_from_findings(pd.Series(findings), mapping, FINDINGS, source=str(folder)),
        }
    )
    table.attrs["notes"] = ["patients are told apart by the numbers in the file names"]
    return validate_table(table, list(mapping), source=str(folder))


def _read_name(name: str) -> tuple[str, list[str]]:
    normal, pneumonia = _NORMAL.match(name), _PNEUMONIA.match(name)
    if normal:
        return f"N{2 if normal['series'] else ''}-{normal['number']}", ["Normal"]
    assert pneumonia
    return f"person{pneumonia['number']}", ["Pneumonia", _OF_KIND[pneumonia["kind"]]]


def _check_names(found: Mapping[str, Sequence[str]], folder: Path) -> None:
    if not found:
        raise UserError(f"data.root={folder} holds no .jpg, .jpeg or .png file.")
    strange = [name for name in found if not (_NORMAL.match(name) or _PNEUMONIA.match(name))]
    if strange:
        raise UserError(
            f"{len(strange)} of {len(found)} images in {folder} are not named as in this release: "
            f"{', '.join(sorted(strange)[:_NUM_SHOWN])}. A name such as person23_virus_54.jpeg or "
            "IM-0115-0001.jpeg says what an image shows; read other images with data=manifest."
        )
    repeated = next((paths for paths in found.values() if len(paths) > 1), None)
    if repeated:
        raise UserError(
            f"{' and '.join(repeated)} in {folder} have one name, so an image would count twice. "
            "Remove one copy."
        )
