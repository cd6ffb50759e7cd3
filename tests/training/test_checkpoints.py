"""Checkpoints survive a failed write: the previous file stays whole and nothing is left over."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dpmed.errors import UserError
from dpmed.training.checkpoints import AtomicCheckpointIO

# A limit on the size of files is the nearest thing to a full disk that needs no privileges.
_LIMITED = """
import resource, signal, sys, torch
from dpmed.errors import UserError
from dpmed.training.checkpoints import AtomicCheckpointIO
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    AtomicCheckpointIO().save_checkpoint({"weights": torch.ones(100_000)}, sys.argv[1])
except UserError as error:
    print(error)
"""


def test_a_write_that_fails_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(3)}, path)
    process = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    assert "previous checkpoint is intact" in process.stdout
    assert torch.load(path, weights_only=True)["weights"].tolist() == [0, 0, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UserError, match="the disk is full"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt")


def test_a_checkpoint_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").stat().st_mode & 0o077 == 0
