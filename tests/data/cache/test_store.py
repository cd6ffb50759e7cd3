import errno
import importlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dpmed.data import prepare_generated, prepare_images, validate_table
from dpmed.data.cache import build, rows, workers
from dpmed.data.decoding import decode_image
from dpmed.data.pixel_hash import pixel_hash
from dpmed.data.preprocessing import Preprocessing
from dpmed.errors import UserError

SETTING = Preprocessing(image_size=16, intensity="none")


@pytest.fixture
def folder(tmp_path):
    """Forty small images and their table."""
    root = tmp_path / "images"
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 256, (20, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


def table_of(root, names=None):
    names = names or [f"{number}.png" for number in range(40)]
    return validate_table(pd.DataFrame({"image": names, "patient_id": names}))


def prepare(root, cache_dir, table=None, **options):
    settings = {"preprocessing": SETTING, "num_workers": 0, "progress": False, **options}
    table = table_of(root) if table is None else table
    return prepare_images(table, root, cache_dir=cache_dir, **settings)


@pytest.fixture
def counted(monkeypatch):
    """The rows that are decoded in this process."""
    made = []
    fill = rows.FileRows._fill
    monkeypatch.setattr(
        rows.FileRows,
        "_fill",
        lambda self, target, row: made.append(row) or fill(self, target, row),
    )
    return made


def assert_holds_the_files(store, root, names=None):
    for place, name in enumerate(names or [f"{number}.png" for number in range(40)]):
        np.testing.assert_array_equal(store.array[place], decode_image(root / name, SETTING))


def test_array_is_the_decoded_files_and_memory_mapped(folder, tmp_path):
    store = prepare(folder, tmp_path / "cache")
    assert store.array.shape == (40, 16, 16)
    assert store.array.dtype == np.uint8
    assert isinstance(store.array, np.memmap)
    assert not store.array.flags.writeable
    assert store.kept_rows.tolist() == list(range(40))
    assert store.skipped == []
    assert len(set(store.pixel_hashes())) == 40
    assert_holds_the_files(store, folder)


def test_processes_give_the_same(folder, tmp_path):
    alone = prepare(folder, tmp_path / "one")
    shared = prepare(folder, tmp_path / "two", num_workers=2)
    np.testing.assert_array_equal(alone.array, shared.array)
    assert alone.pixel_hashes() == shared.pixel_hashes()


def test_second_time_decodes_nothing(folder, tmp_path, counted):
    prepare(folder, tmp_path / "cache")
    counted.clear()
    assert_holds_the_files(prepare(folder, tmp_path / "cache"), folder)
    assert counted == []


def test_other_settings_get_their_own_cache(folder, tmp_path, counted):
    first = prepare(folder, tmp_path / "cache")
    other = Preprocessing(image_size=16, intensity="none", equalize=True)
    second = prepare(folder, tmp_path / "cache", preprocessing=other)
    assert len(counted) == 80
    assert (np.asarray(first.array) != second.array).any()


def test_an_edited_file_is_decoded_again_and_a_copied_one_is_not(folder, tmp_path, counted, caplog):
    prepare(folder, tmp_path / "cache")
    counted.clear()
    os.utime(folder / "3.png")
    prepare(folder, tmp_path / "cache")
    assert counted == []
    content = (folder / "4.png").read_bytes()
    pixels = np.random.default_rng(9).integers(0, 256, (20, 24), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "4.png")
    mended = (folder / "4.png").read_bytes()
    size = max(len(content), len(mended))  # the same size, so that only the content differs
    (folder / "4.png").write_bytes(content + bytes(size - len(content)))
    prepare(folder, tmp_path / "cache")
    (folder / "4.png").write_bytes(mended + bytes(size - len(mended)))
    counted.clear()
    with caplog.at_level(logging.WARNING):
        store = prepare(folder, tmp_path / "cache")
    assert "files changed since it was built" in caplog.text
    assert 4 in counted
    assert_holds_the_files(store, folder)


def test_mending_one_file_decodes_one_file(folder, tmp_path, counted):
    whole = (folder / "5.png").read_bytes()
    (folder / "5.png").write_bytes(whole[:60])
    with pytest.raises(UserError, match=r"1 image cannot be read.*max_skipped_images=0"):
        prepare(folder, tmp_path / "cache")
    (folder / "5.png").write_bytes(whole)
    counted.clear()
    assert_holds_the_files(prepare(folder, tmp_path / "cache"), folder)
    assert counted == [5]


def test_a_part_of_the_table_is_taken_from_the_whole(folder, tmp_path, counted):
    prepare(folder, tmp_path / "cache")
    counted.clear()
    names = ["30.png", "2.png", "17.png"]
    store = prepare(folder, tmp_path / "cache", table_of(folder, names))
    assert counted == []
    assert_holds_the_files(store, folder, names)


def test_broken_files_are_listed_counted_and_left_out(folder, tmp_path, counted):
    (folder / "7.png").write_bytes(b"")
    (folder / "9.png").unlink()
    (folder / "11.png").write_bytes((folder / "11.png").read_bytes()[:50])
    with pytest.raises(UserError, match=r"1 image cannot be read[^/]*9.png: No such file"):
        prepare(folder, tmp_path / "cache")
    with pytest.raises(UserError, match=r"(?s)3 images cannot.*7.png: the file is empty.*11.png"):
        prepare(folder, tmp_path / "cache", max_skipped=2)
    counted.clear()
    store = prepare(folder, tmp_path / "cache", max_skipped=3)
    assert counted == []  # what the refused run prepared was not lost
    assert [entry.image for entry in store.skipped] == ["7.png", "9.png", "11.png"]
    assert store.skipped[0].reason == "the file is empty"
    kept = [f"{row}.png" for row in range(40) if row not in (7, 9, 11)]
    assert [f"{row}.png" for row in store.kept_rows] == kept
    assert len(store.array) == len(store.pixel_hashes()) == 37
    assert_holds_the_files(store, folder, kept)


def test_nothing_readable(folder, tmp_path):
    for file in folder.iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 40 images can be read.*the file is empty"):
        prepare(folder, tmp_path / "cache", max_skipped=40)


@pytest.mark.parametrize("victim", ["images.npy", "index.parquet"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found_and_mended(folder, tmp_path, caplog, victim, damage):
    path = prepare(folder, tmp_path / "cache").folder / victim
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-10])
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert_holds_the_files(prepare(folder, tmp_path / "cache"), folder)
    assert "is built again" in caplog.text


def test_a_killed_run_is_taken_up_again(folder, tmp_path, counted):
    script = (
        "import pathlib, sys, time\n"
        "from dpmed.data import prepare_images, validate_table\n"
        "from dpmed.data.cache import rows\n"
        "from dpmed.data.preprocessing import Preprocessing\n"
        "import pandas as pd\n"
        "fill = rows.FileRows._fill\n"
        "def slow(self, target, row):\n"
        "    time.sleep(60 if row == 33 else 0)\n"
        "    return fill(self, target, row)\n"
        "rows.FileRows._fill = slow\n"
        "names = [f'{n}.png' for n in range(40)]\n"
        "table = validate_table(pd.DataFrame({'image': names, 'patient_id': names}))\n"
        "prepare_images(table, pathlib.Path(sys.argv[1]), cache_dir=pathlib.Path(sys.argv[2]),"
        " preprocessing=Preprocessing(image_size=16, intensity='none'), num_workers=0,"
        " progress=False)\n"
    )
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "cache")]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        journals = list((tmp_path / "cache").glob("*/*.partial/journal.jsonl"))
        if journals and journals[0].read_text().count("\n") == 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with journals[0].open("a") as journal:
        journal.write('[{"row": 32, "si')  # a line cut by the kill
    assert not list((tmp_path / "cache").glob("*/*/index.parquet"))
    store = prepare(folder, tmp_path / "cache")
    assert counted == list(range(32, 40))
    assert_holds_the_files(store, folder)
    assert not list((tmp_path / "cache").glob("*/*.partial"))


