"""The board for the first look: are the objectives met, what is left of their budgets, who answers how. Pure."""

from monitoring.dashboards.board import Board, Row
from monitoring.dashboards.drawings import graph, number, states
from monitoring.dashboards.needs import Needs
from monitoring.dashboards.objectives import objectives
from monitoring.dashboards.phases import PHASES, phase
from monitoring.dashboards.promql import DURATION, REQUESTS, quantile, share, total
from monitoring.dashboards.style import BAD, GOOD, PLAIN, WARN, About, Query

_ANSWERED, _BY_ITSELF = 'version!=""', 'version=""'  # requests that the gateway answers by itself have no version
_NONE = 'label_replace(vector(0), "code", "none", "", "")'
_FAILED = 'code=~"5.."'


def overview() -> Board:
    """uid `kanaria-overview`."""
    return Board(
        uid="kanaria-overview",
        title="Kanaria / Overview",
        description="Is it well? Objectives, budgets, and each version's requests, errors and durations.",
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
                    "Alerts of Kanaria that fire now. Open the runbooks for what each means and what to type.",
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
                    "The version that all traffic falls back to. Red: it does not answer its readiness probe.",
                    "bool",
                    ((None, BAD), (1, GOOD)),
                    "KanariaStableDown",
                ),
                Query('kanaria_version_up{role="stable"}', "{{version}}", form="now"),
                shows="name",
                has_history=False,
            ),
            number(
                About(
                    "Newest release",
                    "The phase that the newest release is in, or what became of it.",
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
                    "POST /predict per second at the gateway. Red at zero: with no traffic nothing can be judged.",
                    "reqps",
                    ((None, BAD), (0.01, GOOD)),
                    "KanariaNoTraffic",
                ),
                Query(total(REQUESTS), "requests"),
            ),
            number(
                About(
                    "Failed",
                    "Share of requests answered 5xx, timeouts and lost connections included, whoever is to blame.",
                    "percentunit",
                    ((None, GOOD), (0.001, WARN), (0.01, BAD)),
                    "KanariaAvailabilityBudgetBurnsFast",
                ),
                Query(share(REQUESTS, _FAILED), "failed"),
            ),
            number(
                About(
                    "99 % answered within",
                    "Duration at the gateway that 99 of 100 requests stay under, interpolated between bucket bounds.",
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
                    "POST /predict per second by the version that answered. What the canary has here should follow "
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
                    "What half and 99 of 100 requests stay under, at the gateway. Interpolated between the bounds "
                    "5, 10, 25, 50, 100, 250 ms and so on, so a p99 near a bound is only that exact.",
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
        "The machinery",
        (
            states(
                About(
                    "Versions that answer",
                    "Readiness of every version that runs. A canary that is down costs clients nothing: its requests "
                    "go to stable.",
                    "bool",
                    ((None, BAD), (1, GOOD)),
                    "KanariaStableDown",
                ),
                {
                    "{{version}}": (
                        "max by (version) (kanaria_version_up)",
                        {"0": ("down", BAD), "1": ("ready", GOOD)},
                    )
                },
                span=8,
            ),
            graph(
                About(
                    "Answered by no version",
                    "Requests that the gateway answered by itself, by status: 401 no valid key, 413 too large, "
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
                    "What may blind the judge",
                    "Readings that the metric source did not give, splits that the gateway refused, and rows that the "
                    "prediction log had to drop, per second. All should be zero.",
                    "cps",
                    ((None, GOOD), (0.001, WARN), (0.1, BAD)),
                    "KanariaSourceUnreachable",
                    Needs.SCRAPES,
                ),
                Query(total("kanaria_source_unreachable_total"), "readings missing"),
                Query(total("kanaria_router_failures_total"), "splits refused"),
                Query(total("kanaria_prediction_log_dropped_total"), "log rows dropped"),
                Query(total("kanaria_answers_dropped_total"), "answers that no label can be joined to"),
                span=8,
                height=6,
                has_limits=True,
            ),
            graph(
                About(
                    "Age of the last look",
                    "Seconds since the control loop last turned. Beyond 30 s nothing is judged or rolled back.",
                    "s",
                    ((None, GOOD), (10, WARN), (30, BAD)),
                    "KanariaControllerStuck",
                    Needs.SCRAPES,
                ),
                Query("time() - kanaria_controller_last_tick_timestamp_seconds", "controller"),
                height=6,
                has_limits=True,
            ),
            graph(
                About(
                    "Time of a scrape",
                    "How long Prometheus waits for each page of metrics. Slow pages make evidence late.",
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
