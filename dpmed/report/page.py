"""Builds `report/index.html` of a run: one self-contained page, and its figures as files.

Last stage of a run; also `dpmed report`. Works from the run folder's files alone. A section that
cannot be built says why in its place, and the others stay. Must not compute a metric, and never
shows a patient's image or id.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import dpmed
from dpmed.report import (
    checklist,
    geometry_section,
    performance,
    privacy_section,
    provenance_section,
    subgroups,
    twin_section,
)
from dpmed.report.card import write_card
from dpmed.report.figures import Figure, write_figures
from dpmed.report.headline import headline, percent_at_most
from dpmed.report.numbers import compact, moment, quiet_intervals, scientific
from dpmed.report.run_files import DAMAGED, RunFiles, Unavailable, read_run

logger = logging.getLogger(__name__)
_TEMPLATES = Path(__file__).parent / "templates"

Build = Callable[[RunFiles, list[Figure]], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the page: `templates/<id>.html` filled by `build`.

    Attributes:
        is_covered: False where the section shows quantities computed from patients' data, which
            epsilon does not cover.
    """

    id: str
    title: str
    build: Build
    is_covered: bool


SECTIONS = (
    Section(id="performance", title="How good", build=performance.discrimination, is_covered=False),
    Section(id="roc", title="ROC curves", build=performance.roc_curves, is_covered=False),
    Section(id="subgroups", title="For whom", build=subgroups.subgroups, is_covered=False),
    Section(id="twin", title="What privacy costs", build=twin_section.twin, is_covered=False),
    Section(id="calibration", title="Calibration", build=performance.calibration, is_covered=False),
    Section(id="geometry", title="Representation", build=geometry_section.geometry,
            is_covered=False),
    Section(id="further", title="Further estimates", build=performance.further_estimates,
            is_covered=False),
    Section(id="privacy", title="What is guaranteed", build=privacy_section.privacy,
            is_covered=True),
    Section(id="training", title="What was trained", build=provenance_section.training,
            is_covered=True),
    Section(id="data", title="Data sheet", build=provenance_section.data_sheet, is_covered=False),
    Section(id="ledger", title="Budget ledger", build=privacy_section.ledger, is_covered=True),
    Section(id="checklist", title="Disclosure checklist", build=checklist.checklist,
            is_covered=True),
    Section(id="settings", title="Configuration and versions", build=provenance_section.settings,
            is_covered=True),
)  # fmt: skip


def build_report(run_dir: Path, *, twin: Path | None = None) -> Path:
    """Writes `report/index.html`, `report/report.md` and `report/figures/` of a run.

    Args:
        run_dir: a run folder; whatever it lacks is said in place.
        twin: folder of the run to compare it with by patient; without one there is no such part.

    Returns:
        The page.

    Guarantee:
        The page loads nothing from elsewhere, holds no patient id that the folder's tables name,
        and no image unless the data sheet declares the data synthetic.
    """
    run = read_run(Path(run_dir), twin=twin)
    figures: list[Figure] = []
    environment = make_environment()
    shown = [section for section in SECTIONS if section.id != "twin" or twin is not None]
    sections = [(section, _render(environment, section, run, figures)) for section in shown]
    page = environment.get_template("page.html").render(
        title=page_title(run),
        run=run.run,
        is_finished=run.is_finished,
        stamp=stamp(run),
        sentences=headline(run),
        sections=sections,
        warnings=provenance_section.warnings(run),
        problems=_problems(run),
        outside=[section for section in shown if not section.is_covered],
        version=dpmed.__version__,
    )
    folder = run.folder / "report"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    write_figures(figures, folder / "figures")
    try:
        write_card(run, folder / "report.md")
    except DAMAGED as error:
        logger.warning("report.md could not be written: %r", error)
    return path


@functools.cache
def make_environment() -> jinja2.Environment:
    """Templates with escaping on, and the style and script that every page carries inline."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["compact"] = compact
    environment.filters["at_most_percent"] = percent_at_most
    environment.filters["moment"] = moment
    environment.filters["scientific"] = scientific
    environment.filters["quiet_intervals"] = quiet_intervals
    for name in ("plot.css", "page.css", "page.js"):
        content = (_TEMPLATES / name).read_text(encoding="utf-8")
        environment.globals[name.replace(".", "_")] = Markup(content)
    return environment


def page_title(run: RunFiles) -> str:
    """The experiment's name, or the folder's."""
    return str(run.run.get("experiment") or run.config.get("name") or run.folder.name)


def stamp(run: RunFiles) -> tuple[str, str]:
    """A loud line for runs that guarantee nothing, and what it means; empty for private runs."""
    if not run.plan:
        return "GUARANTEE UNKNOWN", "plan.json could not be read, so nothing is claimed."
    if not run.dp_enabled:
        return (
            "NO DIFFERENTIAL PRIVACY",
            "Trained without noise or clipping; nothing is guaranteed.",
        )
    if not run.is_private:
        return "NOT PRIVATE", "The noise came from an injected key, so it can be removed."
    return "", ""


def _render(
    environment: jinja2.Environment, section: Section, run: RunFiles, figures: list[Figure]
) -> Markup:
    try:
        content = section.build(run, figures)
        html = environment.get_template(f"{section.id}.html").render(**content)
    except Unavailable as reason:
        html = environment.get_template("unavailable.html").render(reason=str(reason))
    except DAMAGED as error:
        logger.warning("The section %r could not be built: %r", section.title, error)
        reason_text = f"The files hold something unexpected here ({type(error).__name__}: {error})."
        html = environment.get_template("unavailable.html").render(reason=reason_text)
    return Markup(html)


def _problems(run: RunFiles) -> list[str]:
    """What the files lack, and what the evaluation noted about them."""
    lacking = [text for name, text in run.problems.items() if not _is_expected(name, run)]
    notes = run.metrics.get("notes")
    return lacking + ([str(note) for note in notes] if isinstance(notes, list) else [])


def _is_expected(name: str, run: RunFiles) -> bool:
    """Files that a complete run may lack."""
    return name == "predictions/validation.parquet" or (
        name == "ledger.jsonl" and bool(run.plan) and not run.dp_enabled
    )
