"""The progress bar counts logical steps and shows the epsilon spent so far."""

from __future__ import annotations

from typing import Any

import lightning as L
from tqdm import tqdm


class StepProgress(L.Callback):
    """One bar over the planned logical steps.

    Args:
        num_steps: logical steps planned.
    """

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Opens the bar where the run stands."""
        self._bar = tqdm(
            total=self.num_steps,
            initial=pl_module.completed_steps,
            desc="training",
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves once a logical step."""
        if self._bar is not None and batch.is_last:
            epsilon = pl_module.epsilon_after(pl_module.completed_steps)
            self._bar.set_postfix_str(f"epsilon {epsilon:.3f}", refresh=False)
            self._bar.update()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Closes the bar, whatever ended the fit."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
