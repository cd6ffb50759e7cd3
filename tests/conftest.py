"""The fixture that every folder may use: where the real images lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public images named by DPMED_SHARED_DATA; skips where it is absent."""
    root = os.environ.get("DPMED_SHARED_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("DPMED_SHARED_DATA names no folder of real images")
    return Path(root)
