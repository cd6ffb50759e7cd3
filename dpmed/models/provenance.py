"""Where a model's weights come from, and the refusal of weights that have seen the private data.

`initialisation` makes a `Provenance`, the run folder and the model card show it, and `weights`
carries it in the metadata of every safetensors file. Epsilon speaks only about what training
adds to the start weights: a start that already knows the patients voids it, whence
`refuse_if_seen`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dpmed.errors import UserError

_METADATA_KEY = "dpmed_provenance"


@dataclass(frozen=True, kw_only=True)
class SeenDataSet:
    """A data set that weights were fitted on.

    Args:
        name: For people, e.g. "ImageNet-1k" or "kermany".
        data_id: What identifies the exact data, e.g. a hash of the study table; empty if unknown.
        patient_hashes: Salted hashes of the patients, in the form that the caller of
            `refuse_if_seen` uses. They leave with the weights: only for public data sets.
        licence: Under which the data is declared public; empty where it is not.
    """

    name: str
    data_id: str = ""
    patient_hashes: tuple[str, ...] = ()
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The history of a model's weights before training.

    Args:
        source: "scratch", "timm" or "file".
        architecture: timm's name.
        tag: timm's pretrained tag, or empty.
        url: Where the weights can be had, or the file's name; empty for scratch.
        licence: As timm or the file declares it; empty if it does not.
        sha256: Of the file that was read; empty for scratch.
        data_sets: Everything that the weights have seen; empty for scratch, and for a file
            that declares nothing (then `is_declared` is false).
        is_declared: Whether `data_sets` is known to be complete.
        labels: The labels that the head answers, in order; empty if unknown.
        num_loaded: Parameters (scalars) taken from the source.
        num_rebuilt: Parameters (scalars) left at random.
        rebuilt: Names of the tensors left at random; empty for scratch, where all of them are.
        stem: What was done to the first convolution, or "unchanged".
        preprocessing: Settings of the images that the weights were last fitted on; empty if
            unknown.
        code_version: Of dpmed, when it wrote the file; empty if it did not.
    """

    source: str
    architecture: str
    tag: str = ""
    url: str = ""
    licence: str = ""
    sha256: str = ""
    data_sets: tuple[SeenDataSet, ...] = ()
    is_declared: bool = True
    labels: tuple[str, ...] = ()
    num_loaded: int = 0
    num_rebuilt: int = 0
    rebuilt: tuple[str, ...] = ()
    stem: str = "unchanged"
    preprocessing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    code_version: str = ""

    def after_training_on(
        self,
        data_set: SeenDataSet,
        *,
        labels: Collection[str],
        preprocessing: Mapping[str, Any] | None = None,
        code_version: str = "",
    ) -> Provenance:
        """What to save with the trained weights: this history plus one more data set."""
        return dataclasses.replace(
            self,
            data_sets=(*self.data_sets, data_set),
            labels=tuple(labels),
            preprocessing=dict(preprocessing or {}),
            code_version=code_version,
        )

    def summary(self) -> dict[str, Any]:
        """For run.json and the model card: everything but the patient hashes, which are counted."""
        fields = dataclasses.asdict(self)
        for data_set in fields["data_sets"]:
            data_set["num_patient_hashes"] = len(data_set.pop("patient_hashes"))
        return fields

    def describe(self) -> str:
        """One line for the banner."""
        if self.source == "scratch":
            return f"{self.architecture} from random weights"
        seen = ", ".join(data_set.name for data_set in self.data_sets) or "nothing declared"
        return (
            f"{self.architecture} from {_label(self)} (has seen: {seen}; licence: "
            f"{self.licence or 'not declared'}), {self.num_rebuilt:,} parameters at random"
        )


def refuse_if_seen(
    provenance: Provenance, *, data_id: str, patient_hashes: Collection[str] = ()
) -> None:
    """Raises UserError where the weights declare the private data set or one of its patients.

    Args:
        provenance: History of the start weights.
        data_id: Of the private data set; compared with the declared `data_id` and `name`.
        patient_hashes: Of the private training patients.

    Guarantee:
        Only what is declared is refused: weights without a declaration pass, with
        `is_declared` false, and the report must say so.
    """
    private = set(patient_hashes)
    for seen in provenance.data_sets:
        if data_id and data_id in (seen.data_id, seen.name):
            raise UserError(
                f"init: the weights {_label(provenance)} have seen the private data set "
                f"{seen.name!r} (data_id={data_id}), so epsilon would not cover what they know of "
                f"its patients. Start from other weights: init=scratch, imagenet or dinov3."
            )
        overlap = private.intersection(seen.patient_hashes)
        if overlap:
            # Neither ids nor hashes: messages are kept in run.json and shown in reports.
            raise UserError(
                f"init: the weights {_label(provenance)} were fitted on {seen.name!r}, which "
                f"shares {len(overlap)} patients with the private training data (hashes of patient "
                f"ids were compared). Start from other weights, or take these patients out of the "
                f"training split."
            )


def to_metadata(provenance: Provenance) -> dict[str, str]:
    """Provenance as safetensors metadata (text to text)."""
    return {"format": "pt", _METADATA_KEY: json.dumps(dataclasses.asdict(provenance))}


def from_metadata(metadata: Mapping[str, str]) -> Provenance | None:
    """Provenance from safetensors metadata; None where the file declares none.

    Raises:
        UserError: The entry is there and cannot be read; what it declares must not be ignored.
    """
    if _METADATA_KEY not in metadata:
        return None
    try:
        fields: dict[str, Any] = json.loads(metadata[_METADATA_KEY])
        data_sets = tuple(_data_set(entry) for entry in fields.pop("data_sets"))
        for key in ("labels", "rebuilt"):
            fields[key] = tuple(fields.get(key, ()))
        return Provenance(data_sets=data_sets, **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"The metadata entry {_METADATA_KEY!r} of the weights cannot be read ({error}). It "
            f"says which data the weights have seen; write the file again with save_weights."
        ) from error


def _data_set(entry: dict[str, Any]) -> SeenDataSet:
    return SeenDataSet(**{**entry, "patient_hashes": tuple(entry.get("patient_hashes", ()))})


def _label(provenance: Provenance) -> str:
    name = provenance.url if provenance.source == "file" else provenance.tag
    return name or provenance.architecture
