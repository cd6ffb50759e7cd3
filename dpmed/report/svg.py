"""Draws SVG by hand: small files, colours from CSS variables, a tooltip on every mark.

Inline on the page the drawing takes the page's light or dark colours; as a file it carries
`templates/plot.css`. All text goes through escaping. Must not know what is plotted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup, escape

PLOT_CSS = Path(__file__).parent / "templates" / "plot.css"
NUM_SERIES = 6
SMALL = 260.0  # pixels
UNIT_TICKS = [(value, f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)]

Point = tuple[float, float]
Scale = Callable[[float], float]


def linear(domain: Point, pixels: Point) -> Scale:
    """A linear scale from data to pixels; a domain without extent maps to the middle."""
    (low, high), (start, end) = domain, pixels
    if high == low:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def logarithmic(domain: Point, pixels: Point) -> Scale:
    """A logarithmic scale from positive data to pixels."""
    scale = linear((math.log(domain[0]), math.log(domain[1])), pixels)
    return lambda value: scale(math.log(value))


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values that cover most of [low, high], about `count` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


@dataclass(kw_only=True)
class Drawing:
    """A picture of fixed proportions whose marks are appended one by one.

    Attributes:
        width, height: size of the view box, in CSS pixels at scale one.
        label: what the picture shows, for readers who do not see it.
    """

    width: float
    height: float
    label: str
    marks: list[Markup] = field(default_factory=list)

    def line(self, start: Point, end: Point, css: str) -> None:
        """A straight line between two pixels."""
        (x1, y1), (x2, y2) = start, end
        self._add("line", css, f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"', tip="")

    def polyline(self, points: Sequence[Point], css: str) -> None:
        """An open line through pixels."""
        self._add("polyline", css, f'points="{_join(points)}"', tip="")

    def polygon(self, points: Sequence[Point], css: str) -> None:
        """A filled area."""
        self._add("polygon", css, f'points="{_join(points)}"', tip="")

    def circle(self, centre: Point, radius: float, css: str, tip: str = "") -> None:
        """A disc, with a tooltip where `tip` is given."""
        place = f'cx="{centre[0]:.1f}" cy="{centre[1]:.1f}" r="{radius:g}"'
        self._add("circle", css, place, tip=tip)

    def square(self, centre: Point, radius: float, css: str, tip: str = "") -> None:
        """A square of half-width `radius`, with a tooltip where `tip` is given."""
        size = f'width="{2 * radius:g}" height="{2 * radius:g}"'
        place = f'x="{centre[0] - radius:.1f}" y="{centre[1] - radius:.1f}"'
        self._add("rect", css, f"{place} {size}", tip=tip)

    def text(self, place: Point, words: str, css: str, anchor: str = "start") -> None:
        """A word or a number; anchor is start, middle or end."""
        self.marks.append(
            Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                css, f"{place[0]:.1f}", f"{place[1]:.1f}", anchor, words
            )
        )

    def open_group(self, css: str, **data: str) -> None:
        """Starts a group that a script can show or hide by its data attributes."""
        attributes = Markup(" ").join(
            Markup('data-{}="{}"').format(name, value) for name, value in data.items()
        )
        self.marks.append(Markup('<g class="{}" {}>').format(css, attributes))

    def close_group(self) -> None:
        """Ends the group opened last."""
        self.marks.append(Markup("</g>"))

    def inline(self) -> Markup:
        """The picture for a page that already holds `plot.css`."""
        return self._render(style="", namespace="")

    def standalone(self) -> str:
        """The picture as a file of its own, with its style."""
        style = f"<style>{PLOT_CSS.read_text(encoding='utf-8')}</style>"
        return str(self._render(style=style, namespace=' xmlns="http://www.w3.org/2000/svg"'))

    def _render(self, *, style: str, namespace: str) -> Markup:
        head = Markup('<svg{} class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            Markup(namespace), f"{self.width:g}", f"{self.height:g}", self.label
        )
        return head + Markup(style) + Markup("\n").join(self.marks) + Markup("</svg>")

    def _add(self, tag: str, css: str, place: str, *, tip: str) -> None:
        title = f"<title>{escape(tip)}</title>" if tip else ""
        self.marks.append(Markup(f'<{tag} class="{escape(css)}" {place}>{title}</{tag}>'))


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The plotting area of a drawing: its axes, grid and scales."""

    drawing: Drawing
    left: float
    right: float
    top: float
    bottom: float
    x: Scale
    y: Scale

    def x_axis(self, ticks: Iterable[tuple[float, str]], title: str) -> None:
        """Ticks below the frame and the axis title under them."""
        for value, words in ticks:
            at = self.x(value)
            self.drawing.line((at, self.top), (at, self.bottom), "grid")
            self.drawing.text((at, self.bottom + 14), words, "tick", "middle")
        middle = (self.left + self.right) / 2
        self.drawing.text((middle, self.bottom + 30), title, "title", "middle")

    def y_axis(self, ticks: Iterable[tuple[float, str]], title: str) -> None:
        """Ticks left of the frame and the axis title above it, so that it reads upright."""
        for value, words in ticks:
            at = self.y(value)
            self.drawing.line((self.left, at), (self.right, at), "grid")
            self.drawing.text((self.left - 6, at + 3.5), words, "tick", "end")
        self.drawing.text((0, self.top - 10), title, "title")

    def curve(self, points: Iterable[Point], css: str) -> None:
        """A line through data points."""
        self.drawing.polyline([(self.x(x), self.y(y)) for x, y in points], css)

    def band(self, lower: Sequence[Point], upper: Sequence[Point], css: str) -> None:
        """The area between two lines of data points."""
        outline = [*lower, *reversed(upper)]
        self.drawing.polygon([(self.x(x), self.y(y)) for x, y in outline], css)


def small_frame(
    label: str, *, x: Point, y: Point, left: float = 30.0, log_y: bool = False
) -> Frame:
    """A square drawing of the one size that all small plots share, so that their text is equal.

    Args:
        label: what the picture shows, for readers who do not see it.
        x: range of the horizontal axis.
        y: range of the vertical axis; positive where `log_y`.
        left: pixels for the words of the vertical axis.
        log_y: whether the vertical axis is logarithmic.
    """
    top, bottom, right = 22.0, SMALL - 36, SMALL - 8
    scale = logarithmic if log_y else linear
    return Frame(
        drawing=Drawing(width=SMALL, height=SMALL, label=label),
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x=linear(x, (left, right)),
        y=scale(y, (bottom, top)),
    )


def _join(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
