"""Errors raised on purpose in loadtest/."""

from contract.errors import KanariaError


class LoadTestError(KanariaError):
    """Base of every error raised on purpose in loadtest/."""


class ScenarioError(LoadTestError):
    """A scenario cannot be found, read or run."""


class SamplesError(LoadTestError):
    """The samples file cannot be found or read."""


class TargetError(LoadTestError):
    """The host or the API key given cannot be used."""


class OutDirError(LoadTestError):
    """The folder for the results cannot be used."""


class GeneratorError(LoadTestError):
    """The Locust process did not start, or ended without a summary."""
