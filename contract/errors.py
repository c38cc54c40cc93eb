"""The base of every error that is raised on purpose: it says what happened, what was seen and what to do."""


class KanariaError(Exception):
    """Base of the errors raised on purpose. Each package derives its own from it.

    Args:
        what: what happened, in one clause.
        saw: what was found, as exactly as possible.
        do: what the reader can do about it.
    """

    def __init__(self, what: str, *, saw: str, do: str) -> None:
        super().__init__(f"{what}\n  saw: {saw}\n  do:  {do}")
        self.what, self.saw, self.do = what, saw, do
