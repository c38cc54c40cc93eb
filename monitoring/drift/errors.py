"""The reasons why a drift report cannot be made."""

from monitoring.errors import MonitoringError


class DriftError(MonitoringError):
    """The requested comparison is not possible."""


class NoLog(DriftError):
    """There is no prediction log, or none for the requested version."""


class NoReference(DriftError):
    """The model has no reference data to compare with."""


class AnswersUnreadable(DriftError):
    """The answers and their feedback cannot be read: the file is broken, or another process holds it."""


class NotWritten(DriftError):
    """The report cannot be written: the disk is full, or the folder is not writable."""
