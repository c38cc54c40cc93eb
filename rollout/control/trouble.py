"""Beats of the control loop that fail one after the other: in words, and when traffic must not wait any longer."""

from contract.errors import KanariaError

# A beat takes at least half a second. Fewer failures are a blip: a keeper or a gateway that is being restarted.
SAID_AFTER = 5
# Half a minute in which nobody judged the canary: its traffic goes back to stable.
RETURNED_AFTER = 60


class Trouble:
    """What went wrong since the last beat that did not fail."""

    def __init__(self) -> None:
        self.beats = 0  # that failed in a row
        self._why = ""

    def failed(self, error: Exception) -> bool:
        """One more beat failed. Returns whether it failed in another way than the one before."""
        before, self.beats = self._why, self.beats + 1
        if isinstance(error, KanariaError):
            self._why = f"{error.what}: {error.saw}"
        else:
            self._why = f"{type(error).__name__}: {error}"
        return self.beats == 1 or self._why != before

    def over(self) -> None:
        """A beat did not fail."""
        self.beats = 0

    @property
    def sentence(self) -> str | None:
        """What people read; None while it may be a blip."""
        return f"the controller cannot work: {self._why}" if self.beats >= SAID_AFTER else None

    @property
    def must_return(self) -> bool:
        """Whether a canary must not keep its traffic any longer."""
        return self.beats >= RETURNED_AFTER
