"""The tables of docs/clipping.md and README.md, from a file of `python -m benchmarks.clipping`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Size = tuple[str, int, int]

COLUMNS = {
    "plain_fast_depthwise": "plain, fast depthwise",
    "onepass": "**dpmed `onepass`**",
    "onepass_compiled": "**the same, compiled**",
    "opacus_hooks": "Opacus hooks",
    "opacus_functorch": "Opacus functorch",
    "opacus_ghost": "Opacus ghost",
    "vmap_grad": "vmap(grad)",
}
SHORT_COLUMNS = {
    "onepass": "dpmed",
    "onepass_compiled": "dpmed, compiled",
    "opacus_hooks": "Opacus hooks",
    "opacus_functorch": "Opacus functorch",
    "opacus_ghost": "Opacus ghost",
}
_MODELS = ("convnext_atto", "convnext_tiny", "convnext_small")
_NOT_MEASURED = "–"


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    rows = json.loads(parser.parse_args().file.read_text(encoding="utf-8"))
    print("\n\n".join([time_table(rows), memory_table(rows), short_table(rows)]))


def time_table(rows: list[Row]) -> str:
    """Step time over plain training's, with the interval of the median."""
    head = ["model, pixels, batch", "rounds", *COLUMNS.values()]
    lines = []
    for size, found in _by_size(rows).items():
        cells = [_time_with_interval(found.get(variant)) for variant in COLUMNS]
        lines.append([_named(size), str(found["plain"]["num_rounds"]), *cells])
    return _markdown(head, lines)


def memory_table(rows: list[Row]) -> str:
    """Peak memory above the base over plain training's, where it was measured."""
    columns = {variant: name for variant, name in COLUMNS.items() if "compiled" not in variant}
    lines = []
    for size, found in _by_size(rows).items():
        base = found["plain"]["peak_bytes_above_base"]
        if base is not None:
            cells = [_memory(found.get(variant), base) for variant in columns]
            lines.append([_named(size), *cells])
    return _markdown(["peak memory", *columns.values()], lines)


def short_table(rows: list[Row]) -> str:
    """Step time over plain training's, of what a reader chooses from."""
    lines = []
    for (model, pixels, _), found in _by_size(rows).items():
        cells = [_time(found.get(variant)) for variant in SHORT_COLUMNS]
        lines.append([f"{model.removeprefix('convnext_')}, {pixels}", *cells])
    return _markdown(["ConvNeXt, pixels", *SHORT_COLUMNS.values()], lines)


def _by_size(rows: list[Row]) -> dict[Size, dict[str, Row]]:
    """Size -> variant -> row, small models first."""
    sizes: dict[Size, dict[str, Row]] = {}
    for row in sorted(rows, key=lambda row: (_MODELS.index(row["model"]), row["pixels"])):
        size = row["model"], row["pixels"], row["batch"]
        sizes.setdefault(size, {})[row["variant"]] = row
    return sizes


def _named(size: Size) -> str:
    model, pixels, batch = size
    return f"{model} {pixels}, {batch}"


def _time(row: Row | None) -> str:
    return _NOT_MEASURED if row is None else f"{row['ratio_to_plain']:.2f}"


def _time_with_interval(row: Row | None) -> str:
    if row is None:
        return _NOT_MEASURED
    return f"{_time(row)} ({row['ratio_low']:.2f}–{row['ratio_high']:.2f})"


def _memory(row: Row | None, base: int) -> str:
    if row is None or row["peak_bytes_above_base"] is None:
        return _NOT_MEASURED
    return f"{row['peak_bytes_above_base'] / base:.2f}"


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *lines])


if __name__ == "__main__":
    main()
