"""The key file: readable by its owner alone, never overwritten, kept marked when injected."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dpmed.errors import UserError
from dpmed.privacy.keys import delete_key, load_key, save_key
from dpmed.privacy.randomness import SecretStream


@pytest.mark.parametrize("injected", [False, True])
def test_a_saved_key_gives_the_same_stream(tmp_path: Path, injected: bool) -> None:
    stream = SecretStream.from_key(bytes(range(32))) if injected else SecretStream.from_os()
    save_key(stream, tmp_path / "private" / "noise.key")
    loaded = load_key(tmp_path / "private" / "noise.key")
    assert loaded.key_id == stream.key_id
    assert loaded.injected == injected
    assert (loaded.normal("noise", 5, 10) == stream.normal("noise", 5, 10)).all()


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_folder_and_file_are_the_owners_alone(tmp_path: Path, umask: int) -> None:
    (tmp_path / "private").mkdir(mode=0o755)
    before = os.umask(umask)
    try:
        save_key(SecretStream.from_os(), tmp_path / "private" / "noise.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "private" / "noise.key").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "noise.key"
    save_key(SecretStream.from_os(), path)
    with pytest.raises(UserError, match="resume that run"):
        save_key(SecretStream.from_os(), path)


def test_a_missing_open_or_damaged_key_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "noise.key"
    with pytest.raises(UserError, match="charged again"):
        load_key(path)
    save_key(SecretStream.from_os(), path)
    path.chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        load_key(path)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="cut off"):
        load_key(path)


def test_delete_removes_the_key_and_may_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "noise.key"
    save_key(SecretStream.from_os(), path)
    delete_key(path)
    delete_key(path)
    assert not path.exists()
