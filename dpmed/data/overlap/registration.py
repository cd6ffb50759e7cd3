"""Is this the same picture? Two images are laid over one another and their detail is correlated.

First a search over rotations and scales by FFT at half the size, then an affine refinement by
Gauss-Newton at full size; the score is the correlation of local contrast where the two overlap.
Nothing here knows of data sets or patients.

Source: coarse step after Reddy and Chatterji 1996; refinement after Evangelidis and Psarakis 2008
(enhanced correlation coefficient).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, rfft2
from scipy.ndimage import affine_transform

from dpmed.data.overlap.contrast import SIZE, local_contrast

Floats = NDArray[np.float32]
Spectrum = NDArray[np.complex64]

ROTATIONS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # degrees
SCALES = (0.89, 0.94, 1.0, 1.06, 1.12)
_COARSE = SIZE // 2
_ITERATIONS = 8
_MARGIN = 4  # pixels at the border that the filters have not seen whole
_MIN_OVERLAP = 0.35  # share of the square
_TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Match:
    """How well one image lies on another.

    Args:
        score: correlation of local contrast in the overlap, in [-1, 1].
        overlap: share of the square in which both have pixels.
        scale: geometric mean of the two scales.
        degrees: rotation.
    """

    score: float
    overlap: float
    scale: float
    degrees: float


NO_MATCH = Match(score=-1.0, overlap=0.0, scale=1.0, degrees=0.0)


class Query:
    """One image, prepared for being compared with many.

    Args:
        image: canonical, uint8 (SIZE, SIZE).
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self._fine = local_contrast(image)
        coarse = local_contrast(image, size=_COARSE)
        self._poses = [(degrees, scale) for degrees in ROTATIONS for scale in SCALES]
        turned = np.stack([_warp(coarse, _pose(*pose)) for pose in self._poses])
        self._spectra = _spectra(turned).conj()

    def roughly(self, spectrum: Spectrum) -> tuple[float, NDArray[np.float64]]:
        """Peak of the correlation over all poses and shifts, and the affine map that reaches it.

        Args:
            spectrum: of the other image, from `coarse_spectrum`.

        Returns:
            The peak in [-1, 1], and (2, 3) from pixels of the other image to pixels of this one.
        """
        planes = irfft2(self._spectra * spectrum, (_COARSE, _COARSE))
        pose, row, column = np.unravel_index(int(planes.argmax()), planes.shape)
        shift = np.array([row, column], dtype=float)
        shift[shift > _COARSE // 2] -= _COARSE
        matrix, offset = _pose(*self._poses[pose])
        # The turned image lies at `shift` in the other one: undo the shift, then the turn. A pixel
        # of the coarse image has its centre between two of the full size.
        offset = 2 * (offset - matrix @ shift) + 0.5 * (1 - matrix.sum(axis=1))
        return float(planes[pose, row, column]), np.column_stack([matrix, offset])

    def match(self, other: NDArray[np.uint8], start: NDArray[np.float64]) -> Match:
        """Refines the affine map of `roughly` at full size, and scores it.

        Args:
            other: the canonical image whose spectrum gave the map.
            start: the map.
        """
        fixed = local_contrast(other)
        affine, best = start.copy(), NO_MATCH
        for _ in range(_ITERATIONS):
            moved, inside = _warp(self._fine, (affine[:, :2], affine[:, 2])), _inside(affine)
            if inside.mean() < _MIN_OVERLAP:
                break
            found = _score(fixed[inside], moved[inside], inside, affine)
            best = max(best, found, key=lambda match: match.score)
            step = _gauss_newton(fixed, moved, inside, affine)
            if step is None:
                break
            affine = affine + step
        return best


def coarse_spectrum(image: NDArray[np.uint8]) -> Spectrum:
    """What `Query.roughly` needs of a canonical image; worth keeping for images met often."""
    return _spectra(local_contrast(image, size=_COARSE)[None])[0]


def _gauss_newton(
    fixed: Floats, moved: Floats, inside: NDArray[np.bool_], affine: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """The change of the affine map (2, 3) that lowers the squared difference; None where singular.

    `moved(x) = query(affine x)`, so its gradient is that of the query times the linear part.
    """
    by_output = np.stack([np.gradient(moved, axis=axis) for axis in (0, 1)])[:, inside]
    by_query = np.linalg.solve(affine[:, :2].T, by_output)
    rows, columns = np.nonzero(inside)
    places = np.stack([rows, columns, np.ones_like(rows)]).astype(np.float32)
    jacobian = (by_query[:, None, :] * places[None]).reshape(6, -1)
    a, b = moved[inside], fixed[inside]
    gain = float(a @ b) / (float(a @ a) + _TINY)
    if gain <= 0:
        return None
    design = gain * jacobian
    normal = design @ design.T
    normal += 1e-4 * np.diag(np.diag(normal))
    try:
        return np.linalg.solve(normal, design @ (b - gain * a)).reshape(2, 3)
    except np.linalg.LinAlgError:
        return None


def _score(
    fixed_P: Floats, moved_P: Floats, inside: NDArray[np.bool_], affine: NDArray[np.float64]
) -> Match:
    a, b = moved_P - moved_P.mean(), fixed_P - fixed_P.mean()
    return Match(
        score=float(a @ b) / (float(np.linalg.norm(a) * np.linalg.norm(b)) + _TINY),
        overlap=float(inside.mean()),
        scale=1 / float(np.sqrt(abs(np.linalg.det(affine[:, :2])))),
        degrees=float(np.rad2deg(np.arctan2(affine[1, 0] - affine[0, 1], np.trace(affine)))),
    )


def _pose(degrees: float, scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Output to input coordinates of a turn and a scaling about the centre, at the coarse size."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    centre = np.full(2, (_COARSE - 1) / 2)
    return matrix, centre - matrix @ centre


def _warp(image: Floats, pose: tuple[NDArray[np.float64], NDArray[np.float64]]) -> Floats:
    return affine_transform(image, pose[0], offset=pose[1], order=1, mode="constant")


def _inside(affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pixels whose place in the query lies within it, a margin left out on both sides."""
    axis = np.arange(SIZE)
    places = (
        affine[:, 0][:, None, None] * axis[None, :, None]
        + affine[:, 1][:, None, None] * axis[None, None, :]
        + affine[:, 2][:, None, None]
    )
    inner = (axis >= _MARGIN) & (axis < SIZE - _MARGIN)
    within = ((places >= _MARGIN) & (places < SIZE - _MARGIN)).all(axis=0)
    return within & inner[:, None] & inner[None, :]


def _spectra(images_KHW: Floats) -> Spectrum:
    """Fourier transforms of windowed images of unit length."""
    windowed = images_KHW * _window(_COARSE)
    windowed /= np.linalg.norm(windowed, axis=(1, 2), keepdims=True) + _TINY
    return rfft2(windowed)


@functools.cache
def _window(size: int) -> Floats:
    """Fades the border out, where letters, collimators and black corners are."""
    axis = np.hanning(size + 2)[1:-1] ** 0.5
    return np.outer(axis, axis).astype(np.float32)
