"""The overview board, to open first: the objectives, their budgets, and requests, errors and durations by version."""

from contract import metrics as m
from monitoring.grafana.dashboards.board import Board, Row
from monitoring.grafana.dashboards.needs import Needs
from monitoring.grafana.dashboards.objectives import objectives
from monitoring.grafana.dashboards.panels import graph, number, states
from monitoring.grafana.dashboards.phases import PHASES, phase
from monitoring.grafana.dashboards.promql import DURATION, REQUESTS, quantile, share, total
from monitoring.grafana.dashboards.style import BAD, GOOD, PLAIN, WARN, About, Query

_ANSWERED, _BY_ITSELF = 'version!=""', 'version=""'  # requests that the gateway itself answers have no version
_NONE = 'label_replace(vector(0), "code", "none", "", "")'
_FAILED = 'code=~"5.."'


def overview() -> Board:
    """uid `kanaria-overview`."""
    return Board(
        uid="kanaria-overview",
        title="Kanaria / Overview",
        description="Objectives and their budgets, and each version's requests, errors and durations.",
        range="6h",
        rows=(_now(), objectives(), _requests(), _machinery()),
    )


def _now() -> Row:
    return Row(
        "Now",
        (
            number(
                About(
                    "Alerts firing",
                    "Alerts of Kanaria that fire now. The runbooks say what each means and what to do.",
                    "none",
                    ((None, GOOD), (1, BAD)),
                    "",
                    Needs.SCRAPES,
                ),
                Query('count(ALERTS{alertstate="firing",alertname=~"Kanaria.*"}) or vector(0)', "firing"),
                has_history=False,
            ),
            number(
                About(
                    "Stable version",
                    "The version to which all traffic falls back. Red: it does not answer its readiness probe.",
                    "bool",
                    ((None, BAD), (1, GOOD)),
                    "KanariaStableDown",
                ),
                Query(f'{m.VERSION_UP}{{role="stable"}}', "{{version}}", form="now"),
                shows="name",
                has_history=False,
            ),
            number(
                About(
                    "Newest release",
                    "The phase of the newest release, or its outcome.",
                    "none",
                    ((None, PLAIN),),
                    "KanariaReleaseStuck",
                    Needs.RELEASE,
                ),
                Query(phase(), "phase", form="now"),
                names=PHASES,
                has_history=False,
                none="no release yet",
            ),
            number(
                About(
                    "Requests",
                    "POST /predict per second at the gateway. Red at zero: without traffic nothing can be judged.",
                    "reqps",
                    ((None, BAD), (0.01, GOOD)),
                    "KanariaNoTraffic",
                ),
                Query(total(REQUESTS), "requests"),
            ),
            number(
                About(
                    "Failed",
                    "Share of requests answered 5xx, timeouts and lost connections included, whatever the cause.",
                    "percentunit",
                    ((None, GOOD), (0.001, WARN), (0.01, BAD)),
                    "KanariaAvailabilityBudgetBurnsFast",
                ),
                Query(share(REQUESTS, _FAILED), "failed"),
            ),
            number(
                About(
                    "99 % answered within",
                    "99 of 100 requests take less than this at the gateway. It is interpolated between bucket bounds.",
                    "ms",
                    ((None, GOOD), (100, WARN), (250, BAD)),
                    "KanariaLatencyBudgetBurnsFast",
                ),
                Query(quantile(0.99, DURATION), "p99"),
            ),
        ),
    )


