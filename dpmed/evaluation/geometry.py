"""DP-RGMI: what training, and its privacy, did to the representation of the test images.

Streams the embeddings of two encoders, the initial and the trained one, block by block into
moments of random parts of the patients. Point values are those of all rows; intervals come from
leaving out one part after another (duplicates in a bootstrap would bias ranks down). Probe utility
and utilisation gap are in `probe.py`. Shapes: N images, M of a group, D features, B rows of a
block.

Source: DP-RGMI, arXiv 2603.01098; the further metrics are named in `spectrum.py` and `drift.py`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from joblib import cpu_count
from scipy.stats import t as student
from threadpoolctl import threadpool_limits

from dpmed.errors import UserError
from dpmed.evaluation.drift import measure_drift
from dpmed.evaluation.embeddings import embedding_shape, read_blocks
from dpmed.evaluation.estimates import not_estimable
from dpmed.evaluation.moments import Moments
from dpmed.evaluation.spectrum import measure_spectrum

NUM_PARTS = 20
ROWS_AT_A_TIME = 32768  # 50 MB of float16 for each of two encoders of 768 features


def measure_geometry(
    initial: Path | np.ndarray,
    trained: Path | np.ndarray,
    *,
    patient_ids: Sequence[Hashable] | np.ndarray,
    member_N: np.ndarray | None = None,
    num_parts: int = NUM_PARTS,
    seed: int = 0,
    confidence: float = 0.95,
    threads: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Drift from the initial to the trained encoder, and the spectrum of each.

    Args:
        initial: embeddings at initialisation, a file or an array [N, D].
        trained: embeddings of the same images after training, in the same order.
        patient_ids: whose image each row is.
        member_N: only these rows, for the geometry of a subgroup.
        num_parts: how many random parts of the patients the jackknife leaves out in turn.
        seed: which patients share a part.
        confidence: of the intervals, from Student's t with one degree less than there are parts.
        threads: workers; all cores of this process when left out. Never changes a result.

    Returns:
        `<metric>` for the drift and for the trained encoder's spectrum, `initial_<metric>` for the
        initial one's; each `{value, ci_low, ci_high, num_images, num_patients}`, null with a
        reason where it does not exist. It is what `metrics.json` has under `geometry`.

    Raises:
        UserError: the shapes differ, a row is not finite or is all zeros.
    """
    patients = np.asarray(patient_ids, str)
    shapes = [_shape(source) for source in (initial, trained)]
    if shapes[0] != shapes[1] or shapes[0][0] != len(patients):
        raise UserError(
            f"The embeddings have shapes {shapes[0]} and {shapes[1]} for {len(patients)} images. "
            "Both encoders must be of one architecture and embed the same images."
        )
    member_N = np.ones(len(patients), bool) if member_N is None else member_N
    num_patients = len(np.unique(patients[member_N]))
    if not num_patients:
        raise UserError("There are no images in this group; geometry needs at least one patient.")
    num_parts = min(num_parts, num_patients)
    part_N = _patient_parts(patients, member_N, num_parts, seed)
    by_part = [Moments.empty(2 * shapes[0][1]) for _ in range(num_parts)]
    counts = {"num_images": int(member_N.sum()), "num_patients": num_patients}
    # One BLAS thread for each worker: parts are independent, and idle BLAS threads spin.
    threads = threads or cpu_count()
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        _collect(zip(_blocks(initial), _blocks(trained), strict=True), part_N, by_part, pool)
        return _jackknife(by_part, counts, confidence, pool)


def _collect(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    part_N: np.ndarray,
    by_part: Sequence[Moments],
    pool: Executor,
) -> None:
    """Adds each row pair, as joint unit rows, to the moments of its part; part -1 is left out."""
    start = 0
    for initial_BD, trained_BD in blocks:
        part_B = part_N[start : start + len(initial_BD)]

        def add(
            part: int,
            part_B: np.ndarray = part_B,
            pair: tuple[np.ndarray, np.ndarray] = (initial_BD, trained_BD),
        ) -> None:
            rows = np.flatnonzero(part_B == part)
            by_part[part].add(np.concatenate([_unit_rows(each[rows]) for each in pair], axis=1))

        list(pool.map(add, np.unique(part_B[part_B >= 0])))
        start += len(initial_BD)


def _jackknife(
    by_part: Sequence[Moments], counts: dict[str, int], confidence: float, pool: Executor
) -> dict[str, dict[str, Any]]:
    whole = Moments.empty(len(by_part[0].mean_D))
    for part in by_part:
        whole = whole.merged(part)
    values = _measure(whole)
    left: list[dict[str, float]] = []
    if len(by_part) > 1:
        left = list(pool.map(lambda part: _measure(whole.without(part)), by_part))
    return {
        name: _entry(value, [each[name] for each in left], counts, confidence)
        for name, value in values.items()
    }


def _measure(joint: Moments) -> dict[str, float]:
    size = len(joint.mean_D) // 2
    initial = measure_spectrum(joint.features(0, size))
    trained = measure_spectrum(joint.features(size, 2 * size))
    return {
        **measure_drift(joint),
        **trained,
        **{f"initial_{name}": value for name, value in initial.items()},
    }


def _entry(
    value: float, left: Sequence[float], counts: dict[str, int], confidence: float
) -> dict[str, Any]:
    if not np.isfinite(value):
        reason = not_estimable("the embeddings have no spread")
        return {"value": None, "ci_low": None, "ci_high": None, **counts, "reason": reason}
    if len(left) < 2 or not np.isfinite(left).all():
        reason = "interval " + not_estimable(f"{counts['num_patients']} patients")
        return {"value": value, "ci_low": None, "ci_high": None, **counts, "reason": reason}
    num_parts = len(left)
    variance = (num_parts - 1) * np.var(left)
    half = float(student.ppf((1 + confidence) / 2, num_parts - 1) * np.sqrt(variance))
    return {"value": value, "ci_low": value - half, "ci_high": value + half, **counts}


def _patient_parts(
    patients: np.ndarray, member_N: np.ndarray, num_parts: int, seed: int
) -> np.ndarray:
    """The random part of each row's patient, -1 for rows that are no members."""
    _, patient_M = np.unique(patients[member_N], return_inverse=True)
    order = np.random.default_rng(seed).permutation(int(patient_M.max()) + 1)
    part_N = np.full(len(patients), -1)
    part_N[member_N] = order[patient_M] % num_parts
    return part_N


def _unit_rows(rows_BD: np.ndarray) -> np.ndarray:
    wide_BD = rows_BD.astype(np.float64)
    norms_B = np.sqrt(np.einsum("bd,bd->b", wide_BD, wide_BD))
    if not norms_B.all():
        raise UserError(
            f"{int((norms_B == 0).sum())} embeddings are all zeros and have no direction. "
            "The encoder has collapsed, or the file was never filled."
        )
    wide_BD /= norms_B[:, None]
    return wide_BD


def _blocks(source: Path | np.ndarray) -> Iterator[np.ndarray]:
    if isinstance(source, np.ndarray):
        starts = range(0, len(source), ROWS_AT_A_TIME)
        return (source[start : start + ROWS_AT_A_TIME] for start in starts)
    return read_blocks(source, ROWS_AT_A_TIME)


def _shape(source: Path | np.ndarray) -> tuple[int, ...]:
    return source.shape if isinstance(source, np.ndarray) else embedding_shape(source)
