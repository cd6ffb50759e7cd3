"""Probabilities of many images with a trained model: evaluation mode, no gradients, fixed order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from dpmed.training.classifier import scaled


@torch.inference_mode()
def predict_probabilities(
    model: nn.Module,
    images_NHW: NDArray[np.uint8],
    rows: Sequence[int] | NDArray[np.int64],
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
    model.eval()
    parameter = next(model.parameters())
    chunks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    outputs = []
    for chunk in tqdm(chunks, desc=description, unit="batch", leave=False, dynamic_ncols=True):
        images_N1HW = torch.from_numpy(images_NHW[np.asarray(chunk)]).unsqueeze(1)
        logits_NL = model(scaled(images_N1HW.to(parameter.device), parameter.dtype))
        outputs.append(output(logits_NL).float().cpu().numpy())
    if not outputs:
        return np.zeros((0, 0), dtype=np.float32)
    return np.concatenate(outputs)
