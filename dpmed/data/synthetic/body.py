"""What one picture will show, in numbers: the geometry of the chest, the severity of its findings.

Stands between the study table (`cohort`) and the drawing (`anatomy`, `findings`). The body frame
has its origin in the middle of the chest, x to the right of the picture (the patient's left), y
down; the lungs reach from about y = -0.75 to 0.45 and |x| = 0.66. Arrays have the shape (B, 1, 1),
one entry a picture, so that they broadcast over pixels; pairs have (B, 2, 1, 1): right, left side.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from scipy.special import ndtr

from dpmed.data.synthetic.cohort import FINDINGS
from dpmed.data.synthetic.draws import Draws, generator_for

HEART_LIMIT = 0.5
AP_MAGNIFICATION = 1.09
VISIBLE = 0.30
"""Severity from which a finding counts as present; fainter ones are drawn, yet not labelled."""
_NUM_PATIENT_DRAWS = 96
_NUM_IMAGE_DRAWS = 160


@dataclasses.dataclass(frozen=True, kw_only=True)
class Body:
    """Geometry of a block of B pictures, in the body frame.

    Attributes:
        woman: 1 or 0.
        ap: 1 for an AP view, else 0.
        age: years.
        fat: soft tissue around the chest, standard deviations.
        thorax_width: inner half width of the chest at its widest.
        lung_top: y of the lung apices.
        dome: y of the top of each hemidiaphragm.
        dome_curve: how steeply the domes fall towards the sides.
        heart_width: half of the widest horizontal extent of the heart shadow as drawn.
        heart_aspect: long over short axis.
        heart_tilt: angle of the long axis below the horizontal, radians.
        heart_left: displacement of the heart's centre to the patient's left, in heart widths.
        mediastinum: half width of the upper mediastinum.
        midline: x of the mediastinum (rotation of the patient, pull of a collapsed lobe).
        knob: size of the aortic knob.
        rib_spacing: distance of two ribs.
        rib_phase: position of the first rib, in spacings.
        rib_slope: fall of the posterior ribs towards the side.
        bone: density of the bones.
        clavicle: y of the medial ends of the clavicles.
        breast: radius of the breast shadows (0 for men).
        breast_drop: y of the centre of the breasts.
        arms: how far the arms are held away from the trunk.
        scapula: distance of the shoulder blades' inner border from the middle.
        clavicle_tilt: slope of the shoulder girdle.
        gas_x: x of the air bubble in the stomach.
        gas_size: its radius.
        gas_depth: attenuation that it takes away (0 for none).
        collapse_side: side of an atelectasis, -1 right or 1 left.
        lobar: 1 where an atelectasis is a collapsed lobe, 0 where it is plate-like.
        vessels: strength of the vascular markings.
        num_lines: number of tubes and cables over the chest, 0 to 3.
        pacemaker: 1 for a patient with a pacemaker.
        severity: severity of each of `FINDINGS`, shape (B, 4); present from `VISIBLE` on.
        detail: uniforms that place findings and devices, shape (B, 64).
        texture: standard normals of the vessel and opacity textures, shape (B, 16, 64).
    """

    woman: np.ndarray
    ap: np.ndarray
    age: np.ndarray
    fat: np.ndarray
    thorax_width: np.ndarray
    lung_top: np.ndarray
    dome: np.ndarray
    dome_curve: np.ndarray
    heart_width: np.ndarray
    heart_aspect: np.ndarray
    heart_tilt: np.ndarray
    heart_left: np.ndarray
    mediastinum: np.ndarray
    midline: np.ndarray
    knob: np.ndarray
    rib_spacing: np.ndarray
    rib_phase: np.ndarray
    rib_slope: np.ndarray
    bone: np.ndarray
    clavicle: np.ndarray
    breast: np.ndarray
    breast_drop: np.ndarray
    arms: np.ndarray
    scapula: np.ndarray
    clavicle_tilt: np.ndarray
    gas_x: np.ndarray
    gas_size: np.ndarray
    gas_depth: np.ndarray
    collapse_side: np.ndarray
    lobar: np.ndarray
    vessels: np.ndarray
    num_lines: np.ndarray
    pacemaker: np.ndarray
    severity: np.ndarray
    detail: np.ndarray
    texture: np.ndarray

    def heart_thorax_ratio(self) -> np.ndarray:
        """Widest heart shadow over widest chest, as a reader would measure it; shape (B,)."""
        return (self.heart_width / self.thorax_width).reshape(-1)

    def select(self, rows: np.ndarray | slice) -> Body:
        """The bodies of some rows of the block."""
        fields = {f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)}
        return Body(**fields)


def draw_bodies(table: pd.DataFrame, *, seed: int) -> Body:
    """Draw the bodies of a block of table rows.

    What belongs to the patient comes from the patient's generator and is shared by all visits; what
    belongs to the visit comes from the image's. Severities agree with the row's labels.

    Args:
        table: B rows of a study table from `synthetic_cohort`.
        seed: seed of the pictures.
    """
    images = [generator_for(seed, f"image/{key}") for key in table["image"]]
    patients = [generator_for(seed, f"patient/{name}") for name in table["patient_id"]]
    patient = Draws(patients, _NUM_PATIENT_DRAWS)
    image = Draws(images, _NUM_IMAGE_DRAWS)
    woman = (table["sex"] == "F").to_numpy(float)
    ap = (table["view"] == "AP").to_numpy(float)
    age = table["age"].to_numpy(float)
    labels = table[list(FINDINGS)].to_numpy(float) > 0.5
    geometry = _chest(woman, ap, age, patient, image)
    geometry |= _bones_and_soft_tissue(woman, ap, age, patient, image)
    ratio, severity = _findings(labels, age, patient, image)
    geometry["heart_width"] = (
        ratio * geometry["thorax_width"] * np.where(ap > 0, AP_MAGNIFICATION, 1.0)
    )
    geometry |= _volume_loss(geometry, severity[:, 0], patient)
    detail = np.stack([image.uniform() for _ in range(64)], axis=1)
    lattices = np.stack([generator.standard_normal((16, 64)) for generator in patients])
    columns = {name: _over_pixels(values) for name, values in geometry.items()}
    return Body(
        **columns,
        severity=severity.astype(np.float32),
        detail=detail.astype(np.float32),
        texture=lattices.astype(np.float32),
    )


def _over_pixels(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[..., None, None]


def _chest(
    woman: np.ndarray, ap: np.ndarray, age: np.ndarray, patient: Draws, image: Draws
) -> dict[str, np.ndarray]:
    """Thorax, lungs, diaphragm, heart shape and mediastinum."""
    older = (age - 55) / 20
    breath = image.normal(0.0, 0.065) + 0.07 * ap
    right = patient.normal(0.36, 0.04) - breath
    left = right + patient.normal(0.045, 0.02)
    return {
        "woman": woman,
        "ap": ap,
        "age": age,
        "fat": patient.normal() + 0.2 * older,
        "thorax_width": patient.normal(0.665, 0.045) - 0.025 * woman,
        "lung_top": patient.normal(-0.74, 0.03) + 0.03 * ap + 0.02 * woman,
        "dome": np.stack([right, left], axis=1),
        "dome_curve": np.clip(patient.normal(0.62, 0.14) - 0.06 * older, 0.25, 1.0),
        "heart_aspect": patient.normal(1.32, 0.10),
        "heart_tilt": patient.normal(0.62, 0.13),
        "heart_left": patient.normal(0.32, 0.07),
        "mediastinum": patient.normal(0.088, 0.012) + 0.012 * ap + 0.008 * older,
        "midline": image.normal(0.0, 0.025 + 0.015 * ap),
        "knob": np.clip(patient.normal(0.075, 0.014) + 0.018 * older, 0.04, 0.13),
    }


def _bones_and_soft_tissue(
    woman: np.ndarray, ap: np.ndarray, age: np.ndarray, patient: Draws, image: Draws
) -> dict[str, np.ndarray]:
    older = (age - 55) / 20
    breast = np.clip(patient.normal(0.27, 0.06), 0.12, 0.42)
    return {
        "rib_spacing": patient.normal(0.138, 0.010),
        "rib_phase": patient.uniform(),
        "rib_slope": patient.normal(0.19, 0.04),
        "bone": np.clip(patient.normal(1.0, 0.2) - 0.18 * older, 0.4, 1.6),
        "clavicle": patient.normal(-0.56, 0.03) - 0.07 * ap + image.normal(0.0, 0.02),
        "breast": breast * woman,
        "breast_drop": patient.normal(0.22, 0.05) + 0.05 * older,
        "arms": patient.uniform(0.15, 0.55),
        "scapula": patient.normal(0.66, 0.03) - 0.10 * ap + image.normal(0.0, 0.02),
        "clavicle_tilt": image.normal(0.0, 0.03),
        "gas_x": image.uniform(0.25, 0.45),
        "gas_size": image.uniform(0.05, 0.12),
        "gas_depth": np.clip(image.uniform(-0.25, 0.30), 0.0, 1.0),
        "num_lines": np.floor(3.99 * np.clip(image.uniform() - 0.75 + 0.5 * ap, 0.0, 1.0)),
        "pacemaker": patient.flag(np.clip(0.02 + 0.04 * older, 0.0, 1.0)).astype(float),
        "vessels": np.clip(patient.normal(1.0, 0.25) + 0.15 * older + 0.2 * ap, 0.3, 2.0),
    }


def _findings(
    labels: np.ndarray, age: np.ndarray, patient: Draws, image: Draws
) -> tuple[np.ndarray, np.ndarray]:
    """Heart-thorax ratio in a PA view, shape (B,), and severities, shape (B, 4).

    A quantile that is mostly the patient's own decides how severe a present finding is, and how
    near to the threshold an absent one comes.
    """
    quantiles = np.stack([_steady_quantile(patient, image) for _ in FINDINGS], axis=1)
    present = VISIBLE + (1 - VISIBLE) * quantiles**1.1
    faint = 0.9 * VISIBLE * np.clip((quantiles - 0.78) / 0.22, 0.0, 1.0)
    severity = np.where(labels, present, faint)
    enlarged = HEART_LIMIT + 0.006 + 0.10 * quantiles[:, 1]
    slim = HEART_LIMIT - 0.006 - 0.11 * (1 - quantiles[:, 1]) + 0.0002 * (age - 75)
    ratio = np.where(labels[:, 1], enlarged, slim)
    return ratio, severity


def _volume_loss(
    geometry: dict[str, np.ndarray], severity: np.ndarray, patient: Draws
) -> dict[str, np.ndarray]:
    """A collapsed lobe raises its half of the diaphragm and pulls the mediastinum over."""
    left, lobar = patient.flag(0.5), patient.flag(0.35)
    raised = severity * np.where(lobar, 0.16, 0.04)
    side = np.stack([~left, left], axis=1)
    sign = np.where(left, 1.0, -1.0)
    return {
        "dome": geometry["dome"] - side * raised[:, None],
        "midline": geometry["midline"] + sign * 0.06 * severity * lobar,
        "collapse_side": sign,
        "lobar": lobar.astype(float),
    }


def _steady_quantile(patient: Draws, image: Draws) -> np.ndarray:
    """A uniform number per picture whose rank correlation within a patient is about 0.7."""
    return ndtr(np.sqrt(0.7) * patient.normal() + np.sqrt(0.3) * image.normal())
