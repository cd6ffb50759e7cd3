"""Sites as scanners: how a site positions patients, exposes, develops and marks its pictures.

An `Acquisition` is a set of ranges, so a new scanner, or a randomised one, is one more entry of
data. Drawing one picture's values from the ranges is here; `film` applies them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dpmed.data.synthetic.draws import Draws

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Acquisition:
    """Ranges from which each picture of a site draws its acquisition.

    Attributes:
        zoom: size of the body in the picture; 1 fills the frame with the chest.
        shift: standard deviation of the position, in half picture widths.
        tilt: standard deviation of the rotation in the picture plane, degrees.
        exposure: attenuation that is shown as mid-grey.
        latitude: attenuation between dark and bright; a small one gives a hard picture.
        gamma: exponent of the display curve.
        scatter: share of the signal that is replaced by a haze.
        sharpening: strength of the unsharp mask of the processing.
        noise: standard deviation of the quantum noise at mid-grey, of the full grey scale.
        collimation: width of the shuttered border, in half picture widths.
        collimated: probability that a border is visible.
        border: grey level of the border.
        marker: letter that lies beside the patient.
        marker_corner: x and y direction of the marker's corner (-1 or 1).
    """

    zoom: Range
    shift: float
    tilt: float
    exposure: Range
    latitude: Range
    gamma: Range
    scatter: Range
    sharpening: Range
    noise: Range
    collimation: Range
    collimated: float
    border: float
    marker: str
    marker_corner: tuple[int, int]


# What a picture of a public or randomised acquisition may come to, AP views included. Every private
# site stays outside in two ways, so that no pretraining on public pictures has seen its scanner.
PUBLIC_LIMITS: dict[str, Range] = {
    "latitude": (0.20, 0.30),
    "gamma": (0.85, 1.15),
    "scatter": (0.00, 0.18),
    "noise": (0.003, 0.019),
}

ACQUISITIONS = {
    "university": Acquisition(
        zoom=(0.95, 1.28),
        shift=0.09,
        tilt=4.0,
        exposure=(0.48, 0.64),
        latitude=(0.15, 0.19),
        gamma=(1.18, 1.40),
        scatter=(0.0, 0.08),
        sharpening=(0.4, 0.9),
        noise=(0.004, 0.010),
        collimation=(0.02, 0.12),
        collimated=0.8,
        border=0.0,
        marker="R",
        marker_corner=(-1, -1),
    ),
    "community": Acquisition(
        zoom=(0.85, 1.18),
        shift=0.11,
        tilt=4.0,
        exposure=(0.42, 0.62),
        latitude=(0.31, 0.38),
        gamma=(0.62, 0.82),
        scatter=(0.08, 0.2),
        sharpening=(0.0, 0.2),
        noise=(0.008, 0.014),
        collimation=(0.0, 0.08),
        collimated=0.3,
        border=0.12,
        marker="L",
        marker_corner=(1, -1),
    ),
    "emergency": Acquisition(
        zoom=(0.90, 1.35),
        shift=0.13,
        tilt=6.0,
        exposure=(0.45, 0.75),
        latitude=(0.22, 0.32),
        gamma=(0.80, 1.20),
        scatter=(0.20, 0.38),
        sharpening=(0.0, 0.4),
        noise=(0.020, 0.027),
        collimation=(0.03, 0.20),
        collimated=0.6,
        border=0.02,
        marker="L",
        marker_corner=(1, 1),
    ),
    "archive": Acquisition(
        zoom=(0.88, 1.28),
        shift=0.10,
        tilt=4.0,
        exposure=(0.50, 0.65),
        latitude=(0.21, 0.28),
        gamma=(0.90, 1.10),
        scatter=(0.03, 0.12),
        sharpening=(0.1, 0.5),
        noise=(0.006, 0.013),
        collimation=(0.0, 0.12),
        collimated=0.5,
        border=0.04,
        marker="L",
        marker_corner=(1, -1),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shot:
    """The acquisition of a block of B pictures; each array has the shape (B, 1, 1).

    Attributes:
        zoom, shift_x, shift_y, tilt: placing of the body in the frame; tilt in radians.
        exposure, latitude, gamma, scatter, sharpening, noise: as in `Acquisition`.
        edges: width of the border on the left, top, right and bottom, shape (B, 4, 1, 1).
        border: grey level of the border.
        marker_x, marker_y: centre of the marker, in half picture widths.
        marker_tilt: rotation of the marker, radians.
        marker_right: 1 where the marker is an R, 0 where it is an L.
        marker_level: brightness of the marker.
    """

    zoom: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray
    tilt: np.ndarray
    exposure: np.ndarray
    latitude: np.ndarray
    gamma: np.ndarray
    scatter: np.ndarray
    sharpening: np.ndarray
    noise: np.ndarray
    edges: np.ndarray
    border: np.ndarray
    marker_x: np.ndarray
    marker_y: np.ndarray
    marker_tilt: np.ndarray
    marker_right: np.ndarray
    marker_level: np.ndarray

    def select(self, rows: np.ndarray | slice) -> Shot:
        """The acquisitions of some rows of the block."""
        fields = {f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)}
        return Shot(**fields)


def draw_shots(acquisitions: list[Acquisition], ap: np.ndarray, draws: Draws) -> Shot:
    """Draw the acquisition of each picture from its site's ranges.

    Args:
        acquisitions: one entry a picture.
        ap: 1 for an AP view (less steady, more scatter and noise), shape (B,).
        draws: the pictures' random numbers.
    """

    def column(name: str) -> np.ndarray:
        return np.array([getattr(row, name) for row in acquisitions], float)

    def within(name: str) -> np.ndarray:
        low, high = column(name).T
        return draws.uniform(low, high)

    collimated = draws.flag(column("collimated"))
    edges = np.stack([within("collimation") * draws.flag(0.6) for _ in range(4)], axis=1)
    corner = column("marker_corner")
    fields = {
        "zoom": within("zoom") * (1 + 0.03 * ap),
        "shift_x": draws.normal(0.0, column("shift")),
        "shift_y": draws.normal(0.0, column("shift")),
        "tilt": np.deg2rad(draws.normal(0.0, column("tilt") * (1 + 0.5 * ap))),
        "exposure": within("exposure"),
        "latitude": within("latitude"),
        "gamma": within("gamma"),
        "scatter": within("scatter") + 0.05 * ap,
        "sharpening": within("sharpening"),
        "noise": within("noise") * (1 + 0.4 * ap),
        "edges": edges * collimated[:, None],
        "border": column("border"),
        "marker_x": corner[:, 0] * draws.uniform(0.70, 0.86),
        "marker_y": corner[:, 1] * draws.uniform(0.60, 0.86),
        "marker_tilt": draws.normal(0.0, 0.15),
        "marker_right": np.array([row.marker == "R" for row in acquisitions], float),
        "marker_level": draws.uniform(0.6, 1.0),
    }
    return Shot(
        **{name: values.astype(np.float32)[..., None, None] for name, values in fields.items()}
    )


def body_frame(shot: Shot, image_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each pixel looks: x and y in the body frame, shape (B, H, W), and the pixel's width."""
    ticks = pixel_centres(image_size)
    across = ticks[None, None, :] - shot.shift_x
    down = ticks[None, :, None] - shot.shift_y
    cos, sin = np.cos(shot.tilt) / shot.zoom, np.sin(shot.tilt) / shot.zoom
    pixel = 2.0 / (image_size * shot.zoom)
    return cos * across + sin * down, cos * down - sin * across, pixel


def pixel_centres(image_size: int) -> np.ndarray:
    """Centres of the pixels of one row, in half picture widths from -1 to 1, float32."""
    return ((np.arange(image_size) + 0.5) * (2.0 / image_size) - 1.0).astype(np.float32)
