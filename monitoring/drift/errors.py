"""What can keep a drift report from being made."""

from monitoring.errors import MonitoringError


class DriftError(MonitoringError):
    """Nothing can be compared as it was asked for."""


class NoLog(DriftError):
    """There is no prediction log, or none of the version that was asked for."""


class NoReference(DriftError):
    """The model carries nothing to compare with."""


class AnswersUnreadable(DriftError):
    """Whether answers were right cannot be learnt: their file is broken, or taken by somebody else."""


class NotWritten(DriftError):
    """The report was made and cannot be kept: a full disk, or a folder that must not be written to."""
