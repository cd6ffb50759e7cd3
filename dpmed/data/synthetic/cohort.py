"""Who the synthetic patients are: the study table of a made-up hospital group.

First stage of the embedded data: it decides sex, age, site, view and labels and draws no pixel.
`render.render_radiographs` turns the table's rows into pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtri

from dpmed.data.synthetic.draws import Draws, generator_for
from dpmed.errors import UserError, did_you_mean

LABELS = ("atelectasis", "cardiomegaly", "pleural_effusion", "pneumonia", "no_finding")
FINDINGS = LABELS[:4]
MAX_IMAGES_PER_PATIENT = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Population:
    """Whom one site sees.

    Attributes:
        mean_age: years; ages spread with a standard deviation of 17 around it, within 18 to 95.
        share_female: probability that a patient is a woman.
        share_ap: probability of an AP (bedside) view for a patient of 55 years.
        share_single: probability that a patient has one image only.
        prevalence: share of images that show each of `FINDINGS`, for a PA view of a patient
            aged 55, averaged over sex.
    """

    mean_age: float
    share_female: float
    share_ap: float
    share_single: float
    prevalence: tuple[float, float, float, float]


POPULATIONS = {
    "university": Population(
        mean_age=58.0,
        share_female=0.46,
        share_ap=0.30,
        share_single=0.40,
        prevalence=(0.17, 0.17, 0.17, 0.12),
    ),
    "community": Population(
        mean_age=52.0,
        share_female=0.54,
        share_ap=0.12,
        share_single=0.60,
        prevalence=(0.13, 0.14, 0.11, 0.13),
    ),
    "emergency": Population(
        mean_age=63.0,
        share_female=0.44,
        share_ap=0.70,
        share_single=0.30,
        prevalence=(0.19, 0.18, 0.20, 0.21),
    ),
    "archive": Population(
        mean_age=50.0,
        share_female=0.50,
        share_ap=0.25,
        share_single=0.50,
        prevalence=(0.17, 0.17, 0.17, 0.17),
    ),
}
SITES = ("university", "community", "emergency")
PUBLIC_SITE = "archive"

# Effects on the liability scale (standard deviations), in the order of FINDINGS.
_PER_DECADE = np.array([0.05, 0.11, 0.09, 0.03])
_WOMAN = np.array([-0.06, 0.14, 0.0, -0.10])
_AP = np.array([0.18, 0.08, 0.24, 0.18])
# One common sickness and one trait a finding stay with the patient; the rest changes by visit.
_COMMON_SHARE = 0.20
_PATIENT_SHARE = 0.45


def synthetic_cohort(
    *, num_patients: int, seed: int, sites: Sequence[str] = SITES, first_patient: int = 0
) -> pd.DataFrame:
    """Make the study table of a synthetic cohort.

    Patient number i is the same in every cohort with the same seed and sites, whatever
    `num_patients` and `first_patient`, so that disjoint ranges give disjoint patients.

    Args:
        num_patients: how many patients, each with 1 to 6 images.
        seed: seed of the cohort.
        sites: names from `POPULATIONS`, each as likely as the others; repeat one to favour it.
        first_patient: number of the first patient.

    Returns:
        One row an image, ordered by patient and visit, with the columns `image`, `patient_id`,
        `study_id`, `sex`, `age`, `view`, `site` and the five `LABELS` as float32 0 or 1.

    Raises:
        UserError: unknown site, or a number that is out of range.
    """
    _check(num_patients, sites, first_patient)
    numbers = np.arange(first_patient, first_patient + num_patients)
    draws = Draws([generator_for(seed, f"cohort/{number}") for number in numbers], 64)
    patients = _patients(numbers, draws, sites)
    visits = [_visit(patients, visit, draws) for visit in range(MAX_IMAGES_PER_PATIENT)]
    table = pd.concat(visits).sort_values(["number", "visit"], kind="stable", ignore_index=True)
    table = table[table["visit"] < table["num_images"]].reset_index(drop=True)
    columns = ["image", "patient_id", "study_id", "sex", "age", "view", "site", *LABELS]
    table = table[columns].copy()
    table.attrs["notes"] = [f"synthetic radiographs, seed {seed}; no real patient"]
    return table


def _check(num_patients: int, sites: Sequence[str], first_patient: int) -> None:
    for name, value, smallest in (
        ("num_patients", num_patients, 1),
        ("first_patient", first_patient, 0),
    ):
        if value < smallest:
            raise UserError(f"{name}={value}: must be {smallest} or more.")
    if not sites:
        raise UserError(f"sites=[]: name at least one of {', '.join(POPULATIONS)}.")
    for site in sites:
        if site not in POPULATIONS:
            hint = did_you_mean(site, POPULATIONS)
            raise UserError(f"sites: {site!r} is none of {', '.join(POPULATIONS)}.{hint}")


def _patients(numbers: np.ndarray, draws: Draws, sites: Sequence[str]) -> dict[str, np.ndarray]:
    """What stays the same over a patient's visits; arrays of length num_patients."""
    site_index = (draws.uniform() * len(sites)).astype(int)
    population = [POPULATIONS[sites[index]] for index in site_index]
    common = draws.normal()
    traits = np.stack([draws.normal() for _ in FINDINGS], axis=1)
    patient_sd, common_sd = np.sqrt(_PATIENT_SHARE), np.sqrt(_COMMON_SHARE)
    single = draws.flag(np.array([row.share_single for row in population]))
    return {
        "number": numbers,
        "site": np.array(sites)[site_index],
        "female": draws.flag(np.array([row.share_female for row in population])),
        "age": np.clip(draws.normal(np.array([row.mean_age for row in population]), 17), 18, 95),
        "share_ap": np.array([row.share_ap for row in population]),
        "threshold": np.stack([-ndtri(row.prevalence) for row in population]),
        "sickness": common,
        "liability": common_sd * common[:, None] + patient_sd * traits,
        "num_images": np.where(single, 1, _extra_images(draws)),
        "years_between": draws.uniform(0.05, 1.5),
    }


