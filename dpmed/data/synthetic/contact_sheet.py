"""A page of captioned synthetic radiographs, for the report.

For pictures made by `render_radiographs` only: pictures of real patients never leave the run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from dpmed.data.synthetic.cohort import LABELS
from dpmed.errors import UserError

_MARGIN = 6
_LINE_HEIGHT = 13
_BACKGROUND, _INK = 255, 30


def contact_sheet(
    images: np.ndarray, titles: Sequence[str], *, num_columns: int = 5, tile_size: int = 192
) -> Image.Image:
    """Lay pictures out in rows, each with its caption below.

    Args:
        images: uint8 array of shape (N, H, W).
        titles: N captions; lines are separated by a line feed.
        num_columns: pictures in a row.
        tile_size: width and height at which each picture is shown, in pixels.

    Returns:
        A greyscale Pillow image.

    Raises:
        UserError: there is no picture, or not one caption a picture.
    """
    if len(images) == 0 or len(images) != len(titles):
        raise UserError(
            f"images and titles: a contact sheet needs one title a picture; "
            f"got {len(images)} pictures and {len(titles)} titles."
        )
    caption_height = _LINE_HEIGHT * max(title.count("\n") + 1 for title in titles) + _MARGIN
    width, height = tile_size + _MARGIN, tile_size + caption_height + _MARGIN
    num_rows = -(-len(images) // num_columns)
    size = (width * min(num_columns, len(images)) + _MARGIN, height * num_rows + _MARGIN)
    sheet = Image.new("L", size, _BACKGROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    for index, (picture, title) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(index, num_columns)
        corner = (column * width + _MARGIN, row * height + _MARGIN)
        tile = Image.fromarray(picture).resize((tile_size, tile_size), Image.Resampling.BICUBIC)
        sheet.paste(tile, corner)
        text = (corner[0], corner[1] + tile_size + 2)
        pen.multiline_text(text, title, fill=_INK, font=font, spacing=1)
    return sheet


def captions(table: pd.DataFrame) -> list[str]:
    """Two lines a row: sex, age, view and site; then the labels that are present."""
    return [
        f"{row.sex} {row.age:.0f} y, {row.view}, {row.site}\n"
        + ", ".join(label.replace("_", " ") for label in LABELS if getattr(row, label) == 1)
        for row in table.itertuples()
    ]
