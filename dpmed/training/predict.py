"""What a trained model says of many images: evaluation mode, no gradients, fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from dpmed.data.cache.pages import read_rows
from dpmed.training.classifier import scaled

T = TypeVar("T")
Rows = Sequence[int] | NDArray[np.int64]


def predict_probabilities(
    model: nn.Module,
    images_NHW: NDArray[np.uint8],
    rows: Rows,
    *,
    batch_size: int,
    description: str,
    output: Callable[[Tensor], Tensor] = torch.sigmoid,
) -> NDArray[np.float32]:
    """One row of probabilities an image, in the order of `rows`.

    Args:
        model: put into evaluation mode and left there.
        images_NHW: uint8 pixels.
        rows: which images.
        batch_size: images at once.
        description: shown on the progress bar.
        output: what is done to the logits.

    Returns:
        Shape (len(rows), L).
    """
    outputs = [
        output(logits_NL).float().cpu().numpy()
        for logits_NL in forward_batches(
            model, model, images_NHW, rows, batch_size=batch_size, description=description
        )
    ]
    return np.concatenate(outputs) if outputs else np.zeros((0, 0), dtype=np.float32)


@torch.inference_mode()
def forward_batches(
    model: nn.Module,
    forward: Callable[[Tensor], T],
    images_NHW: NDArray[np.uint8],
    rows: Rows,
    *,
    batch_size: int,
    description: str,
) -> Iterator[T]:
    """What `forward` makes of the images, batch by batch, in the order of `rows`.

    Args:
        model: put into evaluation mode and left there; names device and type.
        forward: from images (N, 1, H, W) in [0, 1] to whatever is wanted of them.
        images_NHW: uint8 pixels.
        rows: which images.
        batch_size: images at once.
        description: shown on the progress bar.
    """
    model.eval()
    parameter = next(model.parameters())
    chunks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    for chunk in tqdm(chunks, desc=description, unit="batch", leave=False, dynamic_ncols=True):
        images_N1HW = torch.from_numpy(read_rows(images_NHW, np.asarray(chunk))).unsqueeze(1)
        yield forward(scaled(images_N1HW.to(parameter.device), parameter.dtype))
