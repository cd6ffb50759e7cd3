"""Where the images of a release lie: one scan of its folders, then paths in place of bare names.

Releases name an image without its folder. Nothing here opens an image.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from dpmed.data.table import add_note
from dpmed.errors import UserError

MAX_DEPTH = 2  # images_001/images/ is the deepest folder of ChestX-ray14


def locate_images(
    table: pd.DataFrame,
    root: Path,
    *,
    suffixes: Collection[str],
    max_skipped_images: int,
    max_depth: int = MAX_DEPTH,
) -> pd.DataFrame:
    """The table with file names replaced by paths relative to `root`.

    Rows whose file is absent are dropped where the setting allows it, noted, and listed in
    `attrs["skipped"]` as {"image", "reason"}.

    Raises:
        UserError: no image at all, more absent files than `max_skipped_images`, or one name in two
            folders.
    """
    found = scan_images(root, suffixes=suffixes, max_depth=max_depth)
    paths = table["image"].map({name: folders[0] for name, folders in found.items()})
    absent = paths.isna().to_numpy()
    if absent.all():
        raise UserError(
            f"none of the {len(table)} images listed for {root} is in it or in its folders "
            f"(for example {table['image'].iloc[0]!r}); {len(found)} other image files are. "
            "Check data.root, and that the archives were unpacked."
        )
    _check_absent(table["image"].to_numpy()[absent], root, max_skipped_images)
    _check_unique(table["image"][~absent], found, root)
    result = table.assign(image=paths.astype("str"))[~absent].reset_index(drop=True)
    if absent.any():
        names = table["image"].to_numpy()[absent]
        result.attrs["skipped"] = [
            *table.attrs.get("skipped", []),
            *({"image": str(name), "reason": "listed, but not in the folder"} for name in names),
        ]
        add_note(result, f"{len(names)} listed images are not in the folder and were left out")
    return result


def scan_images(
    root: Path, *, suffixes: Collection[str], max_depth: int = MAX_DEPTH
) -> dict[str, list[str]]:
    """File name -> its paths relative to `root`, for every file with one of these suffixes.

    Raises:
        UserError: a folder cannot be listed.
    """
    found: dict[str, list[str]] = {}
    pending = [("", 0)]
    while pending:
        folder, depth = pending.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"cannot list {root / folder}: {error.strerror}") from None
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                continue
            if os.path.splitext(entry.name)[1].lower() in suffixes:
                found.setdefault(entry.name, []).append(path)
            elif depth < max_depth and entry.is_dir():
                pending.append((path, depth + 1))
    return found


def _check_absent(names: np.ndarray, root: Path, max_skipped_images: int) -> None:
    if len(names) > max_skipped_images:
        shown = ", ".join(str(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
        raise UserError(
            f"{len(names)} listed images are not in {root}: {shown}. Complete the download, or "
            f"leave them out with data.max_skipped_images={len(names)} "
            f"(now {max_skipped_images})."
        )


def _check_unique(names: pd.Series, found: dict[str, list[str]], root: Path) -> None:
    repeated = [name for name in names if len(found[name]) > 1]
    if repeated:
        places = " and ".join(found[repeated[0]])
        raise UserError(
            f"{len(repeated)} image names occur in two folders of {root}, for example {places}. "
            "Which one is meant cannot be known: remove one copy."
        )
