"""Errors raised on purpose in monitoring/: each says what happened, what was seen and what to do."""


class MonitoringError(Exception):
    """Base of every error raised on purpose in monitoring/."""

    def __init__(self, what: str, *, saw: str, do: str) -> None:
        super().__init__(f"{what}\n  saw: {saw}\n  do:  {do}")
        self.what, self.saw, self.do = what, saw, do


class RulesError(MonitoringError):
    """A file that rules are made of cannot be used."""


class ToolMissing(MonitoringError):
    """A program that is needed for the answer is not installed."""


class PrometheusUnreachable(MonitoringError):
    """Prometheus gave no answer to a question that is not about a query."""


class NothingToCheck(MonitoringError):
    """There was no traffic, so an empty panel would mean nothing."""


class GrafanaError(MonitoringError):
    """Grafana did not take what was pushed."""