def test_resuming_trusts_only_what_is_whole(folder, tmp_path, counted, monkeypatch):
    finish = build._finish
    monkeypatch.setattr(build, "_finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(folder, tmp_path / "cache")
    monkeypatch.setattr(build, "_finish", finish)
    (partial,) = (tmp_path / "cache").glob("*/*.partial/images.npy")
    content = bytearray(partial.read_bytes())
    content[-1] ^= 255
    partial.write_bytes(content)
    counted.clear()
    assert_holds_the_files(prepare(folder, tmp_path / "cache"), folder)
    assert counted == [39]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve space")
def test_full_disk_at_the_start(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"disk of .* is full.*data.cache_dir"):
        prepare(folder, tmp_path / "cache")


def test_full_disk_on_the_way_loses_nothing(folder, tmp_path, monkeypatch, counted):
    write, calls = os.pwrite, []

    def full_after_some(*arguments):
        calls.append(1)
        if len(calls) > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*arguments)

    monkeypatch.setattr(os, "pwrite", full_after_some)
    with pytest.raises(UserError, match="is full"):
        prepare(folder, tmp_path / "cache")
    monkeypatch.setattr(os, "pwrite", write)
    counted.clear()
    assert_holds_the_files(prepare(folder, tmp_path / "cache"), folder)
    assert counted == list(range(16, 40))


