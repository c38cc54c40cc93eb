"""Errors raised on purpose in monitoring/."""

from contract.errors import KanariaError


class MonitoringError(KanariaError):
    """Base of every error raised on purpose in monitoring/."""


class RulesError(MonitoringError):
    """A source file of the rules cannot be used."""


class ToolMissing(MonitoringError):
    """A required program is not installed."""


class PrometheusUnreachable(MonitoringError):
    """Prometheus does not answer."""


class NothingToCheck(MonitoringError):
    """There was no traffic, so an empty panel would say nothing."""


class GrafanaError(MonitoringError):
    """Grafana did not accept what was pushed."""
