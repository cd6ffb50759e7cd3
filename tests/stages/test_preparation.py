"""`dpmed prepare`: what it says, what a kill costs, and what it does where it cannot go on."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpmed.cli import main
from dpmed.data.cache import build

NUM_IMAGES = 120


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A hospital's table with two broken files, and the words that name it."""
    generator = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(NUM_IMAGES)]
    for name in names:
        pixels = generator.integers(0, 256, (24, 24)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()[:200])
    (tmp_path / "9.png").write_bytes(b"")
    rows = [f"{name},p{number},{number % 2}" for number, name in enumerate(names)]
    (tmp_path / "table.csv").write_text("\n".join(["image,patient_id,sick", *rows]))
    return [
        "data=manifest", "data.id=hospital", f"data.path={tmp_path}/table.csv",
        "data.labels=[sick]", f"data.cache_dir={tmp_path}/cache",
        "data.preprocessing.image_size=16", "data.max_skipped_images=2",
    ]  # fmt: skip


def test_it_says_what_was_done_and_what_was_left_out(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = tmp_path / "skipped.csv"
    main(["prepare", *words, "--skipped", str(listing)])
    said = capsys.readouterr().out
    assert f"prepared   {NUM_IMAGES - 2} images of hospital at 16 px" in said
    assert "left out   2, allowed 2" in said
    assert "the file is empty: 9.png" in said
    assert len(listing.read_text().splitlines()) == 3
    (index,) = (tmp_path / "cache").glob("*/*/index.parquet")
    assert str(index.parent) in said
    with pytest.raises(SystemExit, match=r"2 images were left out.*data.max_skipped_images=2"):
        main(["prepare", *words, "data.max_skipped_images=1"])


def test_a_kill_costs_only_what_was_being_decoded(
    words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A kill -9 in the middle; the same command then decodes the rest, and the result is whole."""
    slow = (
        "import sys, time\n"
        "from dpmed.data.cache import rows\n"
        "fill = rows.FileRows._fill\n"
        "rows.FileRows._fill = lambda self, target, row: (\n"
        "    time.sleep(60 if row == 70 else 0) or fill(self, target, row))\n"
        "from dpmed.cli import main\n"
        "main(['prepare', *sys.argv[1:], '--num-workers', '0'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *words], stderr=subprocess.DEVNULL, env=os.environ
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        journals = list((tmp_path / "cache").glob("*/*.partial/journal.jsonl"))
        if journals and journals[0].read_text().count("\n") == 4:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "cache").glob("*/*/index.parquet")), "half a cache is none"
    with caplog.at_level(logging.INFO):
        main(["prepare", *words])
    assert f"62 of {NUM_IMAGES} images were prepared before" in caplog.text  # 64, two broken
    (folder,) = (tmp_path / "cache").glob("*/*/images.npy")
    resumed = np.load(folder)
    main(["prepare", *words, f"data.cache_dir={tmp_path}/another"])
    (other,) = (tmp_path / "another").glob("*/*/images.npy")
    np.testing.assert_array_equal(resumed, np.load(other))


@pytest.mark.parametrize(
    ("code", "said"), [(errno.ENOSPC, "is full.*is kept"), (errno.EROFS, "cannot be written")]
)
def test_a_disk_that_cannot_be_written_is_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(build, "_allocate", refuse)
        with pytest.raises(SystemExit, match=f"(?s){tmp_path}/cache/.*{said}.*data.cache_dir="):
            main(["prepare", *words])
    main(["prepare", *words])
    assert list((tmp_path / "cache").glob("*/*/index.parquet"))
