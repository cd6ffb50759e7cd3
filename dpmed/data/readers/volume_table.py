"""The study table of volumes: a manifest whose images are NIfTI files or folders of DICOM slices.

It is compared with what lies in the folder, so that a volume without a row is named. A row without
a volume is found, and named, when volumes are read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from dpmed.data.readers.manifest import read_manifest
from dpmed.data.table import add_note
from dpmed.data.volumes.files import VolumeFolder
from dpmed.errors import UserError

MAX_NAMED = 5


def read_volume_table(
    path: Path | str,
    root: Path,
    *,
    columns: Mapping[str, str],
    labels: Mapping[str, str],
    sex_values: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """As `read_manifest`; a note names volumes below `root` that have no row. Opens no volume.

    Raises:
        UserError: as `read_manifest`, or the folder is not there.
    """
    table = read_manifest(path, columns=columns, labels=labels, sex_values=sex_values)
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder. Give the folder that holds volumes.")
    listed = {os.path.normpath(name) for name in table["image"]}
    unlisted = [name for name in VolumeFolder(root=root).names() if name not in listed]
    if unlisted:
        more = ", ..." if len(unlisted) > MAX_NAMED else ""
        add_note(
            table,
            f"{len(unlisted)} volumes in the folder have no row in {Path(path).name} and are not "
            f"used: {', '.join(unlisted[:MAX_NAMED])}{more}",
        )
    return table
