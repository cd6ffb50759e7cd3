"""dpmed: train and evaluate medical image classifiers under differential privacy.

`dpmed.load(FOLDER)` opens a released model; training is `python train.py`.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # By name alone: it brings torch, and every module that asks for the version imports this one.
    if name == "load":
        return importlib.import_module("dpmed.stages.released_model").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
