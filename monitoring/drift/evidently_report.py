"""Draws a comparison with Evidently: HTML pages, and a run in a workspace that `evidently ui` shows.

Evidently only draws: the score, threshold and verdict of each column come from our rule, which is registered with
Evidently as a test. Importing this module takes seconds and 300 MB, so import it only in a process that makes reports.
"""

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

os.environ.setdefault("DO_NOT_TRACK", "1")  # no telemetry; read when evidently is imported

from evidently import DataDefinition, Dataset, Regression, Report
from evidently._pydantic_compat import PrivateAttr
from evidently.core.container import MetricContainer, MetricOrContainer
from evidently.core.metric_types import SingleValue, SingleValueCalculation
from evidently.core.report import Context, Snapshot
from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
from evidently.legacy.core import ColumnType
from evidently.metrics import MeanValue, ValueDrift
from evidently.presets import DataDriftPreset, RegressionPreset
from evidently.sdk.models import PanelMetric
from evidently.sdk.panels import line_plot_panel
from evidently.ui.workspace import Project, Workspace
from filelock import FileLock

from monitoring.drift.compare import Comparison
from monitoring.drift.files import write_whole, writing
from monitoring.drift.quality import widgets
from monitoring.drift.result import DriftResult, read_result
from monitoring.drift.rule import ERROR

KEPT_RUNS = 48  # of each project; a run takes about 2 MB
_ANY = 0.0001  # the least share of drifted columns that counts as data drift: one column is enough
_NOTE = "Drawn by Evidently, by the rule of Kanaria: a column drifts by its own threshold, and one column is enough."
_PAGES = {True: "How right the answers were", False: "What drifted, column by column"}
_NUMBERS, _WORDS = "largest difference of shares (KS)", "share of rows moved (TVD)"


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a report."""

    pages: tuple[Path, ...]  # drift, and quality if enough rows have feedback
    set_aside: Path | None  # where an unreadable workspace was moved


def write_report(comparison: Comparison, html: Path, workspace: Path) -> Written:
    """Write the pages of a comparison with enough rows, and add it to the workspace. Raises NotWritten."""
    drawn = {html: drift} if (drift := _drift(comparison)) else {}
    if comparison.result.labelled_rows >= comparison.result.min_rows and (quality := _quality(comparison)):
        drawn[html.with_stem(f"{html.stem}-quality")] = quality
    for path, snapshot in drawn.items():
        page = snapshot.get_html_str(as_iframe=False)
        others = [other.name for other in drawn if other != path]
        newest = read_result(html.with_suffix(".json"))
        if newest and newest.at_s > comparison.result.at_s:
            break  # a newer report finished while this one was drawn, and its pages stay
        write_whole(path, page.replace("<body>", f"<body>{_header(comparison.result, others)}", 1))
    # Evidently reads files there that another report, scheduled or manual, may be writing.
    with writing(workspace.parent), FileLock(workspace.with_suffix(".lock")):
        set_aside = _remember(drawn.values(), comparison.result, workspace)
    return Written(tuple(drawn), set_aside)


def _header(result: DriftResult, others: Iterable[str]) -> str:
    """The head of a page: the finding, the number of rows behind it, and links to the report's other pages."""
    lines = "".join(f"<p>{escape(line)}</p>" for line in (result.size, *result.left_out, _NOTE))
    title = f"<h1 style='font-size: 1.5rem'>{escape(result.sentence[:1].upper() + result.sentence[1:])}.</h1>"
    links = "".join(f"<p><a href='{escape(name)}'>{_PAGES['quality' in name]}</a></p>" for name in others)
    header = f"<header style='font-family: sans-serif; margin: 1rem 2rem'>{title}{lines}{links}</header>"
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", header).replace(" -&gt; ", "&nbsp;→ ")


def _drift(comparison: Comparison) -> Snapshot | None:
    """The drift page's snapshot; None if no column has values on both sides."""
    result = comparison.result
    found = {column.column: column for column in result.columns}

    def judged(_: pd.Series, current: pd.Series, _kind: ColumnType, _threshold: float) -> tuple[float, bool]:
        return found[current.name].score, found[current.name].has_drifted

    for name, kind in ((_NUMBERS, ColumnType.Numerical), (_WORDS, ColumnType.Categorical)):
        register_stattest(StatTest(name, name, [kind]), judged)
    _give_scores({name: column.score for name, column in found.items()})
    # As series, because not every row has feedback: Evidently leaves out missing values.
    frames = [
        pd.DataFrame({name: pd.Series(column.values) for name, column in side.compared.items() if name in found})
        for side in (comparison.current, comparison.reference)
    ]
    frames = [frame.replace([np.inf, -np.inf], np.nan) for frame in frames]
    empty = {name for frame in frames for name in frame if frame[name].isna().all()}  # Evidently cannot draw these
    frames = [frame.drop(columns=sorted(empty)) for frame in frames]
    numbers = [name for name in frames[0] if pd.api.types.is_numeric_dtype(frames[0][name])]
    words = [name for name in frames[0] if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=words)
    if not len(frames[0].columns):
        return None
    preset = _Drift(
        columns=list(frames[0]),
        num_method=_NUMBERS,
        cat_method=_WORDS,
        # In the order of the columns, not of their scores: Evidently starts a new history for another configuration.
        per_column_threshold={name: found[name].threshold for name in frames[0]},
        drift_share=_ANY,
    )
    preset._headline = _headline(result)  # noqa: SLF001 - pydantic requires the underscore for a non-option
    return _run(Report([preset]), frames, definition, result, "drift")


