"""What `dpmed prepare` does: decode the images of a data set once, and say what came of it.

A run would do the same when it starts. Preparing beforehand needs no GPU, and shows which files
are broken before anything else is spent.
"""

from __future__ import annotations

import csv
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from dpmed.config import DataConfig
from dpmed.data import SkippedImage
from dpmed.errors import UserError
from dpmed.stages.images import load_images
from dpmed.stages.tables import split_table

MAX_NAMED = 3  # of the images that share a reason


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What was prepared.

    Args:
        data: the settings.
        num_images: in the cache.
        num_bytes: of the cache on disk.
        folder: the cache.
        seconds: it took.
        skipped: what was left out.
        num_suspected_inverted: images that look like a negative.
    """

    data: DataConfig
    num_images: int
    num_bytes: int
    folder: Path
    seconds: float
    skipped: list[SkippedImage]
    num_suspected_inverted: int

    def summary(self) -> str:
        """In words, for the terminal."""
        size = self.data.preprocessing.image_size
        lines = [
            f"prepared   {self.num_images:,} images of {self.data.id} at {size} px "
            f"in {self.seconds:.1f} s",
            f"cache      {self.folder} ({self.num_bytes / 1e6:,.1f} MB)",
            f"left out   {len(self.skipped)}, allowed {self.data.max_skipped_images} "
            "(data.max_skipped_images)",
            *_by_reason(self.skipped),
        ]
        if self.num_suspected_inverted:
            lines.append(f"inverted?  {self.num_suspected_inverted} look like a negative")
        return "\n".join(lines)

    def check(self) -> None:
        """Fail where more was left out than the settings allow; what was prepared stays.

        Raises:
            UserError: with the setting that would allow it.
        """
        if len(self.skipped) > self.data.max_skipped_images:
            raise UserError(
                f"{len(self.skipped)} images were left out, and data.max_skipped_images="
                f"{self.data.max_skipped_images}. The others are prepared. Mend the files and "
                "prepare again, which decodes only them, or train without them: "
                f"data.max_skipped_images={len(self.skipped)}."
            )


def prepare_data(config: DataConfig, *, num_workers: int | None) -> Prepared:
    """Decodes (or draws) what a run with these settings would use; goes on where it was stopped.

    Args:
        config: the data set.
        num_workers: processes; None for all cores where there is enough to do.

    Raises:
        UserError: nothing can be read, or the cache cannot be written.
    """
    start = time.monotonic()
    table = split_table(config)
    listed = len(table) + len(table.attrs.get("skipped", []))
    store = load_images(config, table, num_workers=num_workers, max_skipped=listed)
    assert store.folder is not None, "images on disk are cached"
    return Prepared(
        data=config,
        num_images=len(store.array),
        num_bytes=sum(path.stat().st_size for path in store.folder.iterdir()),
        folder=store.folder,
        seconds=time.monotonic() - start,
        skipped=store.skipped,
        num_suspected_inverted=int(store.suspected_inverted.sum()),
    )


def write_skipped(skipped: list[SkippedImage], path: Path) -> None:
    """All left-out images with their reasons as CSV; their names may identify patients."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "reason"])
        writer.writerows([item.image, item.reason] for item in skipped)


def _by_reason(skipped: list[SkippedImage]) -> list[str]:
    images: dict[str, list[str]] = defaultdict(list)
    for item in skipped:
        images[item.reason].append(item.image)
    return [
        f"  {len(names):>6}   {reason}: {', '.join(names[:MAX_NAMED])}"
        f"{', ...' if len(names) > MAX_NAMED else ''}"
        for reason, names in sorted(images.items(), key=lambda entry: -len(entry[1]))
    ]
