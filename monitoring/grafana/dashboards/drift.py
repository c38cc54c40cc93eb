"""The drift row: how far traffic moved from the reference data, and a canary from stable."""

from contract import metrics as m
from monitoring.grafana.dashboards.board import Row
from monitoring.grafana.dashboards.needs import Needs
from monitoring.grafana.dashboards.panels import bars, graph, number
from monitoring.grafana.dashboards.style import BAD, GOOD, PLAIN, WARN, About, Query

_REPORT = ("Drift report", "/drift/data")


def _shares_of_threshold(kind: str) -> str:
    """Each column's score as a share of its threshold."""
    score, threshold = (f'{metric}{{kind="{kind}"}}' for metric in (m.DRIFT_SCORE, m.DRIFT_THRESHOLD))
    return f"max by (column) ({score} / on (version, column) {threshold})"


def drift() -> Row:
    """Scores beside their thresholds, with links to the reports."""
    data, release = _shares_of_threshold("data"), _shares_of_threshold("release")
    return Row(
        "Drift",
        (
            number(
                About(
                    "Traffic against the reference data",
                    "The result of the newest report. Too few rows is not the same as no drift.",
                    "bool",
                    ((None, PLAIN), (1, "blue")),
                    "KanariaDataDrift",
                    Needs.DRIFT,
                    _REPORT,
                ),
                Query(f'{m.DRIFT_STATE}{{kind="data"}} == 1', "{{version}}: {{state}}", form="now"),
                shows="name",
                span=8,
                has_history=False,
                none="no report yet",
            ),
            number(
                About(
                    "Rows compared",
                    "Rows that the newest report compared, a random sample if there were more.",
                    "short",
                    ((None, WARN), (200, GOOD)),
                    "KanariaDataDrift",
                    Needs.DRIFT,
                    _REPORT,
                ),
                Query(f'{m.DRIFT_ROWS}{{kind="data"}}', "rows", form="now"),
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
                Query(f'time() - ({m.DRIFT_LAST_RUN}{{kind="data"}} > 0)', "age", form="now"),
                span=8,
                has_history=False,
            ),
            bars(
                About(
                    "Columns that moved most",
                    "Distance of each column from the reference data, as a share of its threshold; at 1 or more it "
                    "counts as drifted unless chance explains it. The report shows how its distribution changed.",
                    "percentunit",
                    ((None, GOOD), (0.8, WARN), (1, BAD)),
                    "KanariaDataDrift",
                    Needs.DRIFT_SCORES,
                    _REPORT,
                ),
                Query(f"sort_desc({data})", "{{column}}", form="now"),
                top=2,
                height=10,
            ),
            graph(
                About(
                    "Data drift over time",
                    "The same, report by report. It is not evidence against a canary; it suggests retraining.",
                    "percentunit",
                    ((None, GOOD), (0.8, WARN), (1, BAD)),
                    "KanariaDataDrift",
                    Needs.DRIFT_SCORES,
                    _REPORT,
                ),
                Query(data, "{{column}}"),
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
                Query(release, "{{column}}"),
                span=24,
                is_stepped=True,
                has_limits=True,
            ),
        ),
    )
