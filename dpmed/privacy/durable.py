"""Folders whose entries survive a power cut, for the key and the ledger.

Flushing a file does not flush the folder entry that leads to it; POSIX wants both.
"""

from __future__ import annotations

import os
from pathlib import Path


def make_folder(folder: Path, *, mode: int = 0o777) -> None:
    """Make a folder and the missing ones above it, each entry flushed to disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush the creation or removal of files in `folder`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
