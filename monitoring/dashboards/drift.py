"""The row of drift: how far traffic moved from the training data, and a canary from stable. Pure; `model` shows it."""

from monitoring.dashboards.board import Row
from monitoring.dashboards.drawings import bars, graph, number
from monitoring.dashboards.needs import Needs
from monitoring.dashboards.style import BAD, GOOD, PLAIN, WARN, About, Query

_REPORT = ("Drift report", "/drift/data")


def drift() -> Row:
    """Scores beside their thresholds, with links to the reports."""
    score, threshold = (f'kanaria_drift_{name}{{kind="data"}}' for name in ("score", "threshold"))
    by_column = f"max by (column) ({score} / on (version, column) {threshold})"
    release = 'kanaria_drift_{}{{kind="release"}}'
    return Row(
        "Drift",
        (
            number(
                About(
                    "Traffic against the training data",
                    "What the newest report came to. Too few rows is no answer, and not the same as no drift.",
                    "bool",
                    ((None, PLAIN), (1, "blue")),
                    "KanariaDataDrift",
                    Needs.DRIFT,
                    _REPORT,
                ),
                Query('kanaria_drift_state{kind="data"} == 1', "{{version}}: {{state}}", form="now"),
                shows="name",
                span=8,
                has_history=False,
                none="no report yet",
            ),
            number(
                About(
                    "Rows compared",
                    "Rows that the newest report rests on, sampled where there were more.",
                    "short",
                    ((None, WARN), (200, GOOD)),
                    "KanariaDataDrift",
                    Needs.DRIFT,
                    _REPORT,
                ),
                Query('kanaria_drift_rows{kind="data"}', "rows", form="now"),
                span=8,
                has_history=False,
            ),
            number(
                About(
                    "Age of the report",
                    "A report that is a day old says nothing about today.",
                    "s",
                    ((None, GOOD), (7200, WARN), (86400, BAD)),
                    "KanariaDriftReportOld",
                    Needs.DRIFT,
                    _REPORT,
                ),
                Query('time() - (kanaria_drift_last_run_timestamp_seconds{kind="data"} > 0)', "age", form="now"),
                span=8,
                has_history=False,
            ),
            bars(
                About(
                    "Columns that moved most",
                    "Distance of each column from the training data, as a share of its threshold; from 1 on it counts "
                    "as drifted if it is no chance. The report shows how its distribution changed.",
                    "percentunit",
                    ((None, GOOD), (0.8, WARN), (1, BAD)),
                    "KanariaDataDrift",
                    Needs.DRIFT_SCORES,
                    _REPORT,
                ),
                Query(f"sort_desc({by_column})", "{{column}}", form="now"),
                top=2,
                height=10,
            ),
            graph(
                About(
                    "Data drift over time",
                    "The same, report by report. It never accuses a canary; it suggests training anew.",
                    "percentunit",
                    ((None, GOOD), (0.8, WARN), (1, BAD)),
                    "KanariaDataDrift",
                    Needs.DRIFT_SCORES,
                    _REPORT,
                ),
                Query(by_column, "{{column}}"),
                span=16,
                height=10,
                is_stepped=True,
                has_limits=True,
            ),
            graph(
                About(
                    "Release drift over time",
                    "Canary against stable over the same minutes, as a share of each column's threshold: part of the "
                    "release's report, and with `on_drift: rollback` a reason to roll back.",
                    "percentunit",
                    ((None, GOOD), (0.8, WARN), (1, BAD)),
                    "KanariaReleaseDrift",
                    Needs.RELEASE_DRIFT,
                    ("Drift report of the release", "/drift/release"),
                ),
                Query(
                    f"max by (column) ({release.format('score')} / on (version, column) {release.format('threshold')})",
                    "{{column}}",
                ),
                span=24,
                is_stepped=True,
                has_limits=True,
            ),
        ),
    )
