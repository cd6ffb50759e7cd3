"""Embeddings of a finished run: the initial and the trained encoder's, and a private probe of them.

Written once, so that every geometry figure can be rebuilt from files without a model. Row i of
`embeddings/<encoder>_<split>.npy` is row i of `predictions/initial_<split>.parquet`; the pooled
stages of the test images are beside it as `..._stage<k>.npy`. None of it is covered by epsilon.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpmed import data
from dpmed.config import RunConfig
from dpmed.errors import UserError
from dpmed.evaluation.embeddings import EmbeddingWriter
from dpmed.evaluation.predictions import make_predictions, read_predictions, write_predictions
from dpmed.evaluation.private_probe import fit_private_probe
from dpmed.evaluation.probe import unit_embeddings
from dpmed.evaluation.representation import RepresentationFiles
from dpmed.models.features import Features, forward_with_features
from dpmed.privacy.randomness import SecretStream
from dpmed.stages.learner import initial_model
from dpmed.stages.study import Study
from dpmed.training.predict import forward_batches

logger = logging.getLogger(__name__)

_SPLITS = ("train", "validation", "test")
_SALT = "embeddings"


def embed_run(
    config: RunConfig, model: Any, study: Study, run_dir: Path, *, num_units: int
) -> None:
    """Writes the embeddings of both encoders and what the initial one predicts.

    A model whose features cannot be kept (not finite) loses its geometry, not its evaluation.

    Args:
        config: the run.
        model: with its trained weights.
        study: whose images are embedded.
        run_dir: takes `embeddings/` and `predictions/`.
        num_units: the declared number of training units.
    """
    files = RepresentationFiles(run_dir)
    try:
        most = config.evaluation.max_embedded_units
        rows = {
            split: chosen_rows(study.table, split, most=most, num_units=num_units)
            for split in _SPLITS
        }
        for encoder, network in (("initial", initial_model(config)), ("trained", model)):
            for split, chosen in rows.items():
                _embed(config, network, study, files, encoder, split, chosen)
        _write_private_probe(config, study, files)
    except (UserError, RuntimeError) as error:
        logger.warning("The representation is not measured: %s", error)


def chosen_rows(
    table: pd.DataFrame, split: str, *, most: int | None, num_units: int
) -> NDArray[np.int64]:
    """Rows of patients chosen by a hash of their own id, so that none displaces another.

    Args:
        table: a study table with splits; its row numbers are returned.
        split: whose patients.
        most: how many to expect; None takes all.
        num_units: the declared number of training units.

    Guarantee:
        Adding or removing a training patient changes no other patient's choice, which the private
        probe rests on: the share comes from `num_units`, never from the table.
    """
    of_split = table.assign(row=np.arange(len(table)))[table["split"] == split]
    own_ids = of_split["patient_id"].fillna(of_split["image"])
    size = num_units if split == "train" else own_ids.nunique()
    if most is None or most >= size:
        return of_split["row"].to_numpy()
    chosen = data.subsample_patients(of_split, fraction=most / size, salt=_SALT)
    return chosen["row"].to_numpy()


def _embed(
    config: RunConfig,
    model: Any,
    study: Study,
    files: RepresentationFiles,
    encoder: str,
    split: str,
    rows: NDArray[np.int64],
) -> None:
    """One encoder's pass over one split: arrays, and probabilities where no table has them yet."""
    batches = forward_batches(
        model,
        lambda images: forward_with_features(model, images),
        study.images_NHW,
        rows,
        batch_size=2 * config.performance.physical_batch_size,
        description=f"embedding {split}, {encoder} encoder",
    )
    probabilities_NL = _write(batches, files, encoder, split, num_images=len(rows))
    if encoder == "initial" or split == "train":
        predictions = make_predictions(
            study.table.iloc[rows], probabilities_NL, labels=study.labels
        )
        write_predictions(predictions, files.predictions(encoder, split))


def _write(
    batches: Iterator[Features],
    files: RepresentationFiles,
    encoder: str,
    split: str,
    *,
    num_images: int,
) -> NDArray[np.float32]:
    """Streams a pass into its files; returns the probabilities."""
    probabilities: list[NDArray[np.float32]] = []
    writers: list[EmbeddingWriter] = []
    with ExitStack() as stack:
        for features in batches:
            kept = [features.embedding_ND, *(features.stages_NC if split == "test" else ())]
            arrays = [each.float().cpu().numpy() for each in kept]
            if not writers:
                writers = [
                    stack.enter_context(
                        EmbeddingWriter(
                            files.embeddings(encoder, split, stage=index or None),
                            num_images=num_images,
                            num_features=array.shape[1],
                        )
                    )
                    for index, array in enumerate(arrays)
                ]
            for writer, array in zip(writers, arrays, strict=True):
                writer.append(array)
            probabilities.append(features.logits_NL.sigmoid().float().cpu().numpy())
    return np.concatenate(probabilities)


def _write_private_probe(config: RunConfig, study: Study, files: RepresentationFiles) -> None:
    """Fits the probe and keeps what it says of the test images: its noise is drawn once."""
    epsilon = config.evaluation.private_probe_epsilon
    if epsilon is None:
        return
    probe = fit_private_probe(
        unit_embeddings(files.embeddings("trained", "train")),
        read_predictions(files.predictions("trained", "train")),
        labels=study.labels,
        epsilon=epsilon,
        delta=config.privacy.delta,
        stream=SecretStream.from_os(),
    )
    test = read_predictions(files.predictions("initial", "test"))
    probed = probe.predictions(unit_embeddings(files.embeddings("trained", "test")), test)
    write_predictions(probed, files.private_probe_predictions)
    facts = {
        "epsilon": probe.epsilon,
        "delta": probe.delta,
        "noise_multiplier": probe.noise_multiplier,
        "unit": "patient",
    }
    files.private_probe_facts.write_text(json.dumps(facts, indent=1), encoding="utf-8")
