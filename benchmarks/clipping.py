"""What per-unit clipping costs: step time and peak memory against plain training, as one table.

    python -m benchmarks.clipping --models convnext_atto convnext_tiny --pixels 96 224 \
        --json benchmarks/results/clipping.json

Times: per model and size one process, in which every round runs every variant once, in an order
that rotates; a round's ratio is a variant's time over plain's in that round. The median over rounds
counts, with its distribution-free 95 % interval. Memory: each variant in a fresh process, the peak
of resident (on CUDA: allocated) memory over a few steps, above what was there before the first. On
a CPU a compiled variant has no figure, since the compiler's own memory would be part of it.
All variants run with the allocator setting of `performance.keep_freed_memory`.

A size that the JSON file already holds is not measured again unless `--fresh`, so an interrupted
program goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from math import comb
from pathlib import Path
from typing import Any

import torch

from benchmarks.variants import DEFAULT_VARIANTS, VARIANTS, Setting, Step
from dpmed.training.memory import keep_freed_memory

Row = dict[str, Any]

# Physical batches that a laptop's memory holds for every variant.
BATCHES = {
    ("convnext_atto", 64): 64,
    ("convnext_atto", 96): 32,
    ("convnext_atto", 224): 16,
    ("convnext_tiny", 96): 16,
    ("convnext_tiny", 224): 8,
    ("convnext_small", 96): 8,
    ("convnext_small", 224): 4,
}
NUM_WARM_UP_ROUNDS = 2
NUM_MEMORY_STEPS = 3


def main() -> None:
    """Measure what the command line asks for, print the table, write the file."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    if arguments.memory_of:
        print(_peak_memory(arguments.memory_of, _settings(arguments)[0]))
        return
    rows = _read(arguments.json)
    for setting in _settings(arguments):
        if not _is_done(rows, setting, arguments):
            rows = [row for row in rows if not _belongs(row, setting, arguments.threads)]
            rows += _measure(setting, arguments)
            _write(arguments.json, rows)
    print(format_table(rows))


def _measure(setting: Setting, arguments: argparse.Namespace) -> list[Row]:
    names = ["plain", *(name for name in arguments.variants if name != "plain")]
    seconds = time_interleaved(
        {name: VARIANTS[name](setting) for name in names},
        num_rounds=arguments.rounds,
        limit_seconds=60.0 * arguments.minutes,
        device=setting.device,
    )
    rows = []
    for name in names:
        ratios = [s / p for s, p in zip(seconds[name], seconds["plain"], strict=True)]
        low, high = median_interval(ratios)
        memory = None if arguments.no_memory else _peak_memory_in_fresh_process(name, setting)
        rows.append(
            {
                **asdict(setting),
                "threads": arguments.threads,
                "variant": name,
                "milliseconds": 1e3 * statistics.median(seconds[name]),
                "ratio_to_plain": statistics.median(ratios),
                "ratio_low": low,
                "ratio_high": high,
                "peak_bytes_above_base": memory,
                "num_rounds": len(ratios),
                "versions": _versions(setting.device),
                "load_average": _load_average(),
                "date": date.today().isoformat(),
            }
        )
    return rows


