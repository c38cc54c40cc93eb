"""Errors of the local stack, in the same shape as everywhere: what happened, what was seen, what to do."""


class StackError(Exception):
    """The local stack could not do what was asked."""

    def __init__(self, what: str, *, saw: str, do: str) -> None:
        super().__init__(f"{what}\n  saw: {saw}\n  do:  {do}")
        self.what, self.saw, self.do = what, saw, do


class SetupError(StackError):
    """The stack cannot even start as it is set up: a port is taken, a program is missing."""
