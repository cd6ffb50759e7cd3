"""Checkpoints at logical-step boundaries, written so that the previous one survives any failure.

A checkpoint holds weights, optimizer, schedule, accountant, sampler position and torch's
generators, and never the secret key. It is as sensitive as the training data (DESIGN.md, rule 10).
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from dpmed.errors import UserError

logger = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes, then renames: readers see the old or the new file."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Replaces `path` in one step.

        Raises:
            UserError: the disk is full or read-only; the previous checkpoint is intact.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            write_atomically(Path(path), buffer.getbuffer())
        except OSError as error:
            reason = "the disk is full" if error.errno == errno.ENOSPC else str(error)
            raise UserError(
                f"The checkpoint {path} could not be written: {reason}. The previous checkpoint is "
                "intact; make room and go on with resume=RUN_DIR."
            ) from error


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Writes a file of mode 0600 so that a crash leaves either the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


class StepCheckpoint(L.Callback):
    """Saves `last.ckpt` every so many logical steps, and when a stop was asked for.

    Args:
        path: file to replace.
        every_steps: logical steps between checkpoints.
        accountant: its history travels in the checkpoint.
        fingerprint: what a replay must have in common with this run, as plain strings.
    """

    def __init__(
        self, path: Path, *, every_steps: int, accountant: Any, fingerprint: Mapping[str, str]
    ) -> None:
        self.path = path
        self.every_steps = every_steps
        self.accountant = accountant
        self.fingerprint = dict(fingerprint)
        self._saved_at = -1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves after the update of a logical step, never between its physical batches."""
        if not batch.is_last:
            return
        due = pl_module.completed_steps % self.every_steps == 0
        if (due or trainer.should_stop) and self._saved_at != pl_module.completed_steps:
            trainer.save_checkpoint(self.path)
            self._saved_at = pl_module.completed_steps

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Adds what Lightning does not know."""
        checkpoint["dpmed"] = {
            "completed_steps": pl_module.completed_steps,
            "accountant": None if self.accountant is None else self.accountant.state_dict(),
            "average": None if pl_module.average is None else pl_module.average.state_dict(),
            "fingerprint": self.fingerprint,
            "torch_generator": torch.get_rng_state(),
            "cuda_generators": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Restores the accountant and the step counter; generators follow when training starts."""
        state = checkpoint["dpmed"]
        pl_module.completed_steps = state["completed_steps"]
        self._saved_at = state["completed_steps"]
        if self.accountant is not None:
            self.accountant.load_state_dict(state["accountant"])
        if pl_module.average is not None:
            pl_module.average.load_state_dict(state["average"])
        self._generators = (state["torch_generator"], state["cuda_generators"])

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Puts torch's generators where the interrupted run left them."""
        if hasattr(self, "_generators"):
            torch.set_rng_state(self._generators[0])
            if self._generators[1]:
                torch.cuda.set_rng_state_all(self._generators[1])


class StopAtStepBoundary(L.Callback):
    """Ctrl-C or SIGTERM ends the current logical step, saves and stops; a second one stops at once.

    It must stand before `StepCheckpoint` in the list of callbacks.
    """

    def __init__(self) -> None:
        self.stop_requested = False
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the signals over for the time of the fit (only a main thread can)."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request_stop)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Hands the request to Lightning at the end of a logical step."""
        if batch.is_last and self.stop_requested:
            trainer.should_stop = True

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested = True
        logger.warning("Stopping after this logical step; once more stops at once.")