def time_interleaved(
    steps: dict[str, Step], *, num_rounds: int, limit_seconds: float, device: str
) -> dict[str, list[float]]:
    """Seconds of every step in every round; stops early at the limit, but not before 5 rounds."""
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    for index in range(-NUM_WARM_UP_ROUNDS, num_rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            elapsed = _time(steps[name], device)
            if index >= 0:
                seconds[name].append(elapsed)
        if index >= 4 and time.perf_counter() - start > limit_seconds:
            break
    return seconds


def _time(step: Step, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median_interval(values: list[float], coverage: float = 0.95) -> tuple[float, float]:
    """The distribution-free interval of the median: order statistics k and n + 1 − k."""
    ordered, count = sorted(values), len(values)
    rank, tail = 0, 0.0
    while rank < count // 2:
        tail += comb(count, rank) / 2**count
        if tail > (1 - coverage) / 2:
            break
        rank += 1
    rank = max(rank, 1)
    return ordered[rank - 1], ordered[count - rank]


def _peak_memory_in_fresh_process(name: str, setting: Setting) -> int | None:
    if name.endswith("_compiled") and setting.device == "cpu":
        return None
    command = [
        *(sys.executable, "-m", "benchmarks.clipping", "--memory-of", name),
        *("--models", setting.model, "--pixels", str(setting.pixels)),
        *("--batch", str(setting.batch), "--dtype", setting.dtype, "--device", setting.device),
        *("--threads", str(torch.get_num_threads())),
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(output.split()[-1])


def _peak_memory(name: str, setting: Setting) -> int:
    """Bytes above the base over a few steps, in this process."""
    step = VARIANTS[name](setting)
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        for _ in range(NUM_MEMORY_STEPS):
            step()
        return torch.cuda.max_memory_allocated() - base
    base = _resident_bytes("VmRSS")
    for _ in range(NUM_MEMORY_STEPS):
        step()
    return _resident_bytes("VmHWM") - base


def _resident_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def format_table(rows: list[Row]) -> str:
    """Markdown: one line a model, size and variant."""
    lines = [
        "| model | pixels | batch | dtype | variant | ms | × plain | 95 % | peak MB | rounds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        memory = row["peak_bytes_above_base"]
        lines.append(
            f"| {row['model']} | {row['pixels']} | {row['batch']} | {row['dtype']} "
            f"| {row['variant']} | {row['milliseconds']:.0f} | {row['ratio_to_plain']:.2f} "
            f"| {row['ratio_low']:.2f}–{row['ratio_high']:.2f} "
            f"| {'' if memory is None else f'{memory / 2**20:.0f}'} | {row['num_rounds']} |"
        )
    return "\n".join(lines)


def _settings(arguments: argparse.Namespace) -> list[Setting]:
    return [
        Setting(
            model=model,
            pixels=pixels,
            batch=arguments.batch or BATCHES.get((model, pixels), 8),
            dtype=arguments.dtype,
            device=arguments.device,
        )
        for model in arguments.models
        for pixels in arguments.pixels
    ]


def _belongs(row: Row, setting: Setting, threads: int) -> bool:
    wanted = {**asdict(setting), "threads": threads}
    return all(row[key] == value for key, value in wanted.items())


def _is_done(rows: list[Row], setting: Setting, arguments: argparse.Namespace) -> bool:
    done = {row["variant"] for row in rows if _belongs(row, setting, arguments.threads)}
    return not arguments.fresh and set(arguments.variants) <= done


def _read(path: Path | None) -> list[Row]:
    return json.loads(path.read_text()) if path is not None and path.exists() else []


def _write(path: Path | None, rows: list[Row]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=1) + "\n")


def _versions(device: str) -> dict[str, str]:
    found = {name: version(name) for name in ("torch", "opacus", "timm")}
    processor = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {**found, "python": platform.python_version(), "processor": processor}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _load_average() -> float:
    return float(Path("/proc/loadavg").read_text().split()[0])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["convnext_atto", "convnext_tiny"])
    parser.add_argument("--pixels", nargs="+", type=int, default=[96, 224])
    parser.add_argument("--batch", type=int, help="images; default by model and size")
    parser.add_argument("--variants", nargs="+", default=DEFAULT_VARIANTS, choices=list(VARIANTS))
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--minutes", type=float, default=30.0, help="limit a model and size")
    parser.add_argument("--json", type=Path, help="file to write, and to go on from")
    parser.add_argument("--fresh", action="store_true", help="measure again what the file holds")
    parser.add_argument("--no-memory", action="store_true", help="times only")
    parser.add_argument("--memory-of", choices=list(VARIANTS), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
