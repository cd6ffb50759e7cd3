"""The key of a run's secret stream on disk: apart from the checkpoints, and gone at the end.

The folder has mode 0700 and the file 0600. Training saves the key before the first step, loads it
to resume, and deletes it when the run completes. A key is never overwritten, exported or logged.
"""

from __future__ import annotations

import os
from pathlib import Path

from dpmed.errors import UserError
from dpmed.privacy.durable import make_folder, sync_folder
from dpmed.privacy.randomness import KEY_BYTES, SecretStream

_FROM_OS = b"dpmed-key from-os "
_INJECTED = b"dpmed-key injected "


def save_key(stream: SecretStream, path: Path) -> None:
    """Write the key durably to a file that does not exist yet.

    Args:
        stream: whose key to save; that it was injected is saved with it.
        path: usually `RUN/private/noise.key`; its folder is made, with mode 0700.

    Raises:
        UserError: the file exists. Another key would make the steps done so far unrepeatable.
    """
    path = Path(path)
    make_folder(path.parent, mode=0o700)
    path.parent.chmod(0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UserError(f"{path} holds the key of an earlier start; resume that run.") from None
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # the umask may have taken away what the owner needs
        marker = _INJECTED if stream.injected else _FROM_OS
        file.write(marker + stream.export_key().hex().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def load_key(path: Path) -> SecretStream:
    """The stream whose key `save_key` wrote; an injected key stays marked as injected.

    Raises:
        UserError: there is no such file, others than its owner can read it, or it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path} is missing, so the steps after the last checkpoint cannot be replayed with "
            "the same noise. Go on with a fresh key; those steps are then charged again."
        )
    if path.stat().st_mode & 0o077:
        raise UserError(f"{path} can be read by others; a secret key needs: chmod 600 {path}")
    content = path.read_bytes()
    for marker, injected in ((_FROM_OS, False), (_INJECTED, True)):
        if content.startswith(marker) and len(content) == len(marker) + 2 * KEY_BYTES + 1:
            return SecretStream(bytes.fromhex(content[len(marker) :].decode()), injected=injected)
    raise UserError(f"{path} is not a key file of dpmed, or it was cut off.")


def delete_key(path: Path) -> None:
    """Overwrite and remove the key; nothing happens where there is none.

    A file system may keep old blocks (snapshots, solid-state drives): this is the best a program
    can do, and the reason for keeping run folders on encrypted disks.
    """
    path = Path(path)
    if not path.exists():
        return
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync_folder(path.parent)
