"""The names by which patients of two data sets are compared without naming them.

A hash of a patient's id is no secret: whoever can list the possible ids can list their hashes. It
may leave with weights of a public data set only, and of a private one it stays in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def patient_hashes(patient_ids: Iterable[str], *, id_space: str) -> set[str]:
    """One hash a patient, equal in two data sets where the same issuer gave the same id.

    Args:
        patient_ids: ids as in the study table; repeats count once.
        id_space: who issued them; patient 17 of one hospital is not patient 17 of another.
    """
    return {
        hashlib.sha256(f"dpmed-patient\0{id_space}\0{name}".encode()).hexdigest()[:32]
        for name in set(patient_ids)
    }
