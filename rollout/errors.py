"""Errors raised on purpose in rollout/."""

from contract.errors import KanariaError


class RolloutError(KanariaError):
    """Base of every error raised on purpose in rollout/."""


class SpecError(RolloutError):
    """rollout.yaml, or another input of a command, cannot be read or is not valid."""


class CommandRefused(RolloutError):
    """A command that the present state does not allow."""


class RouterRefused(RolloutError):
    """The data plane did not accept the traffic split."""


class SourceUnreachable(RolloutError):
    """The metric store gave no reading. Never a reason to promote or to roll back."""


class LedgerError(RolloutError):
    """The ledger could not be read or written."""


class NoSuchRelease(RolloutError):
    """The ledger has no release of that number."""

    def __init__(self, number: str) -> None:
        super().__init__("there is no such release", saw=number, do="see `kanaria history`")


class NoLedger(LedgerError):
    """There is no ledger yet."""


class NotALedger(LedgerError):
    """A file that is something else, or nothing."""


class LedgerGone(LedgerError):
    """There was a ledger, and its file is gone or empty."""


class LedgerDamaged(LedgerError):
    """The ledger's file cannot be read as what was written."""


class LedgerNewer(LedgerError):
    """The ledger holds what only a newer version of Kanaria understands."""


class LedgerTaken(RolloutError):
    """Another process wrote to the ledger: what this one knows is out of date, and it must not act on it."""


class LedgerHeld(LedgerError):
    """Another process has the right to write the ledger."""


class ControllerUnreachable(RolloutError):
    """The controller did not answer."""
