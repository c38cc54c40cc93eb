"""The release board: a release's weight, the evidence, the canary compared with stable, and every decision."""

from collections.abc import Sequence

from contract import metrics as m
from monitoring.grafana.dashboards.board import Board, Row, Variable
from monitoring.grafana.dashboards.chosen_release import COLORS, OF_CANARY, OF_STABLE, REPORT, WHY, of_release
from monitoring.grafana.dashboards.comparison import at_the_gateway, in_the_answers
from monitoring.grafana.dashboards.evidence import combined_share, evidence
from monitoring.grafana.dashboards.needs import Needs
from monitoring.grafana.dashboards.panels import graph, number
from monitoring.grafana.dashboards.phases import PHASES, VERDICTS, phase, verdict
from monitoring.grafana.dashboards.promql import COPIES, REQUESTS, total
from monitoring.grafana.dashboards.signal_graph import SignalGraph
from monitoring.grafana.dashboards.style import BAD, CANARY, GOOD, PLAIN, STABLE, WARN, About, Query


def release(signals: Sequence[SignalGraph]) -> Board:
    """uid `kanaria-release`; its last two rows compare `signals`."""
    info = f'{m.RELEASE_INFO}{{release="$release"}}'
    return Board(
        uid="kanaria-release",
        title="Kanaria / Release",
        description="One release: its share of the traffic, the evidence against it, and the decisions.",
        range="1h",
        rows=(_standing(), evidence(), at_the_gateway(signals), in_the_answers(signals)),
        variables=(
            Variable(
                "release",
                "Release",
                "Number of a release that ran in the time shown",
                f"label_values({m.RELEASE_INFO}, release)",
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
                    "starting, stepping (it earns traffic), watching (promoted; the previous version is kept warm), "
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
                    "The judge's last verdict. Only `pass` moves forward; `fail` rolls back at once; `no_data` and "
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
                Query(f"{m.RELEASE_WEIGHT}{{{OF_CANARY}}}", "weight"),
            ),
            number(
                About(
                    "Evidence against it",
                    "How far all signals together are on the way to a rollback, on a logarithmic scale: at 100 % "
                    "the canary fails. A harmless canary reaches this in at most `alpha` of all releases.",
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
                    "Canary requests, or copies in the shadow step, that have been judged so far.",
                    "short",
                    ((None, PLAIN),),
                    "KanariaSourceUnreachable",
                    Needs.RELEASE,
                    REPORT,
                ),
                Query(f"{m.RELEASE_CANARY_REQUESTS}{{{OF_CANARY}}}", "requests"),
            ),
            number(
                About(
                    "Requests still needed",
                    "The judge's estimate of how many canary requests are needed to prove the next step safe. "
                    "Infinite: never at this rate of errors.",
                    "short",
                    ((None, GOOD), (1, PLAIN)),
                    "KanariaReleaseStuck",
                    Needs.RELEASE,
                    WHY,
                ),
                Query(f"{m.RELEASE_REQUESTS_NEEDED}{{{OF_CANARY}}}", "needed"),
            ),
            graph(
                About(
                    "Weight",
                    "Share of requests that each version gets, read back from the gateway.",
                    "percent",
                    ((None, STABLE), (50, CANARY)),
                    "KanariaRollbackFailed",
                    Needs.RELEASE,
                    REPORT,
                ),
                Query(of_release(f"{m.RELEASE_WEIGHT}{{{OF_STABLE}}}"), "stable $stable"),
                Query(of_release(f"{m.RELEASE_WEIGHT}{{{OF_CANARY}}}"), "canary $canary"),
                colors=COLORS,
                is_stepped=True,
                top=100,
            ),
            graph(
                About(
                    "Requests answered",
                    "POST /predict per second by the version that answered, and copies that the canary got in the "
                    "shadow step. If the canary answers less than its weight, its requests fall back to stable.",
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
