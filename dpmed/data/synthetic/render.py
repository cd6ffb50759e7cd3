"""From study table to pictures: the synthetic radiographs of `cohort`'s rows.

Composes body, anatomy, findings and acquisition for blocks of rows, on several threads if asked.
A picture depends on (seed, its own row) alone, never on its neighbours, the chunking, or the number
of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pandas as pd

from dpmed.data.synthetic.acquisition import ACQUISITIONS, body_frame, draw_shots
from dpmed.data.synthetic.anatomy import draw_chest
from dpmed.data.synthetic.body import Body, draw_bodies
from dpmed.data.synthetic.bones import draw_bones
from dpmed.data.synthetic.cohort import FINDINGS
from dpmed.data.synthetic.devices import draw_devices
from dpmed.data.synthetic.draws import Draws, generator_for
from dpmed.data.synthetic.film import develop
from dpmed.data.synthetic.findings import apply_findings
from dpmed.data.synthetic.texture import vessel_pattern
from dpmed.errors import UserError, did_you_mean

GENERATOR_VERSION = "1"
"""Changes whenever the same seed and table give other tables or pictures; part of a cache's key."""
_PIXELS_PER_BLOCK = 8 * 64 * 64  # keeps a block's arrays in the processor's cache
_LUNG_ATTENUATION = 0.60


def render_radiographs(
    table: pd.DataFrame, *, seed: int, image_size: int, num_workers: int = 1
) -> np.ndarray:
    """Draw the pictures of all rows.

    Args:
        table: N rows of a `synthetic_cohort` table, in any order.
        seed: seed of the pictures.
        image_size: height and width in pixels, 16 to 1024.
        num_workers: threads.

    Returns:
        uint8 array of shape (N, image_size, image_size), row i = table row i.

    Raises:
        UserError: a needed column is missing, a site is unknown, or a number is out of range.
    """
    images = np.empty((len(table), image_size, image_size), np.uint8)
    start = 0
    for chunk in iterate_radiographs(
        table, seed=seed, image_size=image_size, num_workers=num_workers
    ):
        images[start : start + len(chunk)] = chunk
        start += len(chunk)
    return images


def iterate_radiographs(
    table: pd.DataFrame,
    *,
    seed: int,
    image_size: int,
    chunk_size: int = 256,
    num_workers: int = 1,
) -> Iterator[np.ndarray]:
    """Draw the pictures chunk by chunk, in the table's order; for progress bars and large sets.

    Args:
        table: N rows of a `synthetic_cohort` table, in any order.
        seed: seed of the pictures.
        image_size: height and width in pixels, 16 to 1024.
        chunk_size: pictures in a chunk (the last may be shorter).
        num_workers: threads; at most twice as many chunks are held in memory.

    Raises:
        UserError: as `render_radiographs`.
    """
    _check(table, image_size, chunk_size, num_workers)
    chunks = (table.iloc[i : i + chunk_size] for i in range(0, len(table), chunk_size))
    if num_workers == 1:
        for chunk in chunks:
            yield _render_chunk(chunk, seed, image_size)
        return
    with ThreadPoolExecutor(num_workers) as pool:
        pending: deque[Future[np.ndarray]] = deque()
        for chunk in chunks:
            pending.append(pool.submit(_render_chunk, chunk, seed, image_size))
            if len(pending) >= 2 * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _check(table: pd.DataFrame, image_size: int, chunk_size: int, num_workers: int) -> None:
    for name, value, low, high in (
        ("image_size", image_size, 16, 1024),
        ("chunk_size", chunk_size, 1, 1_000_000),
        ("num_workers", num_workers, 1, 256),
    ):
        if not low <= value <= high:
            raise UserError(f"{name}={value}: must be from {low} to {high}.")
    needed = ("image", "patient_id", "sex", "age", "view", "site", *FINDINGS)
    missing = [column for column in needed if column not in table]
    if missing:
        raise UserError(
            f"Columns {', '.join(missing)} are missing: render_radiographs draws tables made by "
            f"synthetic_cohort; this one has {', '.join(map(str, table.columns))}."
        )
    for site in pd.unique(table["site"]):
        if site not in ACQUISITIONS:
            hint = did_you_mean(str(site), ACQUISITIONS)
            raise UserError(f"site={site!r}: none of {', '.join(ACQUISITIONS)}.{hint}")


def _render_chunk(table: pd.DataFrame, seed: int, image_size: int) -> np.ndarray:
    body = draw_bodies(table, seed=seed)
    generators = [generator_for(seed, f"shot/{key}") for key in table["image"]]
    acquisitions = [ACQUISITIONS[site] for site in table["site"]]
    shot = draw_shots(acquisitions, body.ap[:, 0, 0], Draws(generators, 48))
    images = np.empty((len(table), image_size, image_size), np.uint8)
    block = max(1, _PIXELS_PER_BLOCK // image_size**2)
    for start in range(0, len(table), block):
        rows = slice(start, start + block)
        attenuation = _attenuation(body.select(rows), body_frame(shot.select(rows), image_size))
        images[rows] = develop(attenuation, shot.select(rows), generators[rows])
    return images


def _attenuation(body: Body, frame: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """What the rays meet on their way through a block of patients, shape (B, H, W)."""
    chest = draw_chest(body, *frame)
    lung, fluid = apply_findings(body, chest)
    lung *= 1.0 - vessel_pattern(body, chest)
    attenuation = chest.solid - _LUNG_ATTENUATION * lung + fluid
    attenuation += draw_bones(body, chest)
    attenuation += draw_devices(body, chest)
    return attenuation
