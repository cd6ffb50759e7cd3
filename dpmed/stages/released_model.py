"""A released folder as a model: images in, probabilities out, with the preprocessing of training.

What `dpmed.load` returns. It needs the folder alone, no run and no data set.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm

from dpmed import data, models
from dpmed.data.decoding import DECODING_VERSION, DICOM_SUFFIXES, RASTER_SUFFIXES
from dpmed.data.preprocessing import preprocess
from dpmed.errors import UserError
from dpmed.models.weights import sha256_of
from dpmed.training.batches import scaled

logger = logging.getLogger(__name__)

#: Of `config.json`, and the two files that a released model consists of.
FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_BATCH_SIZE = 64
_SUFFIXES = RASTER_SUFFIXES | DICOM_SUFFIXES

Image = str | Path | NDArray[Any]


def load(folder: Path | str, *, device: str = "cpu") -> ReleasedModel:
    """Opens a folder that `dpmed release` wrote.

    Args:
        folder: holds `config.json` and `model.safetensors`.
        device: of torch, where the model computes.

    Raises:
        UserError: no such folder, a damaged or changed file, or a newer format.
    """
    folder = Path(folder)
    description = _read_description(folder)
    own = description["dpmed"]
    path = folder / WEIGHTS
    if not path.is_file() or sha256_of(path) != own["weights_sha256"]:
        raise UserError(f"{path} is missing, or not the file that config.json was written for.")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    model = models.build_model(
        name=description["architecture"],
        num_labels=len(own["labels"]),
        image_size=own["preprocessing"]["image_size"],
        mean=own["input_mean"],
        std=own["input_std"],
        **description["model_args"],
    )
    model = model.to(dtype=next(iter(tensors.values())).dtype)
    model.load_state_dict(tensors)
    if own["decoding_version"] != DECODING_VERSION:
        logger.warning(
            "%s was trained on images decoded by rules of version %s, and this dpmed decodes by "
            "version %s: probabilities may differ a little",
            folder,
            own["decoding_version"],
            DECODING_VERSION,
        )
    return ReleasedModel(
        model=model.eval().to(device),
        labels=tuple(own["labels"]),
        preprocessing=data.Preprocessing(**own["preprocessing"]),
        thresholds=own["thresholds"],
        privacy=own["privacy"],
    )


def predict_to_csv(folder: Path, images: Sequence[Path], output: Path | TextIO) -> dict[str, str]:
    """Writes one line an image: its name, a probability for each label, decisions where released.

    Args:
        folder: a released model.
        images: files, and folders that are searched for images.
        output: a CSV file or an open stream.

    Returns:
        Name -> reason of every file without a probability; each is also logged.

    Raises:
        UserError: the model cannot be opened, or there is no image at all.
    """
    paths = _image_files(images)
    model = load(folder)
    table, unreadable = model.predict_files(paths)
    if model.thresholds is not None:
        table = table.join(model.decisions(table).add_suffix("_positive"))
    table.to_csv(output)
    for name, reason in unreadable.items():
        logger.error("no probability for %s: %s", name, reason)
    return unreadable


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """A trained classifier with everything that its probabilities depend on.

    Args:
        model: images (N, 1, H, W) in [0, 1] to logits (N, L), in evaluation mode.
        labels: what the L probabilities answer, in order.
        preprocessing: done to each image on its own, as in training.
        thresholds: label -> probability from which it is called positive; None where they were
            not released.
        privacy: unit, epsilon and delta; None where nothing is guaranteed.
    """

    model: nn.Module
    labels: tuple[str, ...]
    preprocessing: data.Preprocessing
    thresholds: Mapping[str, float | None] | None
    privacy: Mapping[str, Any] | None

    def predict(self, images: Image | Sequence[Image]) -> pd.DataFrame:
        """Probabilities, one row an image and one column a label.

        Args:
            images: file names (PNG, JPEG or DICOM), or greyscale pixels (height, width) as uint8
                or uint16 before any resizing; one or several.

        Returns:
            float32 in [0, 1]; the index is the file name, or the position of an array.

        Raises:
            UserError: an image that cannot be decoded, by name. `predict_files` goes on instead.
        """
        several = [images] if isinstance(images, str | Path | np.ndarray) else list(images)
        names = [
            position if isinstance(image, np.ndarray) else str(image)
            for position, image in enumerate(several)
        ]
        pixels = [self._prepared(image, name) for image, name in zip(several, names, strict=True)]
        return self._frame(self._probabilities(pixels), names)

    def predict_files(
        self, paths: Iterable[Path], *, batch_size: int = _BATCH_SIZE
    ) -> tuple[pd.DataFrame, dict[str, str]]:
        """As `predict` for many files with a progress bar; goes on after a file that is broken.

        Returns:
            Probabilities of the files that could be decoded, and name -> reason for the others.
        """
        frames, unreadable = [self._frame(np.zeros((0, len(self.labels)), np.float32), [])], {}
        waiting: dict[str, NDArray[np.uint8]] = {}
        for path in tqdm(list(paths), desc="predicting", unit="image", dynamic_ncols=True):
            try:
                waiting[str(path)] = self._prepared(path, str(path))
            except data.UnreadableImageError as error:
                unreadable[str(path)] = error.reason
            if len(waiting) == batch_size:
                frames.append(self._of(waiting))
                waiting = {}
        if waiting:
            frames.append(self._of(waiting))
        return pd.concat(frames), unreadable

    def decisions(self, probabilities: pd.DataFrame) -> pd.DataFrame:
        """Whether each probability reaches its label's frozen threshold; missing without one."""
        assert self.thresholds is not None, "the folder holds no thresholds"
        decided = {
            label: pd.Series(pd.NA, index=probabilities.index, dtype="boolean")
            if (threshold := self.thresholds[label]) is None
            else (probabilities[label].astype(float) >= threshold).astype("boolean")
            for label in self.labels
        }
        return pd.DataFrame(decided)

    def _of(self, images: Mapping[str, NDArray[np.uint8]]) -> pd.DataFrame:
        return self._frame(self._probabilities(list(images.values())), list(images))

    def _frame(self, probabilities_NL: NDArray[np.float32], names: list[Any]) -> pd.DataFrame:
        index = pd.Index(names, name="image")
        return pd.DataFrame(probabilities_NL, index=index, columns=list(self.labels))

    def _prepared(self, image: Image, name: object) -> NDArray[np.uint8]:
        if not isinstance(image, np.ndarray):
            return data.decode_image(image, self.preprocessing)
        if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
            raise UserError(
                f"image {name} is an array of shape {image.shape} and type {image.dtype}: give "
                "greyscale pixels (height, width) as uint8 or uint16."
            )
        return preprocess(image, self.preprocessing)

    @torch.inference_mode()
    def _probabilities(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Shape (N, L); the arithmetic of `dpmed.training.predict`, without importing Lightning."""
        parameter = next(self.model.parameters())
        outputs = [np.zeros((0, len(self.labels)), np.float32)]
        for start in range(0, len(images), _BATCH_SIZE):
            pixels_N1HW = torch.from_numpy(np.stack(images[start : start + _BATCH_SIZE]))[:, None]
            scaled_N1HW = scaled(pixels_N1HW.to(parameter.device), parameter.dtype)
            outputs.append(torch.sigmoid(self.model(scaled_N1HW)).float().cpu().numpy())
        return np.concatenate(outputs)


def _image_files(images: Sequence[Path]) -> list[Path]:
    """The named files, whatever they are called, and the images in the named folders."""
    found: dict[Path, None] = {}
    for path in images:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        if path.is_dir():
            inside = [file for file in inside if file.suffix.lower() in _SUFFIXES]
        found.update(dict.fromkeys(inside))
    if not found:
        raise UserError(
            f"{', '.join(map(str, images))}: no image there. Folders are searched for "
            f"{', '.join(sorted(_SUFFIXES))}; name files of other endings one by one."
        )
    return list(found)


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["dpmed"]["format_version"]
    except FileNotFoundError:
        raise UserError(
            f"{folder} is no released model: it has no config.json. Write one with: "
            f"dpmed release RUN --output FOLDER"
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{path} was not written by dpmed release, or is damaged.") from None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, and this dpmed reads format {FORMAT_VERSION}. Install "
            "the version of dpmed that wrote it."
        )
    return description
