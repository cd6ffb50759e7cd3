"""dpmed: train and evaluate medical image classifiers under differential privacy.

`dpmed.load(FOLDER)` opens a released model; training is `python train.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpmed.stages.released_model import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":  # brings torch, which the command line does without until work starts
        from dpmed.stages.released_model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
