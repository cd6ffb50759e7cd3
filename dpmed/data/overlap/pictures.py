"""The images of one side of a comparison: decoded once, small, with a hash of their full pixels.

Names and patient ids stay beside the pixels for the list of pairs; no number made here holds them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dpmed.data.decoding import UnreadableImageError, read_pixels
from dpmed.data.overlap.contrast import SIZE, canonical
from dpmed.data.pixel_hash import pixel_hash
from dpmed.data.preprocessing import Preprocessing
from dpmed.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """N decoded images.

    Args:
        names: file names as given.
        patients: patient ids, or the image's own name where there is none.
        images_NHW: canonical, uint8.
        hashes: of the pixels as decoded, before any resizing.
        unreadable: name -> reason of what is missing here.
    """

    names: list[str]
    patients: list[str]
    images_NHW: NDArray[np.uint8]
    hashes: list[str]
    unreadable: dict[str, str]

    def __len__(self) -> int:
        return len(self.names)


def read_pictures(
    root: Path, names: Sequence[str], patients: Sequence[str], *, num_workers: int, title: str
) -> Pictures:
    """Decodes a data set's images; what cannot be decoded is named and left out.

    Args:
        root: folder that the names are relative to.
        names: files.
        patients: one id an image.
        num_workers: threads.
        title: shown on the progress bar.

    Raises:
        UserError: none of the images can be decoded.
    """
    settings = Preprocessing(image_size=SIZE)  # only how DICOM is read; nothing else is used of it

    def read(name: str) -> tuple[NDArray[np.uint8], str] | str:
        try:
            pixels = read_pixels(root / name, settings)
        except UnreadableImageError as error:
            return error.reason
        return canonical(pixels), pixel_hash(pixels)

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        results = list(
            tqdm(pool.map(read, names), total=len(names), desc=title, unit="image",
                 dynamic_ncols=True)
        )  # fmt: skip
    kept = [index for index, result in enumerate(results) if not isinstance(result, str)]
    unreadable = {
        name: result for name, result in zip(names, results, strict=True) if isinstance(result, str)
    }
    for name, reason in unreadable.items():
        logger.warning("left out: cannot decode %s: %s", name, reason)
    if not kept:
        raise UserError(f"{root}: none of {len(names)} images can be decoded.")
    return Pictures(
        names=[names[index] for index in kept],
        patients=[str(patients[index]) for index in kept],
        images_NHW=np.stack([results[index][0] for index in kept]),
        hashes=[str(results[index][1]) for index in kept],
        unreadable=unreadable,
    )


def from_arrays(images: Sequence[NDArray[np.uint8]], names: Sequence[str]) -> Pictures:
    """Pictures that come from no file, such as controls."""
    return Pictures(
        names=list(names),
        patients=list(names),
        images_NHW=np.stack([canonical(image) for image in images]),
        hashes=[pixel_hash(image) for image in images],
        unreadable={},
    )
