"""Errors raised on purpose in loadtest/: each says what happened, what was seen and what to do."""


class LoadTestError(Exception):
    """Base of every error raised on purpose in loadtest/."""

    def __init__(self, what: str, *, saw: str, do: str) -> None:
        super().__init__(f"{what}\n  saw: {saw}\n  do:  {do}")
        self.what, self.saw, self.do = what, saw, do


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


class BenchError(LoadTestError):
    """A server cannot be compared: it did not start, did not answer, or answers something else."""
