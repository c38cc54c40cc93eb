"""The rows that hold the canary beside stable: at the gateway, and in the answers. Pure; `release` shows them."""

from monitoring.dashboards.board import Row
from monitoring.dashboards.chosen import COLORS, OF_CANARY, OF_STABLE, REPORT, of_release
from monitoring.dashboards.drawings import graph, grouped
from monitoring.dashboards.needs import Needs
from monitoring.dashboards.promql import (
    COPIES,
    COPY_DURATION,
    DURATION,
    REQUESTS,
    class_shares,
    quantile,
    share,
    slower,
    unsure,
)
from monitoring.dashboards.style import BAD, GOOD, WARN, About, Panel, Query


def at_the_gateway() -> Row:
    """Errors and latency, as users have them."""
    failed, copy_failed = 'code=~"5.."', 'envoy_response_code_class="5"'
    return Row(
        "Canary against stable, at the gateway",
        (
            _pair(
                About(
                    "Failed",
                    "Share answered 5xx, timeouts and lost connections included.",
                    "percentunit",
                    ((None, GOOD), (0.01, WARN), (0.2, BAD)),
                    "KanariaAvailabilityBurnedByVersion",
                    Needs.RELEASE,
                    REPORT,
                ),
                share(REQUESTS, failed, OF_CANARY),
                share(REQUESTS, failed, OF_STABLE),
                share(COPIES, copy_failed),
            ),
            _pair(
                About(
                    "Slower than 100 ms",
                    "Share of requests above this bucket bound: what the latency signals compare, and exact.",
                    "percentunit",
                    ((None, GOOD), (0.05, WARN), (0.2, BAD)),
                    "KanariaLatencyBurnedByVersion",
                    Needs.RELEASE,
                    REPORT,
                ),
                slower(DURATION, "100", OF_CANARY),
                slower(DURATION, "100", OF_STABLE),
                slower(COPY_DURATION, "100"),
            ),
            _pair(
                About(
                    "99 % answered within",
                    "Interpolated between bucket bounds, so only roughly comparable near one.",
                    "ms",
                    ((None, GOOD), (100, WARN), (250, BAD)),
                    "KanariaLatencyBurnedByVersion",
                    Needs.RELEASE,
                    REPORT,
                ),
                quantile(0.99, DURATION, OF_CANARY),
                quantile(0.99, DURATION, OF_STABLE),
                quantile(0.99, COPY_DURATION),
            ),
        ),
    )


def in_the_answers() -> Row:
    """Confidence, labels, disagreement and predicted classes."""
    wrong = 'outcome="wrong"'
    return Row(
        "Canary against stable, in the answers",
        (
            _pair(
                About(
                    "Confidence under 0.5",
                    "Share of answered rows. A canary that is unsure where stable was not has learned something else.",
                    "percentunit",
                    ((None, GOOD), (0.1, WARN), (0.3, BAD)),
                    "KanariaReleaseDrift",
                    Needs.RELEASE,
                    REPORT,
                ),
                unsure(OF_CANARY),
                unsure(OF_STABLE),
            ),
            _pair(
                About(
                    "Wrong labels",
                    "Share of the rows whose true label came later through /feedback, by the version that answered.",
                    "percentunit",
                    ((None, GOOD), (0.1, WARN), (0.3, BAD)),
                    "KanariaQualityBurnedByVersion",
                    Needs.CANARY_LABELS,
                    REPORT,
                ),
                share("kanaria_feedback_total", wrong, OF_CANARY),
                share("kanaria_feedback_total", wrong, OF_STABLE),
            ),
            graph(
                About(
                    "Answers unlike stable's, in the shadow step",
                    "Share of rows that both versions answered and labelled differently. A better model differs too; "
                    "`signals.disagreement.at_most` in the plan says how much may.",
                    "percentunit",
                    ((None, GOOD), (0.1, WARN), (0.2, BAD)),
                    "KanariaReleaseDrift",
                    Needs.SHADOW,
                    REPORT,
                ),
                Query(share("kanaria_disagreement_total", 'outcome="different"', OF_CANARY), "canary $canary"),
                span=8,
                colors=COLORS,
                has_limits=True,
            ),
            grouped(
                About(
                    "Predicted classes",
                    "Share of each class among a version's answered rows, over the time shown. Bars of one class "
                    "should be equally long; what a version hardly predicts any more it has forgotten.",
                    "percentunit",
                    ((None, "blue"),),
                    "KanariaReleaseDrift",
                    Needs.RELEASE,
                    REPORT,
                ),
                Query(class_shares('version=~"$stable|$canary"'), form="table"),
                rows="label",
                columns="version",
                span=24,
            ),
        ),
    )


def _pair(about: About, canary: str, stable: str, copies: str | None = None) -> Panel:
    """Both versions in one graph, and in the shadow step the copies."""
    queries = [Query(stable, "stable $stable"), Query(canary, "canary $canary")]
    if copies is not None:
        queries.append(Query(of_release(copies), "copies to $canary", Needs.SHADOW))
    return graph(about, *queries, span=8, colors=COLORS)
