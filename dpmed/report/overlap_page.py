"""The result of `dpmed overlap` in words: counts, rates and what the controls say of them.

Works from the summary alone, which names no image and no patient. Must not compare anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scipy import stats

import dpmed
from dpmed.report.page import make_environment


def write_overlap_page(summary: Mapping[str, Any], output: Path) -> Path:
    """Writes `summary.md` and `index.html`, and returns the page.

    Args:
        summary: content of `summary.json`.
        output: an existing folder.
    """
    rows, verdict = _rows(summary), _verdict(summary)
    lines = [f"# {verdict}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    (output / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    page = (
        make_environment()
        .get_template("overlap.html")
        .render(title=verdict, rows=rows, version=dpmed.__version__)
    )
    path = output / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def rate_with_interval(count: int, total: int) -> str:
    """`3 of 200 (1.5 %, 95 % CI 0.3–4.3 %)`, Clopper-Pearson."""
    low = stats.beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = stats.beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return (
        f"{count:,} of {total:,} ({100 * count / total:.1f} %, 95 % CI {100 * low:.1f}–"
        f"{100 * high:.1f} %)"
    )


def _verdict(summary: Mapping[str, Any]) -> str:
    private, public = summary["private"], summary["public"]
    count = private["num_flagged_patients"]
    if not count:
        return f"No patient of {private['name']} was found in {public['name']}"
    who = "1 patient" if count == 1 else f"{count:,} patients"
    return f"{who} of {private['name']} found in {public['name']}"


def _rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    private, public, pairs = summary["private"], summary["public"], summary["num_pairs"]
    rows = [
        ("Private images flagged",
         rate_with_interval(private["num_flagged_images"], private["num_images"])),
        ("Private patients flagged",
         rate_with_interval(private["num_flagged_patients"], private["num_patients"])),
        ("Public images flagged",
         rate_with_interval(public["num_flagged_images"], public["num_images"])),
        ("Pairs", f"{pairs['exact']:,} with the same pixels, {pairs['near']:,} changed copies"),
        ("Images that could not be decoded",
         f"{private['num_unreadable']:,} private, {public['num_unreadable']:,} public"),
    ]  # fmt: skip
    controls = summary["controls"]
    if "synthetic" in controls:
        item = controls["synthetic"]
        rows.append(
            (
                "Control: synthetic radiographs flagged (should be none)",
                rate_with_interval(item["num_flagged"], item["num_images"]),
            )
        )
    if "planted" in controls:
        item = controls["planted"]
        rows.append(
            (
                "Control: changed copies of public images found (should be all)",
                rate_with_interval(item["num_found"], item["num_images"]),
            )
        )
    return rows