def test_cache_folder_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "a_file").touch()
    with pytest.raises(UserError, match=r"cannot be written .*data.cache_dir"):
        prepare(folder, tmp_path / "a_file" / "cache")

    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    prepare(folder, tmp_path / "cache")
    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    with pytest.raises(UserError, match="Read-only file system"):
        prepare(folder, tmp_path / "other")
    assert_holds_the_files(prepare(folder, tmp_path / "cache"), folder)  # reading needs no writing


def test_a_crashing_decoder_costs_its_file_only(folder, tmp_path, monkeypatch):
    (tmp_path / "crashing_rows.py").write_text(
        "import os\n"
        "from dpmed.data.cache.rows import FileRows\n"
        "class CrashingRows(FileRows):\n"
        "    def make(self, rows):\n"
        "        return os._exit(9) if 13 in rows else super().make(rows)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    source = importlib.import_module("crashing_rows").CrashingRows(
        root=folder, images=[f"{number}.png" for number in range(40)], preprocessing=SETTING
    )
    path = tmp_path / "images.bin"
    path.touch()
    chunks = [list(range(10)), list(range(10, 20)), list(range(20, 40))]
    made = list(workers.make_rows(chunks, source, array_path=path, offset=0, num_workers=1))
    records = {record.row: record for chunk in made for record in chunk}
    assert sorted(records) == list(range(40))
    assert [row for row in records if records[row].reason] == [13]
    assert records[13].reason == workers.CRASHED
    stored = np.frombuffer(path.read_bytes(), dtype=np.uint8).reshape(40, 16, 16)
    np.testing.assert_array_equal(stored[39], decode_image(folder / "39.png", SETTING))


@pytest.mark.parametrize("cached", [True, False])
def test_generated_images(tmp_path, cached):
    calls = []
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)

    def render(rows):
        calls.append(len(rows))
        return images[rows["image"].str.removesuffix(".png").astype(int)]

    for key in ("seed 0", "seed 0", "seed 1"):
        store = prepare_generated(
            table_of(None),
            render=render,
            content_key=key,
            preprocessing=SETTING,
            cache_dir=tmp_path / "cache" if cached else None,
            progress=False,
        )
        np.testing.assert_array_equal(store.array, images)
        assert store.pixel_hashes() == [pixel_hash(image) for image in images]
    assert len(calls) == (2 if cached else 3)


def test_two_builders_wait_for_each_other(folder, tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from test_store import prepare\n"
        "from pathlib import Path\n"
        "prepare(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "cache")]
    here = os.path.dirname(__file__)
    processes = [subprocess.Popen([*command, here]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(list((tmp_path / "cache").glob("*/*/index.parquet"))) == 1


def test_a_moved_folder_keeps_its_cache(folder, tmp_path, counted):
    prepare(folder, tmp_path / "cache")
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    counted.clear()
    assert_holds_the_files(prepare(moved, tmp_path / "cache"), moved)
    assert counted == []
