"""The queries of a signal's graph, and what the boards need for them. The signals themselves are passed in."""

from dataclasses import dataclass
from typing import Literal

from monitoring.grafana.dashboards.promql import (
    COPIES,
    COPY_DURATION,
    DURATION,
    REQUESTS,
    quantile,
    share,
    slower,
    value_shares,
    within,
)

# Which events are bad: some outcomes, one side of a bound, a value; `median`: none, the histogram's median is drawn.
Counted = Literal["outcomes", "above", "within", "values", "median"]


@dataclass(frozen=True, slots=True)
class SignalGraph:
    """The graph of one signal, canary compared with stable."""

    title: str
    description: str
    warn: float  # it is orange from this share on
    bad: float  # it is red from this share on
    runbook: str  # the alert whose runbook applies
    place: Literal["gateway", "answers"]
    counts: Counted
    series: str = ""  # the version's series; not needed for signals that the gateway counts
    label: str = ""
    outcomes: str = ""  # the bad ones, as a regular expression
    bound: str = ""
    is_of_copies: bool = False  # counted only for requests that went to both versions

    def expr(self, matchers: str) -> str:
        """The share of bad events among those that match."""
        series, is_at_gateway = self.series, self.place == "gateway"
        match self.counts:
            case "outcomes":
                return share(REQUESTS if is_at_gateway else series, self._bad, matchers)
            case "above":
                return slower(DURATION if is_at_gateway else f"{series}_bucket", self.bound, matchers)
            case "within":
                return within(series, self.bound, matchers)
            case "median":
                return quantile(0.5, DURATION if is_at_gateway else f"{series}_bucket", matchers)
            case "values":
                return value_shares(series, self.label, matchers)

    @property
    def unit(self) -> str:
        """The unit, as Grafana names it."""
        return "ms" if self.counts == "median" else "percentunit"

    @property
    def expr_of_copies(self) -> str | None:
        """The bad share among copied requests; None for a signal that the version itself counts."""
        if self.place == "answers":
            return None
        if self.counts == "median":
            return quantile(0.5, COPY_DURATION)
        if self.counts == "outcomes":
            return share(COPIES, f'envoy_response_code=~"{self.outcomes}"')
        return slower(COPY_DURATION, self.bound)

    @property
    def _bad(self) -> str:
        return f'{self.label}="{self.outcomes}"' if self.outcomes.isidentifier() else f'{self.label}=~"{self.outcomes}"'