def _quality(comparison: Comparison) -> Snapshot | None:
    """The quality page's snapshot; None if one side has no answer with a known truth."""
    result = comparison.result
    sides = [answers.known() for answers in (comparison.current.answers, comparison.reference.answers)]
    if not all(map(len, sides)):
        return None
    if all(answers.is_numeric for answers in sides):
        frames = [pd.DataFrame({"truth": answers.truth, "label": answers.label}) for answers in sides]
        definition = DataDefinition(
            numerical_columns=["truth", "label"], regression=[Regression(target="truth", prediction="label")]
        )
        return _run(Report([RegressionPreset()]), frames, definition, result, "quality")
    frames = [pd.DataFrame({ERROR: answers.mistakes.values}) for answers in sides]
    classes = _Classes()
    classes._shown = widgets(*sides, is_trained=result.kind == "data")  # noqa: SLF001 - as above
    return _run(Report([classes]), frames, DataDefinition(numerical_columns=[ERROR]), result, "quality")


def _give_scores(scores: Mapping[str, float]) -> None:
    """Make Evidently use the scores given here.

    For its history it would compare and draw every column again. That takes a third of a report's CPU time, and no page
    shows it: the preset draws the pictures on the page.
    """

    class _Score(SingleValueCalculation[ValueDrift]):  # type: ignore[misc] # Evidently has no types
        def calculate(self, *_: object) -> SingleValue:
            score = self.result(scores[self.metric.column])
            score.widget = []
            return score

        def display_name(self) -> str:
            return f"Value drift for {self.metric.column}"


class _Drift(DataDriftPreset):  # type: ignore[misc] # Evidently has no types
    """Evidently's page of drift; its headline names our thresholds instead of a share of columns."""

    _headline: dict[str, str] = PrivateAttr(default_factory=dict)

    def render(self, context: Context, child_widgets: Any = None) -> list[Any]:
        shown: list[Any] = super().render(context, child_widgets)
        shown[0].params["counters"] = [self._headline]
        return shown


class _Classes(MetricContainer):  # type: ignore[misc] # as above
    """Shows how right the answers were, class by class; the history keeps the share of mistakes."""

    _shown: list[Any] = PrivateAttr(default_factory=list)

    def generate_metrics(self, context: Context) -> list[MetricOrContainer]:  # noqa: ARG002 - Evidently passes it
        return [MeanValue(column=ERROR)]

    def render(self, context: Context, child_widgets: Any = None) -> list[Any]:  # noqa: ARG002 - as above
        return self._shown


def _headline(result: DriftResult) -> dict[str, str]:
    others = ", ".join(sorted({f"{one.threshold:g}" for one in result.columns if one.column != ERROR}))
    mistakes = "".join(f" (`{ERROR}`: {one.threshold:g})" for one in result.columns if one.column == ERROR)
    return {
        "value": "Drift" if result.drifted else "No drift",
        "label": f"Drifted: {len(result.drifted)} of {len(result.columns)} columns. A score of at least {others}"
        f"{mistakes} counts as drift if it is significant.",
    }


def _run(
    report: Report, frames: list[pd.DataFrame], definition: DataDefinition, result: DriftResult, what: str
) -> Snapshot:
    current, reference = (Dataset.from_pandas(frame, definition) for frame in frames)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # columns that never change have no correlation, bins of one row no R2
        return report.run(
            current,
            reference,
            timestamp=datetime.fromtimestamp(result.at_s, UTC),
            metadata={"version": result.version, "against": result.against, "found": result.sentence},
            tags=[what, result.kind, result.state.value],
            name=f"{what} of {result.version}",
        )


def _remember(snapshots: Iterable[Snapshot], result: DriftResult, folder: Path) -> Path | None:
    """Add the runs to the history. Returns: where an unreadable history was moved; None: it was readable."""
    name = f"{result.version.partition(':')[0]}: {'traffic against training' if result.kind == 'data' else 'releases'}"
    (workspace, projects), set_aside = _history(folder)
    project = projects.get(name) or workspace.create_project(name)
    if not project.dashboard.model().panels:
        share = PanelMetric(metric="DriftedColumnsCount", metric_labels={"value_type": "share"}, legend="share")
        project.dashboard.add_panel(line_plot_panel("Drifted columns, share of all", [share]))
    for snapshot in snapshots:
        workspace.add_run(project.id, snapshot)
    with suppress(FileNotFoundError):
        runs = sorted(workspace.list_runs(project.id), key=str)  # their ids rise with time
        for run in runs[:-KEPT_RUNS]:
            workspace.delete_run(project.id, run)
    return set_aside


def _history(folder: Path) -> tuple[tuple[Workspace, dict[str, Project]], Path | None]:
    """The workspace in `folder` with its projects by name, and where a broken workspace was moved.

    Evidently writes its files in place. If a report is killed while writing, half a file stays, and then nothing in the
    workspace can be read.
    """
    try:
        return _opened(folder), None
    except (ValueError, AttributeError):  # half a file, or a project's folder without its description
        set_aside = folder.with_name(f"{folder.name}-broken-{datetime.now(UTC):%Y%m%dT%H%M%S}")
        folder.rename(set_aside)
        return _opened(folder), set_aside


def _opened(folder: Path) -> tuple[Workspace, dict[str, Project]]:
    """Open a workspace and read every run, project and dashboard, as `evidently ui` does."""
    workspace = Workspace.create(str(folder))
    projects = {project.name: project for project in workspace.list_projects()}
    for project in projects.values():
        project.dashboard.model()
    return workspace, projects