def _extra_images(draws: Draws) -> np.ndarray:
    """2 to 6 images, fewer being likelier."""
    return 2 + np.floor(5 * draws.uniform() ** 2.0).astype(int)


def _visit(patients: dict[str, np.ndarray], visit: int, draws: Draws) -> pd.DataFrame:
    """One row for each patient, for visit number `visit`."""
    age = np.minimum(patients["age"] + visit * patients["years_between"], 95.0)
    bedside = ndtri(patients["share_ap"]) + 0.15 * (age - 55) / 10 + 0.25 * patients["sickness"]
    is_ap = draws.normal() < bedside
    fresh = np.stack([draws.normal() for _ in FINDINGS], axis=1)
    effects = (
        _PER_DECADE * ((age - 55) / 10)[:, None]
        + _WOMAN * (patients["female"] - 0.5)[:, None]
        + _AP * is_ap[:, None]
    )
    fresh_sd = np.sqrt(1 - _COMMON_SHARE - _PATIENT_SHARE)
    liability = patients["liability"] + fresh_sd * fresh + effects
    findings = (liability > patients["threshold"]).astype(np.float32)
    names = [f"{number:06d}" for number in patients["number"]]
    rows = {
        "number": patients["number"],
        "visit": visit,
        "num_images": patients["num_images"],
        "image": [f"synthetic/{name}/{visit}" for name in names],
        "patient_id": [f"P{name}" for name in names],
        "study_id": [f"P{name}-{visit}" for name in names],
        "sex": np.where(patients["female"], "F", "M"),
        "age": np.round(age, 1),
        "view": np.where(is_ap, "AP", "PA"),
        "site": patients["site"],
        **{finding: findings[:, index] for index, finding in enumerate(FINDINGS)},
        "no_finding": (findings.sum(axis=1) == 0).astype(np.float32),
    }
    return pd.DataFrame(rows)
