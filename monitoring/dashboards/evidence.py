"""The row of the judge: what speaks against the canary, signal by signal. Pure; `release` shows it."""

from monitoring.dashboards.board import Row
from monitoring.dashboards.chosen import OF_CANARY, WHY, of_release
from monitoring.dashboards.drawings import graph, states
from monitoring.dashboards.needs import Needs
from monitoring.dashboards.phases import PHASES, VERDICTS, phase, verdict
from monitoring.dashboards.style import BAD, CANARY, GOOD, PLAIN, WARN, About, Query


def evidence() -> Row:
    """Evidence beside the thresholds at which it rolls back."""
    log_e = f"kanaria_release_evidence_log{{{OF_CANARY}}}"
    threshold = f"kanaria_release_evidence_threshold{{{OF_CANARY}}}"
    return Row(
        "Evidence against the canary",
        (
            graph(
                About(
                    "Evidence of each signal, as a share of its threshold",
                    "1 is enough to fail the canary on this signal alone. Evidence only counts against the canary: "
                    "below 0 it is drawn as 0. Signals may add up to a rollback before any of them is at 1.",
                    "percentunit",
                    ((None, GOOD), (0.5, WARN), (1, BAD)),
                    "KanariaCanaryDown",
                    Needs.RELEASE,
                    WHY,
                ),
                Query(of_release(f"clamp_min({log_e} / on (version, signal) {threshold}, 0)"), "{{signal}}"),
                span=16,
                height=10,
                has_limits=True,
            ),
            graph(
                About(
                    "All signals together",
                    "Natural logarithm of the e-value, and where it rolls the canary back: 1 / alpha.",
                    "none",
                    ((None, GOOD),),
                    "KanariaCanaryDown",
                    Needs.RELEASE,
                    WHY,
                ),
                Query(f"clamp_min(kanaria_release_combined_evidence_log{{{OF_CANARY}}}, 0)", "log e"),
                Query(f"kanaria_release_combined_evidence_threshold{{{OF_CANARY}}}", "rolled back from here"),
                span=8,
                height=10,
                colors=((r"/^rolled/", BAD), (r"/^log/", CANARY)),
            ),
            states(
                About(
                    "Phase and verdict over time",
                    "What the judge said at each look, under the phase that the release was in.",
                    "none",
                    ((None, PLAIN),),
                    "KanariaReleaseStuck",
                    Needs.RELEASE,
                    WHY,
                ),
                {"phase": (of_release(phase()), PHASES), "verdict": (of_release(verdict(OF_CANARY)), VERDICTS)},
                span=16,
            ),
            graph(
                About(
                    "Worst case still possible",
                    "With confidence 1 - alpha the canary's excess of bad answers is below this, as a share of its own "
                    "requests. Times the next weight it must be within the risk budget.",
                    "percentunit",
                    ((None, GOOD), (0.05, WARN), (0.2, BAD)),
                    "KanariaReleaseStuck",
                    Needs.RELEASE,
                    WHY,
                ),
                Query(f"kanaria_release_excess_upper_ratio{{{OF_CANARY}}}", "{{signal}}"),
                span=8,
                height=6,
            ),
        ),
    )


def combined_share() -> str:
    evidence = f"kanaria_release_combined_evidence_log{{{OF_CANARY}}}"
    threshold = f"kanaria_release_combined_evidence_threshold{{{OF_CANARY}}}"
    return f"clamp_min({evidence} / {threshold}, 0)"
