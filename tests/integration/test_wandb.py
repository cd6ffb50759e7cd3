"""The offline W&B record is read back: settings, curves, results, the report, and no patient."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from wandb.proto import wandb_internal_pb2

from tests.integration.conftest import Train

_BLOCK = 32768
_FILE_HEADER, _CHUNK_HEADER = 7, 7
_FULL, _LAST = 1, 4


def _records(path: Path) -> Iterator[wandb_internal_pb2.Record]:
    """W&B's transaction log: LevelDB's log format (blocks of chunks) after a header of 7 bytes."""
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    position, pending = _FILE_HEADER, b""
    while position < len(content):
        left = _BLOCK - position % _BLOCK
        if left < _CHUNK_HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += _CHUNK_HEADER
        pending += content[position : position + length]
        position += length
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pending)
            pending = b""
            yield record


def test_the_offline_record_holds_the_run_and_no_patient(train: Train, tmp_path: Path) -> None:
    train("logger=wandb", "hydra.run.dir=run")
    (path,) = (tmp_path / "run").rglob("run-*.wandb")
    records = list(_records(path))
    settings = {item.key for r in records if r.HasField("run") for item in r.run.config.update}
    assert {"privacy", "training", "data", "condition"} <= settings
    (started,) = (r.run for r in records if r.HasField("run") and r.run.run_group)
    assert started.run_group == tmp_path.name
    assert started.job_type == "train"
    assert {"epsilon=8", "init=scratch"} <= set(started.tags)
    history = {
        item.key or "/".join(item.nested_key)
        for r in records
        if r.HasField("history")
        for item in r.history.item
    }
    assert {"epsilon", "learning_rate", "report/path"} <= history
    for table in ("auroc", "subgroups", "gaps", "calibration"):
        assert f"results/{table}/path" in history
    assert {"roc_table/path", "reliability_table/path"} <= history
    assert not any(name.startswith("nonprivate") for name in history)
    summary = {
        item.key or "/".join(item.nested_key)
        for r in records
        if r.HasField("summary")
        for item in r.summary.update
    }
    assert {"test/auroc/macro/value", "plan/epsilon", "plan/delta"} <= summary
    artifacts = [r.request.log_artifact.artifact for r in records if r.HasField("request")]
    artifacts += [r.artifact for r in records if r.HasField("artifact")]
    (files,) = ({e.path for e in a.manifest.contents} for a in artifacts if a.type == "report")
    assert {"metrics.json", "plan.json", "report/index.html", "report/report.md"} <= files
    assert not [name for name in files if "parquet" in name or "run.json" in name]
    assert list((tmp_path / "run").rglob("media/html/*.html")), "the report is not in the run"
    content = b"".join(file.read_bytes() for file in path.parent.rglob("*") if file.is_file())
    patients = pd.read_csv(tmp_path / "run" / "splits.csv")["patient_id"].astype(str).unique()
    found = [patient for patient in patients if patient.encode() in content]
    assert not found, f"patient ids left the machine: {found[:3]}"
    assert not list(path.parent.rglob("*.png"))


def test_side_outputs_are_logged_only_where_the_setting_says_so(
    train: Train, tmp_path: Path
) -> None:
    train("hydra.run.dir=quiet")
    train("hydra.run.dir=loud", "logger.log_nonprivate_side_outputs=true")
    quiet = pd.read_csv(tmp_path / "quiet" / "logs" / "metrics.csv")
    # One row a logical step: a row a physical batch would tell how many patients were drawn.
    assert quiet["step"].tolist() == [1, 2, 3, 4, 5, 6]
    loud = pd.read_csv(tmp_path / "loud" / "logs" / "metrics.csv")
    assert not [name for name in quiet if name.startswith("nonprivate/")]
    assert "nonprivate/training_loss_sum" in loud
