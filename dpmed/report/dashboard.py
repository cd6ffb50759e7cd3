"""The W&B workspace and report of a project as code: the views that the runs of dpmed fill.

`specification` builds both without a network, so that they can be checked and kept under version
control; `publish` sends them. They show the keys that `dpmed.stages.wandb_results` writes. Nothing
here reads a run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from dpmed.errors import UserError
from dpmed.report.numbers import label_name
from dpmed.report.wandb_keys import CHARTS, CONDITION, EPSILON, GAP, MACRO, TABLES, auroc_key

TITLE = "Private, fair and accurate"
_COLUMNS = (
    "run:displayName",
    f"summary:{EPSILON}",
    "summary:plan/delta",
    f"summary:{MACRO}",
    f"config:{CONDITION}.value",
)
_NOT_COVERED = (
    "Figures on test patients are computed without noise: epsilon covers the released weights, "
    "not these figures. Runs on the same patients compose; the ledger of the data set adds them up."
)


def specification(*, project: str, entity: str, labels: Sequence[str]) -> dict[str, Any]:
    """Workspace and report in the form that W&B stores, made without a connection.

    Args:
        project: W&B project of the runs (`logger.project`).
        entity: user or team; may be empty where nothing is published.
        labels: labels that get a panel each.
    """
    workspace = _workspace(project, entity, labels)
    report = _report(project, entity, labels)
    return {
        "workspace": workspace._to_model().model_dump(mode="json", by_alias=True),
        "report": report._to_model().model_dump(mode="json", by_alias=True),
    }


def write_specification(path: Path, *, project: str, entity: str, labels: Sequence[str]) -> Path:
    """Writes `specification` as JSON."""
    content = specification(project=project, entity=entity, labels=labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def publish(*, project: str, entity: str, labels: Sequence[str]) -> list[str]:
    """Saves both to W&B and returns their addresses.

    Raises:
        UserError: no entity, or W&B refuses (no account, no such project).
    """
    if not entity:
        raise UserError(
            "--entity is missing: name the W&B user or team that owns the project, or write the "
            "specification alone with --spec FILE."
        )
    try:
        return _publish(project, entity, labels)
    # The client raises its own errors, plain exceptions and those of its transport.
    except Exception as error:
        raise UserError(
            f"W&B took no dashboard for {entity}/{project}: {error} Log in with `wandb login`, and "
            "upload offline runs with `wandb sync` first."
        ) from None


def _publish(project: str, entity: str, labels: Sequence[str]) -> list[str]:
    workspace = _workspace(project, entity, labels).save()
    report = _report(project, entity, labels)
    report.save()
    return [str(workspace.url), str(report.url)]


def _workspace(project: str, entity: str, labels: Sequence[str]) -> ws.Workspace:
    return ws.Workspace(
        entity=entity,
        project=project,
        name=TITLE,
        sections=[
            ws.Section(name="What privacy costs", panels=_cost_panels(), is_open=True, pinned=True),
            ws.Section(name="By label", panels=_label_panels(labels), is_open=True),
            ws.Section(name="For whom", panels=_group_panels(), is_open=True),
            ws.Section(name="Training", panels=_training_panels()),
            ws.Section(name="Reports and tables", panels=_file_panels()),
        ],
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Metric("Group"), ws.Config(CONDITION)],
            pinned_columns=list(_COLUMNS),
        ),
    )


def _report(project: str, entity: str, labels: Sequence[str]) -> wr.Report:
    # Without a project of its own the run set is that of the report, and nothing is looked up.
    runset = wr.Runset(
        name="All runs",
        groupby=["group", f"config.{CONDITION}"],
        pinned_columns=list(_COLUMNS),
    )
    parts: list[Any] = [wr.TableOfContents(), wr.CalloutBlock(_NOT_COVERED)]
    for heading, panels in (
        ("What privacy costs", _cost_panels()),
        ("By label", _label_panels(labels)),
        ("For whom", _group_panels()),
        ("Training, by steps alone", _training_panels()),
        ("Reports and tables of each run", _file_panels()),
    ):
        parts += [wr.H1(heading), wr.PanelGrid(runsets=[runset], panels=panels)]
    return wr.Report(
        project=project,
        entity=entity,
        title=TITLE,
        description="Runs of dpmed: how good, for whom, and what is guaranteed.",
        blocks=parts,
        width="fluid",
    )


def _cost_panels() -> list[Any]:
    return [
        wr.ScatterPlot(
            title="AUROC, mean over labels, against epsilon",
            x=wr.SummaryMetric(EPSILON),
            y=wr.SummaryMetric(MACRO),
            log_x=True,
        ),
        wr.BarPlot(
            title="AUROC, mean over labels, by condition",
            metrics=[wr.SummaryMetric(MACRO)],
            groupby=wr.Config(CONDITION),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        ),
        wr.ParallelCoordinatesPlot(
            title="Settings against the result",
            columns=[
                wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(EPSILON), log=True),
                wr.ParallelCoordinatesPlotColumn(metric=wr.Config("init.source")),
                wr.ParallelCoordinatesPlotColumn(metric=wr.Config("seed")),
                wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(MACRO)),
            ],
        ),
    ]


def _label_panels(labels: Sequence[str]) -> list[Any]:
    return [
        wr.BarPlot(
            title=f"AUROC, {label_name(label)}",
            metrics=[wr.SummaryMetric(auroc_key(label))],
            groupby=wr.Config(CONDITION),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )
        for label in labels
    ]


def _group_panels() -> list[Any]:
    return [
        wr.ScatterPlot(
            title=f"AUROC gap by {attribute} against epsilon",
            x=wr.SummaryMetric(EPSILON),
            y=wr.SummaryMetric(GAP.format(attribute=attribute)),
            log_x=True,
        )
        for attribute in ("sex", "age")
    ]


def _training_panels() -> list[Any]:
    return [
        wr.LinePlot(title="Epsilon spent", x="Step", y=["epsilon"]),
        wr.LinePlot(title="Learning rate", x="Step", y=["learning_rate"]),
    ]


def _file_panels() -> list[Any]:
    media = wr.MediaBrowser(title="The report of each run", media_keys=["report"], num_columns=1)
    tables = [wr.WeavePanelSummaryTable(table_name=name) for name in TABLES.values()]
    return [media, *_curve_panels(), *tables]


def _curve_panels() -> list[Any]:
    """W&B's own line charts over the tables that each run logs with its curves."""
    return [
        wr.CustomChart(
            query={"summaryTable": {"tableKey": f"{name}_table"}},
            chart_name="wandb/line/v0",
            chart_fields={"x": "x", "y": "y", "stroke": "label"},
            chart_strings={"title": title},
        )
        for name, title in CHARTS.items()
    ]
