"""Errors raised on purpose in service/optimise: what happened, what was seen, what to do."""


class OptimiseError(Exception):
    """A model cannot be optimised as asked."""

    def __init__(self, what: str, *, saw: str, do: str) -> None:
        super().__init__(f"{what}\n  saw: {saw}\n  do:  {do}")
        self.what, self.saw, self.do = what, saw, do
