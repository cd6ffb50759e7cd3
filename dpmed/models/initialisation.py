"""Give a model its start weights, and say where they come from.

Stands between `build_model` (random weights) and training. `check_available`, re-exported here,
is the question to ask before any work. Whether the start weights may be used with the private
data is for `refuse_if_seen` to say, called by the pipeline with both in hand.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.models.convnext import ConvNeXt

from dpmed.models.backbone import architecture_of
from dpmed.models.domain import read_domain
from dpmed.models.fitting import FitReport, fit_weights
from dpmed.models.pretrained import check_available, fetch, find_pretrained, require_path
from dpmed.models.provenance import Provenance
from dpmed.models.shipped import LICENCE, shipped_path
from dpmed.models.weights import check_file, read_provenance, read_weights, sha256_of

__all__ = ["check_available", "initialise"]

_log = logging.getLogger(__name__)


def initialise(
    model: ConvNeXt,
    *,
    init: str,
    path: str | Path | None = None,
    sha256: str | None = None,
    tag: str | None = None,
    labels: Sequence[str] = (),
    preprocessing: Mapping[str, Any] | None = None,
) -> Provenance:
    """Loads the start weights into the model in place and returns their history.

    Args:
        model: Fresh from `build_model`, whose seed drew what is not loaded.
        init: "scratch", "synthetic", "imagenet", "dinov3", "file" or "domain".
        path: The weight file of init=file, the run folder (or file) of init=domain.
        sha256: Expected sum of the weight file; None skips the check.
        tag: timm's tag in place of the default of `pretrained.DEFAULT_TAGS`.
        labels: The labels that the model will answer, in order. A file that declares other
            labels gets a new head even where the number of labels agrees; init=domain always.
        preprocessing: How the images of this run are made, to be compared with what the weights of
            init=domain were fitted on.

    Raises:
        UserError: Weights that cannot be had, read, or fitted to the model.
    """
    if init == "scratch":
        return _from_scratch(model)
    if init == "synthetic":
        path = shipped_path(architecture_of(model))
        history = _from_file(model, path, sha256=sha256, labels=labels)
        drawn = [dataclasses.replace(seen, licence=LICENCE) for seen in history.data_sets]
        return dataclasses.replace(history, data_sets=tuple(drawn))
    if init == "file":
        return _from_file(model, require_path(path), sha256=sha256, labels=labels)
    if init == "domain":
        architecture = architecture_of(model)
        found = read_domain(require_path(path, init=init), architecture=architecture, sha256=sha256)
        _say_if_prepared_otherwise(found.provenance, preprocessing)
        return _from_file(model, found.path, sha256=sha256, labels=labels, keeps_head=False)
    return _from_timm(model, init=init, tag=tag, sha256=sha256)


def _from_scratch(model: ConvNeXt) -> Provenance:
    return Provenance(
        source="scratch",
        architecture=architecture_of(model),
        num_rebuilt=sum(parameter.numel() for parameter in model.parameters()),
    )


def _from_timm(model: ConvNeXt, *, init: str, tag: str | None, sha256: str | None) -> Provenance:
    weights = find_pretrained(name=architecture_of(model), init=init, tag=tag)
    path = fetch(weights)
    origin = f"{weights.architecture}.{weights.tag}"
    report = fit_weights(model, read_weights(path, sha256=sha256), keep_head=False, origin=origin)
    history = Provenance(
        source="timm",
        architecture=weights.architecture,
        tag=weights.tag,
        url=weights.url,
        licence=weights.licence,
        sha256=sha256_of(path),
        data_sets=weights.data_sets,
    )
    return _with_report(history, report)


def _from_file(
    model: ConvNeXt,
    path: Path,
    *,
    sha256: str | None,
    labels: Sequence[str],
    keeps_head: bool = True,
) -> Provenance:
    check_file(path, sha256=sha256)
    declared = read_provenance(path)
    if declared is None:
        _log.warning(
            "init.path=%s does not say which data its weights have seen: whether they know the "
            "private patients cannot be checked",
            path,
        )
    file_labels = declared.labels if declared else ()
    same_labels = not (labels and file_labels) or tuple(labels) == file_labels
    keep_head = keeps_head and same_labels
    report = fit_weights(model, read_weights(path), keep_head=keep_head, origin=f"init.path={path}")
    history = Provenance(
        source="file",
        architecture=architecture_of(model),
        tag=declared.tag if declared else "",
        url=path.name,
        licence=declared.licence if declared else "",
        sha256=sha256_of(path),
        data_sets=declared.data_sets if declared else (),
        is_declared=declared.is_declared if declared else False,
    )
    return _with_report(history, report)


def _say_if_prepared_otherwise(
    provenance: Provenance, preprocessing: Mapping[str, Any] | None
) -> None:
    known = provenance.preprocessing
    differing = [
        f"{name}={value} (here {preprocessing[name]})"
        for name, value in known.items()
        if preprocessing and name in preprocessing and preprocessing[name] != value
    ]
    if differing:
        _log.warning("The start weights were fitted on images with %s", ", ".join(differing))


def _with_report(history: Provenance, report: FitReport) -> Provenance:
    return dataclasses.replace(history, **dataclasses.asdict(report))