def _requests() -> Row:
    return Row(
        "Each version: rate, errors, duration",
        (
            graph(
                About(
                    "Requests by version",
                    "POST /predict per second by the version that answered. The canary's share should follow "
                    "its weight; less means that its requests fall back to stable.",
                    "reqps",
                    ((None, BAD), (0.01, GOOD)),
                    "KanariaNoTraffic",
                ),
                Query(f"{total(REQUESTS, _ANSWERED, by='version')} > 0", "{{version}}"),
                span=8,
                stack="normal",
            ),
            graph(
                About(
                    "Failed, by version",
                    "Share of a version's requests answered 5xx, timeouts and lost connections included.",
                    "percentunit",
                    ((None, GOOD), (0.001, WARN), (0.01, BAD)),
                    "KanariaAvailabilityBurnedByVersion",
                ),
                Query(share(REQUESTS, _FAILED, _ANSWERED, by="version"), "{{version}}"),
                span=8,
                has_limits=True,
            ),
            graph(
                About(
                    "Duration by version",
                    "Half of the requests, and 99 of 100, take less than this at the gateway. It is interpolated "
                    "between the bounds 5, 10, 25, 50, 100, 250 ms and so on, so it is only that exact.",
                    "ms",
                    ((None, GOOD), (100, WARN), (250, BAD)),
                    "KanariaLatencyBurnedByVersion",
                ),
                Query(quantile(0.5, DURATION, _ANSWERED, by="version"), "{{version}} p50"),
                Query(quantile(0.99, DURATION, _ANSWERED, by="version"), "{{version}} p99"),
                span=8,
            ),
        ),
    )


def _machinery() -> Row:
    return Row(
        "Health of Kanaria itself",
        (
            states(
                About(
                    "Versions that answer",
                    "Readiness of every running version. A canary that is down does not affect clients: its requests "
                    "go to stable.",
                    "bool",
                    ((None, BAD), (1, GOOD)),
                    "KanariaStableDown",
                ),
                {
                    "{{version}}": (
                        f"max by (version) ({m.VERSION_UP})",
                        {"0": ("down", BAD), "1": ("ready", GOOD)},
                    )
                },
                span=8,
            ),
            graph(
                About(
                    "Answered by no version",
                    "Requests that the gateway itself answered, by status: 401 no valid key, 413 too large, "
                    "429 too many, 503 no version can take it.",
                    "reqps",
                    ((None, GOOD), (1, WARN)),
                    "KanariaStableDown",
                    Needs.SCRAPES,
                ),
                Query(f"{total(REQUESTS, _BY_ITSELF, by='code')} or {_NONE}", "{{code}}"),
                span=8,
                height=6,
            ),
            graph(
                About(
                    "Lost data and refused splits",
                    "Per second: failed readings of the metric source, splits that the gateway refused, rows that the "
                    "prediction log dropped, answers that were not kept, and failures of the threads that write "
                    "both. All should be zero.",
                    "cps",
                    ((None, GOOD), (0.001, WARN), (0.1, BAD)),
                    "KanariaSourceUnreachable",
                    Needs.SCRAPES,
                ),
                Query(total(m.SOURCE_UNREACHABLE.name), "readings missing"),
                Query(total(m.ROUTER_FAILURES.name), "splits refused"),
                Query(total(m.PREDICTION_LOG_DROPPED.name), "log rows dropped"),
                Query(total(m.ANSWERS_DROPPED.name), "answers not kept"),
                Query(total(m.LOG_FAILURES.name), "log failures"),
                span=8,
                height=6,
                has_limits=True,
            ),
            graph(
                About(
                    "Age of the last beat",
                    "Seconds since the control loop last ran. Above 30 s nothing is judged or rolled back.",
                    "s",
                    ((None, GOOD), (10, WARN), (30, BAD)),
                    "KanariaControllerStuck",
                    Needs.SCRAPES,
                ),
                Query(f"time() - {m.LAST_BEAT}", "controller"),
                height=6,
                has_limits=True,
            ),
            graph(
                About(
                    "Time of a scrape",
                    "How long Prometheus waits for each page of metrics. Slow pages delay evidence.",
                    "s",
                    ((None, GOOD), (0.5, WARN), (2, BAD)),
                    "KanariaScrapeSlow",
                    Needs.SCRAPES,
                ),
                Query("max by (job) (scrape_duration_seconds)", "{{job}}"),
                height=6,
                has_limits=True,
            ),
        ),
    )
