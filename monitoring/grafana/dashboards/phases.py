"""The phase of a release, and the judge's last verdict, each as a number that Grafana shows as a coloured word."""

from contract import metrics as m
from monitoring.grafana.dashboards.panels import Names
from monitoring.grafana.dashboards.promql import code_of
from monitoring.grafana.dashboards.style import BAD, CANARY, GOOD, PLAIN, STABLE, WARN

_RUNNING = {"starting": PLAIN, "stepping": CANARY, "watching": STABLE, "leaving": "purple"}
_OUTCOMES = {"promoted": GOOD, "rolled_back": BAD, "aborted": WARN}
_VERDICTS = {"pass": GOOD, "inconclusive": STABLE, "no_data": PLAIN, "fail": BAD}


def _names(colors: dict[str, str]) -> Names:
    return {str(place): (word.replace("_", " "), color) for place, (word, color) in enumerate(colors.items(), start=1)}


PHASES: Names = _names(_RUNNING | _OUTCOMES)
VERDICTS: Names = _names(_VERDICTS)


def phase() -> str:
    """The phase of the newest release, or its outcome once it has ended; empty before the first release."""
    running = code_of(m.RELEASE_STATE.name, "state", tuple(_RUNNING))
    ended = f'max({m.RELEASE_STATE}{{state="ended"}})'
    outcome = code_of(m.RELEASE_OUTCOME.name, "outcome", tuple(_OUTCOMES))
    return f"{running} + {ended} * ({len(_RUNNING)} + {outcome}) > 0"


def verdict(matchers: str) -> str:
    """The last verdict about the release's canary."""
    return code_of(m.RELEASE_VERDICT.name, "verdict", tuple(_VERDICTS), matchers) + " > 0"
