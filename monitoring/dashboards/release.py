"""The board of one release: its weight, the evidence against it, canary beside stable, every decision. Pure."""

from monitoring.dashboards.board import Board, Row, Variable
from monitoring.dashboards.chosen import COLORS, OF_CANARY, OF_STABLE, REPORT, WHY, of_release
from monitoring.dashboards.comparison import at_the_gateway, in_the_answers
from monitoring.dashboards.drawings import graph, number
from monitoring.dashboards.evidence import combined_share, evidence
from monitoring.dashboards.needs import Needs
from monitoring.dashboards.phases import PHASES, VERDICTS, phase, verdict
from monitoring.dashboards.promql import (
    COPIES,
    REQUESTS,
    total,
)
from monitoring.dashboards.style import BAD, CANARY, GOOD, PLAIN, STABLE, WARN, About, Query


def release() -> Board:
    """uid `kanaria-release`."""
    info = 'kanaria_release_info{release="$release"}'
    return Board(
        uid="kanaria-release",
        title="Kanaria / Release",
        description="One release: what share of the traffic it has, what speaks against it, what was decided.",
        range="1h",
        rows=(_standing(), evidence(), at_the_gateway(), in_the_answers()),
        variables=(
            Variable(
                "release",
                "Release",
                "Number of a release that ran in the time shown",
                "label_values(kanaria_release_info, release)",
                is_number=True,
            ),
            Variable("canary", "Canary", "The version on trial", f"label_values({info}, canary)", is_hidden=True),
            Variable("stable", "Stable", "The version before", f"label_values({info}, stable)", is_hidden=True),
        ),
        annotation_tags=("release:$release",),
    )


def _standing() -> Row:
    return Row(
        "Release $release: $canary against $stable",
        (
            number(
                About(
                    "Phase",
                    "starting, stepping (it earns traffic), watching (promoted; the version before is kept warm), "
                    "leaving (its last requests are answered), then the outcome.",
                    "none",
                    ((None, PLAIN),),
                    "KanariaReleaseStuck",
                    Needs.RELEASE,
                    WHY,
                ),
                Query(of_release(phase()), "phase"),
                names=PHASES,
                has_history=False,
            ),
            number(
                About(
                    "Verdict",
                    "The judge's last word. Only `pass` moves forward; `fail` rolls back at once; `no_data` and "
                    "`inconclusive` hold the weight.",
                    "none",
                    ((None, PLAIN),),
                    "KanariaReleaseStuck",
                    Needs.RELEASE,
                    WHY,
                ),
                Query(of_release(verdict(OF_CANARY)), "verdict"),
                names=VERDICTS,
                has_history=False,
            ),
            number(
                About(
                    "Canary's weight",
                    "Its share of requests, read back from the gateway. 0 % in the shadow step, when it gets copies.",
                    "percent",
                    ((None, STABLE), (1, CANARY)),
                    "KanariaReleaseStuck",
                    Needs.RELEASE,
                    REPORT,
                ),
                Query(f"kanaria_release_weight_percent{{{OF_CANARY}}}", "weight"),
            ),
            number(
                About(
                    "Evidence against it",
                    "How far all signals together are on the way to a rollback, in logarithms of the odds: at 100 % "
                    "the canary fails. A harmless canary gets there in at most `alpha` of all releases.",
                    "percentunit",
                    ((None, GOOD), (0.5, WARN), (1, BAD)),
                    "KanariaCanaryDown",
                    Needs.RELEASE,
                    WHY,
                ),
                Query(combined_share(), "of the threshold"),
            ),
            number(
                About(
                    "Requests judged",
                    "Canary requests, or copies in the shadow step, that were evidence so far.",
                    "short",
                    ((None, PLAIN),),
                    "KanariaSourceUnreachable",
                    Needs.RELEASE,
                    REPORT,
                ),
                Query(f"kanaria_release_canary_requests_total{{{OF_CANARY}}}", "requests"),
            ),
            number(
                About(
                    "Requests still needed",
                    "Canary requests until the next step can be proven safe, as far as the judge can tell. Infinite: "
                    "never at this rate of errors.",
                    "short",
                    ((None, GOOD), (1, PLAIN)),
                    "KanariaReleaseStuck",
                    Needs.RELEASE,
                    WHY,
                ),
                Query(f"kanaria_release_requests_needed{{{OF_CANARY}}}", "needed"),
            ),
            graph(
                About(
                    "Weight",
                    "Share of requests that each version is given, read back from the gateway.",
                    "percent",
                    ((None, STABLE), (50, CANARY)),
                    "KanariaRollbackFailed",
                    Needs.RELEASE,
                    REPORT,
                ),
                Query(of_release(f"kanaria_release_weight_percent{{{OF_STABLE}}}"), "stable $stable"),
                Query(of_release(f"kanaria_release_weight_percent{{{OF_CANARY}}}"), "canary $canary"),
                colors=COLORS,
                is_stepped=True,
                top=100,
            ),
            graph(
                About(
                    "Requests answered",
                    "POST /predict per second by the version that answered, and copies that the canary got in the "
                    "shadow step. Less than the weight promises: its requests fall back to stable.",
                    "reqps",
                    ((None, BAD), (0.01, GOOD)),
                    "KanariaCanaryDown",
                    Needs.RELEASE,
                    REPORT,
                ),
                Query(total(REQUESTS, OF_STABLE), "stable $stable"),
                Query(total(REQUESTS, OF_CANARY), "canary $canary"),
                Query(of_release(total(COPIES)), "copies to $canary", Needs.SHADOW),
                colors=COLORS,
            ),
        ),
    )
