"""Images a second of one core: decoding, reading from the cache, and plain timm and torchvision.

    python -m benchmarks.loading --images DIR --json benchmarks/results/loading.json

Each variant gives batches of the same images in one process, at the same side. Every round runs
every variant on the same rows, in an order that rotates; the median over rounds counts, with its
distribution-free 95 % interval. Seconds are the processor time of the one thread that works, so
that other programs on the machine count little. `training` is one step of the laptop model with
clipping, which is what the loader has to keep up with. Every file is read once beforehand, so that
all variants find it in the system's file cache: work is compared, not disks.

Memory: a fresh process reads every image of a cache twice in random order, for a small and for a
large cache, and reports the largest resident memory after a batch (`VmRSS`, mapped files included)
above what it was before the first one.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.clipping import median_interval
from benchmarks.variants import Setting, onepass
from dpmed.data import Preprocessing, decode_image, prepare_images
from dpmed.data.cache.pages import read_rows

Row = dict[str, Any]
Read = Callable[[np.ndarray], None]
SUFFIXES = {".png", ".jpg", ".jpeg"}
TRAINED_MODEL = "convnext_atto"


def main() -> None:
    """Measure, print the table, write the file."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of is not None:
        print(_resident_above_base(arguments.memory_of))
        return
    if arguments.images is None or not arguments.images.is_dir():
        sys.exit(f"error: --images {arguments.images} is no folder of PNG or JPEG files")
    files = sorted(p for p in arguments.images.rglob("*") if p.suffix.lower() in SUFFIXES)
    files = files[: arguments.num_images]
    if len(files) < arguments.batch:
        sys.exit(f"error: {arguments.images} holds {len(files)} images, at least one batch needed")
    with tempfile.TemporaryDirectory() as cache:
        variants = _variants(files, arguments, Path(cache))
        rates = _measure(variants, len(files), arguments)
    rows = _rows(rates, arguments, len(files))
    rows += [_memory_row(number, arguments.pixels) for number in arguments.memory_sizes]
    print(format_table(rows))
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def format_table(rows: list[Row]) -> str:
    """The measurements as text."""
    lines = [f"{'variant':<14}{'images/s':>12}{'95 % interval':>22}{'x decode':>10}"]
    for row in (row for row in rows if row["kind"] == "rate"):
        interval = f"{row['low']:,.0f} to {row['high']:,.0f}"
        ratio = f"{row['ratio_to_decode']:,.1f}"
        name, rate = row["variant"], row["images_per_core_second"]
        lines.append(f"{name:<14}{rate:>12,.0f}{interval:>22}{ratio:>10}")
    for row in (row for row in rows if row["kind"] == "memory"):
        lines.append(
            f"cache of {row['num_images']:,} images ({row['cache_bytes'] / 1e6:,.0f} MB): "
            f"{row['resident_bytes_above_base'] / 1e6:.1f} MB resident above the start"
        )
    return "\n".join(lines)


def _variants(files: list[Path], arguments: argparse.Namespace, cache: Path) -> dict[str, Read]:
    """Each variant gives the images of some rows in batches, ready but for the scaling."""
    root, batch = arguments.images, arguments.batch
    preprocessing = Preprocessing(image_size=arguments.pixels)
    names = [str(path.relative_to(root)) for path in files]
    table = pd.DataFrame({"image": names})
    store = prepare_images(
        table, root, preprocessing, cache_dir=cache, num_workers=0, max_skipped=len(names)
    )
    assert len(store.array) == len(files), "choose a folder of readable images"

    def decode(rows: np.ndarray) -> None:
        for chunk in _chunks(rows, batch):
            images = np.stack([decode_image(files[row], preprocessing) for row in chunk])
            torch.from_numpy(images).unsqueeze(1)

    def cached(rows: np.ndarray) -> None:
        for chunk in _chunks(rows, batch):
            torch.from_numpy(read_rows(store.array, chunk)).unsqueeze(1)

    setting = Setting(
        model=TRAINED_MODEL, pixels=arguments.pixels, batch=batch, dtype="float32", device="cpu"
    )
    step = onepass(setting)

    def training(rows: np.ndarray) -> None:
        for _ in _chunks(rows, batch):
            step()

    return {
        "decode": decode,
        "cached": cached,
        "torchvision": _loader(files, _torchvision_transform(arguments.pixels), batch),
        "timm": _loader(files, _timm_transform(arguments.pixels), batch),
        "training": training,
    }


