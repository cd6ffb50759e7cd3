"""Backbones, heads and initialisation with provenance; nothing here knows about privacy."""

from dpmed.models.backbone import architecture_of, build_model, check_image_size, check_name, embed
from dpmed.models.initialisation import check_available, initialise
from dpmed.models.provenance import Provenance, SeenDataSet, refuse_if_seen
from dpmed.models.trainable import TrainableParameters, merge_lora, select_trainable
from dpmed.models.volumes import inflated_model, slice_model
from dpmed.models.weights import read_provenance, save_weights

__all__ = [
    "Provenance",
    "SeenDataSet",
    "TrainableParameters",
    "architecture_of",
    "build_model",
    "check_available",
    "check_image_size",
    "check_name",
    "embed",
    "inflated_model",
    "initialise",
    "merge_lora",
    "read_provenance",
    "refuse_if_seen",
    "save_weights",
    "select_trainable",
    "slice_model",
]
