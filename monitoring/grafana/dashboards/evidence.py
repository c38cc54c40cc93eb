"""The evidence row: the judge's evidence against the canary, signal by signal."""

from contract import metrics as m
from monitoring.grafana.dashboards.board import Row
from monitoring.grafana.dashboards.chosen_release import OF_CANARY, WHY, of_release
from monitoring.grafana.dashboards.needs import Needs
from monitoring.grafana.dashboards.panels import graph, states
from monitoring.grafana.dashboards.phases import PHASES, VERDICTS, phase, verdict
from monitoring.grafana.dashboards.style import BAD, CANARY, GOOD, PLAIN, WARN, About, Query


def evidence() -> Row:
    """The evidence, and the thresholds at which the canary is rolled back."""
    log_e = f"{m.RELEASE_EVIDENCE}{{{OF_CANARY}}}"
    threshold = f"{m.RELEASE_THRESHOLD}{{{OF_CANARY}}}"
    return Row(
        "Evidence against the canary",
        (
            graph(
                About(
                    "Evidence of each signal, as a share of its threshold",
                    "At 1 the canary fails on this signal alone. Evidence only counts against the canary, so a value "
                    "below 0 is drawn as 0. Signals may add up to a rollback before any of them is at 1.",
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
                    "Natural logarithm of the e-value, and of the value at which the canary is rolled back: 1 / alpha.",
                    "none",
                    ((None, GOOD),),
                    "KanariaCanaryDown",
                    Needs.RELEASE,
                    WHY,
                ),
                Query(f"clamp_min({m.RELEASE_COMBINED_EVIDENCE}{{{OF_CANARY}}}, 0)", "log e"),
                Query(f"{m.RELEASE_COMBINED_THRESHOLD}{{{OF_CANARY}}}", "rolled back from here"),
                span=8,
                height=10,
                colors=((r"/^rolled/", BAD), (r"/^log/", CANARY)),
            ),
            states(
                About(
                    "Phase and verdict over time",
                    "The judge's verdict over time, below the phase of the release.",
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
                    "Worst case that is still possible",
                    "With confidence 1 - alpha the canary's excess of bad answers is below this share of its own "
                    "requests. Multiplied by the next weight, it must be within the risk budget.",
                    "percentunit",
                    ((None, GOOD), (0.05, WARN), (0.2, BAD)),
                    "KanariaReleaseStuck",
                    Needs.RELEASE,
                    WHY,
                ),
                Query(f"{m.RELEASE_EXCESS}{{{OF_CANARY}}}", "{{signal}}"),
                span=8,
                height=6,
            ),
        ),
    )


def combined_share() -> str:
    evidence = f"{m.RELEASE_COMBINED_EVIDENCE}{{{OF_CANARY}}}"
    threshold = f"{m.RELEASE_COMBINED_THRESHOLD}{{{OF_CANARY}}}"
    return f"clamp_min({evidence} / {threshold}, 0)"
