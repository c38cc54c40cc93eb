"""Errors raised on purpose in rollout/: each says what happened, what was seen and what to do."""


class RolloutError(Exception):
    """Base of every error raised on purpose in rollout/."""

    def __init__(self, what: str, *, saw: str, do: str) -> None:
        super().__init__(f"{what}\n  saw: {saw}\n  do:  {do}")
        self.what, self.saw, self.do = what, saw, do


class SpecError(RolloutError):
    """rollout.yaml asks for something that cannot be done."""


class CommandRefused(RolloutError):
    """A person asked for something that the present state does not allow."""


class RouterRefused(RolloutError):
    """The data plane did not accept the traffic split."""


class SourceUnreachable(RolloutError):
    """The metric store gave no reading. Never a reason to promote or to roll back."""


class FleetError(RolloutError):
    """A version could not be started or stopped."""


class LedgerError(RolloutError):
    """The ledger could not be read or written."""


class ControllerUnreachable(RolloutError):
    """The controller did not answer."""