class _Files(Dataset[torch.Tensor]):
    """Images of files through a transform, as the libraries' own folders of images do it."""

    def __init__(self, files: list[Path], transform: Callable[[Image.Image], Any]) -> None:
        self.files = files
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> torch.Tensor:
        with Image.open(self.files[row]) as image:
            return torch.as_tensor(self.transform(image.convert("L")))


def _loader(files: list[Path], transform: Callable[[Image.Image], Any], batch: int) -> Read:
    dataset = _Files(files, transform)

    def read(rows: np.ndarray) -> None:
        for _ in DataLoader(dataset, batch_size=batch, sampler=rows.tolist()):
            pass

    return read


def _torchvision_transform(pixels: int) -> Callable[[Image.Image], Any]:
    from torchvision.transforms import v2

    steps = [v2.Resize((pixels, pixels)), v2.PILToTensor()]
    return v2.Compose(steps)


def _timm_transform(pixels: int) -> Callable[[Image.Image], Any]:
    from timm.data import create_transform

    return create_transform((1, pixels, pixels), mean=(0.5,), std=(0.25,), crop_pct=1.0)


def _measure(
    variants: dict[str, Read], num_files: int, arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Images a second of each variant in each round."""
    generator = np.random.default_rng(0)
    rates: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    few = min(num_files, arguments.images_a_round)
    for name in names:
        variants[name](np.arange(arguments.batch))  # warm up; imports and allocations
    for place in range(arguments.rounds):
        rows = generator.permutation(num_files)[:few]
        for name in names[place % len(names) :] + names[: place % len(names)]:
            # The cache is read so fast that one pass over these rows could not be timed.
            repeats = 50 if name == "cached" else 1
            part = rows[: 2 * arguments.batch] if name == "training" else rows
            start = time.process_time()
            for _ in range(repeats):
                variants[name](part)
            rates[name].append(repeats * len(part) / (time.process_time() - start))
    return rates


def _rows(
    rates: dict[str, list[float]], arguments: argparse.Namespace, num_images: int
) -> list[Row]:
    decode = statistics.median(rates["decode"])
    rows = []
    for name, values in rates.items():
        low, high = median_interval(values)
        rows.append(
            {
                "kind": "rate",
                "variant": name,
                "images_per_core_second": statistics.median(values),
                "low": low,
                "high": high,
                "ratio_to_decode": statistics.median(values) / decode,
                "rounds": len(values),
                "num_images": num_images,
                "pixels": arguments.pixels,
                "batch": arguments.batch,
                **_machine(),
            }
        )
    return rows


def _memory_row(num_images: int, pixels: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        shape = (num_images, pixels, pixels)
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        for start in range(0, num_images, 4096):
            array[start : start + 4096] = start // 4096 % 251
        del array
        command = [sys.executable, "-m", "benchmarks.loading", "--memory-of", str(path)]
        resident = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return {
            "kind": "memory",
            "num_images": num_images,
            "pixels": pixels,
            "cache_bytes": path.stat().st_size,
            "resident_bytes_above_base": resident,
            **_machine(),
        }


def _resident_above_base(path: Path) -> int:
    array = np.load(path, mmap_mode="r")
    generator = np.random.default_rng(0)
    order = generator.permutation(len(array)).astype(np.int64)  # as long as the sampler's own table
    read_rows(array, order[:64])
    base = peak = _resident_bytes()
    for _ in range(2):
        for chunk in _chunks(generator.permutation(order), 64):
            read_rows(array, chunk)
            peak = max(peak, _resident_bytes())
    return peak - base


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _chunks(rows: np.ndarray, batch: int) -> list[np.ndarray]:
    return [rows[start : start + batch] for start in range(0, len(rows) - batch + 1, batch)]


def _machine() -> Row:
    packages = ("torch", "timm", "torchvision", "pillow", "numpy")
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} logical CPUs",
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {name: version(name) for name in packages},
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Images a second from files, from the cache and from plain loaders.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--images", type=Path, help="a folder of PNG or JPEG files")
    parser.add_argument("--num-images", type=int, default=1000)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images-a-round", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-sizes", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write the measurements here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
