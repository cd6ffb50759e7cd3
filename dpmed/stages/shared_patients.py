"""Refuses start weights that have seen patients of the private data set, as far as both say.

Compared are hashes of patient ids: those that the weight file declares of the public data it was
fitted on, and those of the private table, which are made in memory and go nowhere. The message
holds their number alone. Weights that declare nothing cannot be checked, and the banner says so.
"""

from __future__ import annotations

import pandas as pd

from dpmed import models
from dpmed.config import DataConfig, ManifestData, SyntheticData
from dpmed.data.patient_hash import patient_hashes
from dpmed.run_record import RunRecord


def refuse_shared_patients(
    provenance: models.Provenance, config: DataConfig, table: pd.DataFrame, record: RunRecord
) -> None:
    """Raises UserError where the weights know a training patient; warns of any other patient.

    Args:
        provenance: history of the start weights.
        config: the private data set.
        table: its study table with splits.
        record: takes the warning about validation and test patients.
    """
    declared = {name for seen in provenance.data_sets for name in seen.patient_hashes}
    if not declared:
        return
    is_train = table["split"] == "train"
    models.refuse_if_seen(
        provenance, data_id=config.id, patient_hashes=hashes_of(table[is_train], config)
    )
    num_others = len(declared & hashes_of(table[~is_train], config))
    if num_others:
        record.warn(
            f"The start weights have seen {num_others} of the validation and test patients, so "
            "these results flatter the model."
        )


def hashes_of(table: pd.DataFrame, config: DataConfig) -> set[str]:
    """Hashes of the patients in a table, in the id space of its issuer."""
    return patient_hashes(table["patient_id"].dropna().astype(str), id_space=_id_space(config))


def _id_space(config: DataConfig) -> str:
    """A release's ids are its own under any `data.id`; a hospital's are told apart by `data.id`."""
    if isinstance(config, SyntheticData):
        return f"synthetic/{config.seed}/{'+'.join(config.sites)}"
    return config.id if isinstance(config, ManifestData) else config.reader
